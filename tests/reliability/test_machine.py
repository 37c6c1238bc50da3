"""A machine that fails: folders, disks, memory, numbers that are not finite, a closed stdout."""

import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accidents import ENDLESS, ONE_THREAD, train, wait_for_a_step
from helpers import CLIP_ARGS, ROOT, command, flags, in_process, start

import train_clip
from tinyvlm.training import files, optim
from tinyvlm.training.checkpoint import load_checkpoint
from tinyvlm.training.config import UserError, describe_failure


def train_small_clip(out, **more):
    return train(train_clip, CLIP_ARGS, out, **more)


def shell(script):
    """Run lines of a shell where this user may mount; skips the test where no one may."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no mounts")
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | ONE_THREAD,
    )


def training_words(out, **more):
    words = [sys.executable, ROOT / "train_clip.py", "--out", out, *flags(**CLIP_ARGS | more)]
    return shlex.join(map(str, words))


# ---------------------------------------------------------------- folders


def test_a_folder_has_one_run_at_a_time(tmp_path):
    words = flags(**CLIP_ARGS | ENDLESS)
    first = start("train_clip.py", "--out", tmp_path, *words, env=ONE_THREAD)
    wait_for_a_step(first, tmp_path)
    first.send_signal(signal.SIGSTOP)  # it keeps its lock and leaves the cores to others
    try:
        log = (tmp_path / "log.jsonl").read_bytes()
        for more in ([], ["--overwrite"]):
            code, _, stderr = in_process(
                "train_clip.py", "--out", tmp_path, *flags(**CLIP_ARGS), *more
            )
            assert code == 2 and "in use" in stderr and stderr.count("\n") == 1
        assert (tmp_path / "log.jsonl").read_bytes() == log
    finally:
        first.kill()
        first.communicate()
    train_small_clip(tmp_path, steps=1, overwrite=True)  # the lock died with its process
    assert load_checkpoint(tmp_path)["step"] == 1


def is_free(folder):
    """Could a run in another process have this folder?"""
    words = "import fcntl, os, sys; folder = os.open(sys.argv[1], os.O_RDONLY)"
    words += "; fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return command("-c", words, folder)[0] == 0


def test_a_run_that_failed_lets_go_of_its_folder(tmp_path, monkeypatch):
    train_small_clip(tmp_path, steps=1)
    was_free = []

    def no_room(*arguments):
        was_free.append(is_free(tmp_path))
        raise MemoryError("no room")

    monkeypatch.setattr(train_clip, "backward_and_step", no_room)
    with pytest.raises(MemoryError) as error:
        train_small_clip(tmp_path, overwrite=True)
    assert was_free == [False]
    assert is_free(tmp_path) and error.value  # though the error is held, as a notebook holds it


def test_locks_are_let_go_however_it_ends(tmp_path):
    with pytest.raises(ValueError, match="inside"), files.locked(tmp_path):
        with pytest.raises(UserError, match="in use"), files.locked(tmp_path):
            pass
        raise ValueError("inside")
    assert not tmp_path.exists()  # it was empty
    tmp_path.mkdir()
    (tmp_path / "file").touch()
    with files.locked(tmp_path):
        pass
    with files.locked(tmp_path):
        pass
    assert tmp_path.exists()


@pytest.mark.parametrize("out", ["/proc/nothing/here", ROOT / "README.md", "x" * 300])
def test_a_folder_that_cannot_be_made(out):
    code, _, stderr = in_process("train_clip.py", "--out", out, *flags(**CLIP_ARGS))
    assert code == 2 and stderr.count("\n") == 1 and "--out" in stderr


def test_a_read_only_folder(tmp_path):
    done = shell(f"mount -t tmpfs -o ro none {tmp_path} && {training_words(tmp_path)}")
    assert done.returncode == 2 and "read-only" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_turns_read_only_is_named(tmp_path, monkeypatch):
    def read_only(*arguments):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(files, "write_atomically", read_only)
    with pytest.raises(UserError, match="Read-only file system.*name another --out"):
        train_small_clip(tmp_path)


def test_a_full_disk_leaves_the_file_before(clip_folder, tmp_path):
    size = (clip_folder / "last.pt").stat().st_size
    kib = int(1.6 * size) // 1024 + 40  # one checkpoint and small files, but not two checkpoints
    out = tmp_path / "out"
    out.mkdir()
    done = shell(
        f"mount -t tmpfs -o size={kib}k none {out} && {training_words(out)}; echo code $?;"
        f"ls {out}; cp {out}/last.pt {tmp_path}"
    )
    assert "code 1" in done.stdout and "No space left" in done.stderr, done.stderr[-500:]
    assert "Traceback" not in done.stderr and ".tmp" not in done.stdout
    assert load_checkpoint(tmp_path)["step"] == 2


# ---------------------------------------------------------------- memory and numbers


def test_no_memory_is_said_in_one_line(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30,) * 2)

    words = flags(**CLIP_ARGS | dict(batch_size=2**18))
    code, _, stderr = command("train_clip.py", "--out", tmp_path, *words, preexec_fn=limit)
    assert code == 1 and "Traceback" not in stderr, stderr[-500:]
    assert "try a smaller --batch-size" in stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 9 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
def test_every_kind_of_no_memory_gets_the_same_advice(error):
    text = describe_failure(error)
    assert "try a smaller --batch-size" in text and "\n" not in text
    assert "--batch-size" not in describe_failure(RuntimeError("shapes do not match"))


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(tmp_path, monkeypatch):
    real, steps = train_clip.LOSSES["masked_clip"], []

    def breaks(*arguments):
        steps.append(1)
        return real(*arguments) * (float("nan") if len(steps) == 6 else 1.0)

    monkeypatch.setattr(train_clip, "validation_loss", lambda *_: {})  # counts no steps
    monkeypatch.setitem(train_clip.LOSSES, "masked_clip", breaks)
    with pytest.raises(RuntimeError, match="not finite at step 6; nothing more was saved"):
        train_small_clip(tmp_path)
    assert load_checkpoint(tmp_path)["step"] == 4
    assert all(w.isfinite().all() for w in load_checkpoint(tmp_path)["model"].values())
    assert max(line["step"] for line in files.read_log(tmp_path)) == 5
    assert not (tmp_path / "metrics.json").exists()


def test_a_gradient_that_is_not_finite_changes_no_weight():
    model = torch.nn.Linear(2, 1)
    before = {name: w.clone() for name, w in model.state_dict().items()}
    optimizers = optim.configure_optimizers(model, 0.1, 0.1, 0.0)
    loss = (model.weight * 0).sum().sqrt() + model.bias.sum()  # finite; its derivative is not
    with pytest.raises(RuntimeError, match="not finite at step 8"):
        optim.backward_and_step(optimizers, model, loss, 7)
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())


# ---------------------------------------------------------------- outputs


def test_a_closed_stdout_is_no_traceback(clip_folder, tmp_path):
    page = tmp_path / "page.png"
    words = ["--checkpoint", clip_folder, "--items", "64", "--out", page]
    process = start("sample.py", *words, env=ONE_THREAD)
    process.stdout.close()
    stderr = process.stderr.read()
    assert process.wait(60) == 1 and "Traceback" not in stderr


def test_a_failure_is_one_line_and_a_traceback_only_if_asked_for(tmp_path, monkeypatch):
    def failing(*arguments):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(train_clip, "backward_and_step", failing)
    words = ["train_clip.py", "--out", tmp_path / "x", *flags(**CLIP_ARGS)]
    code, _, stderr = in_process(*words)
    [line] = [line for line in stderr.splitlines() if line.startswith("error")]
    assert code == 1 and "Traceback" not in stderr
    assert line.startswith("error: RuntimeError: first line second line; TINYVLM_DEBUG=1")
    monkeypatch.setenv("TINYVLM_DEBUG", "1")
    code, _, stderr = in_process(*words)
    assert code == 1 and "Traceback" in stderr and stderr.splitlines()[-1] == line


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path):
    words = flags(**CLIP_ARGS | dict(steps=2000, eval_every=500))
    process, sizes = start("train_clip.py", "--out", tmp_path, *words), {}
    while process.poll() is None:
        lines = files.read_log(tmp_path)
        status = Path(f"/proc/{process.pid}/status")
        text = status.read_text() if process.poll() is None else ""
        if lines and "VmRSS" in text:
            sizes[lines[-1]["step"]] = int(text.split("VmRSS:")[1].split()[0]) / 1024
        time.sleep(0.5)
    early, late = (
        max(size for step, size in sizes.items() if low <= step <= high)
        for low, high in ((600, 900), (1700, 1999))
    )
    stderr = process.communicate()[1]
    assert process.returncode == 0 and late < early + 20, sizes  # MiB
    assert len(stderr) < 20_000  # where nobody watches, the bar does not write a line a step
