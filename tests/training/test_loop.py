"""What stands around a training loop: the folder of a run, resume, locks, validations, imports."""

import contextlib
import io
import json
import math
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from helpers import (
    CLIP_ARGS,
    RANDOM_ENCODER,
    VLM_ARGS,
    command,
    fail_in_step,
    flags,
    in_process,
    same_weights,
    skip_test_phase,
    weights,
)

import train_clip
import train_vlm
from tinyvlm.layers import MLP
from tinyvlm.training import checkpoint, files
from tinyvlm.training.ahead import MadeAhead
from tinyvlm.training.config import Stopped, UserError
from tinyvlm.training.interrupts import GracefulStop
from tinyvlm.training.loop import Run, step_seed
from tinyvlm.training.settings import with_seed

SETTINGS = {
    train_clip: CLIP_ARGS | dict(steps=3, eval_every=99),
    train_vlm: VLM_ARGS
    | RANDOM_ENCODER
    | dict(steps=4, eval_every=99, projector="mlp", shares="0.5,0.25,0.25"),
}
REAL_VALIDATE = {script: script.validate for script in SETTINGS}
scripts = pytest.mark.parametrize("script", SETTINGS, ids=lambda script: script.__name__)


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    skip_test_phase(monkeypatch)


def train(script, out, **settings):
    return script.main(script.Config(out=str(out), **SETTINGS[script] | settings))


def stop_in_step(monkeypatch, script, number):
    """A SIGTERM comes in the middle of so many a step of all that this script does."""
    steps, backward_and_step = [], script.backward_and_step

    def and_stop(*arguments):
        backward_and_step(*arguments)
        steps.append(1)
        if len(steps) == number:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(script, "backward_and_step", and_stop)


def rewrite(folder, change):
    """The checkpoint of a folder, changed and sealed anew."""
    content, buffer = checkpoint.load_checkpoint(folder), io.BytesIO()
    torch.save(change(content), buffer)
    (folder / "last.pt").write_bytes(checkpoint.sealed(buffer.getvalue()))


def log(folder, name):
    """{step: value} of one quantity."""
    return {line["step"]: line[name] for line in files.read_log(folder) if name in line}


# ---------------------------------------------------------------- a folder that holds a run


