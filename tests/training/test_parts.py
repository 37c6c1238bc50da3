"""--encoder FOLDER and --decoder FOLDER: parts of another run, instead of one's own."""

import pytest
import torch
from helpers import RANDOM_ENCODER as RANDOM
from helpers import (
    VLM_ARGS,
    every_parameter_learns,
    same_weights,
    skip_test_phase,
    small_vlm,
    small_vqa_batch,
    stop_after,
    weights,
)

import train_vlm
from tinyvlm.training import files, parts
from tinyvlm.training.checkpoint import load_checkpoint
from tinyvlm.training.config import Stopped, UserError


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    skip_test_phase(monkeypatch)


def train(out, **settings):
    settings = VLM_ARGS | RANDOM | dict(projector="mlp", out=str(out)) | settings
    return train_vlm.main(train_vlm.Config(**settings))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs with all stages, of three language steps each: {projector: folder}."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        skip_test_phase(patch)
        for projector in ("mlp", "linear"):
            train(root / projector, projector=projector)
    return {projector: root / projector for projector in ("mlp", "linear")}


def losses(folder):
    return {line["step"]: line["loss"] for line in files.read_log(folder) if "loss" in line}


def of_part(part, folder):
    """The weights of a part, "vision." or "decoder.", of the checkpoint in a folder."""
    return {name: w for name, w in weights(folder).items() if name.startswith(part)}


# ---------------------------------------------------------------- the encoder

ALIGN = dict(stages="align", shares="1", steps=1)  # which leaves encoder and decoder as they are


def train_with(encoder, out, **settings):
    """A run whose encoder is taken from another one."""
    settings = VLM_ARGS | dict(projector="mlp", encoder=str(encoder), out=str(out)) | settings
    return train_vlm.main(train_vlm.Config(**settings))


def test_the_encoder_of_any_clip_or_vlm_may_be_taken(whole, clip_folder, tmp_path):
    for number, path in enumerate((clip_folder, whole["linear"], whole["linear"] / "last.pt")):
        train_with(path, tmp_path / str(number), **ALIGN)
        taken = of_part("vision.", tmp_path / str(number))
        assert taken and same_weights(taken, of_part("vision.", path)), path


def test_a_clip_named_as_encoder_or_as_clip_is_the_same_run(clip_folder, tmp_path):
    train_with(clip_folder, tmp_path / "encoder")
    named = VLM_ARGS | dict(projector="mlp", clip=str(clip_folder), out=str(tmp_path / "clip"))
    train_vlm.main(train_vlm.Config(**named))
    assert same_weights(tmp_path / "encoder", tmp_path / "clip")


def test_an_encoder_of_other_sizes_brings_them_along(tmp_path):
    one_stage = dict(stages="instruct", shares="1", steps=1)
    sizes = dict(encoder="convnext", encoder_dim=24, encoder_depth=2, encoder_heads=2)
    train(tmp_path / "first", **one_stage | sizes, image_size=84)
    train_with(tmp_path / "first", tmp_path / "second", **ALIGN)
    train_with(tmp_path / "second", tmp_path / "third", **ALIGN)  # and is handed on
    one, other = (load_checkpoint(tmp_path / name) for name in ("first", "third"))
    wanted = dict(encoder="convnext", dim=24, depth=2, image_size=84, skip_blocks=0)
    assert one["encoder"] == other["encoder"] == wanted
    assert same_weights(*(of_part("vision.", tmp_path / name) for name in ("first", "third")))


def test_a_run_that_took_an_encoder_is_resumed_and_loaded_without_it(
    whole, tmp_path, monkeypatch, capsys
):
    encoder = tmp_path / "linear"
    encoder.symlink_to(whole["linear"])
    train_with(encoder, tmp_path / "whole", eval_every=1)
    with monkeypatch.context() as patch:
        stop_after(patch, train_vlm, 4)
        with pytest.raises(Stopped):
            train_with(encoder, tmp_path / "cut", eval_every=1)
    encoder.unlink()
    train_with(encoder, tmp_path / "cut", eval_every=1, resume=True)
    assert same_weights(tmp_path / "cut", tmp_path / "whole")
    saved = load_checkpoint(tmp_path / "cut")
    assert same_weights(train_vlm.load_model(saved, "x", "cpu")[0].state_dict(), saved["model"])


