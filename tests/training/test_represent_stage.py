"""--stages represent,...: BLIP-2's first stage as a stage of a run, stopped, resumed, taken on."""

import pytest
from helpers import RANDOM_ENCODER as RANDOM
from helpers import (
    VLM_ARGS,
    fail_in_step,
    in_process,
    same_weights,
    skip_test_phase,
    stop_after,
    weights,
)

import train_vlm
from tinyvlm.training import files
from tinyvlm.training.checkpoint import load_checkpoint
from tinyvlm.training.config import Stopped, UserError

STAGES = dict(stages="represent,language,align,instruct", shares="0.4,0.2,0.2,0.2", steps=5)
ALONE = dict(stages="represent", shares="1", steps=2)


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    skip_test_phase(monkeypatch)


def train(out, **settings):
    own = dict(projector="qformer", image_tokens=4, out=str(out))
    return train_vlm.main(train_vlm.Config(**VLM_ARGS | RANDOM | own | STAGES | settings))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run of two steps of the stage, and one of each other."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        skip_test_phase(patch)
        train(folder)
    return folder


def test_the_log_has_the_stage_its_losses_and_its_test(whole):
    log = files.read_log(whole)
    stages = [line["stage"] for line in log if "loss" in line]
    assert stages == ["represent"] * 2 + ["language", "align", "instruct"]
    [validated] = [line for line in log if "val_itm" in line]
    assert {"val_loss", "val_itc", "val_itg", "val_matching", "val_matching_hard"} <= set(validated)
    [tested] = [line for line in log if "test_matching" in line]
    assert tested["step"] == 2 and 0 <= tested["test_matching_hard"] <= 1
    metrics = files.read_json(whole / "metrics.json")
    assert all(metrics[name] == tested[f"test_{name}"] for name in ("matching", "matching_hard"))
    assert (whole / "language.pt").exists()


def test_the_text_side_is_kept_as_long_as_the_stage_lasts(whole, tmp_path):
    train(tmp_path / "alone", **ALONE)
    train(tmp_path / "without", stages="instruct", shares="1", steps=1)
    alone, after, without = map(load_checkpoint, (tmp_path / "alone", whole, tmp_path / "without"))
    assert alone["text_side"] and "text_side" not in after
    assert alone["model"].keys() == after["model"].keys() == without["model"].keys()
    model, _, _ = train_vlm.load_model(alone, tmp_path, "cpu")
    assert same_weights(model.state_dict(), alone["model"])


def test_the_projector_goes_on_with_what_it_has_learned(tmp_path):
    train(tmp_path / "alone", **ALONE)
    still = dict(train_language="decoder.norm.*", train_align="projector.out_proj.*")
    both = dict(stages="represent,language,align", shares="0.5,0.25,0.25", steps=4)
    train(tmp_path / "both", **both, **still)
    learned, later = weights(tmp_path / "alone"), weights(tmp_path / "both")
    moved = {name for name, w in later.items() if not w.equal(learned[name])}
    assert {name.split(".")[1] for name in moved} == {"norm", "out_proj"}


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_that_was_stopped_goes_on_to_the_same_end(whole, tmp_path, monkeypatch, stop):
    with monkeypatch.context() as patch:
        stop_after(patch, train_vlm, stop)
        with pytest.raises(Stopped):
            train(tmp_path)
    train(tmp_path, resume=True)
    one, other = (folder / "last.pt" for folder in (tmp_path, whole))
    assert one.read_bytes() == other.read_bytes()
    tests = [
        [line for line in files.read_log(folder) if "test_matching" in line]
        for folder in (tmp_path, whole)
    ]
    assert tests[0] == tests[1] and len(tests[0]) == 1


