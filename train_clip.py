"""Train CLIP: pictures and captions meet on the unit sphere.

python train_clip.py                          # the defaults; RESULTS.md has what they reach
python train_clip.py --dataset shapes-full    # 1 to 6 objects
python train_clip.py --loss clip              # the paper's loss, which punishes other true captions
python train_clip.py --loss sigmoid --hard-negatives    # SigLIP's loss, NegCLIP's captions
"""

import dataclasses
from functools import partial

import numpy as np
import torch

from tinyvlm.clip import CLIP
from tinyvlm.evaluation import plots
from tinyvlm.evaluation.common import evaluation_mode
from tinyvlm.evaluation.eval_clip import evaluate_test, validate
from tinyvlm.evaluation.metrics import max_accuracy_with_duplicates
from tinyvlm.evaluation.wrap_up import wrap_up
from tinyvlm.losses import LOSSES, initial_bias, own_pairs
from tinyvlm.text import TEXT_ENCODERS
from tinyvlm.training.ahead import MadeAhead
from tinyvlm.training.checkpoint import config_from, load_weights
from tinyvlm.training.config import (
    UserError,
    kwargs_for,
    option,
    refuse_unused,
    run_script,
    validate_config,
)
from tinyvlm.training.distributed import autocast
from tinyvlm.training.loop import Run
from tinyvlm.training.optim import backward_and_step, configure_optimizers, lr_schedule, set_lr
from tinyvlm.training.settings import (
    TrainConfig,
    encoder_of,
    make_encoder,
    open_dataset,
    with_seed,
)
from tinyvlm.vision import VISION_ENCODERS


@dataclasses.dataclass
class Config(TrainConfig):
    RECIPES = dict(lab=dict(steps=260, eval_every=130))

    out: str = option("runs/clip", "folder for checkpoint, log, metrics and pictures")
    steps: int = option(440, "optimizer steps", min=1)
    batch_size: int = option(64, "pictures in a step", min=2)
    captions: int = option(3, "captions of each picture, which say more or less", min=1, max=4)
    hard_negatives: bool = option(
        True,
        "one more caption of each picture, with two colours or sizes exchanged in half of them",
    )
    micro_batch: int = option(
        0, "pictures at a time, for batches that do not fit into memory; 0: all", min=0
    )
    lr: float = option(2e-3, "AdamW's learning rate", min=0.0, max=1.0)
    warmup: int = option(50, "steps until the full learning rate", min=0)
    loss: str = option(
        "masked_clip",
        "contrastive loss",
        choices=tuple(LOSSES),
        renamed={"plain": "clip", "multi_positive": "masked_clip"},
    )
    temperature: float = option(
        0.07, "what cosines are divided by in the loss, at the start", min=0.01, max=1.0
    )
    learn_temperature: bool = option(True, "it changes as training finds best, 0.01 at least")
    image_size: int = option(56, "side of a picture, pixels, a multiple of 28", min=28, max=448)
    encoder: str = option("convvit", "vision encoder", choices=tuple(VISION_ENCODERS))
    encoder_dim: int = option(64, "width of the vision encoder", min=8, alias="--dim")
    encoder_depth: int = option(3, "blocks of the vision encoder", min=1, alias="--depth")
    encoder_heads: int = option(2, "attention heads of the encoder", min=1, alias="--heads")
    text_encoder: str = option("causal", "text encoder", choices=tuple(TEXT_ENCODERS))
    text_dim: int = option(64, "width of the text encoder", min=8)
    text_depth: int = option(2, "blocks of the text encoder", min=1)
    text_heads: int = option(2, "attention heads of the text encoder", min=1)
    pool_dim: int = option(
        256, "width to which tokens are brought before their maximum is taken; 0: their own", min=0
    )
    embed_dim: int = option(128, "width of the common space", min=2)
    eval_every: int = option(110, "steps between validations (and saves)", min=1)
    eval_items: int = option(1024, "test pictures for the cosines; 256 for retrieval", min=512)