def test_the_last_blocks_of_an_encoder_may_be_left_out(clip_folder, tmp_path):
    """LLaVA's features are those of the layer before the last."""
    train_with(clip_folder, tmp_path, skip_blocks=1, stages="instruct", shares="1", steps=2)
    blocks = "vision.blocks."
    learned, given = of_part(blocks, tmp_path), of_part(blocks, clip_folder)
    assert learned and all(torch.equal(w, given[name]) for name, w in learned.items())
    norm = "vision.norm.weight"  # the rest of the encoder does learn
    assert not torch.equal(weights(tmp_path)[norm], weights(clip_folder)[norm])
    model, _, _ = train_vlm.load_model(load_checkpoint(tmp_path), tmp_path, "cpu")
    assert model.vision.skipped == 1
    # Who takes its encoder, or starts from it, leaves the stale block out, too.
    brief = dict(stages="instruct", shares="1", steps=1)
    train_with(tmp_path, tmp_path / "taken", **brief)
    taken = load_checkpoint(tmp_path / "taken")
    assert train_vlm.load_model(taken, tmp_path, "cpu")[0].vision.skipped == 1
    with pytest.raises(UserError, match="2 blocks cannot be left out of 1; change the sizes"):
        train_with(clip_folder, tmp_path / "other", skip_blocks=2)


def test_the_label_bottleneck_teaches_a_random_encoder_its_words_and_nothing_else_does(tmp_path):
    """What --projector label --encoder-init random --stages instruct trains the encoder with."""
    model, batch = small_vlm("label"), small_vqa_batch(4)
    losses, _ = model(batch)
    losses.sum().backward()  # no gradient of the decoder's comes through the labels
    assert all(p.grad is None for p in model.vision.parameters())
    _, aux_loss = model(batch)
    assert every_parameter_learns(model.vision, aux_loss) == []
    labels = dict(projector="label", stages="instruct", shares="1", eval_every=1)
    train(tmp_path / "still", lr=0.0, muon_lr=0.0, **labels)
    train(tmp_path / "moved", **labels)
    still, moved = (of_part("vision.", tmp_path / name) for name in ("still", "moved"))
    assert not [name for name, w in moved.items() if w.equal(still[name])]


