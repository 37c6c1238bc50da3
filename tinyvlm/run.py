"""What both training scripts need around their loop, and never a loop: processes, world, optimiser, rates, freezing, seeds, signals."""

import contextlib
import dataclasses
import fnmatch
import math
import os
import signal
import sys
import threading

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from data.scene import WORLDS
from tinyvlm.config import Stopped, UserError

# ---------------------------------------------------------------- device, seeds, precision


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


class Processes:
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
    def is_first(self):
        """Only the first process writes and prints."""
        return self.rank == 0

    def part(self, indices):
        """This process's part of a batch's sample indices. UserError if they do not divide evenly."""
        if len(indices) % self.size:
            raise UserError(f"--batch-size {len(indices)} does not divide by {self.size} processes; give a multiple")
        return indices[self.rank * len(indices) // self.size : (self.rank + 1) * len(indices) // self.size]

    def wrap(self, model):
        """The model, made to share its gradients; to be called anew when what is frozen changes."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def gather(self, rows):
        """Rows (b / size, d) of all processes, in order: (b, d). Differentiable."""
        return rows if self.size == 1 else Gather.apply(rows, self.rank)

    def total(self, number):
        """The sum of a number (a tensor without gradient) over all processes."""
        if self.size > 1:
            number = number.detach().clone()
            dist.all_reduce(number)
        return number

    def any(self, flag):
        """Is the flag true in any process?"""
        return bool(self.total(torch.tensor(float(flag), device=self.device)) > 0) if self.size > 1 else flag

    def leave(self):
        """Wait for each other and end."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()


class Gather(torch.autograd.Function):
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


class StopSignals:
    """Ctrl-C and SIGTERM wait for the end of a step: `with StopSignals() as stop`, then ask `stop.caught`. A second Ctrl-C does not wait."""

    def __enter__(self):
        self.caught, self.before = None, {}
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self.catch) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def catch(self, number, frame):
        if number == self.caught == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = self.caught or number  # SIGTERM often comes twice, from the system and from torchrun

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)


def stopped(number, step):
    """What to raise after a stop signal, when step `step` is done and saved."""
    return Stopped(f"stopped after step {step}, which is saved; go on with --resume", 128 + (number or signal.SIGTERM))


def precision(device):
    """bfloat16 where it is fast (GPU), float32 on a CPU.

    Measured on two cores: 300 GFLOP/s in float32 and 160 in bfloat16; on two with AVX2 only, 139 and 1.
    """
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()


def seeded(make, seed):
    """make() with torch's generators seeded and put back afterwards, so that each part's weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):  # weights are made on the CPU
        torch.manual_seed(seed)
        return make()


def world_of(config):
    """The world that a script's settings name: World. UserError if they do not go together."""
    try:
        return dataclasses.replace(WORLDS[config.world], held_out=config.held_out)
    except ValueError as error:
        raise UserError(f"--world {config.world} --held-out {config.held_out}: {error}")


# ---------------------------------------------------------------- what is trained, and how fast


def freeze(model, trained):
    """Train the parameters whose names match one of the patterns (fnmatch, "projector.*"), freeze all others.

    Raises UserError if a pattern matches nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in trained:
        if not fnmatch.filter(names, pattern):
            tops = sorted({name.split(".")[0] + ".*" for name in names})
            raise UserError(f"the pattern {pattern!r} matches no parameter; the parts are {', '.join(tops)}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatch.fnmatch(name, pattern) for pattern in trained))


def rate_at(step, steps, warmup, flat=0.5):
    """Share of the full learning rate at a step: linear warm-up, flat until `flat` of the steps, then linear to 5 %."""
    rise = min(1.0, (step + 1) / max(warmup, 1))
    fall = max(0.0, (step / steps - flat) / (1 - flat))
    return rise * (1 - 0.95 * fall)


def make_optimisers(model, lr, muon_lr, weight_decay):
    """Muon for convolutions, the matrices inside blocks and those of projectors, AdamW for the rest; norms, biases, embeddings, temperature do not decay."""
    groups = {"muon": [], "decayed": [], "plain": []}
    for name, p in model.named_parameters():
        if p.requires_grad:
            groups[optimiser_group(name, p)].append(p)
    made = [Muon(groups["muon"], lr=muon_lr)] if groups["muon"] else []
    adam = [dict(params=groups["decayed"], weight_decay=weight_decay), dict(params=groups["plain"], weight_decay=0.0)]
    made.append(torch.optim.AdamW(adam, lr=lr, betas=(0.9, 0.98)))
    for optimiser in made:
        for group in optimiser.param_groups:
            group["full_lr"] = group["lr"]
    return made


def optimiser_group(name, parameter):
    if parameter.ndim < 2 or name.rsplit(".", 2)[-2] in ("token", "position") or name.endswith("query"):
        return "plain"
    inside = ".blocks." in name or name.startswith("projector.")
    return "muon" if parameter.ndim == 4 or inside else "decayed"


def set_rate(optimisers, share):
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["full_lr"] * share


def update(optimisers, parameters, loss, step):
    """Backward, clip the gradient's norm at 1, step. Raises RuntimeError, before any weight changes, if a number is not finite, and UserError if the
    loss depends on nothing that is trained."""
    if not loss.requires_grad:
        raise UserError("the loss depends on nothing that is trained in this stage; train more, such as --train-language 'decoder.*'")
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_([p for p in parameters if p.requires_grad], 1.0)
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        raise RuntimeError(f"the loss or its gradient is not finite at step {step}; nothing more was saved, try a smaller --lr")
    for optimiser in optimisers:
        optimiser.step()


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by five Newton-Schulz steps; Jordan et al., "Muon" (2024).

    torch.optim.Muon does these steps in bfloat16, which a CPU without bfloat16 units does a hundred times slower; here they
    run in the parameter's own type, and matrices of one shape run as one batch.
    """

    def __init__(self, params, lr=1e-2, momentum=0.95):
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.flatten(1).shape, []).append(p)  # a convolution is a matrix, too
            for shape, params in by_shape.items():
                updates = []
                for p in params:
                    velocity = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                    velocity.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(velocity, group["momentum"]))  # Nesterov
                scale = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                for p, direction in zip(params, orthogonal(torch.stack(updates).flatten(2))):
                    p.sub_(direction.view_as(p), alpha=scale)


def orthogonal(g, steps=5):
    """Roughly the nearest (semi-)orthogonal matrices to g (k, rows, columns): singular values land in 0.7 .. 1.2."""
    tall = g.shape[1] > g.shape[2]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (2.0315 * a @ a - 4.7750 * a) @ x
    return x.mT if tall else x


# ---------------------------------------------------------------- what is shown


def bar(total, start, label, shown=True):
    """tqdm; where the output is no terminal, a line every half minute."""
    from tqdm import tqdm

    pause = 0.5 if sys.stderr.isatty() else 30
    return tqdm(total=total, initial=start, desc=label, unit="step", dynamic_ncols=True, mininterval=pause, disable=not shown)


def print_table(title, rows):
    """rows: [(name, value, interval or None, items, what it means)]."""
    print(f"\n{title}")
    print(f"  {'':28}{'value':>8}  {'95 % interval':>17}{'items':>8}")
    for name, value, interval, items, meaning in rows:
        span = f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        print(f"  {name:28}{value:8.3f}  {span:>17}{items:>8}  {meaning}")
    print()
