"""Train a vision-language model: encode, project, decode, in the stages of LLaVA.

    python train_vlm.py --projector qformer     # needs the encoder that train_clip.py makes
    python train_vlm.py --projector mlp
    python train_vlm.py --stages instruct --shares 1 --out runs/one-stage    # everything at once

    # An encoder that captions and questions have trained, or the words of labels, and no contrast.
    python train_vlm.py --encoder-init random --stages instruct --shares 1 --out runs/captions
    python train_vlm.py --encoder-init random --stages instruct --shares 1 --projector label
    python train_vlm.py --encoder runs/captions

    # BLIP-2's first stage, in which the Q-Former learns from pictures and captions alone.
    python train_vlm.py --stages represent,language,align,instruct --shares 0.25,0.5,0.05,0.2

represent: the projector and words read one another; encoder frozen, no decoder; see represent.py.
language: the decoder alone learns the language of the world, with a few bags of words in the place
of the picture. align: the projector learns to make pictures look like those words; encoder and
decoder are frozen. instruct: everything learns together, from captions and questions.
"""

import dataclasses
from functools import partial

import numpy as np

from data.batch import IGNORE
from data.dataset import SPOKEN
from tinyvlm.decoders import DECODERS
from tinyvlm.dropping import DROPPING
from tinyvlm.evaluation import plots
from tinyvlm.evaluation.common import evaluation_mode
from tinyvlm.evaluation.eval_represent import evaluate_matching, validate_matching
from tinyvlm.evaluation.eval_vlm import evaluate_test, sample_lines, validate
from tinyvlm.evaluation.reports import print_table
from tinyvlm.evaluation.wrap_up import OF_A_STAGE, wrap_up
from tinyvlm.projectors import PROJECTORS
from tinyvlm.training.ahead import MadeAhead
from tinyvlm.training.checkpoint import config_from, load_weights
from tinyvlm.training.checks import check_settings, stages_of
from tinyvlm.training.config import UserError, kwargs_for, option, run_script
from tinyvlm.training.distributed import autocast
from tinyvlm.training.files import log_once
from tinyvlm.training.loop import Run
from tinyvlm.training.optim import backward_and_step, set_lr
from tinyvlm.training.parts import (
    decoder_kind,
    keep_language,
    load_decoder,
    load_encoder,
    load_start,
)
from tinyvlm.training.settings import TrainConfig, make_encoder, open_dataset, with_seed
from tinyvlm.training.stages import begin_stage, extra_state_of, models_of, stage_at
from tinyvlm.vision import VISION_ENCODERS


