"""Nothing lost, nothing silently wrong: stops, kills, faults inside a save, damaged checkpoints, machines that fail, several processes."""

import errno
import hashlib
import io
import os
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import sample
import train_clip
import train_vlm
from conftest import CLIP_ARGS, ROOT, VLM_ARGS, command, flags, in_process, start
from tinyvlm.training import checkpoint, distributed, optim
from tinyvlm.training.config import Stopped, UserError

SCRIPTS = {
    "train_clip": (train_clip, CLIP_ARGS),
    "train_vlm": (train_vlm, VLM_ARGS | dict(num_queries=4)),
}


@pytest.fixture(params=SCRIPTS)
def task(request, clip_folder, vlm_folder):
    """(module, settings, the folder of its uninterrupted run)."""
    module, settings = SCRIPTS[request.param]
    return (
        (module, settings, clip_folder)
        if module is train_clip
        else (module, settings | dict(clip=str(clip_folder)), vlm_folder)
    )


def state(folder):
    """What must be equal after every kind of accident."""
    return {
        name: hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest()
        for name in ("last.pt", "best.pt", "log.jsonl")
    }


# ---------------------------------------------------------------- stops, kills, faults


def test_two_runs_are_equal_to_the_byte(task, tmp_path):
    module, settings, reference = task
    module.main(module.Config(out=str(tmp_path), **settings))
    assert state(tmp_path) == state(reference)


@pytest.mark.parametrize(
    "task, cut",
    [("train_clip", 3), ("train_vlm", 2), ("train_vlm", 3), ("train_vlm", 5)],
    indirect=["task"],
)
def test_a_stop_signal_saves_and_resume_ends_at_the_same_bytes(task, tmp_path, monkeypatch, cut):
    """For the VLM: inside a stage, between two, inside the last."""
    module, settings, reference = task
    append, config = (
        checkpoint.append_log,
        module.Config(out=str(tmp_path), **settings | dict(eval_every=100)),
    )

    def append_and_stop(folder, step, **values):
        append(folder, step, **values)
        if step == cut - 1:  # in the middle of step `cut`, as it were
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoint, "append_log", append_and_stop)
    with pytest.raises(Stopped) as stop:
        module.main(config)
    assert stop.value.args[1] == 143 and checkpoint.load_checkpoint(tmp_path)["step"] == cut
    monkeypatch.undo()
    other = module.Config(out=str(tmp_path / "whole"), **settings | dict(eval_every=100))
    module.main(module.Config(**vars(config) | dict(resume=True)))
    module.main(other)
    assert state(tmp_path) == state(tmp_path / "whole")


@pytest.mark.parametrize("place", ["while writing", "before replacing", "after replacing"])
def test_a_fault_inside_a_save_loses_nothing(task, tmp_path, monkeypatch, place):
    module, settings, reference = task
    config, saves, replace, fsync = (
        module.Config(out=str(tmp_path), **settings),
        [],
        os.replace,
        os.fsync,
    )
    full = OSError(errno.ENOSPC, "No space left on device")

    def strike(path):
        """The second save of last.pt fails."""
        if Path(path).name == "last.pt":
            saves.append(
                (tmp_path / "last.pt").read_bytes() if (tmp_path / "last.pt").exists() else None
            )
        return Path(path).name == "last.pt" and len(saves) == 2

    def bad_replace(a, b):
        failing = strike(b)
        if failing and place == "before replacing":
            raise full
        replace(a, b)
        if failing and place == "after replacing":
            raise full

    def bad_fsync(descriptor):
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if name.endswith("last.pt.tmp") and len(saves) == 1 and place == "while writing":
            saves.append((tmp_path / "last.pt").read_bytes())
            raise full
        fsync(descriptor)

    monkeypatch.setattr(os, "replace", bad_replace)
    monkeypatch.setattr(os, "fsync", bad_fsync)
    with pytest.raises(OSError, match="No space"):
        module.main(config)
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.tmp"))
    if place != "after replacing":
        assert (tmp_path / "last.pt").read_bytes() == saves[1]  # the checkpoint before is as it was
    assert checkpoint.load_checkpoint(tmp_path)["step"] == (2 if place != "after replacing" else 4)
    module.main(module.Config(**vars(config) | dict(resume=True)))
    assert state(tmp_path) == state(reference)


