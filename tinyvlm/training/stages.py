"""The stages of a VLM's training: which steps, and what they train."""

import dataclasses
import time

from tinyvlm.represent import Represent, TextSide
from tinyvlm.training.checkpoint import load_weights
from tinyvlm.training.config import UserError
from tinyvlm.training.optim import configure_optimizers, freeze, lr_schedule
from tinyvlm.training.settings import with_seed

STAGES = ("represent", "language", "align", "instruct")
PIECES_FROM = 0.6  # of the language stage
# What a stage learns from. Each kind begins to draw at another batch, far from the others'.
KINDS = dict(language="words", align="pictures", instruct="pictures", represent="captions")
FAR = 2**22


@dataclasses.dataclass
class Stage:
    """Steps first .. end - 1 of a run; trained: patterns of the parameters that it trains; drawn:
    the number of its first batch, see parse_stages; warmup: steps until the full learning rate."""

    name: str
    first: int
    end: int
    trained: list
    drawn: int
    warmup: int

    @property
    def text_only(self):
        """Words that describe the picture stand in its place."""
        return self.name == "language"

    @property
    def reads_captions(self):
        """The projector reads captions beside pictures, and no decoder is there; represent.py."""
        return self.name == "represent"

    def has_pieces(self, step):
        """Do objects stand there as several tokens by now? With one for each, what belongs to what
        is learned sooner, and after that to count places, not tokens."""
        is_late = step - self.first >= PIECES_FROM * (self.end - self.first)
        return self.text_only and is_late

    def batch_at(self, step):
        """The number of a step's batch."""
        return self.drawn + step - self.first

    def lr_share(self, step):
        return lr_schedule(step - self.first, self.end - self.first, self.warmup)


def parse_stages(config, begun_for):
    """The stages of a run that was begun for so many steps: [Stage]; if it has more by now, they
    are the last stage's. UserError if the settings make no sense.

    Stages of one kind draw on from where the last one has stopped. So what is seen in a stage does
    not depend on whether others, of another kind, came before.
    """
    names = [name.strip() for name in config.stages.split(",")]
    shares = config.shares.split(",")
    for name in names:
        if name not in STAGES:
            raise UserError(f"--stages names {name!r}; choose from {', '.join(STAGES)}")
    if names.count("represent") > 1:
        raise UserError("--stages names represent twice, whose text side is kept for one; name one")
    try:
        shares = [float(share) for share in shares]
    except ValueError:
        raise UserError(f"--shares is {config.shares!r}; give numbers such as 0.3,0.1,0.6")
    fits = len(shares) == len(names) and abs(sum(shares) - 1) < 1e-6 and min(shares) > 0
    if not fits:
        what = f"--shares {config.shares} does not fit --stages {config.stages}"
        raise UserError(f"{what}; give one positive share a stage, 1 in all")
    ends = [round(begun_for * sum(shares[: k + 1])) for k in range(len(names))]
    ends[-1] = config.steps
    firsts = [0, *ends[:-1]]
    for name, first, end in zip(names, firsts, ends, strict=True):
        if first == end:
            hint = "give more --steps, or it a larger share"
            raise UserError(f"stage {name} gets none of {begun_for} steps; {hint}")
    patterns = [getattr(config, f"train_{n}").replace(" ", "").split(",") for n in names]
    drawn, stages = dict(words=0, pictures=FAR, captions=2 * FAR), []
    for name, first, end, trained in zip(names, firsts, ends, patterns, strict=True):
        warmup = config.warmup_language if name == "language" else config.warmup
        stages.append(Stage(name, first, end, trained, drawn[KINDS[name]], warmup))
        drawn[KINDS[name]] += end - first
    return stages


def stage_at(stages, step):
    """The stage that a step belongs to."""
    return next(stage for stage in stages if step < stage.end)


def objectives_of(config):
    """What stage represent learns: names of represent.OBJECTIVES."""
    return [name.strip() for name in config.represent.split(",")]


def models_of(stages, vlm, run):
    """What each stage trains, {name: model}: the VLM, or for stage represent its encoder and its
    projector with a text side, fresh or from where the run goes on. UserError if a pattern of what
    it trains matches no parameter, or several processes were to train that stage."""
    models = {stage.name: vlm for stage in stages}
    if "represent" in models:
        if run.dist.size > 1:
            hint = "start one process, or leave the stage out"
            raise UserError(f"stage represent contrasts whole batches, in one process; {hint}")
        sizes = dict(dim=vlm.decoder.dim, depth=len(vlm.projector.blocks))
        vocab_size = vlm.decoder.tok_embed.num_embeddings
        text = with_seed(lambda: TextSide(vocab_size=vocab_size, **sizes), run.config.seed + 3)
        if run.saved and "text_side" in run.saved:
            load_weights(text, run.saved["text_side"], run.start_path)
        models["represent"] = Represent(vlm, text.to(run.device), objectives_of(run.config))
    for stage in stages:
        freeze(models[stage.name], stage.trained)
    return models


def extra_state_of(model):
    """What a checkpoint holds besides the VLM, as long as this is what learns."""
    return dict(text_side=model.text.state_dict()) if isinstance(model, Represent) else {}


def begin_stage(run, model, stage, step):
    """What a stage trains: its optimizers and the model that shares gradients."""
    freeze(model, stage.trained)
    config = run.config
    optimizers = configure_optimizers(model, config.lr, config.muon_lr, config.weight_decay)
    if step > stage.first:
        run.load_optimizers(optimizers)
    run.describe(model, optimizers, title=f"stage {stage.name}")
    some_are_idle = stage.text_only or stage.reads_captions or model.vision.skipped > 0
    run.t0 = time.time()  # what the stage before has left is no part of this one's first step
    return optimizers, run.prepare(model, find_unused=some_are_idle)
