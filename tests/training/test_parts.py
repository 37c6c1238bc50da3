"""--decoder FOLDER: the language stage of another run, instead of one's own."""

import pytest
from helpers import CLIP_ARGS, VLM_ARGS, same_weights, skip_test_phase, stop_after, weights
from helpers import RANDOM_ENCODER as RANDOM

import train_clip
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


def test_the_decoder_of_any_vlm_may_be_taken(whole, tmp_path, capsys):
    ended = {n: w for n, w in weights(whole["mlp"]).items() if n.startswith("decoder.")}
    taken = dict(stages="align", shares="1", steps=1)
    train(tmp_path / "file", decoder=str(whole["mlp"] / "last.pt"), **taken)
    assert "after 6 steps" in capsys.readouterr().out
    now = weights(tmp_path / "file")
    assert same_weights(ended, {n: now[n] for n in ended})
    # And handed on.
    train(tmp_path / "again", decoder=str(tmp_path / "file"), **taken)
    now = weights(tmp_path / "again")
    assert same_weights(ended, {n: now[n] for n in ended})


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
        (dict(stages="language", shares="1"), "takes the place of stage language"),
        (dict(stages="align,language", shares="0.5,0.5"), "let it be the first"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused_by_name(whole, tmp_path, settings, named):
    with pytest.raises(UserError, match=named):
        train(tmp_path / "run", **dict(decoder=str(whole["mlp"])) | settings)
    assert not (tmp_path / "run").exists()


def test_a_clip_has_no_decoder(tmp_path):
    clip = dict(out=str(tmp_path / "clip"), **CLIP_ARGS | dict(steps=2))
    train_clip.main(train_clip.Config(**clip))
    with pytest.raises(UserError, match="holds a clip model"):
        train(tmp_path / "run", decoder=str(tmp_path / "clip"))
