"""What a VLM takes from other runs: an encoder, and a decoder that has learned to read.

The encoder is CLIP's, or with --encoder FOLDER that of any run. Two that no contrast has trained:

    captions    train_vlm.py --encoder-init random --stages instruct --shares 1
                captioning as pretraining; CapPa, Tschannen et al. (2023)
    labels      the same with --projector label: it learns from the labels' 18 words alone
"""

import dataclasses
import os
from pathlib import Path

from tinyvlm.decoders import DECODERS
from tinyvlm.training.checkpoint import (
    checkpoint_file,
    differences,
    load_checkpoint,
    load_weights,
    require_same,
    save_checkpoint,
    setting_of,
)
from tinyvlm.training.config import UserError
from tinyvlm.training.files import LANGUAGE_FILE, is_folder
from tinyvlm.training.settings import encoder_of
from tinyvlm.vision import VISION_ENCODERS

# ---------------------------------------------------------------- the encoder


def load_encoder(config, run):
    """The encoder's kind and sizes, and its weights: from CLIP, from the run that --encoder names,
    or None.

    None: they are random, or those of the checkpoint that the run starts from. Blocks that the run
    left out which it comes from are left out, too.
    """
    if run.start:
        return skipping(run.start["encoder"], config), None
    if config.encoder_init == "random":
        return skipping(encoder_of(config), config), None
    path = encoder_path(config)
    if config.encoder in VISION_ENCODERS:
        saved = load_checkpoint(path, "clip")
    else:
        saved = load_run(path, "encoder", VISION_ENCODERS, kinds=("clip", "vlm"))
    other, script = saved["config"], f"train_{saved['kind']}.py"
    require_same(config, other, path, ["held_out"], f"train {saved['kind'].upper()} with the same")
    known = setting_of(other, "dataset", type(config))
    if known != config.dataset:
        hint = f"for one of this data set: python {script} --dataset {config.dataset}"
        run.say(f"note: the encoder of {path} knows {known}; {hint}")
    return skipping(saved["encoder"], config), part_of(saved["model"], "vision.")


def skipping(encoder, config):
    """The encoder, without as many of its last blocks as the config says, if not fewer yet."""
    return encoder | dict(skip_blocks=max(config.skip_blocks, encoder.get("skip_blocks", 0)))


def encoder_path(config):
    """The run that the encoder comes from, unless it is random."""
    return config.clip if config.encoder in VISION_ENCODERS else config.encoder


def load_start(model, run, encoder_weights, decoder_weights):
    """Give a fresh VLM the weights that its run starts from, where they are not random."""
    if run.start:
        load_weights(model, run.start["model"], run.start_path)
    if encoder_weights is not None:
        load_weights(model.vision, encoder_weights, encoder_path(run.config))
    if decoder_weights is not None:
        load_weights(model.decoder, decoder_weights, run.config.decoder)


def part_of(weights, prefix):
    """The weights whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }


def load_run(path, part, variants, kinds):
    """The checkpoint of the run that --encoder or --decoder (`part`) names in the place of one of
    the variants. UserError if there is none, or one of another kind, without that part."""
    if not os.path.isfile(checkpoint_file(path)):
        hint = f"give one of {', '.join(variants)}, or the folder of a run"
        raise UserError(f"--{part} {path} is neither; {hint}")
    saved = load_checkpoint(path)
    if saved["kind"] not in kinds:
        what = f"{path} holds a {saved['kind']} model, which has no {part}"
        raise UserError(f"{what}; name another")
    return saved


# ---------------------------------------------------------------- the decoder

OF_THE_LANGUAGE_STAGE = (
    "lr", "muon_lr", "weight_decay", "batch_size", "num_questions", "num_blind", "warmup_language",
    "train_language",
)  # fmt: skip


def load_decoder(config, run, words):
    """The decoder's kind, and its weights: from the run that --decoder names, or None.

    None: they are random, or those of the checkpoint that the run starts from. Of a run's folder
    it is the decoder that the language stage left, or else the one of last.pt. A note says what was
    other in its training. UserError if that was from another seed, in another world or language, or
    with other sizes.
    """
    if run.start:
        return decoder_kind(run.start), None
    if config.decoder in DECODERS:
        return config.decoder, None
    path = Path(config.decoder)
    if is_folder(path) and (path / LANGUAGE_FILE).exists():
        path = path / LANGUAGE_FILE
    saved = load_run(path, "decoder", DECODERS, kinds=("vlm", "decoder"))
    names = ("seed", "dataset", "language", "held_out", "dim", "depth", "heads")
    hint = "give the same, or train this one's own language stage"
    require_same(config, saved["config"], path, names, hint)
    if saved["words"] != words:
        raise UserError(f"{path} was trained by a version with other words; train it again")
    run.say(f"the decoder is that of {path}, after {saved['step']} steps")
    if saved["kind"] == "decoder":
        others = {field.name for field in dataclasses.fields(config)} - set(OF_THE_LANGUAGE_STAGE)
        if found := differences(config, saved["config"], path, others):
            run.say(f"note: its stage was not what this run's would be ({'; '.join(found)})")
    weights = saved["model"]
    weights = part_of(weights, "decoder.") if saved["kind"] == "vlm" else weights
    return decoder_kind(saved), weights


def decoder_kind(saved):
    """The kind of the decoder in a checkpoint: its settings may name a run instead."""
    return saved.get("decoder", saved["config"]["decoder"])


def keep_language(run, model, step, **state):
    """Leave the decoder of the language stage, which is over, in language.pt, for runs to come."""
    save_checkpoint(
        run.folder, LANGUAGE_FILE, kind="decoder", config=run.config, step=step,
        model=model.decoder, **state,
    )  # fmt: skip