@dataclasses.dataclass
class Config(TrainConfig):
    RECIPES = dict(lab=dict(steps=2200, shares="0.84,0.03,0.13", eval_every=88))

    projector: str = option("qformer", "vision to image tokens", choices=tuple(PROJECTORS))
    out: str = option("", "folder for all that is written; if empty runs/vlm-PROJECTOR")
    clip: str = option("runs/clip", "checkpoint (or its folder) of train_clip.py, for the encoder")
    encoder_init: str = option("clip", "where the encoder comes from", choices=("clip", "random"))
    encoder: str = option(
        "convvit",
        "a random encoder's kind, or the folder of a run, CLIP or VLM, whose encoder is taken: "
        + ", ".join(VISION_ENCODERS),
    )
    encoder_dim: int = option(64, "a random encoder's width", min=8)
    encoder_depth: int = option(3, "a random encoder's blocks", min=1)
    encoder_heads: int = option(2, "a random encoder's attention heads", min=1)
    image_size: int = option(
        56, "a random encoder's pictures, pixels a side, a multiple of 28", min=28, max=448
    )
    skip_blocks: int = option(0, "last blocks of the encoder that are left out", min=0)
    steps: int = option(2300, "optimizer steps of all stages", min=1)
    stages: str = option("language,align,instruct", "which stages, in order, by commas")
    shares: str = option("0.6,0.05,0.35", "each stage's share of the steps; 1 in all")
    represent: str = option("itc,itm,itg", "what stage represent learns: contrast, match, generate")
    train_language: str = option("decoder.*", "patterns of what stage language trains, by commas")
    train_represent: str = option("projector.*,text.*", "the same for stage represent")
    train_align: str = option("projector.*", "the same for stage align")
    train_instruct: str = option("*", "the same for stage instruct")
    picture_language: str = option(
        "", "what pictures are spoken of in, where --language is both", choices=SPOKEN
    )
    batch_size: int = option(32, "pictures in a step", min=1)
    num_questions: int = option(9, "questions a picture", min=0, max=64, alias="--questions")
    num_blind: int = option(1, "how many of them without the picture", min=0, alias="--blind")
    lr: float = option(1e-3, "AdamW's learning rate", min=0.0, max=1.0)
    muon_lr: float = option(1e-2, "Muon's learning rate (inner matrices)", min=0.0, max=1.0)
    warmup: int = option(10, "steps until the full learning rate, in each stage", min=0)
    warmup_language: int = option(30, "the same for stage language", min=0)
    image_tokens: int = option(
        32, "image tokens, where the projector leaves their number free", min=1, max=196,
        alias="--num-queries --queries",
    )  # fmt: skip
    drop: str = option("none", "half of the image tokens, in answers", choices=tuple(DROPPING))
    decoder: str = option(
        "gpt", "a kind, or a run's folder, whose language stage is taken: " + ", ".join(DECODERS)
    )
    dim: int = option(128, "width of the decoder", min=8)
    depth: int = option(4, "blocks of the decoder", min=1)
    heads: int = option(4, "attention heads of the decoder", min=1)
    eval_every: int = option(200, "steps between validations (and saves)", min=1)
    eval_items: int = option(250, "test: minimal pairs a family, half as many as captions", min=1)


def main(config):
    """Train, test, save: returns what metrics.json holds ({} in all but the first process)."""
    config = check_settings(config)
    with Run(config, "vlm") as run:
        # 1. Data and model, fresh or from where the run goes on.
        stages = stages_of(config, run.plan[0][1])
        encoder, encoder_weights = load_encoder(config, run)
        data = open_dataset(config, encoder["image_size"], run.device, run.start)
        decoder, decoder_weights = load_decoder(config, run, data.tokenizer.words)
        model = build_model(config, encoder, decoder, data).to(run.device)
        if (metrics := run.finished_metrics()) is not None:
            return metrics
        run.begins = stages[0].first
        load_start(model, run, encoder_weights, decoder_weights)
        models = models_of(stages, model, run)
        run.say(f"{model.projector.num_tokens} image tokens, projector {config.projector}")
        state = dict(encoder=encoder, decoder=decoder, words=data.tokenizer.words)

        # 2. The loop, stage after stage: picture (or words), projector, decoder, loss, step.
        batches = MadeAhead(partial(make_batch, run, data, stages), config.steps, run.device)
        for step in run.steps():
            stage = stage_at(stages, step)
            if step in (run.first_step, stage.first):  # a stage begins, or goes on
                leave_stage(run, models, data, stages, step, **state)
                trained = models[stage.name]  # the VLM, in most stages
                optimizers, ddp_model = begin_stage(run, trained, stage, step)
            set_lr(optimizers, stage.lr_share(step))
            loss = step_loss(run, ddp_model, stage, batches(step))
            backward_and_step(optimizers, trained, loss, step)
            run.after_step(
                step, loss, model=model, optimizers=optimizers,
                extra_state=state | extra_state_of(trained),
                images=0 if stage.text_only else config.batch_size,
                validate=partial(validate_stage, trained, data, stage, step), stage=stage.name,
            )  # fmt: skip
        leave_stage(run, models, data, stages, config.steps, **state)

        # 3. The test split: table, pictures, metrics.
        if not run.dist.is_main:
            return {}
        table, scores = evaluate_test(model, data, config.eval_items)
        draw_samples(model, data, run.folder / "samples.png")
        return wrap_up(run, table, scores, decoder)


# ---------------------------------------------------------------- stages


def make_batch(run, data, stages, step):
    """What this process sees in a step of training."""
    stage, size = stage_at(stages, step), run.config.batch_size
    indices = run.dist.shard(stage.batch_at(step) * size + np.arange(size))
    if stage.reads_captions:
        return data.caption_batch("train", indices)
    return data.vqa_batch("train", indices, not stage.text_only, stage.has_pieces(step))


