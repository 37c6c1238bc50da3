"""Several processes with torchrun: what one process does, for losses, trainings, stops and ends."""

import gradients
import pytest
import torch
from accidents import ENDLESS, ONE_THREAD, contents, wait_for_a_step
from helpers import CLIP_ARGS, ROOT, VLM_ARGS, flags, start

import train_vlm
from tinyvlm.training.checkpoint import load_checkpoint
from tinyvlm.training.distributed import Distributed
from tinyvlm.training.files import read_log

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def start_two(folder, script, *words):
    """Start a script in two processes; torchrun's own files come into the folder, too."""
    environment = ONE_THREAD | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    where = ["--log-dir", folder / "torchrun", ROOT / script]
    return start(*TORCHRUN, *where, *words, env=environment)


def run_two(folder, script, *words):
    """The same to the end: stdout and stderr. torchrun's exit code is 0 if it is in both."""
    process = start_two(folder, script, *words)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr[-2000:]
    return stdout, stderr


def losses(folder):
    return {line["step"]: line["loss"] for line in read_log(folder) if "loss" in line}


def check_equal_losses(one, two, steps):
    one, two = losses(one), losses(two)
    assert one.keys() == two.keys() and len(one) == steps
    assert all(abs(one[step] - two[step]) < 1e-3 for step in one)


# ---------------------------------------------------------------- as one process does


def test_two_processes_have_the_gradients_of_one(tmp_path):
    run_two(tmp_path, "tests/gradients.py", tmp_path / "two.pt")
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    assert set(two) == set(gradients.STEPS) == {"clip", "hard negatives", "vlm"}
    for name, step in gradients.STEPS.items():
        model, loss = step(Distributed("cpu"))
        assert abs(loss - two[name].pop("loss")) < 1e-6
        assert set(two[name]) == {n for n, _ in model.named_parameters()}
        for n, p in model.named_parameters():
            assert p.grad is not None, (name, n)
            assert torch.allclose(p.grad, two[name][n], atol=1e-6, rtol=1e-5), (name, n)
    assert two["clip"]["logit_scale"].abs() > 0 and two["hard negatives"]["logit_bias"].abs() > 0


@pytest.mark.slow
def test_two_processes_train_clip_as_one_does(clip_folder, tmp_path):
    out = tmp_path / "run"
    run_two(tmp_path, "train_clip.py", "--out", out, *flags(**CLIP_ARGS))
    check_equal_losses(clip_folder, out, steps=6)
    assert (out / "metrics.json").exists() and load_checkpoint(out)["step"] == 6


def test_two_processes_train_a_vlm_as_one_does_and_have_nothing_to_do_then(
    clip_folder, vlm_folder, tmp_path
):
    out = tmp_path / "run"
    settings = VLM_ARGS | dict(image_tokens=4, clip=clip_folder, eval_every=6, out=out)
    run_two(tmp_path, "train_vlm.py", *flags(**settings))
    check_equal_losses(vlm_folder, out, steps=6)
    assert (out / "metrics.json").exists() and load_checkpoint(out)["step"] == 6

    before = contents(out)
    stdout, stderr = run_two(tmp_path, "train_vlm.py", *flags(**settings), "--resume")
    assert (stdout + stderr).count("nothing to do") == 1
    assert contents(out) == before


def test_the_language_stage_may_train_everything(clip_folder, tmp_path):
    """It has no pictures, so that encoder and projector get no gradient in it."""
    stages = dict(stages="language,instruct", shares="0.5,0.5", train_language="*", eval_every=4)
    settings = VLM_ARGS | stages | dict(steps=4, projector="mlp", clip=str(clip_folder))
    one, two = tmp_path / "one", tmp_path / "two"
    run_two(tmp_path, "train_vlm.py", "--out", two, *flags(**settings))
    train_vlm.main(train_vlm.Config(out=str(one), **settings))
    check_equal_losses(one, two, steps=4)


# ---------------------------------------------------------------- stops


def test_a_stop_signal_stops_all_processes(tmp_path):
    out = tmp_path / "run"
    words = flags(**CLIP_ARGS | ENDLESS)
    process = start_two(tmp_path, "train_clip.py", "--out", out, *words)
    wait_for_a_step(process, out)
    process.terminate()
    _, stderr = process.communicate(timeout=90)
    step = load_checkpoint(out)["step"]
    assert process.returncode != 0 and step > 0
    for who in ("", "process 1: "):
        assert f"error: {who}stopped after step {step}, which is saved" in stderr
    assert max(losses(out)) == step  # no line is of a step that is not saved