@pytest.mark.parametrize(
    "settings, named",
    [
        (dict(encoder="vti"), "--encoder vti is neither; give one of vit, .* or the folder"),
        (dict(encoder="vti", encoder_init="random"), "--encoder-init has no effect .* none of vit"),
        (dict(clip="another"), "--clip has no effect with --encoder"),
        (dict(encoder_init="random"), "--encoder-init has no effect with --encoder"),
        (dict(encoder_dim=16), "--encoder-dim has no effect with --encoder"),
        (dict(image_size=112), "--image-size has no effect with --encoder"),
        (dict(init="another"), "--init has no effect with --encoder"),
        (dict(held_out=1), "--held-out is 1, .* has 0; train VLM with the same"),
        (dict(encoder="LANGUAGE"), "holds a decoder model, which has no encoder"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_by_name(whole, tmp_path, settings, named):
    encoder = dict(LANGUAGE=whole["mlp"] / "language.pt")
    encoder = encoder.get(settings.get("encoder"), settings.get("encoder", whole["mlp"]))
    with pytest.raises(UserError, match=named):
        train_with(
            encoder, tmp_path / "run", **{k: v for k, v in settings.items() if k != "encoder"}
        )
    assert not (tmp_path / "run").exists()


def test_an_encoder_of_another_data_set_is_noted(whole, tmp_path, capsys):
    train_with(whole["mlp"], tmp_path, dataset="shapes-full", **ALIGN)
    said = capsys.readouterr().out
    assert (
        "knows shapes; for one of this data set: python train_vlm.py --dataset shapes-full" in said
    )


# ---------------------------------------------------------------- the decoder


def test_the_language_stage_is_the_same_for_all_projectors(whole):
    one, other = (load_checkpoint(whole[p] / "language.pt") for p in ("mlp", "linear"))
    assert one["kind"] == "decoder" and one["step"] == 3
    assert same_weights(one["model"], other["model"])
    ended = {n.removeprefix("decoder."): w for n, w in weights(whole["mlp"]).items()}
    assert not same_weights(one["model"], {n: ended[n] for n in one["model"]})


def test_a_run_that_takes_it_is_the_run_that_has_it_to_the_last_bit(whole, tmp_path):
    train(tmp_path / "taken", decoder=str(whole["linear"]))
    assert same_weights(tmp_path / "taken", whole["mlp"])
    assert losses(tmp_path / "taken") == {k: v for k, v in losses(whole["mlp"]).items() if k > 3}
    assert not (tmp_path / "taken" / "language.pt").exists()


def test_a_run_that_takes_it_is_resumed_without_it(whole, tmp_path, monkeypatch):
    taken = dict(decoder=str(whole["linear"]), eval_every=1)
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_after(patch, train_vlm, 4)
        with pytest.raises(Stopped):
            train(stopped, **taken)
    monkeypatch.setattr(parts, "LANGUAGE_FILE", "gone.pt")
    train(stopped, resume=True, **taken)
    assert same_weights(stopped, whole["mlp"])


@pytest.mark.parametrize("stop", [3, 4])
def test_a_run_that_was_stopped_leaves_its_language_stage_all_the_same(
    whole, tmp_path, monkeypatch, stop
):
    with monkeypatch.context() as patch:
        stop_after(patch, train_vlm, stop)
        with pytest.raises(Stopped):
            train(tmp_path)
    train(tmp_path, resume=True)
    one, other = (load_checkpoint(f / "language.pt")["model"] for f in (tmp_path, whole["mlp"]))
    assert same_weights(one, other)


def test_a_run_of_the_language_stage_alone_leaves_it_too(whole, tmp_path):
    train(tmp_path, stages="language", shares="1", steps=3)
    assert (tmp_path / "language.pt").exists()
    train(tmp_path / "taken", decoder=str(tmp_path), stages="align,instruct", shares="0.5,0.5")
    assert min(losses(tmp_path / "taken")) == 1


def test_a_new_run_leaves_nothing_of_the_older_one(tmp_path):
    train(tmp_path, stages="language", shares="1", steps=3)
    train(tmp_path, stages="instruct", shares="1", steps=1, overwrite=True)
    assert not (tmp_path / "language.pt").exists()


def test_a_language_stage_that_was_another_is_noted(whole, tmp_path, capsys):
    train(tmp_path / "same", decoder=str(whole["mlp"]))
    assert "note" not in capsys.readouterr().out
    train(tmp_path / "other", decoder=str(whole["mlp"]), lr=0.01, num_questions=3)
    said = capsys.readouterr().out
    assert "note: its stage was not what this run's would be (" in said
    assert " then, 0.01 now" in said and "num_questions" in said


def test_the_decoder_of_any_vlm_may_be_taken(whole, tmp_path, capsys):
    ended = of_part("decoder.", whole["mlp"])
    train(tmp_path / "file", decoder=str(whole["mlp"] / "last.pt"), **ALIGN)
    assert "after 6 steps" in capsys.readouterr().out
    assert same_weights(ended, of_part("decoder.", tmp_path / "file"))
    # And handed on.
    train(tmp_path / "again", decoder=str(tmp_path / "file"), **ALIGN)
    assert same_weights(ended, of_part("decoder.", tmp_path / "again"))


def test_what_was_taken_can_be_loaded_without_the_run_that_it_was_taken_from(whole, tmp_path):
    train(tmp_path, decoder=str(whole["mlp"]))
    saved = load_checkpoint(tmp_path)
    saved["config"]["decoder"] = "a/folder/that/is/gone"
    model, _, _ = train_vlm.load_model(saved, tmp_path, "cpu")
    assert same_weights(model.state_dict(), saved["model"])


@pytest.mark.parametrize(
    "settings, named",
    [
        (dict(decoder="gtp"), "--decoder gtp is neither; give one of gpt"),
        (dict(seed=1), "--seed is 1, .* has 0"),
        (dict(dim=64), "--dim is 64, .* has 32"),
        (dict(depth=2), "--depth is 2"),
        (dict(heads=2), "--heads is 2"),
        (dict(language="ko"), "--language is ko"),
        (dict(dataset="shapes-full"), "--dataset is shapes-full"),
        (dict(held_out=1), "--held-out is 1"),
        (dict(train_language="*"), "--train-language has no effect"),
        (dict(warmup_language=5), "--warmup-language has no effect"),
        (dict(stages="language", shares="1"), "takes the place of stage language"),
        (dict(stages="align,language", shares="0.5,0.5"), "let it be the first"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused_by_name(whole, tmp_path, settings, named):
    with pytest.raises(UserError, match=named):
        train(tmp_path / "run", **dict(decoder=str(whole["mlp"])) | settings)
    assert not (tmp_path / "run").exists()


def test_a_clip_has_no_decoder(clip_folder, tmp_path):
    with pytest.raises(UserError, match="holds a clip model, which has no decoder"):
        train(tmp_path / "run", decoder=str(clip_folder))
