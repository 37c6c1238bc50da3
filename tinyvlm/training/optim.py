"""What is trained and how fast: freezing, parameter groups, the schedule, a step, and Muon."""

import fnmatch
import math

import torch
from torch import nn

from tinyvlm.layers import Head
from tinyvlm.training.config import UserError


def freeze(model, trained):
    """Train the parameters whose names match one of the patterns, freeze all others.

    trained: fnmatch patterns such as "projector.*". UserError if a pattern matches nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in trained:
        if not fnmatch.filter(names, pattern):
            tops = ", ".join(sorted({name.split(".")[0] + ".*" for name in names}))
            raise UserError(f"the pattern {pattern!r} matches no parameter; the parts are {tops}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatch.fnmatch(name, pattern) for pattern in trained))


def lr_schedule(step, steps, warmup, flat=0.5):
    """Share of the full learning rate at a step: linear warm-up, flat until `flat` of the steps,
    then linear to 5 %."""
    rise = min(1.0, (step + 1) / max(warmup, 1))
    fall = max(0.0, (step / steps - flat) / (1 - flat))
    return rise * (1 - 0.95 * fall)


# ---------------------------------------------------------------- parameter groups


def param_group(module, name):
    """Which group a module's own parameter is in, by the kind of the module.

    "muon": matrices and convolutions inside a model. "decay": AdamW with weight decay, for heads
    and for depthwise filters, which are no matrices. "no decay": AdamW without, for norms, biases,
    embeddings and what a module holds as a bare parameter (queries, class tokens, a temperature).
    """
    if name != "weight" or not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return "no decay"
    if isinstance(module, Head) or getattr(module, "groups", 1) > 1:
        return "decay"
    return "muon"


def param_groups(model):
    """Every trained parameter in exactly one group: {group: [parameters]}.

    Where two modules share one (tied embeddings), the first of them decides.
    """
    groups, seen = {"muon": [], "decay": [], "no decay": []}, set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                groups[param_group(module, name)].append(parameter)
                seen.add(id(parameter))
    grouped = [id(p) for parameters in groups.values() for p in parameters]
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(grouped) == len(set(grouped)) and set(grouped) == trained, "not in one group each"
    return groups


def configure_optimizers(model, lr, muon_lr, weight_decay):
    """Muon and AdamW over param_groups: a list of those that have something to train."""
    groups = param_groups(model)
    optimizers = []
    if groups["muon"]:
        muon = [dict(params=groups["muon"], what="matrices, convolutions")]
        optimizers.append(Muon(muon, lr=muon_lr, weight_decay=weight_decay))
    adamw = [
        dict(params=groups["decay"], weight_decay=weight_decay, what="heads, depthwise filters"),
        dict(params=groups["no decay"], weight_decay=0.0, what="norms, biases, embeddings"),
    ]
    if any(group["params"] for group in adamw):
        optimizers.append(torch.optim.AdamW(adamw, lr=lr, betas=(0.9, 0.98)))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return optimizers


def describe_optimizers(optimizers):
    """A line for each group that has parameters."""
    return [
        f"  {type(optimizer).__name__:7}{group['what']:26}{len(group['params']):4} tensors"
        f"{sum(p.numel() for p in group['params']):>11,} numbers"
        f"   rate {group['full_lr']:g}, weight decay {group['weight_decay']:g}"
        for optimizer in optimizers
        for group in optimizer.param_groups
        if group["params"]
    ]


def set_lr(optimizers, share):
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * share


# ---------------------------------------------------------------- a step


def backward_and_step(optimizers, model, loss, step):
    """Backward, clip the gradient's norm at 1, step.

    Raises RuntimeError, before any weight changes, if a number is not finite, and UserError if the
    loss depends on nothing that is trained.
    """
    if not loss.requires_grad:
        hint = "train more, such as --train-language 'decoder.*'"
        raise UserError(f"the loss depends on nothing that is trained in this stage; {hint}")
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        hint = "nothing more was saved, try a smaller --lr or --muon-lr"
        raise RuntimeError(f"the loss or its gradient is not finite at step {step + 1}; {hint}")
    for optimizer in optimizers:
        optimizer.step()


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by five Newton-Schulz steps; Jordan et al. (2024).

    torch.optim.Muon does these steps in bfloat16, which a CPU without bfloat16 units does a
    hundred times slower; here they run in the parameter's own type, but for NVIDIA's GPUs, and
    matrices of one shape run as one batch. Weight decay is decoupled, as in AdamW.
    """

    def __init__(self, params, lr=1e-2, momentum=0.95, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}  # a convolution is a matrix, too
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.flatten(1).shape, []).append(p)
            for shape, params in by_shape.items():
                directions = zeropower_via_newtonschulz(self.nesterov(params, group["momentum"]))
                scale = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                if group["weight_decay"]:
                    torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                directions = [d.view_as(p) for d, p in zip(directions, params, strict=True)]
                torch._foreach_add_(params, directions, alpha=-scale)

    def nesterov(self, params, momentum):
        """The gradients of k matrices of one shape with Nesterov's momentum: (k, rows, columns)."""
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        velocities = [self.state[p]["momentum_buffer"] for p in params]
        grads = [p.grad for p in params]
        torch._foreach_lerp_(velocities, grads, 1 - momentum)
        return torch.stack(torch._foreach_lerp(grads, velocities, momentum)).flatten(2)


def zeropower_via_newtonschulz(g, steps=5):
    """Roughly the nearest (semi-)orthogonal matrices to g (k, rows, columns).

    Singular values land in 0.7 .. 1.2; bfloat16, which GPUs multiply much faster, is enough.
    """
    is_tall = g.shape[1] > g.shape[2]
    x = g.mT if is_tall else g
    x = x.bfloat16() if x.is_cuda else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        b = torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, b, x, beta=3.4445)
    return (x.mT if is_tall else x).to(g.dtype)