def step_loss(run, ddp_model, stage, batch):
    """The loss of a step, of the whole batch."""
    with autocast(run.device):
        if stage.reads_captions:
            return sum(ddp_model(batch).values())
        losses, aux_loss = ddp_model(batch, text_only=stage.text_only)
    # The mean over all words of the whole batch, whichever process they are in.
    words = run.dist.all_reduce_sum((batch.labels != IGNORE).sum())
    return losses.sum() * run.dist.size / words + aux_loss


def leave_stage(run, models, data, stages, step, **state):
    """What a stage leaves that is over at this step: the decoder, or how well captions match."""
    is_over = run.saved or step > run.first_step
    for stage in stages if run.dist.is_main and is_over else ():
        if stage.text_only and stage.end == step:
            keep_language(run, models[stage.name], step, **state)
        if stage.reads_captions and stage.end == step:
            found = evaluate_matching(models[stage.name], data, "test", 2 * run.config.eval_items)
            print_table(f"stage {stage.name}, test split", found)
            log_once(run.folder, step, **{OF_A_STAGE + n: m.value for n, m in found.items()})


# ---------------------------------------------------------------- data and model


def build_model(config, encoder, decoder, data):
    """A fresh VLM. encoder: the vision encoder's kind and sizes. decoder: its kind.

    Each part is initialised from the seed by itself, so that runs with different projectors share
    encoder and decoder to the last bit. UserError for sizes that do not go together.
    """
    make_decoder, make_projector = DECODERS[decoder], PROJECTORS[config.projector]
    decoder_sizes = {name: name for name in ("dim", "depth", "heads")}
    given = kwargs_for(make_decoder, config, decoder_sizes, vocab_size=data.tokenizer.size)
    try:
        vision = make_encoder(encoder, config.seed)
        decoder = with_seed(lambda: make_decoder(**given), config.seed + 1)
        projector_kwargs = kwargs_for(  # image_tokens: a flag that a projector may ask for
            make_projector, config, dict(image_tokens="image_tokens"),
            pooled_dim=vision.pooled_dim, label_token_ids=data.label_token_ids,
        )  # fmt: skip
        shape = dict(vision_dim=vision.dim, text_dim=decoder.dim, num_patches=vision.num_tokens)
        projector = with_seed(lambda: make_projector(**shape, **projector_kwargs), config.seed + 2)
        own = kwargs_for(DROPPING[config.drop], config, {}, seed=config.seed)
        return DROPPING[config.drop](vision, projector, decoder, **own)
    except ValueError as error:
        raise UserError(f"{error}; change the sizes")


def load_model(saved, path, device):
    """The content of a checkpoint -> the model, in evaluation mode, the config it was trained with,
    and its data set. UserError if they do not fit this code."""
    config = config_from(Config, saved["config"], path)
    data = open_dataset(config, saved["encoder"]["image_size"], device, saved)
    model = build_model(config, saved["encoder"], decoder_kind(saved), data)
    load_weights(model, saved["model"], path)
    return model.to(device).eval(), config, data


# ---------------------------------------------------------------- validation and samples


def validate_stage(model, data, stage, step, items=64):
    """The training loss on validation pictures, and scores once pictures are seen."""
    if stage.reads_captions:
        return validate_matching(model, data)
    with evaluation_mode(model):
        batch = data.vqa_batch("val", np.arange(items), not stage.text_only, stage.has_pieces(step))
        losses, aux_loss = model(batch, text_only=stage.text_only)
        val_loss = losses.sum() / (batch.labels != IGNORE).sum() + aux_loss
    scores = {} if stage.text_only else validate(model, data)
    return dict(val_loss=val_loss.item()) | scores


def draw_samples(model, data, path, items=8):
    """A page of test pictures and what the model says of them, judged against the scene."""
    pictures = data.split("test").take(4 * np.arange(items))  # no two of one minimal pair
    plots.save_image_grid(pictures.pixels(), sample_lines(model, data, pictures), path)


if __name__ == "__main__":
    run_script(main, Config, __doc__)
