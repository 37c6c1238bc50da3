"""What both training scripts make of their flags: shared settings, data set, encoder, seeds."""

import dataclasses

import torch

from data.dataset import DATASETS, LANGUAGES, OLDER_NAMES
from tinyvlm.training.config import UserError, kwargs_for, option
from tinyvlm.vision import VISION_ENCODERS


@dataclasses.dataclass
class TrainConfig:
    """The settings that both training scripts share."""

    recipe: str = option(
        "default", "a set of defaults: the usual one, or lab, the cheapest that tells arms apart",
        choices=("default", "lab"),
    )  # fmt: skip
    out: str = option("", "folder for the checkpoint, the log, the metrics and the pictures")
    resume: bool = option(False, "go on from the last checkpoint in --out")
    overwrite: bool = option(False, "replace the run that is in --out")
    init: str = option(
        "", "a run (or its checkpoint) whose weights this one begins with; if empty none"
    )
    seed: int = option(0, "seed of the weights and of the training pictures", min=0, max=2**31)
    device: str = option("auto", "auto, cpu, mps (Apple's), cuda or cuda:N")
    compile: bool = option(
        False, "torch.compile the model: a minute first, then faster steps; a CPU needs a compiler"
    )
    dataset: str = option(
        "shapes",
        "1 to 3 objects, -full 1 to 6, -zipf and -cooccurrence where not all is equally frequent",
        choices=tuple(DATASETS),
        alias="--world",
        renamed=OLDER_NAMES,
    )
    language: str = option(
        "en", "English, Korean, or each picture in one of them", choices=tuple(LANGUAGES)
    )
    held_out: int = option(
        0, "colour-shape pairs (of each colour) that training never shows", min=0, max=6
    )
    muon_lr: float = option(
        1.5e-2, "Muon's learning rate, for convolutions and inner matrices", min=0.0, max=1.0
    )
    weight_decay: float = option(
        0.0, "weight decay of matrices, convolutions and heads", min=0.0, max=1.0
    )
    log_every: int = option(10, "steps between lines of the log", min=1)


def open_dataset(config, image_size, device, saved=None):
    """The data set that the flags name. UserError if they do not go together, or if the checkpoint
    `saved` was trained with other words: its weights would fit, and talk nonsense."""
    names = (
        "language", "picture_language", "held_out", "seed", "captions", "hard_negatives",
        "num_questions", "num_blind",
    )  # fmt: skip
    settings = {name: getattr(config, name) for name in names if hasattr(config, name)}
    try:
        data = DATASETS[config.dataset](image_size=image_size, device=device, **settings)
    except ValueError as error:
        raise UserError(f"--dataset {config.dataset} --held-out {config.held_out}: {error}")
    if saved and saved.get("words") != data.tokenizer.words:
        hint = "use the code that wrote it, or train it again"
        raise UserError(f"this checkpoint has other words than data set {config.dataset}; {hint}")
    return data


def with_seed(make, seed):
    """make() with torch's CPU generator seeded, and put back afterwards.

    So each part's weights, which are made on the CPU, depend on `seed` alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return make()


def encoder_of(config):
    """The vision encoder that the flags name: its kind and what its class asks for, a dict."""
    kind = VISION_ENCODERS[config.encoder]
    flags = {name: f"encoder_{name}" for name in ("dim", "depth", "heads")}
    return dict(
        encoder=config.encoder, **kwargs_for(kind, config, flags | dict(image_size="image_size"))
    )


def make_encoder(encoder, seed):
    """A fresh vision encoder from what encoder_of gives; skip_blocks: so many of its last blocks
    are left out. ValueError for sizes that do not fit."""
    sizes = dict(encoder)
    kind, skip_blocks = sizes.pop("encoder"), sizes.pop("skip_blocks", 0)
    made = with_seed(lambda: VISION_ENCODERS[kind](**sizes), seed)
    blocks = len(getattr(made, "blocks", ()))
    if skip_blocks > blocks:
        raise ValueError(f"{skip_blocks} blocks cannot be left out of {blocks}")
    made.skipped = skip_blocks
    return made
