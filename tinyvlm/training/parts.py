"""What a VLM takes from other runs: CLIP's encoder, and a decoder that has learned to read."""

from tinyvlm.decoders import DECODERS
from tinyvlm.training.checkpoint import (
    checkpoint_file,
    load_checkpoint,
    load_weights,
    require_same,
    save_checkpoint,
)
from tinyvlm.training.config import UserError, refuse_unused
from tinyvlm.training.files import LANGUAGE_FILE, is_folder
from tinyvlm.training.settings import encoder_of


def load_encoder(config, run):
    """The encoder's kind and sizes, and its weights: from the CLIP checkpoint, or None.

    None: they are random, or those of the checkpoint that the run starts from.
    """
    if run.start:
        return run.start["encoder"], None
    if config.encoder_init == "random":
        return encoder_of(config), None
    saved = load_checkpoint(config.clip, "clip")
    clip = saved["config"]
    require_same(config, clip, config.clip, ["held_out"], "train CLIP with the same")
    if clip["dataset"] != config.dataset:
        hint = f"for one of this data set: python train_clip.py --dataset {config.dataset}"
        run.say(f"note: the encoder of {config.clip} knows {clip['dataset']}; {hint}")
    return saved["encoder"], part_of(saved["model"], "vision.")


def load_start(model, run, encoder_weights, decoder_weights):
    """Give a fresh VLM the weights that its run starts from, where they are not random."""
    if run.start:
        load_weights(model, run.start["model"], run.start_path)
    if encoder_weights is not None:
        load_weights(model.vision, encoder_weights, run.config.clip)
    if decoder_weights is not None:
        load_weights(model.decoder, decoder_weights, run.config.decoder)


def part_of(weights, prefix):
    """The weights whose names begin with `prefix`, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }


# ---------------------------------------------------------------- the language stage


def is_taken(config):
    """Does --decoder name a run, and no kind of decoder?"""
    return config.decoder not in DECODERS


def check_decoder(config, stages):
    """Where another run's decoder is taken, the stages that are left: those that see pictures.

    stages: as parse_stages gives them. The steps of the language stage are not done again, so that
    the others are those of a run that has it, to the last bit. UserError if that cannot be.
    """
    if not is_taken(config):
        return stages
    refuse_unused(config, ["train_language", "init"], f"with --decoder {config.decoder}")
    left = [stage for stage in stages if not stage.text_only]
    if not left or stages[len(stages) - len(left) :] != left:
        hint = "let it be the first of several --stages, or leave it out"
        raise UserError(f"--decoder {config.decoder} takes the place of stage language; {hint}")
    return left


def load_decoder(config, run, words):
    """The decoder's kind, and its weights: from the run that --decoder names, or None.

    None: they are random, or those of the checkpoint that the run starts from. Of a run's folder
    it is the decoder that the language stage left, or else the one of last.pt. UserError if it was
    trained from another seed, in another world or language, or with other sizes.
    """
    if run.start:
        return decoder_kind(run.start), None
    if not is_taken(config):
        return config.decoder, None
    path = config.decoder
    if not is_folder(path) and not checkpoint_file(path).is_file():
        hint = f"give one of {', '.join(DECODERS)}, or the folder of a run of train_vlm.py"
        raise UserError(f"--decoder {path} is neither; {hint}")
    own = checkpoint_file(path).with_name(LANGUAGE_FILE)
    saved = load_checkpoint(own if is_folder(path) and own.exists() else path)
    if saved["kind"] not in ("vlm", "decoder"):
        raise UserError(f"{path} holds a {saved['kind']} model, which has no decoder; name another")
    names = ("seed", "dataset", "language", "held_out", "dim", "depth", "heads")
    hint = "give the same, or train this one's own language stage"
    require_same(config, saved["config"], path, names, hint)
    if saved["words"] != words:
        raise UserError(f"{path} was trained by a version with other words; train it again")
    run.say(f"the decoder is that of {path}, after {saved['step']} steps")
    weights = saved["model"]
    weights = part_of(weights, "decoder.") if saved["kind"] == "vlm" else weights
    return decoder_kind(saved), weights


def decoder_kind(saved):
    """The kind of the decoder in a checkpoint: its settings may name a run instead."""
    return saved.get("decoder", saved["config"]["decoder"])


def keep_language(run, model, stages, step, **state):
    """Once the language stage is over, leave its decoder in language.pt, for runs to come."""
    ends = [stage.end for stage in stages if stage.text_only]
    if run.dist.is_main and step in ends and (run.saved or step > run.first_step):
        save_checkpoint(
            run.folder, LANGUAGE_FILE, kind="decoder", config=run.config, step=step,
            model=model.decoder, **state,
        )  # fmt: skip
