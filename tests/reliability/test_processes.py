"""Several processes with torchrun: what one process does, for losses, trainings, stops and ends."""

import gradients
import pytest
import torch
from accidents import ENDLESS, ONE_THREAD, contents, wait_for_a_step
from helpers import CLIP_ARGS, ROOT, VLM_ARGS, command, flags, start

import train_vlm
from tinyvlm.training.checkpoint import load_checkpoint
from tinyvlm.training.distributed import Distributed
from tinyvlm.training.files import read_log

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
TESTS = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


def losses(folder):
    return {line["step"]: line["loss"] for line in read_log(folder) if "loss" in line}


def train_with_two(script, out, *more, **settings):
    """Train in two processes: stdout and stderr. The exit code is 0 if it is in both."""
    words = [*TORCHRUN, ROOT / script, "--out", out, *flags(**settings), *more]
    code, stdout, stderr = command(*words, env=ONE_THREAD)
    assert code == 0, stderr[-2000:]
    return stdout, stderr


# ---------------------------------------------------------------- as one process does


def test_two_processes_have_the_gradients_of_one(tmp_path):
    words = [*TORCHRUN, ROOT / "tests" / "gradients.py", tmp_path / "two.pt"]
    code, _, stderr = command(*words, env=ONE_THREAD | TESTS)
    assert code == 0, stderr[-2000:]
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    assert set(two) == set(gradients.STEPS) == {"clip", "vlm"}
    for name, step in gradients.STEPS.items():
        model, loss = step(Distributed("cpu"))
        assert abs(loss - two[name].pop("loss")) < 1e-6
        assert set(two[name]) == {n for n, _ in model.named_parameters()}
        for n, p in model.named_parameters():
            assert p.grad is not None, (name, n)
            assert torch.allclose(p.grad, two[name][n], atol=1e-6, rtol=1e-5), (name, n)
    assert two["clip"]["logit_scale"].abs() > 0


@pytest.mark.slow
def test_two_processes_train_clip_as_one_does(clip_folder, tmp_path):
    train_with_two("train_clip.py", tmp_path, **CLIP_ARGS)
    one, two = losses(clip_folder), losses(tmp_path)
    assert one.keys() == two.keys() and len(one) == 6
    assert all(abs(one[step] - two[step]) < 1e-3 for step in one)
    assert (tmp_path / "metrics.json").exists() and load_checkpoint(tmp_path)["step"] == 6


def test_two_processes_train_a_vlm_as_one_does_and_have_nothing_to_do_then(
    clip_folder, vlm_folder, tmp_path
):
    settings = VLM_ARGS | dict(num_queries=4, clip=clip_folder)
    train_with_two("train_vlm.py", tmp_path, **settings | dict(eval_every=6))
    one, two = losses(vlm_folder), losses(tmp_path)
    assert one.keys() == two.keys() and len(one) == 6
    assert all(abs(one[step] - two[step]) < 1e-3 for step in one)
    assert (tmp_path / "metrics.json").exists() and load_checkpoint(tmp_path)["step"] == 6

    before = contents(tmp_path)
    stdout, stderr = train_with_two("train_vlm.py", tmp_path, "--resume", **settings)
    assert (stdout + stderr).count("nothing to do") == 1
    assert contents(tmp_path) == before


def test_the_language_stage_may_train_everything(clip_folder, tmp_path):
    """It has no pictures, so that encoder and projector get no gradient in it."""
    stages = dict(stages="language,instruct", shares="0.5,0.5", train_language="*", eval_every=4)
    settings = VLM_ARGS | stages | dict(steps=4, projector="mlp", clip=clip_folder)
    train_with_two("train_vlm.py", tmp_path / "two", **settings)
    more = dict(out=str(tmp_path / "one"), clip=str(clip_folder))
    train_vlm.main(train_vlm.Config(**settings | more))
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one.keys() == two.keys() and len(one) == 4
    assert all(abs(one[step] - two[step]) < 1e-3 for step in one)


# ---------------------------------------------------------------- stops and faults


def test_a_stop_signal_stops_all_processes(tmp_path):
    words = [*TORCHRUN, ROOT / "train_clip.py", "--out", tmp_path]
    process = start(*words, *flags(**CLIP_ARGS | ENDLESS), env=ONE_THREAD)
    wait_for_a_step(process, tmp_path)
    process.terminate()
    _, stderr = process.communicate(timeout=90)
    step = load_checkpoint(tmp_path)["step"]
    assert process.returncode != 0 and step > 0
    for who in ("", "process 1: "):
        assert f"error: {who}stopped after step {step}, which is saved" in stderr
    assert max(losses(tmp_path)) == step  # no line is of a step that is not saved
