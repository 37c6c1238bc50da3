"""What is trained and how fast: freezing, parameter groups, the schedule, a step, and Muon."""

import fnmatch
import math

import torch
from torch import nn

from tinyvlm.training.config import UserError


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


def lr_schedule(step, steps, warmup, flat=0.5):
    """Share of the full learning rate at a step: linear warm-up, flat until `flat` of the steps, then linear to 5 %."""
    rise = min(1.0, (step + 1) / max(warmup, 1))
    fall = max(0.0, (step / steps - flat) / (1 - flat))
    return rise * (1 - 0.95 * fall)


def configure_optimizers(model, lr, muon_lr, weight_decay):
    """Muon for convolutions, the matrices inside blocks and those of projectors, AdamW for the rest; norms, biases, embeddings, temperature do not decay."""
    groups = {"muon": [], "decayed": [], "plain": []}
    for name, p in model.named_parameters():
        if p.requires_grad:
            groups[param_group(name, p)].append(p)
    made = [Muon(groups["muon"], lr=muon_lr)] if groups["muon"] else []
    adam = [dict(params=groups["decayed"], weight_decay=weight_decay), dict(params=groups["plain"], weight_decay=0.0)]
    made.append(torch.optim.AdamW(adam, lr=lr, betas=(0.9, 0.98)))
    for optimizer in made:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
    return made


def param_group(name, parameter):
    if parameter.ndim < 2 or name.rsplit(".", 2)[-2] in ("tok_embed", "pos_embed") or name.endswith("query_tokens"):
        return "plain"
    inside = ".blocks." in name or name.startswith("projector.")
    return "muon" if parameter.ndim == 4 or inside else "decayed"


def set_lr(optimizers, share):
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["full_lr"] * share


def backward_and_step(optimizers, parameters, loss, step):
    """Backward, clip the gradient's norm at 1, step. Raises RuntimeError, before any weight changes, if a number is not finite, and UserError if the
    loss depends on nothing that is trained."""
    if not loss.requires_grad:
        raise UserError("the loss depends on nothing that is trained in this stage; train more, such as --train-language 'decoder.*'")
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_([p for p in parameters if p.requires_grad], 1.0)
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        raise RuntimeError(f"the loss or its gradient is not finite at step {step}; nothing more was saved, try a smaller --lr")
    for optimizer in optimizers:
        optimizer.step()


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
                for p, direction in zip(params, zeropower_via_newtonschulz(torch.stack(updates).flatten(2))):
                    p.sub_(direction.view_as(p), alpha=scale)


def zeropower_via_newtonschulz(g, steps=5):
    """Roughly the nearest (semi-)orthogonal matrices to g (k, rows, columns): singular values land in 0.7 .. 1.2."""
    tall = g.shape[1] > g.shape[2]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (2.0315 * a @ a - 4.7750 * a) @ x
    return x.mT if tall else x