def wait_for_a_step(process, folder):
    while not ((folder / "log.jsonl").exists() and (folder / "log.jsonl").stat().st_size):
        assert process.poll() is None, process.communicate()[1][-500:]
        time.sleep(0.02)


def killed_again_and_again(name, settings, folder, kills, seed):
    """Start a script, kill it at a random moment after its first step, go on, so many times; then let it finish. The last logged step at each kill."""
    rng, at = random.Random(seed), []
    while True:
        resume = ["--resume"] if (folder / "last.pt").exists() else []
        process = start(
            f"{name}.py", "--out", folder, *flags(**settings), *resume, env={"OMP_NUM_THREADS": "1"}
        )
        log = folder / "log.jsonl"
        before = log.stat().st_mtime_ns if log.exists() else 0
        while (
            len(at) < kills
            and process.poll() is None
            and not (log.exists() and log.stat().st_size and log.stat().st_mtime_ns != before)
        ):
            time.sleep(0.01)
        if len(at) < kills and process.poll() is None:
            time.sleep(rng.uniform(0, 1.0))
            process.kill()
            process.communicate()
            at.append(max([line["step"] for line in checkpoint.read_log(folder)], default=0))
            continue
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr[-500:]
        return at


def check_kills(task, tmp_path, kills):
    module, settings, _ = task
    settings = settings | dict(steps=120, eval_every=20)
    steps = killed_again_and_again(module.__name__, settings, tmp_path / "killed", kills, seed=1)
    assert (
        len(steps) == kills and sum(step < settings["steps"] for step in steps) >= kills / 2
    )  # most of them in the middle of training
    assert (
        command(
            f"{module.__name__}.py",
            "--out",
            tmp_path / "whole",
            *flags(**settings),
            env={"OMP_NUM_THREADS": "1"},
        )[0]
        == 0
    )
    assert state(tmp_path / "killed") == state(tmp_path / "whole") and not list(
        (tmp_path / "killed").glob("*.tmp")
    )


def test_a_kill_changes_nothing(task, tmp_path):
    check_kills(task, tmp_path, 1)


@pytest.mark.slow
def test_twenty_kills_change_nothing(task, tmp_path):
    check_kills(task, tmp_path, 20)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_to_the_script(tmp_path, number, code):
    process = start(
        "train_clip.py",
        "--out",
        tmp_path,
        *flags(**CLIP_ARGS | dict(steps=100000, eval_every=100000)),
    )
    wait_for_a_step(process, tmp_path)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert (
        process.returncode == code
        and stderr.splitlines()[-1].startswith("error: stopped after step")
        and "Traceback" not in stderr
    )
    assert checkpoint.load_checkpoint(tmp_path)["step"] > 0


def test_a_run_that_cannot_even_begin_leaves_the_folder_as_it_was(task, monkeypatch):
    module, settings, reference = task
    before = {p.name: p.read_bytes() for p in reference.iterdir()}
    monkeypatch.setattr(
        optim, "backward_and_step", lambda *_: (_ for _ in ()).throw(MemoryError("no room"))
    )
    with pytest.raises(MemoryError):
        module.main(module.Config(out=str(reference), **settings))
    assert before == {p.name: p.read_bytes() for p in reference.iterdir()}


def test_a_run_that_begins_anew_keeps_the_older_checkpoint(clip_folder, tmp_path):
    for _ in range(2):
        train_clip.main(train_clip.Config(out=str(tmp_path), **CLIP_ARGS))
    assert (
        (tmp_path / "previous.pt").read_bytes()
        == (clip_folder / "last.pt").read_bytes()
        == (tmp_path / "last.pt").read_bytes()
    )


def test_resume_of_a_finished_run_has_nothing_to_do(task, tmp_path, capsys):
    module, settings, reference = task
    before = {p.name: p.read_bytes() for p in reference.iterdir()}
    module.main(module.Config(out=str(reference), resume=True, **settings))
    assert "nothing to do" in capsys.readouterr().out and before == {
        p.name: p.read_bytes() for p in reference.iterdir()
    }


# ---------------------------------------------------------------- checkpoints


def sealed(payload):
    return payload + checkpoint.CHECKSUM_TAG + hashlib.sha256(payload).digest()


