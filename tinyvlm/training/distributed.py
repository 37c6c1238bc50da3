"""Where a run computes: the device, its number format, and the processes that share a run."""

import contextlib
import os

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from tinyvlm.training.config import UserError


def pick_device(name):
    """From "auto", "cpu", "mps", "cuda" or "cuda:1" to a torch.device. UserError if not there."""
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdigit())):
        raise UserError(f"--device is {name!r}; choose auto, cpu, mps, cuda or cuda:N")
    if kind == "cuda" and not has_cuda:
        raise UserError("--device is cuda, but this machine shows no GPU; use --device cpu")
    if kind == "mps" and not has_mps:
        raise UserError("--device is mps, but torch has no Apple GPU here; use --device cpu")
    if number and int(number) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"--device is {name}, but there are {count} GPUs; use a smaller number")
    return torch.device(name)


def autocast(device):
    """bfloat16 where it is fast (NVIDIA's GPUs), float32 elsewhere.

    Measured on two cores: 300 GFLOP/s in float32 and 160 in bfloat16; with AVX2 only, 139 and 1.
    """
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()


class Distributed:
    """The processes of this run: one, or as many as `torchrun --nproc-per-node N` started.

    Each computes the loss of the whole batch from its own part: all_gather_with_grad lets gradients
    through, to the process that a row came from, and wrap_ddp (torch's DistributedDataParallel)
    takes the mean of all gradients. Each process has counted the whole loss, so that this mean is
    the gradient of one process with the whole batch.

    A context: where it ends in order (by itself, or by a stop that all know of), the processes
    leave together; after an error each leaves alone.
    """

    def __init__(self, device_name):
        # MKL rounds in one way where it is told the number of threads, and in another where it is
        # not. Told in each run, a script and a cell of ablate.py give the same bits.
        torch.set_num_threads(torch.get_num_threads())
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.leaves_in_order = False
        if self.size > 1 and device_name in ("auto", "cuda") and torch.cuda.is_available():
            device_name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        elif self.size > 1 and device_name in ("auto", "mps"):
            device_name = "cpu"  # gloo, which joins them, knows no Apple GPU
        self.device = pick_device(device_name)
        if self.device.index is not None:  # "cuda" alone means the current one
            torch.cuda.set_device(self.device)
        if self.size > 1:
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            torch.distributed.init_process_group(backend)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.size > 1 and torch.distributed.is_initialized():
            if kind is None or self.leaves_in_order:
                torch.distributed.barrier()  # wait for each other: the first one may still write
            torch.distributed.destroy_process_group()

    @property
    def is_main(self):
        """Only the first process writes and prints."""
        return self.rank == 0

    def shard(self, indices):
        """This process's part of a batch's sample indices. UserError if they do not divide."""
        n = len(indices)
        if n % self.size:
            hint = f"does not divide by {self.size} processes; give a multiple"
            raise UserError(f"--batch-size {n} {hint}")
        return indices[self.rank * n // self.size : (self.rank + 1) * n // self.size]

    def wrap_ddp(self, model, find_unused=False):
        """The model, made to share its gradients; to be called anew when what is frozen changes.

        find_unused: a step may leave out parts that are trained (words alone need no encoder).
        """
        if self.size == 1:
            return model
        return DistributedDataParallel(model, find_unused_parameters=find_unused)

    def all_gather_with_grad(self, rows):
        """Rows (b / size, d) of all processes, in order: (b, d). Differentiable."""
        return rows if self.size == 1 else AllGatherWithGrad.apply(rows, self.rank)

    def all_reduce_sum(self, number):
        """The sum of a number (a tensor without gradient) over all processes."""
        if self.size > 1:
            number = number.detach().clone()
            torch.distributed.all_reduce(number)
        return number

    def any_rank(self, flag):
        """Is the flag true in any process?"""
        if self.size == 1:
            return bool(flag)
        return bool(self.all_reduce_sum(torch.tensor(float(flag), device=self.device)) > 0)


class AllGatherWithGrad(torch.autograd.Function):
    """Rows of all processes; a row's gradient comes back from all of them.

    torch's own all_gather lets none through.
    """

    @staticmethod
    def forward(context, rows, rank):
        context.mine = slice(rank * len(rows), (rank + 1) * len(rows))
        parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context, gradient):
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient[context.mine], None