def test_a_run_that_was_killed_behind_the_stage_tells_its_test_once(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fail_in_step(patch, train_vlm, 3, RuntimeError("killed"))
        with pytest.raises(RuntimeError):
            train(tmp_path, eval_every=2)
    assert load_checkpoint(tmp_path)["step"] == 2
    train(tmp_path, resume=True, eval_every=2)
    assert same_weights(tmp_path, whole)
    [tested] = [line for line in files.read_log(tmp_path) if "test_matching" in line]
    assert tested == next(line for line in files.read_log(whole) if "test_matching" in line)


def test_several_processes_do_not_train_the_stage(tmp_path, monkeypatch):
    """It contrasts whole batches, which no process has."""
    enter = train_vlm.Run.__enter__

    def with_another(run):
        enter(run).dist.size = 2
        return run

    monkeypatch.setattr(train_vlm.Run, "__enter__", with_another)
    with pytest.raises(UserError, match="in one process; start one"):
        train(tmp_path)


def test_the_same_run_with_more_validations_learns_the_same(whole, tmp_path):
    train(tmp_path, eval_every=1)
    assert same_weights(tmp_path, whole)


def test_the_language_stage_may_be_taken_from_another_run(whole, tmp_path):
    stages = dict(stages="represent,align,instruct", shares="0.5,0.25,0.25", steps=4)
    train(tmp_path / "taken", decoder=str(whole), **stages)
    stages = dict(stages="language,represent,align", shares="0.25,0.5,0.25", steps=4)
    train(tmp_path / "own", **stages)
    train(tmp_path / "same", decoder=str(tmp_path / "own"), **stages)  # to the last bit
    assert same_weights(tmp_path / "own", tmp_path / "same")
    with pytest.raises(UserError, match="takes the place of stage language; let it be the first"):
        train(tmp_path / "refused", decoder=str(whole))


def test_a_run_that_had_the_stage_is_where_one_without_it_may_begin(whole, tmp_path):
    own = {name: getattr(train_vlm.Config(), name) for name in RANDOM}  # --init brings its encoder
    one = dict(init=str(whole), stages="instruct", shares="1", steps=1, lr=0.0, muon_lr=0.0)
    train(tmp_path / "without", **own | one)
    assert same_weights(tmp_path / "without", whole)
    train(tmp_path / "with", **own | ALONE | dict(init=str(tmp_path / "without")))


def test_what_it_made_can_be_sampled_in_the_stage_and_after_it(whole, tmp_path):
    train(tmp_path / "alone", **ALONE)
    for folder in (whole, tmp_path / "alone"):
        page = ("--items", 1, "--out", tmp_path / "page.png")
        code, stdout, stderr = in_process("sample.py", "--checkpoint", folder, *page)
        assert code == 0 and "test picture 0" in stdout, stderr


def test_one_objective_alone_trains_and_leaves_the_others_heads(tmp_path):
    train(tmp_path / "one", **ALONE | dict(represent="itg"))
    train(tmp_path / "other", **ALONE | dict(represent=" itc, itm"))
    one, other = (load_checkpoint(tmp_path / name)["text_side"] for name in ("one", "other"))
    assert not one["lm_head.weight"].equal(other["lm_head.weight"])
    assert not one["match_head.weight"].equal(other["match_head.weight"])
    [line] = [line for line in files.read_log(tmp_path / "one") if "val_loss" in line]
    assert line["val_loss"] == line["val_itg"] and "val_itc" not in line


@pytest.mark.parametrize(
    "settings, named",
    [
        (dict(projector="mlp", image_tokens=32), "--projector mlp reads no words, .* from qformer"),
        (dict(represent="itc,itn"), "--represent names 'itn'; choose from itc, itm, itg"),
        (dict(represent=""), "--represent names ''"),
        (dict(train_represent="text.*,projektor.*"), "'projektor.*' matches no parameter"),
        (dict(stages="instruct", shares="1", represent="itc"), "--represent has no effect with"),
        (dict(stages="instruct", shares="1", train_represent="*"), "--train-represent has no eff"),
        (dict(stages="instruct", shares="1", warmup_language=5), "--warmup-language has no effect"),
        (dict(stages="language", shares="1", warmup=5), "--warmup has no effect"),
        (dict(stages="represent,language,represent,align"), "names represent twice"),
    ],
)
def test_settings_that_do_not_go_with_the_stage_are_refused(settings, named, tmp_path):
    with pytest.raises(UserError, match=named):
        train(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