def main(config):
    """Train, test, save: returns what metrics.json holds ({} in all but the first process)."""
    config = validate_config(config)
    if config.init:
        refuse_unused(config, ["temperature"], "with --init, which brings its own")
    with Run(config, "clip") as run:
        # 1. Data and model, fresh or from where the run goes on.
        data = open_dataset(config, config.image_size, run.device, run.start)
        model = build_model(config, data.tokenizer).to(run.device)
        if (metrics := run.finished_metrics()) is not None:
            return metrics
        if run.start:
            load_weights(model, run.start["model"], run.start_path)
        optimizers = configure_optimizers(model, config.lr, config.muon_lr, config.weight_decay)
        run.load_optimizers(optimizers)
        run.describe(model, optimizers)
        run.say(duplicates_note(data, config))
        encoder = encoder_of(config)  # what train_vlm.py needs to know of it

        # 2. The loop: pictures and captions, similarity, loss, step.
        ddp_model = run.prepare(model)
        batches = MadeAhead(partial(make_batch, run, data), config.steps, run.device)
        for step in run.steps():
            set_lr(optimizers, lr_schedule(step, config.steps, config.warmup))
            batch = batches(step)
            with autocast(run.device):
                image, text, scale, bias = ddp_model(batch.pixels, batch.tokens, config.micro_batch)
            # The loss is that of the whole batch, whichever process its pictures are in.
            image = run.dist.all_gather_with_grad(image.float())
            text = run.dist.all_gather_with_grad(text.float())
            loss = LOSSES[config.loss](image, text, scale, bias, batch.is_match)
            backward_and_step(optimizers, model, loss, step)
            model.clamp_logit_scale()
            run.after_step(
                step, loss, model=model, optimizers=optimizers, images=config.batch_size,
                validate=lambda: validation_loss(model, data, config) | validate(model, data),
                extra_state=dict(encoder=encoder, words=data.tokenizer.words),
                scale=model.scale.item(),
            )  # fmt: skip

        # 3. The test split: table, pictures, metrics.
        if not run.dist.is_main:
            return {}
        table, scores = evaluate_test(model, data, config.eval_items)
        draw_samples(model, data, run.folder / "samples.png")
        return wrap_up(run, table, scores)


def make_batch(run, data, step):
    """This process's part of a step's pictures and captions, and is_match of the whole batch."""
    size = run.config.batch_size
    indices = step * size + np.arange(size)
    batch = data.caption_batch("train", run.dist.shard(indices))
    if run.dist.size > 1:
        batch.is_match = data.is_match("train", indices)
    return batch


def build_model(config, tokenizer):
    """A fresh CLIP with the config's sizes. UserError for sizes that do not go together.

    Each tower is initialised from the seed by itself, so that runs with different encoders share
    the text tower to the last bit.
    """
    text_encoder = TEXT_ENCODERS[config.text_encoder]
    flags = {name: f"text_{name}" for name in ("dim", "depth", "heads")}
    sizes = kwargs_for(text_encoder, config, flags, vocab_size=tokenizer.size)
    try:
        vision = make_encoder(encoder_of(config), config.seed)
        check_pooling(config, vision)
        text = with_seed(lambda: text_encoder(**sizes), config.seed + 1)
        bias = initial_bias(LOSSES[config.loss], config.batch_size)
        names = ("embed_dim", "pool_dim", "temperature", "learn_temperature")
        given = {name: getattr(config, name) for name in names}
        return with_seed(lambda: CLIP(vision, text, bias=bias, **given), config.seed + 2)
    except ValueError as error:
        raise UserError(f"{error}; change the sizes")


def check_pooling(config, vision):
    """UserError if an encoder that pools in its own way is not asked for its pooled vector."""
    if config.pool_dim and getattr(vision, "has_class_token", False):
        what = f"--pool-dim {config.pool_dim} is the width of a maximum over tokens"
        hint = f"give --pool-dim 0, which reads the class token of {config.encoder}"
        raise UserError(f"{what}, which leaves out the class token; {hint}")


def load_model(saved, path, device):
    """The content of a checkpoint -> the model, in evaluation mode, the config it was trained with,
    and its data set. UserError if they do not fit this code."""
    config = config_from(Config, saved["config"], path)
    data = open_dataset(config, config.image_size, device, saved)
    model = build_model(config, data.tokenizer)
    load_weights(model, saved["model"], path)
    return model.to(device).eval(), config, data


def duplicates_note(data, config):
    """How many true captions of a batch could find their picture at best by the paper's loss."""
    batch = data.caption_batch("train", np.arange(config.batch_size))
    is_true = own_pairs(batch.pixels, batch.tokens, batch.is_match)  # (k b, b)
    best = max_accuracy_with_duplicates(batch.tokens, is_true)
    return f"of {is_true.sum()} true captions {best:.1%} can be told apart; loss: {config.loss}"


def validation_loss(model, data, config, items=256):
    """The training loss on validation pictures, in batches as training has them: {"val_loss"}."""
    losses, size = [], config.batch_size
    with evaluation_mode(model):
        for k in range(max(items // size, 1)):
            batch = data.caption_batch("val", np.arange(k * size, (k + 1) * size))
            image, text, scale, bias = model(batch.pixels, batch.tokens)
            loss = LOSSES[config.loss](image.float(), text.float(), scale, bias, batch.is_match)
            losses.append(loss.item())
    return dict(val_loss=float(np.mean(losses)))


def draw_samples(model, data, path, items=8):
    """A page of test pictures and their captions with all cosines between them."""
    pictures = data.split("test").pictures(items)
    pixels, captions = pictures.pixels(), pictures.captions()
    tokens = data.tokenizer.encode_captions(captions)
    with evaluation_mode(model):
        text = model.encode_text(torch.tensor(tokens, device=pixels.device))
        cosines = (model.encode_image(pixels) @ text.T).float().cpu()
    plots.similarity(pixels, captions, cosines, pictures.is_match(captions), path)


if __name__ == "__main__":
    run_script(main, Config, __doc__)