@scripts
def test_a_finished_run_refuses_other_settings_and_says_which(script, tmp_path):
    train(script, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError) as refusal:
        train(script, tmp_path, lr=0.5, batch_size=2)
    said = str(refusal.value)
    assert str(tmp_path) in said and "--overwrite" in said and "--resume" in said
    assert "batch_size 8 then, 2 now" in said or "batch_size 4 then, 2 now" in said
    assert f"lr {script.Config().lr} then, 0.5 now" in said and "steps" not in said
    with pytest.raises(UserError, match="holds this very run; .* --overwrite"):
        train(script, tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_metrics_alone_are_protected_too(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="--overwrite"):
        train(train_clip, tmp_path)
    assert (tmp_path / "metrics.json").read_text() == "{}"


def test_a_folder_without_a_run_may_be_used(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')  # of a run that has saved nothing yet
    train(train_clip, tmp_path, steps=1)
    assert (tmp_path / "notes.txt").read_text() == "mine" and (tmp_path / "last.pt").exists()


@pytest.mark.parametrize("name", ["report.md", "language.pt", "samples.png", "report-mine.json"])
def test_what_a_run_would_take_away_is_kept(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"would take away .{name}.; .*--overwrite"):
        train(train_clip, tmp_path, steps=1)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_an_empty_name_is_no_folder():
    with pytest.raises(UserError, match="empty name"):
        train(train_clip, "", steps=1)


@scripts
@pytest.mark.parametrize("what", ["curves", "draw_samples"])
def test_a_run_is_finished_when_its_pictures_are_drawn(script, what, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(script.plots if what == "curves" else script, what, full)
        with pytest.raises(OSError):
            train(script, tmp_path)
    assert not (tmp_path / "metrics.json").exists()
    train(script, tmp_path, resume=True)
    assert (tmp_path / "metrics.json").exists()


@scripts
def test_overwrite_replaces_the_run(script, tmp_path):
    train(script, tmp_path / "one")
    train(script, tmp_path / "one", seed=1, overwrite=True)
    train(script, tmp_path / "two", seed=1)
    assert same_weights(tmp_path / "one", tmp_path / "two")
    assert files.read_log(tmp_path / "one") == files.read_log(tmp_path / "two")
    assert json.loads((tmp_path / "one" / "config.json").read_text())["seed"] == 1
    one, two = ((tmp_path / name / "last.pt").read_bytes() for name in ("one", "two"))
    assert one == two  # overwriting leaves no trace


def test_overwriting_that_cannot_begin_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    train(train_clip, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    fail_in_step(monkeypatch, train_clip, 1, MemoryError("no room"))
    with pytest.raises(MemoryError):
        train(train_clip, tmp_path, overwrite=True, seed=1)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_overwriting_that_has_begun_leaves_nothing_of_the_older_run(tmp_path, monkeypatch):
    train(train_clip, tmp_path, eval_every=1)
    names = "samples.png", "sample.png", "curves.png", "report.json", "report.md"
    for name in (*names, "language.pt", "report-drop-random.png", "report-split-more.json"):
        (tmp_path / name).write_text("of the older run")
    fail_in_step(monkeypatch, train_clip, 2, RuntimeError("wrong"))
    with pytest.raises(RuntimeError):
        train(train_clip, tmp_path, overwrite=True, seed=1)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "log.jsonl"}
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1
    assert [line["step"] for line in files.read_log(tmp_path)] == [1]


def test_a_config_that_makes_no_sense_is_refused_from_python_too(tmp_path):
    for wrong in (dict(steps=0), dict(loss="typo"), dict(lr=float("nan"))):
        with pytest.raises(UserError, match="--"):
            train(train_clip, tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- resume


@scripts
@pytest.mark.parametrize("cut", [1, 2])
def test_a_run_that_was_stopped_goes_on_to_the_same_end(script, cut, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_in_step(patch, script, cut)
        with pytest.raises(Stopped, match=f"stopped after step {cut}, which is saved") as stop:
            train(script, tmp_path / "cut")
    assert stop.value.args[1] == 143
    assert checkpoint.load_checkpoint(tmp_path / "cut")["step"] == cut
    numbers = train(script, tmp_path / "cut", resume=True)
    train(script, tmp_path / "whole")
    one, two = (tmp_path / name / "last.pt" for name in ("cut", "whole"))
    assert one.read_bytes() == two.read_bytes() and numbers["score"] == 0.5
    assert files.read_log(tmp_path / "cut") == files.read_log(tmp_path / "whole")


def test_resume_of_a_finished_run_has_nothing_to_do(tmp_path, capsys):
    numbers = train(train_clip, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert train(train_clip, tmp_path, resume=True) == numbers
    assert "nothing to do" in capsys.readouterr().out
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_run_that_lost_only_its_end_tests_again(tmp_path):
    numbers = train(train_clip, tmp_path)
    (tmp_path / "metrics.json").unlink()
    last = (tmp_path / "last.pt").read_bytes()
    assert train(train_clip, tmp_path, resume=True)["score"] == numbers["score"]
    assert (tmp_path / "metrics.json").exists() and (tmp_path / "last.pt").read_bytes() == last


def test_resume_and_overwrite_contradict_each_other(tmp_path):
    train(train_clip, tmp_path)
    with pytest.raises(UserError, match="give one of them"):
        train(train_clip, tmp_path, resume=True, overwrite=True)


def test_a_run_that_lost_its_times_goes_on_with_a_note(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_in_step(patch, train_clip, 2)
        with pytest.raises(Stopped):
            train(train_clip, tmp_path)
    (tmp_path / "times.json").unlink()
    train(train_clip, tmp_path, resume=True)
    assert "times.json is missing" in capsys.readouterr().out


def test_a_file_system_without_locks_is_noted(tmp_path, monkeypatch, capsys):
    def no_locks(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    train(train_clip, tmp_path)
    said = capsys.readouterr().out
    assert f"note: {tmp_path} cannot be locked (Operation not supported)" in said
    assert checkpoint.load_checkpoint(tmp_path)["step"] == 3


def test_resume_with_other_settings_lists_them(tmp_path):
    train(train_clip, tmp_path)
    with pytest.raises(UserError, match=r"\(lr 0.002 then, 0.5 now\)"):
        train(train_clip, tmp_path, resume=True, lr=0.5)
    with pytest.raises(UserError, match="there is no checkpoint"):
        train(train_clip, tmp_path / "empty", resume=True)
    assert not (tmp_path / "empty").exists()  # nor is a folder left behind


def test_resume_with_another_spelling_of_clip_does_not_read_it(tmp_path, monkeypatch):
    train(train_clip, tmp_path / "clip")
    settings = dict(projector="mlp", clip=str(tmp_path / "clip"))

    def go(out, **more):
        config = train_vlm.Config(out=str(tmp_path / out), **VLM_ARGS | settings | more)
        return train_vlm.main(config)

    with monkeypatch.context() as patch:
        stop_in_step(patch, train_vlm, 4)
        with pytest.raises(Stopped):
            go("cut")
    go("whole")
    (tmp_path / "clip" / "last.pt").write_bytes(b"nothing any more")
    with pytest.raises(UserError, match="damaged"):
        go("new")
    for spelling in (f"{tmp_path}/clip/last.pt", f"{tmp_path}/nowhere"):
        kept = (tmp_path / "cut" / "last.pt").read_bytes()
        go("cut", resume=True, clip=spelling)
        assert same_weights(tmp_path / "cut", tmp_path / "whole")
        (tmp_path / "cut" / "last.pt").write_bytes(kept)


# ---------------------------------------------------------------- settings that come and go


@scripts
def test_a_setting_that_did_not_exist_then_takes_its_default(script, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_in_step(patch, script, 2)
        with pytest.raises(Stopped):
            train(script, tmp_path)

    def older(content):
        kept = {name: v for name, v in content["config"].items() if name != "weight_decay"}
        return content | dict(config=kept)

    rewrite(tmp_path, older)
    saved = checkpoint.load_checkpoint(tmp_path)
    capsys.readouterr()
    _, config, _ = script.load_model(saved, "the/path", "cpu")
    default = script.Config().weight_decay
    assert config.weight_decay == default
    assert capsys.readouterr().out.splitlines() == [
        f"note: the/path is older than the setting weight_decay, taken as {default}"
    ]
    with pytest.raises(UserError, match=f"weight_decay {default} then, 0.5 now"):
        train(script, tmp_path, resume=True, weight_decay=0.5)
    train(script, tmp_path, resume=True)


@scripts
def test_a_setting_that_is_unknown_now_is_an_error(script, tmp_path):
    train(script, tmp_path)
    rewrite(tmp_path, lambda content: content | dict(config=content["config"] | dict(new=1)))
    saved = checkpoint.load_checkpoint(tmp_path)
    with pytest.raises(UserError, match="another version .setting 'new', 1 in all"):
        script.load_model(saved, "the/path", "cpu")
    with pytest.raises(UserError, match="another version .setting 'new', 1 in all"):
        train(script, tmp_path, resume=True)
    (tmp_path / "config.json").write_text('{"new": 1}')
    with pytest.raises(UserError, match="holds another run; .*--overwrite"):
        train(script, tmp_path)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_a_clip_checkpoint_with_prefixed_names_is_refused(tmp_path, prefix):
    """Else the encoder would start at random, and nobody would know."""
    train(train_clip, tmp_path / "clip")

    def prefixed(content):
        return content | dict(model={prefix + n: w for n, w in content["model"].items()})

    rewrite(tmp_path / "clip", prefixed)
    settings = VLM_ARGS | dict(clip=str(tmp_path / "clip"), out=str(tmp_path / "vlm"))
    with pytest.raises(UserError, match=f"{tmp_path}/clip does not fit this model: .* is missing"):
        train_vlm.main(train_vlm.Config(**settings))
    saved = checkpoint.load_checkpoint(tmp_path / "clip")
    with pytest.raises(UserError, match="does not fit this model: .* is (extra|missing)"):
        train_clip.load_model(saved, "x", "cpu")
    (tmp_path / "clip" / "metrics.json").unlink()  # a finished run would not be read at all
    with pytest.raises(UserError, match="does not fit this model"):
        train(train_clip, tmp_path / "clip", resume=True)


# ---------------------------------------------------------------- locks, files, signals


@scripts
def test_the_lock_is_free_after_an_error_inside_main(script, tmp_path, monkeypatch):
    error = RuntimeError("something went wrong")
    for number in (1, 2):  # before anything is written, and after
        with monkeypatch.context() as patch:
            fail_in_step(patch, script, number, error)
            with pytest.raises(RuntimeError) as kept:  # its traceback holds main's frames
                train(script, tmp_path / "run", eval_every=1, overwrite=True)
        if number == 1:
            assert not (tmp_path / "run").exists()  # an empty folder is taken away again
        else:
            with files.locked(tmp_path / "run"):
                pass
        assert kept.value is error
    train(script, tmp_path / "run", overwrite=True)


def test_the_lock_is_free_after_an_error_while_the_model_is_built(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(train_clip, "build_model", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError) as kept:
            train(train_clip, tmp_path)
    code, _, stderr = command(
        "-c",
        "import sys; from pathlib import Path; from tinyvlm.training.files import take_lock; "
        "take_lock(Path(sys.argv[1]))",
        tmp_path,
    )
    assert code == 0, stderr
    assert kept.value


def test_a_folder_has_one_run_at_a_time(tmp_path, monkeypatch):
    refused, backward_and_step = [], train_clip.backward_and_step

    def second_run(*arguments):
        backward_and_step(*arguments)
        with pytest.raises(UserError, match="in use by another run"):
            train(train_clip, tmp_path, overwrite=True)
        refused.append(True)

    monkeypatch.setattr(train_clip, "backward_and_step", second_run)
    train(train_clip, tmp_path)
    assert refused == [True] * 3


def test_a_system_that_opens_no_folders_saves_all_the_same(tmp_path, monkeypatch):
    """As Windows, where there are no locks either."""
    real, refused = os.open, []

    def no_folders(path, *arguments, **options):
        if os.path.isdir(path):
            refused.append(path)
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", no_folders)
    monkeypatch.setattr(files, "fcntl", None)
    train(train_clip, tmp_path)
    assert refused and checkpoint.load_checkpoint(tmp_path)["step"] == 3
    assert not list(tmp_path.glob("*.tmp"))


def test_a_file_system_that_syncs_no_folders_saves_all_the_same(tmp_path, monkeypatch):
    real, refused = os.fsync, []

    def no_folders(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            refused.append(descriptor)
            raise OSError(22, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", no_folders)
    files.write_atomically(tmp_path / "a.txt", b"all of it")
    assert refused and (tmp_path / "a.txt").read_bytes() == b"all of it"


@scripts
def test_signals_do_afterwards_what_they_did_before(script, tmp_path, monkeypatch):
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    train(script, tmp_path)
    assert [signal.getsignal(number) for number in numbers] == before
    fail_in_step(monkeypatch, script, 2, RuntimeError("wrong"))
    with pytest.raises(RuntimeError):
        train(script, tmp_path, overwrite=True)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_second_interrupt_does_not_wait():
    with GracefulStop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.caught == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with GracefulStop() as stop:  # SIGTERM often comes twice
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.caught == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):  # but whoever is in a hurry says so
            os.kill(os.getpid(), signal.SIGINT)


def test_a_half_written_line_of_the_log_is_left_out(tmp_path):
    files.append_log(tmp_path, 1, loss=0.5)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    assert files.read_log(tmp_path) == [dict(step=1, loss=0.5)]


def test_a_run_lets_go_even_if_it_never_steps(tmp_path):
    config = train_clip.Config(out=str(tmp_path / "run"), **CLIP_ARGS)
    with Run(config, "clip") as run, contextlib.suppress(UserError):
        files.take_lock(run.folder)
        raise AssertionError("the lock was not held")
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- validations and randomness


@scripts
def test_validations_do_not_change_the_training_and_their_loss_is_in_the_log(
    script, tmp_path, monkeypatch
):
    monkeypatch.setattr(script, "validate", REAL_VALIDATE[script])
    train(script, tmp_path / "often", eval_every=1)
    train(script, tmp_path / "once")
    assert same_weights(tmp_path / "often", tmp_path / "once")
    assert log(tmp_path / "often", "loss") == log(tmp_path / "once", "loss")
    often, once = (log(tmp_path / name, "val_loss") for name in ("often", "once"))
    steps = SETTINGS[script]["steps"]
    assert list(often) == list(range(1, steps + 1)) and list(once) == [steps]
    assert once[steps] == often[steps] and all(map(math.isfinite, often.values()))
    assert len(set(often.values())) == steps  # each of another model
    scores = [line for line in files.read_log(tmp_path / "often") if "val_loss" in line][-1]
    assert len(scores) > 2  # and scores beside it


modes = set()  # (training, with gradients) of every call of an MLP with dropout


def dropped(self, x):
    modes.add((self.training, torch.is_grad_enabled()))
    return F.dropout(self.down(F.gelu(self.up(x))), 0.3, self.training)


@scripts
def test_dropout_that_a_reader_adds_gives_equal_runs_and_an_exact_resume(
    script, tmp_path, monkeypatch
):
    train(script, tmp_path / "without")
    monkeypatch.setattr(MLP, "forward", dropped)
    modes.clear()
    train(script, tmp_path / "one", eval_every=1)
    torch.rand(7)  # whatever else the process draws
    train(script, tmp_path / "two")
    assert modes == {(True, True), (False, False)}  # steps, and validations
    assert same_weights(tmp_path / "one", tmp_path / "two")
    assert not same_weights(tmp_path / "one", tmp_path / "without")
    assert log(tmp_path / "one", "loss") == log(tmp_path / "two", "loss")
    with monkeypatch.context() as patch:
        stop_in_step(patch, script, 2)
        with pytest.raises(Stopped):
            train(script, tmp_path / "cut")
    train(script, tmp_path / "cut", resume=True)
    assert same_weights(tmp_path / "cut", tmp_path / "one")


def test_each_step_and_process_has_a_seed_of_its_own():
    seeds = {
        step_seed(*key) for key in ((s, k, r) for s in (0, 1) for k in range(50) for r in (0, 1))
    }
    assert len(seeds) == 200 and step_seed(3, 4, 5) == step_seed(3, 4, 5)


def test_weights_depend_on_their_seed_alone_and_draw_from_no_other_generator():
    torch.manual_seed(5)
    first, after = with_seed(lambda: torch.rand(3), 1), torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))
    assert torch.equal(first, with_seed(lambda: torch.rand(3), 1))
    assert not torch.equal(first, with_seed(lambda: torch.rand(3), 2))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_save(tmp_path, monkeypatch):
    real, steps = train_clip.LOSSES["masked_clip"], []

    def breaks(*arguments):
        steps.append(torch.is_grad_enabled())
        return real(*arguments) * (float("nan") if sum(steps) == 2 else 1.0)

    monkeypatch.setitem(train_clip.LOSSES, "masked_clip", breaks)
    with pytest.raises(RuntimeError, match="not finite at step 2"):
        train(train_clip, tmp_path, eval_every=1)
    assert checkpoint.load_checkpoint(tmp_path)["step"] == 1
    assert all(w.isfinite().all() for w in weights(tmp_path).values())


# ---------------------------------------------------------------- scripts


def test_a_run_by_flags_equals_the_run_from_python(tmp_path):
    train(train_clip, tmp_path / "python")
    words = flags(out=tmp_path / "flags", **SETTINGS[train_clip])
    code, stdout, stderr = in_process("train_clip.py", *words)
    assert code == 0 and "samples.png" in stdout, stderr
    assert same_weights(tmp_path / "python", tmp_path / "flags")


@pytest.mark.parametrize("script", SETTINGS, ids=lambda script: script.__name__)
def test_a_compiled_model_learns_the_same(script, monkeypatch, tmp_path):
    """With the compiler that changes no bits; the one that makes it fast takes minutes."""
    compiled = []

    def compile_model(model):
        compiled.append(model)
        return torch_compile(model, backend="eager")

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile_model)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    skip_test_phase(monkeypatch)
    plain, fast = (SETTINGS[script] | dict(out=str(tmp_path / name)) for name in ("plain", "fast"))
    script.main(script.Config(**plain))
    assert not compiled
    script.main(script.Config(**fast, compile=True))
    assert compiled and same_weights(tmp_path / "plain", tmp_path / "fast")


@pytest.mark.parametrize("script", SETTINGS, ids=lambda script: script.__name__)
def test_batches_made_ahead_change_no_bit(script, monkeypatch, tmp_path):
    """As on a GPU."""
    skip_test_phase(monkeypatch)
    plain, ahead = (
        SETTINGS[script] | dict(out=str(tmp_path / name)) for name in ("plain", "ahead")
    )
    script.main(script.Config(**plain))
    monkeypatch.setattr(
        script, "MadeAhead", lambda make, end, device: MadeAhead(make, end, torch.device("cuda"))
    )
    script.main(script.Config(**ahead))
    assert same_weights(tmp_path / "plain", tmp_path / "ahead")


def test_compiling_on_a_cpu_takes_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda name: None)
    config = train_clip.Config(**SETTINGS[train_clip], out=str(tmp_path), compile=True)
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler"):
        train_clip.main(config)


IMPORTS = """
import sys, signal, warnings
import torch
def state():
    return (
        torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_default_dtype(),
        torch.is_grad_enabled(), torch.get_float32_matmul_precision(), torch.initial_seed(),
        torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
        list(warnings.filters), sys.getrecursionlimit(), sys.excepthook,
        [signal.getsignal(number) for number in signal.valid_signals()],
    )
import numpy, einops, tqdm  # what these do is theirs
before = state()
import train_clip, train_vlm, sample, evaluate
assert state() == before, (before, state())
drawn = [name for name in sys.modules if name.split(".")[0] in ("matplotlib", "PIL")]
assert not drawn, drawn
train_clip.plots.curves([dict(step=1, loss=0.5)], sys.argv[1])
assert "matplotlib.figure" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""


def test_importing_the_scripts_changes_no_settings_and_imports_no_matplotlib(tmp_path):
    code, _, stderr = command("-c", IMPORTS, tmp_path / "curves.png")
    assert code == 0, stderr
