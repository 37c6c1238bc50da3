"""What every tower is made of: attention, MLP, block, positions.

Shape legend, used in all files:
    b batch    n image tokens    t text tokens    m tokens of a context    d model width
    h heads    c width of one head    v vocabulary
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn


class Attention(nn.Module):
    """Multi-head attention of queries (b, n, d) over themselves or a context (b, m, context_dim).

    Vaswani et al., "Attention is all you need" (2017). ValueError unless heads divides dim.
    """

    def __init__(self, dim, heads, context_dim=None):
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by {heads} heads")
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(context_dim or dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x, context=None, *, mask=None, cache=None):
        """x (b, n, d) -> (b, n, d).

        mask: bool, broadcastable to (b, 1, n, m), True = may look. cache: a dict that keeps keys
        and values of earlier calls; it is extended in place.
        """
        context = x if context is None else context
        q = rearrange(self.query(x), "b n (h c) -> b h n c", h=self.heads)
        kv = self.key_value(context)  # (b, m, 2 d)
        k, v = rearrange(kv, "b m (two h c) -> two b h m c", two=2, h=self.heads)
        if cache is not None:
            if "k" in cache:
                k = torch.cat([cache["k"], k], dim=2)  # (b, h, earlier + m, c)
                v = torch.cat([cache["v"], v], dim=2)
            cache["k"], cache["v"] = k, v
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (b, h, n, c)
        return self.out(rearrange(y, "b h n c -> b n (h c)"))


class MLP(nn.Module):
    """Two linear layers with a GELU between them, (..., d) -> (..., out)."""

    def __init__(self, dim, hidden=None, out=None):
        super().__init__()
        hidden = hidden or 4 * dim
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, out or dim)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))  # (..., d) -> (..., hidden) -> (..., out)


class Block(nn.Module):
    """Pre-norm transformer block: the residual is taken before the norm.

    With context_dim, a cross-attention stands between attention and MLP.
    """

    def __init__(self, dim, heads, context_dim=None):
        super().__init__()
        self.norm_attention, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        if context_dim:
            self.norm_cross, self.cross = nn.LayerNorm(dim), Attention(dim, heads, context_dim)
        self.norm_mlp, self.mlp = nn.LayerNorm(dim), MLP(dim)

    def forward(self, x, context=None, *, mask=None, cache=None, keep=None):
        """x (b, n, d) -> (b, n, d), or (b, k, d) at the positions keep (b, k) alone.

        The others are read, but nothing is computed for them.
        """
        q = kv = self.norm_attention(x)  # (b, n, d)
        if keep is not None:
            x, q = (torch.take_along_dim(a, keep[..., None], 1) for a in (x, kv))  # (b, k, d)
            if mask is not None:
                mask = torch.take_along_dim(mask, keep[:, None, :, None], 2)  # (b, 1, k, m)
        x = x + self.attention(q, kv, mask=mask, cache=cache)
        if context is not None:
            x = x + self.cross(self.norm_cross(x), context)
        return x + self.mlp(self.norm_mlp(x))


class Head(nn.Linear):
    """A linear layer that leaves a model: to logits, or into the space that CLIP's towers share.

    A type of its own, for the optimizer: Muon trains what lies inside, AdamW the rim (optim.py).
    """


def sincos_2d(points, dim):
    """2-D sine-cosine code of points (n, 2) in [0, 1]: (n, dim), amplitude 1, as in MAE, He (2021).

    The wavelengths run from 1/7 of the picture (two patches) to about twice its side. ValueError
    unless dim is a multiple of 4.
    """
    if dim % 4:
        raise ValueError(
            f"width {dim} is not a multiple of 4, which 2-D sine-cosine positions need"
        )
    frequency = torch.pi * 14 / 4 ** (torch.arange(dim // 4) * 8 / dim)  # (dim / 4,)
    angle = points[:, :, None] * frequency  # (n, 2, dim / 4)
    return rearrange([angle.sin(), angle.cos()], "two n xy f -> n (xy two f)")


def grid_shape(n):
    """Rows and columns of the grid of n patches that is nearest to a square: 196 -> (14, 14)."""
    rows = next(r for r in range(int(n**0.5), 0, -1) if n % r == 0)
    return rows, n // rows


def patch_centers(n):
    """The middles of n patches over the unit square, row by row: (n, 2) as (x, y)."""
    rows, columns = grid_shape(n)
    y, x = torch.meshgrid(
        (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij"
    )
    return torch.stack([x, y], -1).reshape(-1, 2)


def init_weights(module):
    """Linear weights N(0, 0.25 / fan_in), biases 0, embeddings N(0, 0.25); convolutions as torch
    makes them. For `tower.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.5 * module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.5)
