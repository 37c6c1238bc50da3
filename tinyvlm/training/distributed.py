"""Where a run computes: the device, its number format, and the processes that share a run."""

import contextlib
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tinyvlm.training.config import UserError


def pick_device(name):
    """"auto", "cpu", "cuda" or "cuda:1" -> torch.device. Raises UserError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdigit())):
        raise UserError(f"--device is {name!r}; choose auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, but this machine shows no GPU; use --device cpu")
    if number and int(number) >= torch.cuda.device_count():
        raise UserError(f"--device is {name}, but there are {torch.cuda.device_count()} GPUs; use a smaller number")
    return torch.device(name)


class Distributed:
    """The processes of this run: one, or as many as `torchrun --nproc-per-node N` started.

    Each computes the loss of the whole batch from its own part: `gather` lets gradients through, to the process that a row came from, and
    `wrap` (torch's DistributedDataParallel) takes the mean of all gradients. Each process has counted the whole loss, so that this mean is the gradient
    of one process with the whole batch.
    """

    def __init__(self, device_name):
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        if self.size > 1 and device_name in ("auto", "cuda") and torch.cuda.is_available():
            device_name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        self.device = pick_device(device_name)
        if self.device.index is not None:  # "cuda" alone means the current one
            torch.cuda.set_device(self.device)
        if self.size > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    @property
    def is_main(self):
        """Only the first process writes and prints."""
        return self.rank == 0

    def shard(self, indices):
        """This process's part of a batch's sample indices. UserError if they do not divide evenly."""
        if len(indices) % self.size:
            raise UserError(f"--batch-size {len(indices)} does not divide by {self.size} processes; give a multiple")
        return indices[self.rank * len(indices) // self.size : (self.rank + 1) * len(indices) // self.size]

    def wrap_ddp(self, model):
        """The model, made to share its gradients; to be called anew when what is frozen changes."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def all_gather_with_grad(self, rows):
        """Rows (b / size, d) of all processes, in order: (b, d). Differentiable."""
        return rows if self.size == 1 else AllGatherWithGrad.apply(rows, self.rank)

    def all_reduce_sum(self, number):
        """The sum of a number (a tensor without gradient) over all processes."""
        if self.size > 1:
            number = number.detach().clone()
            dist.all_reduce(number)
        return number

    def any_rank(self, flag):
        """Is the flag true in any process?"""
        return bool(self.all_reduce_sum(torch.tensor(float(flag), device=self.device)) > 0) if self.size > 1 else flag

    def shutdown(self):
        """Wait for each other and end."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()


class AllGatherWithGrad(torch.autograd.Function):
    """Rows of all processes; a row's gradient comes back from all of them (torch's own all_gather lets none through)."""

    @staticmethod
    def forward(context, rows, rank):
        context.mine = slice(rank * len(rows), (rank + 1) * len(rows))
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context, gradient):
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[context.mine], None


def autocast(device):
    """bfloat16 where it is fast (GPU), float32 on a CPU.

    Measured on two cores: 300 GFLOP/s in float32 and 160 in bfloat16; on two with AVX2 only, 139 and 1.
    """
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()
