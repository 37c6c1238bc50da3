"""--resume with more --steps, and --init: what a run starts from."""

import pytest
from helpers import CLIP_ARGS, VLM_ARGS, same_weights, skip_test_phase, stop_after, weights
from helpers import RANDOM_ENCODER as RANDOM

import train_clip
import train_vlm
from tinyvlm.training import files
from tinyvlm.training.checkpoint import load_checkpoint
from tinyvlm.training.config import Stopped, UserError

SETTINGS = {train_clip: CLIP_ARGS, train_vlm: VLM_ARGS | RANDOM | dict(projector="mlp")}
scripts = pytest.mark.parametrize("script", [train_clip, train_vlm])


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    skip_test_phase(monkeypatch)


def train(script, out, **settings):
    return script.main(script.Config(**SETTINGS[script] | dict(out=str(out)) | settings))


def from_init(script):
    """Settings that go with --init, which brings the encoder: nothing is said of a random one."""
    return {name: getattr(script.Config(), name) for name in RANDOM if script is train_vlm}


# ---------------------------------------------------------------- more steps


def test_more_steps_from_the_flat_part_on_are_as_if_all_had_been_planned(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, train_clip, 2)
        with pytest.raises(Stopped):
            train(train_clip, tmp_path / "more", steps=6)
    train(train_clip, tmp_path / "more", steps=12, resume=True)
    train(train_clip, tmp_path / "whole", steps=12)
    assert same_weights(tmp_path / "more", tmp_path / "whole")


@scripts
def test_a_finished_run_goes_on_with_more_steps_and_says_what_its_schedule_did(
    script, tmp_path, capsys
):
    train(script, tmp_path)
    capsys.readouterr()
    train(script, tmp_path, steps=9, resume=True)
    said = capsys.readouterr().out
    plan = "the learning rate was planned from step 0 on for 6 steps, from step 6 on for 9 steps"
    assert said.count(plan) == 2  # as it begins, and under the table
    saved = load_checkpoint(tmp_path)
    assert saved["plan"] == [[0, 6], [6, 9]] and saved["step"] == saved["config"]["steps"] == 9
    log = [line for line in files.read_log(tmp_path) if "loss" in line]
    assert [line["step"] for line in log] == list(range(1, 10))
    if script is train_vlm:  # what is added is of the last stage
        assert [line["stage"] for line in log] == ["language"] * 3 + ["align"] + ["instruct"] * 5
    with pytest.raises(UserError, match="steps 9 then, 6 now"):
        train(script, tmp_path, steps=6, resume=True)


@scripts
def test_a_run_with_more_steps_can_be_stopped_and_goes_on_to_the_same_bytes(
    script, tmp_path, monkeypatch
):
    for name in ("cut", "whole"):
        train(script, tmp_path / name)
    with monkeypatch.context() as patch:
        stop_after(patch, script, 8)
        with pytest.raises(Stopped):
            train(script, tmp_path / "cut", steps=9, resume=True)
    for name in ("cut", "whole"):
        train(script, tmp_path / name, steps=9, resume=True)
    one, other = (tmp_path / name / "last.pt" for name in ("cut", "whole"))
    assert one.read_bytes() == other.read_bytes()


# ---------------------------------------------------------------- --init


@scripts
def test_a_run_may_begin_with_the_weights_of_another_one(script, tmp_path):
    train(script, tmp_path / "first")
    still = dict(lr=0.0, muon_lr=0.0)
    train(script, tmp_path / "second", init=str(tmp_path / "first"), **still | from_init(script))
    assert same_weights(tmp_path / "first", tmp_path / "second")
    saved = load_checkpoint(tmp_path / "second")
    assert saved["step"] == 6 and saved["plan"] == [[0, 6]]


@scripts
def test_a_run_that_began_so_is_resumed_without_the_other_one(script, tmp_path, monkeypatch):
    train(script, tmp_path / "first")
    for name in ("cut", "whole"):
        settings = dict(out=tmp_path / name, init=str(tmp_path / "first"), seed=1) | from_init(
            script
        )
        with monkeypatch.context() as patch:
            if name == "cut":
                stop_after(patch, script, 2)
                with pytest.raises(Stopped):
                    train(script, **settings)
            else:
                train(script, **settings)
    settings = dict(out=tmp_path / "cut", init="gone", seed=1) | from_init(script)
    train(script, **settings, resume=True)
    assert same_weights(tmp_path / "cut", tmp_path / "whole")
    assert not same_weights(tmp_path / "cut", tmp_path / "first")


def test_what_a_run_cannot_begin_with_is_refused(tmp_path):
    train(train_clip, tmp_path / "clip")
    train(train_vlm, tmp_path / "vlm")
    clip, vlm = str(tmp_path / "clip"), str(tmp_path / "vlm")
    for script, settings, named in (
        (train_clip, dict(init=vlm), "holds a vlm model"),
        (train_vlm, dict(init=clip), "holds a clip model"),
        (train_clip, dict(init=clip, held_out=1), "--held-out is 1, .* has 0"),
        (train_clip, dict(init=clip, text_dim=32), "does not fit this model"),
        (train_clip, dict(init=clip, language="ko"), "other words"),
        (train_clip, dict(init="gone"), "there is no checkpoint gone"),
        (train_vlm, dict(init=vlm, clip=clip), "--clip has no effect"),
        (train_vlm, dict(init=vlm, **RANDOM), "--encoder-init has no effect"),
        (train_vlm, dict(init=vlm, decoder=vlm), "--init has no effect"),
    ):
        with pytest.raises(UserError, match=named):
            train(script, tmp_path / "new", **from_init(script) | settings)
        assert not (tmp_path / "new").exists()


def test_the_weights_of_a_run_are_its_own(tmp_path):
    """Of two runs that begin with one run's weights each has what it learned from there."""
    train(train_clip, tmp_path / "first")
    for seed in (1, 2):
        out = tmp_path / str(seed)
        train(train_clip, out, init=str(tmp_path / "first"), seed=seed, steps=2)
    assert not same_weights(tmp_path / "1", tmp_path / "2")
    assert weights(tmp_path / "1").keys() == weights(tmp_path / "first").keys()
