"""What both training scripts need around their loop, and never a loop: optimiser, rates, freezing, seeds, files."""

import fnmatch

import torch
from torch import nn


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by five Newton-Schulz steps; Jordan et al., "Muon" (2024).

    torch.optim.Muon does these steps in bfloat16, which a CPU without such units does hundreds of times slower; here they
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
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, params in by_shape.items():
                updates = []
                for p in params:
                    velocity = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                    velocity.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(velocity, group["momentum"]))  # Nesterov
                scale = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                for p, update in zip(params, orthogonal(torch.stack(updates))):
                    p.sub_(update, alpha=scale)


def orthogonal(g, steps=5):
    """The nearest (semi-)orthogonal matrices to g (k, rows, columns), roughly: singular values land in 0.7 .. 1.2."""
    tall = g.shape[1] > g.shape[2]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (2.0315 * a @ a - 4.7750 * a) @ x
    return x.mT if tall else x