def packed(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def damage(data, kind, rng):
    data, k = bytearray(data), rng.randrange(len(data))
    if kind == "flip":
        data[k] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[k:]
    elif kind == "swap":
        j = rng.randrange(len(data))
        a, b = min(j, k), max(j, k)
        data[a : a + 16], data[b : b + 16] = data[b : b + 16], data[a : a + 16]
    else:  # in the first or the last bytes, where zip keeps its headers
        k = rng.choice((rng.randrange(200), len(data) - 1 - rng.randrange(400)))
        data[k] = (data[k] + 1 + rng.randrange(255)) % 256
    return bytes(data)


def test_three_hundred_corruptions_are_all_refused(task, tmp_path):
    good, rng = (task[2] / "last.pt").read_bytes(), random.Random(0)
    for number in range(300):
        damaged = damage(good, ("flip", "cut", "swap", "header")[number % 4], rng)
        if damaged == good:
            continue
        (tmp_path / "last.pt").write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load_checkpoint(tmp_path)


def test_a_flipped_bit_under_a_right_seal_is_found_by_the_zip(clip_folder, tmp_path):
    payload = bytearray(
        (clip_folder / "last.pt").read_bytes()[: -len(checkpoint.CHECKSUM_TAG) - 32]
    )
    payload[len(payload) // 2] ^= 1
    (tmp_path / "last.pt").write_bytes(sealed(bytes(payload)))
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load_checkpoint(tmp_path)


def test_what_is_no_checkpoint_is_refused(clip_folder, tmp_path):
    good = (clip_folder / "last.pt").read_bytes()
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    torch_file = good[: -len(checkpoint.CHECKSUM_TAG) - 32]
    for number, data in enumerate(
        (
            b"",
            b"<html>",
            good[:-1],
            torch_file,
            sealed(b""),
            sealed(b"text"),
            sealed(bomb.getvalue()),
            sealed(packed([1, 2])),
        )
    ):
        (tmp_path / "x.pt").write_bytes(data)
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load_checkpoint(tmp_path / "x.pt")
    (tmp_path / "folder" / "last.pt").mkdir(parents=True)
    for path in (tmp_path / "folder", tmp_path / "nowhere"):
        with pytest.raises(UserError):
            checkpoint.load_checkpoint(path)


class RunsCode:
    def __reduce__(self):
        return (os.system, (f"touch {RunsCode.path}",))


def test_code_in_a_pickle_does_not_run(tmp_path):
    RunsCode.path = tmp_path / "was_here"
    (tmp_path / "x.pt").write_bytes(
        sealed(packed(dict(kind="clip", format=checkpoint.FORMAT, config={}, model=RunsCode())))
    )
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load_checkpoint(tmp_path / "x.pt")
    assert not RunsCode.path.exists()


def test_wrong_contents_are_named(clip_folder, vlm_folder, tmp_path):
    content = checkpoint.load_checkpoint(clip_folder)
    model = train_clip.build_model(
        checkpoint.config_from(train_clip.Config, content["config"], "x")
    )
    name, tensor = "image_proj.weight", content["model"]["image_proj.weight"]
    gone = {n: w for n, w in content["model"].items() if n != name}
    for weights, named in (
        (gone, f"{name} is missing"),
        (content["model"] | {name: tensor[:1]}, f"{name} has shape"),
        (content["model"] | {name: tensor * float("nan")}, f"{name} is not finite"),
        (content["model"] | {"extra": tensor}, "extra is extra"),
    ):
        with pytest.raises(UserError, match=named):
            checkpoint.load_weights(model, weights, "x")
    (tmp_path / "last.pt").write_bytes(sealed(packed(content | dict(format=checkpoint.FORMAT + 1))))
    with pytest.raises(UserError, match="format"):
        checkpoint.load_checkpoint(tmp_path)
    with pytest.raises(UserError, match="vlm model, but a clip"):
        checkpoint.load_checkpoint(vlm_folder, "clip")
    with pytest.raises(UserError, match="optimizer"):
        checkpoint.load_optimizers(
            [torch.optim.SGD([torch.zeros(1, requires_grad=True)])], content["optimizers"], "x"
        )
    (tmp_path / "last.pt").write_bytes(
        sealed(packed(content | dict(config=content["config"] | dict(new_setting=1))))
    )
    with pytest.raises(UserError, match="new_setting"):
        sample.main(sample.Config(checkpoint=str(tmp_path), out=str(tmp_path / "page.png")))


def test_scripts_refuse_what_does_not_fit_and_touch_nothing(clip_folder, vlm_folder, tmp_path):
    def refused(words, named):
        before = {folder: state(folder) for folder in (clip_folder, vlm_folder)}
        code, _, stderr = in_process(*words)
        assert (
            code == 2
            and stderr.count("\n") == 1
            and stderr.startswith("error: ")
            and named in stderr
        ), stderr
        assert before == {folder: state(folder) for folder in before}

    refused(
        ["train_clip.py", "--resume", "--out", clip_folder, *flags(**CLIP_ARGS | dict(dim=32))],
        "dim 16 then, 32 now",
    )
    refused(["train_clip.py", "--resume", "--out", vlm_folder, *flags(**CLIP_ARGS)], "vlm model")
    refused(
        ["train_clip.py", "--resume", "--out", tmp_path / "empty", *flags(**CLIP_ARGS)],
        "there is no checkpoint",
    )
    refused(
        [
            "train_vlm.py",
            "--resume",
            "--out",
            vlm_folder,
            "--clip",
            "other",
            *flags(**VLM_ARGS, num_queries=4),
        ],
        "clip",
    )
    refused(["train_vlm.py", "--clip", vlm_folder, "--out", tmp_path / "x"], "clip model is wanted")


# ---------------------------------------------------------------- the machine


def test_a_folder_has_one_run_at_a_time(tmp_path):
    first = start(
        "train_clip.py",
        "--out",
        tmp_path,
        *flags(**CLIP_ARGS | dict(steps=100000, eval_every=100000)),
    )
    wait_for_a_step(first, tmp_path)
    first.send_signal(signal.SIGSTOP)  # it keeps its lock and leaves the cores to the other one
    code, _, stderr = command("train_clip.py", "--out", tmp_path, *flags(**CLIP_ARGS))
    first.kill()
    first.communicate()
    assert code == 2 and "in use" in stderr
    assert (
        command("train_clip.py", "--out", tmp_path, *flags(**CLIP_ARGS | dict(steps=1)))[0] == 0
    )  # the lock died with its process


def test_a_folder_that_cannot_be_made_or_written(tmp_path):
    code, _, stderr = command("train_clip.py", "--out", "/proc/nothing/here", *flags(**CLIP_ARGS))
    assert code == 2 and stderr.count("\n") == 1 and "--out" in stderr
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode == 0:
        train = " ".join(
            map(
                str,
                [sys.executable, ROOT / "train_clip.py", "--out", tmp_path, *flags(**CLIP_ARGS)],
            )
        )
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o ro none {tmp_path} && {train}"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and "read-only" in done.stderr and done.stderr.count("\n") == 1


def test_a_full_disk_leaves_the_file_before(tmp_path):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mounts")
    size = len((ROOT / "README.md").read_bytes())  # the log and settings are far smaller than this
    train = " ".join(
        map(
            str,
            [
                sys.executable,
                ROOT / "train_clip.py",
                "--out",
                tmp_path,
                *flags(**CLIP_ARGS | dict(eval_every=2)),
            ],
        )
    )
    probe = tmp_path.parent / "probe"
    train_clip.main(train_clip.Config(out=str(probe), **CLIP_ARGS | dict(steps=2)))
    kib = int(2.6 * (probe / "last.pt").stat().st_size + size) // 1024
    encode_patches = f"{sys.executable} -c \"from tinyvlm import files; print('step', files.load_checkpoint('{tmp_path}')['step'])\""
    script = f"mount -t tmpfs -o size={kib}k none {tmp_path} && {train}; echo code $?; ls {tmp_path}; {encode_patches}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, cwd=ROOT
    )
    assert (
        "code 1" in done.stdout
        and "No space left" in done.stderr
        and "Traceback" not in done.stderr
    ), done.stderr[-500:]
    assert "step 2" in done.stdout and ".tmp" not in done.stdout


def test_no_memory_is_said_in_one_line(tmp_path):
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30,) * 2)
    code, _, stderr = command(
        "train_clip.py",
        "--out",
        tmp_path,
        *flags(**CLIP_ARGS | dict(batch_size=2**18)),
        preexec_fn=limit,
    )
    assert code == 1 and "--batch-size" in stderr.splitlines()[-1] and "Traceback" not in stderr, (
        stderr[-500:]
    )


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(tmp_path, monkeypatch):
    real, steps = train_clip.LOSSES["multi_positive"], []

    def breaks(*arguments):
        steps.append(1)
        return real(*arguments) * (float("nan") if len(steps) == 4 else 1.0)

    monkeypatch.setitem(train_clip.LOSSES, "multi_positive", breaks)
    with pytest.raises(RuntimeError, match="step 3"):
        train_clip.main(train_clip.Config(out=str(tmp_path), **CLIP_ARGS))
    assert checkpoint.load_checkpoint(tmp_path)["step"] == 2


