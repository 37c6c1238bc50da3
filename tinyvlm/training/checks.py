"""Which settings of train_vlm.py go together."""

import dataclasses

from data.dataset import SPOKEN
from tinyvlm.decoders import DECODERS
from tinyvlm.projectors import PROJECTORS
from tinyvlm.represent import OBJECTIVES
from tinyvlm.training.config import UserError, refuse_unused, validate_config
from tinyvlm.training.stages import STAGES, objectives_of, parse_stages
from tinyvlm.vision import VISION_ENCODERS


def check_settings(config):
    """The config, complete. UserError if the settings make no sense."""
    config = validate_config(config)
    config = dataclasses.replace(config, out=config.out or f"runs/vlm-{config.projector}")
    if config.num_blind >= max(config.num_questions, 1):
        hint = "give more --num-questions, or --num-blind 0 (captions alone teach, too)"
        raise UserError(f"--num-blind {config.num_blind} leaves no question with a picture; {hint}")
    if config.projector == "label" and config.language not in SPOKEN:
        hint = f"choose --language {' or '.join(SPOKEN)}"
        raise UserError(f"--projector label has the words of one language; {hint}")
    if config.language in SPOKEN:
        refuse_unused(config, ["picture_language"], f"with --language {config.language}")
    stages = stages_of(config, config.steps)
    names = [stage.name for stage in stages]
    left_out = [f"train_{name}" for name in STAGES if name not in names]
    left_out += ["represent"] * ("represent" not in names)
    left_out += ["warmup_language"] * ("language" not in names)
    left_out += ["warmup", "picture_language"] * all(stage.text_only for stage in stages)
    refuse_unused(config, left_out, f"with --stages {config.stages}")
    if "represent" in names:
        check_represent(config)
    check_encoder(config)
    return config


def stages_of(config, begun_for):
    """The stages of a run that was begun for so many steps."""
    return check_decoder(config, parse_stages(config, begun_for))


def check_represent(config):
    """UserError for objectives that are none, or a projector that cannot learn them."""
    for name in objectives_of(config):
        if name not in OBJECTIVES:
            choices = ", ".join(OBJECTIVES)
            raise UserError(f"--represent names {name!r}; choose from {choices}, by commas")
    if config.batch_size == 1 and {"itc", "itm"} & set(objectives_of(config)):
        hint = "give --batch-size 2 or more, or --represent itg"
        raise UserError(f"--batch-size 1 has no false captions for contrast and matching; {hint}")
    able = [name for name, kind in PROJECTORS.items() if hasattr(kind, "read_with_words")]
    if config.projector not in able:
        what = f"--projector {config.projector} reads no words, as stage represent asks it to"
        raise UserError(f"{what}; choose from {', '.join(able)}, or leave the stage out")


def check_encoder(config):
    """UserError for a flag that has no effect where the encoder comes from."""
    sizes = ["encoder_dim", "encoder_depth", "encoder_heads", "image_size"]
    if config.encoder not in VISION_ENCODERS:
        why = f"with --encoder {config.encoder}, a run and none of {', '.join(VISION_ENCODERS)}"
        refuse_unused(config, ["clip", "encoder_init", *sizes, "init"], why)
        return
    if config.init:
        refuse_unused(config, ["clip", "encoder_init"], "with --init, which brings its encoder")
    if config.encoder_init == "random":
        refuse_unused(config, ["clip"], "with --encoder-init random")
    else:
        why = "but with --encoder-init random (CLIP has its own)"
        refuse_unused(config, ["encoder", *sizes], why)


def check_decoder(config, stages):
    """Where another run's decoder is taken, the stages that are left: those that see pictures.

    stages: as parse_stages gives them. The steps of the language stage are not done again, so that
    the others are those of a run that has it, to the last bit, if the stage was trained as this run
    would (see parts.load_decoder). UserError if that cannot be.
    """
    if config.decoder in DECODERS:
        if config.init:
            refuse_unused(config, ["decoder"], "with --init, which brings its decoder")
        return stages
    of_the_stage = ["train_language", "warmup_language"]
    refuse_unused(config, [*of_the_stage, "init"], f"with --decoder {config.decoder}")
    left = [stage for stage in stages if not stage.text_only]
    if not left or stages[len(stages) - len(left) :] != left:
        hint = "let it be the first of several --stages, or leave it out"
        raise UserError(f"--decoder {config.decoder} takes the place of stage language; {hint}")
    return left
