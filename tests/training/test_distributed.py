"""Where a run computes: the device's name, its number format, a process's part of a batch."""

import contextlib

import numpy as np
import pytest
import torch
from helpers import small_vlm, small_vqa_batch

from tinyvlm.training import distributed
from tinyvlm.training.config import UserError
from tinyvlm.training.distributed import Distributed, autocast, pick_device

pytestmark = pytest.mark.quick


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many GPUs of NVIDIA's, and Apple's one or not."""

    def make(cuda, mps):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return make


@pytest.mark.parametrize(
    "cuda, mps, name, wanted",
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, True, "auto", "cuda"),
        (2, True, "cpu", "cpu"),
        (2, True, "mps", "mps"),
        (2, False, "cuda", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
    ],
)
def test_a_device_is_the_one_that_is_named(machine, cuda, mps, name, wanted):
    machine(cuda, mps)
    assert str(pick_device(name)) == wanted


@pytest.mark.parametrize(
    "cuda, mps, name, said",
    [
        (0, False, "cuda", "no GPU"),
        (0, False, "cuda:0", "no GPU"),
        (2, False, "cuda:2", "there are 2 GPUs"),
        (2, False, "mps", "no Apple GPU"),
        (2, True, "mps:0", "choose auto, cpu, mps, cuda or cuda:N"),
        (2, True, "cpu:0", "choose auto"),
        (2, True, "cuda:one", "choose auto"),
        (2, True, "tpu", "'tpu'"),
        (2, True, "", "choose auto"),
    ],
)
def test_a_device_that_is_not_there_is_refused(machine, cuda, mps, name, said):
    machine(cuda, mps)
    with pytest.raises(UserError, match=said):
        pick_device(name)


def test_a_device_without_a_number_is_the_current_one(machine, monkeypatch):
    chosen = []
    machine(2, False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
    devices = [str(Distributed(name).device) for name in ("auto", "cuda", "cuda:1", "cpu")]
    assert devices == ["cuda", "cuda", "cuda:1", "cpu"]
    assert chosen == [1]  # set_device refuses a device without a number


def test_each_run_says_how_many_threads_there_are(monkeypatch):
    """Else a script would round otherwise than a cell of ablate.py, which sets them."""
    said = []
    monkeypatch.setattr(torch, "set_num_threads", said.append)
    Distributed("cpu")
    assert said == [torch.get_num_threads()]


def test_each_of_several_processes_has_a_gpu_of_its_own(machine, monkeypatch):
    chosen, joined = [], []
    machine(2, False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
    monkeypatch.setattr(torch.distributed, "init_process_group", joined.append)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    dist = Distributed("auto")
    assert (dist.size, dist.rank, dist.is_main) == (2, 1, False)
    assert str(dist.device) == "cuda:1" and chosen == [1] and joined == ["nccl"]


def test_several_processes_do_not_meet_on_apples_gpu(machine, monkeypatch):
    """Which gloo, that joins them, does not know."""
    joined = []
    machine(0, True)
    monkeypatch.setattr(torch.distributed, "init_process_group", joined.append)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [str(Distributed(name).device) for name in ("auto", "mps", "cpu")] == ["cpu"] * 3
    assert joined == ["gloo"] * 3


def test_bfloat16_is_for_nvidias_gpus():
    for name in ("cpu", "mps"):
        assert isinstance(autocast(torch.device(name)), contextlib.nullcontext)
    with autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="there is no Apple GPU")
def test_apples_gpu_computes_what_the_cpu_does():
    model, pixels = small_vlm("mlp").eval(), small_vqa_batch(2).pixels
    wanted, _ = model.encode_image(pixels)
    device = pick_device("mps")
    found, _ = model.to(device).encode_image(pixels.to(device))
    assert torch.allclose(found.cpu(), wanted, atol=1e-3)


# ---------------------------------------------------------------- processes


def test_one_process_does_all_by_itself():
    with Distributed("cpu") as dist:
        rows, model = torch.randn(4, 3), torch.nn.Linear(3, 3)
        assert (dist.size, dist.rank, dist.is_main) == (1, 0, True)
        assert dist.all_gather_with_grad(rows) is rows and dist.wrap_ddp(model) is model
        assert dist.all_reduce_sum(torch.tensor(3.0)) == 3
        assert dist.any_rank(True) is True and dist.any_rank(None) is False
        assert dist.shard(np.arange(7)).tolist() == list(range(7))


@pytest.mark.parametrize("size", [2, 4])
def test_the_parts_of_all_processes_are_the_batch_in_order(size):
    dist, parts = Distributed("cpu"), []
    dist.size = size
    for dist.rank in range(size):
        parts += dist.shard(np.arange(8)).tolist()
        assert len(parts) == (dist.rank + 1) * 8 // size
    assert parts == list(range(8))


@pytest.mark.parametrize(
    "error, in_order, waits", [(None, False, 1), (OSError, False, 0), (OSError, True, 1)]
)
def test_processes_wait_for_each_other_unless_one_has_failed(error, in_order, waits, monkeypatch):
    called = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for name in ("barrier", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda name=name: called.append(name))
    with contextlib.suppress(OSError), Distributed("cpu") as dist:
        dist.size, dist.leaves_in_order = 2, in_order
        if error:
            raise error
    assert called == ["barrier"] * waits + ["destroy_process_group"]


def test_a_batch_that_does_not_divide_is_refused():
    dist = Distributed("cpu")
    dist.size, dist.rank = 2, 1
    assert dist.shard(np.arange(8)).tolist() == [4, 5, 6, 7]
    with pytest.raises(UserError, match="--batch-size 7.* multiple"):
        dist.shard(np.arange(7))


def test_gradients_come_back_to_the_process_that_a_row_came_from(monkeypatch):
    """Two processes, played by one: the other one's rows are twice mine, its gradients 10 each."""

    def all_gather(parts, rows):
        parts[0].copy_(2 * rows)
        parts[1].copy_(rows)

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda gradient: gradient.add_(10))
    rows = torch.ones(3, 2, requires_grad=True)
    gathered = distributed.AllGatherWithGrad.apply(rows, 1)
    assert gathered[:, 0].tolist() == [2, 2, 2, 1, 1, 1]
    (gathered * torch.arange(6.0)[:, None]).sum().backward()
    assert rows.grad[:, 0].tolist() == [13, 14, 15]