def test_a_closed_stdout_is_no_traceback(clip_folder, tmp_path):
    process = start(
        "sample.py", "--checkpoint", clip_folder, "--items", "64", "--out", tmp_path / "page.png"
    )
    process.stdout.close()
    stderr = process.stderr.read()
    assert process.wait(60) == 1 and "Traceback" not in stderr


@pytest.mark.slow
def test_memory_does_not_grow(tmp_path):
    process = start(
        "train_clip.py", "--out", tmp_path, *flags(**CLIP_ARGS | dict(steps=2000, eval_every=500))
    )
    sizes = {}
    while process.poll() is None:
        lines = checkpoint.read_log(tmp_path)
        status = Path(f"/proc/{process.pid}/status").read_text() if process.poll() is None else ""
        if lines and "VmRSS" in status:
            sizes[lines[-1]["step"]] = int(status.split("VmRSS:")[1].split()[0]) / 1024
        time.sleep(0.5)
    early, late = (
        max(size for step, size in sizes.items() if low <= step <= high)
        for low, high in ((600, 900), (1700, 1999))
    )
    stderr = process.communicate()[1]
    assert process.returncode == 0 and late < early + 20, sizes  # MiB
    assert len(stderr) < 20_000  # where nobody watches, the bar does not write a line a step


