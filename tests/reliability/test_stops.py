"""Nothing is lost, however a run ends: stop signals, kills, faults in the middle of a save."""

import errno
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from accidents import ENDLESS, ONE_THREAD, contents, state, train, wait_for_a_step
from helpers import CLIP_ARGS, VLM_ARGS, flags, start

import train_clip
import train_vlm
from tinyvlm.evaluation import plots
from tinyvlm.evaluation.statistics import proportion
from tinyvlm.training import files, loop
from tinyvlm.training.checkpoint import load_checkpoint
from tinyvlm.training.config import Stopped, UserError
from tinyvlm.training.interrupts import GracefulStop


@pytest.fixture(autouse=True)
def short_ends():
    """The end of a run, which has nothing to do with its checkpoint and its log, costs no time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (train_clip, train_vlm):
            patch.setattr(
                module, "evaluate_test", lambda *_: ({}, dict(ended=proportion([1], [0])))
            )
            patch.setattr(module, "draw_samples", lambda *_: None)
        patch.setattr(plots, "curves", lambda *_: None)
        yield


@pytest.fixture(params=["train_clip", "train_vlm"])
def task(request, clip_folder, vlm_folder):
    """A script, its settings, and the folder of its uninterrupted run."""
    if request.param == "train_clip":
        return train_clip, CLIP_ARGS, clip_folder
    return train_vlm, VLM_ARGS | dict(image_tokens=4, clip=str(clip_folder)), vlm_folder


# ---------------------------------------------------------------- the same bytes


def test_two_runs_are_equal_to_the_byte(task, tmp_path):
    module, settings, reference = task
    train(module, settings, tmp_path)
    assert state(tmp_path) == state(reference)


# For the VLM: inside a stage, between two, inside the last.
CUTS = [("train_clip", 3), ("train_vlm", 2), ("train_vlm", 3), ("train_vlm", 5)]


@pytest.mark.parametrize("task, cut", CUTS, indirect=["task"])
def test_a_stop_signal_saves_and_resume_ends_at_the_same_bytes(task, tmp_path, monkeypatch, cut):
    module, settings, _ = task
    settings, append_log = settings | dict(eval_every=100), files.append_log

    def append_and_stop(folder, step, **values):
        append_log(folder, step, **values)
        if step == cut - 1:  # before step `cut` ends
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(files, "append_log", append_and_stop)
    with pytest.raises(Stopped) as stop:
        train(module, settings, tmp_path / "stopped")
    text, code = stop.value.args
    assert code == 143 and text.startswith(f"stopped after step {cut}, which is saved")
    assert load_checkpoint(tmp_path / "stopped")["step"] == cut
    assert not (tmp_path / "stopped" / "metrics.json").exists()
    monkeypatch.undo()
    train(module, settings, tmp_path / "stopped", resume=True)
    train(module, settings, tmp_path / "whole")
    assert state(tmp_path / "stopped") == state(tmp_path / "whole")
    assert (tmp_path / "stopped" / "metrics.json").exists()


def test_stop_signals_do_again_what_they_did_before(clip_folder, tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="in the loop"), GracefulStop() as stop:
        assert signal.getsignal(signal.SIGTERM) == stop.catch
        raise ValueError("in the loop")
    train(train_clip, CLIP_ARGS | dict(steps=1), tmp_path)
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]


def test_a_second_ctrl_c_does_not_wait():
    with GracefulStop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.caught == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with GracefulStop() as stop:  # but SIGTERM often comes twice
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.caught == signal.SIGTERM


# ---------------------------------------------------------------- faults inside a save

FULL = OSError(errno.ENOSPC, "No space left on device")


def fail_second_save(monkeypatch, path, place):
    """The second save of `path` fails; returns a list that will hold the bytes before it."""
    saves, replace, fsync = [], os.replace, os.fsync

    def bad_fsync(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}") == f"{path}.tmp":
            saves.append(path.read_bytes() if path.exists() else None)
            if len(saves) == 2 and place == "while writing":
                raise FULL
        fsync(descriptor)

    def bad_replace(source, target):
        fails = Path(target) == path and len(saves) == 2
        if fails and place == "before replacing":
            raise FULL
        replace(source, target)
        if fails and place == "after replacing":
            raise FULL

    monkeypatch.setattr(os, "fsync", bad_fsync)
    monkeypatch.setattr(os, "replace", bad_replace)
    return saves


@pytest.mark.parametrize("place", ["while writing", "before replacing", "after replacing"])
def test_a_fault_inside_a_save_loses_nothing(task, tmp_path, monkeypatch, place):
    module, settings, reference = task
    saves = fail_second_save(monkeypatch, tmp_path / "last.pt", place)
    with pytest.raises(OSError, match="No space"):
        train(module, settings, tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.tmp")) and len(saves) == 2
    is_replaced = place == "after replacing"
    if not is_replaced:
        assert (tmp_path / "last.pt").read_bytes() == saves[1]  # the checkpoint before is whole
    assert load_checkpoint(tmp_path)["step"] == (4 if is_replaced else 2)
    train(module, settings, tmp_path, resume=True)
    assert state(tmp_path) == state(reference)


@pytest.mark.parametrize("place", ["while writing", "before replacing"])
def test_a_fault_while_a_file_is_written_leaves_the_file_as_it_was(tmp_path, monkeypatch, place):
    path = tmp_path / "file"
    saves = fail_second_save(monkeypatch, path, place)
    files.write_atomically(path, b"before")
    with pytest.raises(OSError, match="No space"):
        files.write_atomically(path, b"after")
    assert saves == [None, b"before"] and contents(tmp_path) == {"file": b"before"}


# ---------------------------------------------------------------- kills


def has_moved(log, before):
    return log.exists() and log.stat().st_size and log.stat().st_mtime_ns != before


def killed_again_and_again(script, settings, folder, kills, seed):
    """Start a script, kill it at a random moment after its first step, go on, so many times.

    Then let it finish. Returns the last logged step at each kill.
    """
    rng, steps, log = random.Random(seed), [], folder / "log.jsonl"
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # as in this process
    while True:
        resume = ["--resume"] if (folder / "last.pt").exists() else []
        before = log.stat().st_mtime_ns if log.exists() else 0
        process = start(script, "--out", folder, *flags(**settings), *resume, env=threads)
        if len(steps) == kills:
            _, stderr = process.communicate(timeout=300)
            assert process.returncode == 0, stderr[-500:]
            return steps
        while process.poll() is None and not has_moved(log, before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1.0))
        process.kill()
        _, stderr = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), stderr[-500:]
        steps.append(max([line["step"] for line in files.read_log(folder)], default=0))


def check_kills(task, tmp_path, kills, steps=120):
    module, settings, _ = task
    settings = settings | dict(steps=steps, eval_every=20)
    script, killed, whole = f"{module.__name__}.py", tmp_path / "killed", tmp_path / "whole"
    killed_at = killed_again_and_again(script, settings, killed, kills, seed=1)
    # Most of them in the middle of training.
    assert len(killed_at) == kills and sum(step < steps for step in killed_at) >= kills / 2
    train(module, settings, whole)
    assert state(killed) == state(whole) and not list(killed.glob("*.tmp"))


def test_a_kill_changes_nothing(task, tmp_path):
    check_kills(task, tmp_path, 1, steps=80)


@pytest.mark.slow
def test_twenty_kills_change_nothing(task, tmp_path):
    check_kills(task, tmp_path, 20)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_to_the_script(tmp_path, number, code):
    words = flags(**CLIP_ARGS | ENDLESS)
    process = start("train_clip.py", "--out", tmp_path, *words, env=ONE_THREAD)
    wait_for_a_step(process, tmp_path)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in stderr
    assert stderr.splitlines()[-1].startswith("error: stopped after step")
    assert load_checkpoint(tmp_path)["step"] > 0


# ---------------------------------------------------------------- a folder that holds a run


def test_a_run_is_not_replaced_unless_that_is_asked_for(task):
    module, settings, reference = task
    before = contents(reference)
    with pytest.raises(UserError, match="holds this very run; .*--resume.*--overwrite"):
        train(module, settings, reference)
    with pytest.raises(UserError, match=r"other settings \(lr .* then, 0.5 now\)"):
        train(module, settings, reference, lr=0.5)
    assert contents(reference) == before


def test_a_run_that_overwrites_leaves_nothing_of_the_older_one(task, tmp_path):
    module, settings, reference = task
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    with open(tmp_path / "log.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 7, "loss": 1.0}\n')
    files.write_json(tmp_path / "config.json", dict(seed=5))
    train(module, settings, tmp_path, overwrite=True)
    assert state(tmp_path) == state(reference)
    config = files.read_json(tmp_path / "config.json")
    assert config["seed"] == 0 and config["steps"] == 6
    assert files.read_json(tmp_path / "metrics.json")["ended"] == 1


def test_a_run_that_cannot_even_begin_leaves_the_folder_as_it_was(task, monkeypatch):
    module, settings, reference = task
    before = contents(reference)

    def no_room(*arguments):
        raise MemoryError("no room")

    monkeypatch.setattr(module, "backward_and_step", no_room)
    with pytest.raises(MemoryError):
        train(module, settings, reference, overwrite=True)
    assert contents(reference) == before


def test_a_run_that_cannot_begin_leaves_no_empty_folder(tmp_path):
    out = tmp_path / "new"
    with pytest.raises(UserError, match="divisible"):
        train(train_clip, CLIP_ARGS, out, text_dim=20, text_heads=3)
    assert not out.exists()


def test_an_overwriting_run_that_is_killed_leaves_no_mixture(task, tmp_path, monkeypatch):
    module, settings, reference = task
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train(module, settings, tmp_path, seed=5, overwrite=True)
    # The older run is gone, so that --resume cannot go on from it under the newer settings.
    assert not (tmp_path / "last.pt").exists() and not (tmp_path / "metrics.json").exists()
    assert files.read_json(tmp_path / "config.json")["seed"] == 5
    assert [line["step"] for line in files.read_log(tmp_path) if "loss" in line] == [1, 2]


def test_resume_of_a_finished_run_has_nothing_to_do(task, capsys):
    module, settings, reference = task
    before = contents(reference)
    numbers = train(module, settings, reference, resume=True)
    assert capsys.readouterr().out.count("nothing to do") == 1
    assert contents(reference) == before and numbers == files.read_json(reference / "metrics.json")


def test_a_run_that_was_stopped_after_its_last_step_still_writes_its_metrics(
    task, tmp_path, monkeypatch
):
    module, settings, reference = task

    def failing(*arguments):
        raise MemoryError("no room")

    monkeypatch.setattr(module, "evaluate_test", failing)
    with pytest.raises(MemoryError):
        train(module, settings, tmp_path)
    assert not (tmp_path / "metrics.json").exists()
    monkeypatch.undo()
    train(module, settings, tmp_path, resume=True)
    assert files.read_json(tmp_path / "metrics.json")["ended"] == 1
    assert state(tmp_path) == state(reference)


# ---------------------------------------------------------------- the log


def test_the_log_is_cut_back_to_the_checkpoint_and_half_a_line_is_left_out(
    task, tmp_path, monkeypatch
):
    module, settings, reference = task
    fail_second_save(monkeypatch, tmp_path / "last.pt", "while writing")
    with pytest.raises(OSError, match="No space"):
        train(module, settings, tmp_path)
    monkeypatch.undo()
    steps = [line["step"] for line in files.read_log(tmp_path)]
    assert load_checkpoint(tmp_path)["step"] == 2 and max(steps) == 4
    with open(tmp_path / "log.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 5, "lo')
    assert [line["step"] for line in files.read_log(tmp_path)] == steps
    train(module, settings, tmp_path, resume=True)
    assert state(tmp_path) == state(reference)