# ---------------------------------------------------------------- several processes


def test_two_processes_have_the_gradients_of_one(tmp_path):
    import gradients
    from tinyvlm.training.distributed import Distributed

    words = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29511",
        ROOT / "tests" / "gradients.py",
        tmp_path / "two.pt",
    ]
    code, _, stderr = command(
        *words, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    )
    assert code == 0, stderr[-2000:]
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    for name, step in (("clip", gradients.clip_step), ("vlm", gradients.vlm_step)):
        model, loss = step(Distributed("cpu"))
        assert abs(loss - two[name].pop("loss")) < 1e-6
        for n, p in model.named_parameters():
            assert p.grad is not None and torch.allclose(
                p.grad, two[name][n], atol=1e-6, rtol=1e-5
            ), (name, n)
    assert two["clip"]["logit_scale"].abs() > 0


@pytest.mark.parametrize("name", [pytest.param("train_clip", marks=pytest.mark.slow), "train_vlm"])
def test_torchrun_trains_as_one_process_does(name, clip_folder, vlm_folder, tmp_path):
    module, settings = SCRIPTS[name]
    settings = settings | (dict(clip=str(clip_folder)) if name == "train_vlm" else {})
    words = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29512",
        ROOT / f"{name}.py",
        "--out",
        tmp_path,
        *flags(**settings),
    ]
    code, _, stderr = command(*words, env={"OMP_NUM_THREADS": "1"})
    assert code == 0, stderr[-2000:]
    one, two = (
        checkpoint.read_log(folder)
        for folder in (dict(train_clip=clip_folder, train_vlm=vlm_folder)[name], tmp_path)
    )
    assert len(one) == len(two) and all(
        abs(a["loss"] - b["loss"]) < 1e-3 for a, b in zip(one, two) if "loss" in a
    )
    assert (tmp_path / "metrics.json").exists() and checkpoint.load_checkpoint(tmp_path)[
        "step"
    ] == 6


def test_a_batch_that_does_not_divide_is_refused():
    dist = distributed.Distributed("cpu")
    dist.size, dist.rank = 2, 1
    assert dist.shard(np.arange(8)).tolist() == [4, 5, 6, 7]
    with pytest.raises(UserError, match="multiple"):
        dist.shard(np.arange(7))


def test_a_stop_signal_stops_all_processes(tmp_path):
    words = [
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29513",
        ROOT / "train_clip.py",
    ]
    process = start(
        *words,
        "--out",
        tmp_path,
        *flags(**CLIP_ARGS | dict(steps=100000, eval_every=100000)),
        env={"OMP_NUM_THREADS": "1"},
    )
    wait_for_a_step(process, tmp_path)
    process.terminate()
    process.communicate(timeout=90)
    assert process.returncode != 0 and checkpoint.load_checkpoint(tmp_path)["step"] > 0
