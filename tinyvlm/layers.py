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

    Vaswani et al., "Attention is all you need" (2017). qk_norm: queries and keys are normed head by
    head, so that no logit runs away; Henry et al. (2020), Dehghani et al. (2023). ValueError unless
    heads divides dim.
    """

    def __init__(self, dim, heads, context_dim=None, *, bias=True, qk_norm=False):
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by {heads} heads")
        self.heads = heads
        self.query = nn.Linear(dim, dim, bias=bias)
        self.key_value = nn.Linear(context_dim or dim, 2 * dim, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)
        make_norm = nn.RMSNorm if qk_norm else nn.Identity
        self.norm_query, self.norm_key = make_norm(dim // heads), make_norm(dim // heads)

    def forward(self, x, context=None, *, mask=None, cache=None, angles=None):
        """x (b, n, d) -> (b, n, d).

        mask: bool, broadcastable to (b, 1, n, m), True = may look. cache: a dict that keeps keys
        and values of earlier calls; it is extended in place. angles: of rotary positions, those of
        x (b, n, c / 2) and those of the context (b, m, c / 2).
        """
        q, k, v = self.queries_keys_values(x, context, angles)
        if cache is not None:
            if "k" in cache:
                k = torch.cat([cache["k"], k], dim=2)  # (b, h, earlier + m, c)
                v = torch.cat([cache["v"], v], dim=2)
            cache["k"], cache["v"] = k, v
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (b, h, n, c)
        return self.out(rearrange(y, "b h n c -> b n (h c)"))

    def queries_keys_values(self, x, context, angles):
        """x (b, n, d), context (b, m, context_dim) or None -> (b, h, n, c), twice (b, h, m, c)."""
        context = x if context is None else context
        q = rearrange(self.query(x), "b n (h c) -> b h n c", h=self.heads)
        kv = self.key_value(context)  # (b, m, 2 d)
        k, v = rearrange(kv, "b m (two h c) -> two b h m c", two=2, h=self.heads)
        q, k = self.norm_query(q), self.norm_key(k)
        if angles is not None:
            q, k = rotate(q, angles[0]), rotate(k, angles[1])
        return q, k, v

    def weights(self, x, *, mask, angles=None):
        """How much x (b, n, d) looks at itself: (b, h, n, n), each row 1 in all. As in forward."""
        q, k, _ = self.queries_keys_values(x, None, None if angles is None else (angles, angles))
        logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        return logits.masked_fill(~mask, float("-inf")).softmax(-1)


class MLP(nn.Module):
    """Two linear layers with a GELU between them, (..., d) -> (..., out)."""

    def __init__(self, dim, hidden=None, out=None, *, bias=True):
        super().__init__()
        hidden = hidden or 4 * dim
        self.up = nn.Linear(dim, hidden, bias=bias)
        self.down = nn.Linear(hidden, out or dim, bias=bias)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))  # (..., d) -> (..., hidden) -> (..., out)


class SquaredReLU(MLP):
    """The same with the square of a ReLU; So et al., "Primer" (2021)."""

    def forward(self, x):
        return self.down(F.relu(self.up(x)).square())


class SwiGLU(nn.Module):
    """An MLP of which one half opens and shuts the other, (..., d) -> (..., d); Shazeer, "GLU
    variants improve transformer" (2020).

    It has three matrices instead of two, which are so much narrower that it has as many parameters.
    """

    def __init__(self, dim, *, bias=True):
        super().__init__()
        hidden = round(8 / 3 * dim)
        self.gate, self.up = (nn.Linear(dim, hidden, bias=bias) for _ in range(2))
        self.down = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Pre-norm transformer block: the residual is taken before the norm.

    With context_dim, a cross-attention stands between attention and MLP. norm, mlp: classes.
    """

    def __init__(
        self, dim, heads, context_dim=None, *,
        norm=nn.LayerNorm, mlp=MLP, bias=True, qk_norm=False,
    ):  # fmt: skip
        super().__init__()
        self.norm_attention = norm(dim)
        self.attention = Attention(dim, heads, bias=bias, qk_norm=qk_norm)
        if context_dim:
            self.norm_cross, self.cross = norm(dim), Attention(dim, heads, context_dim)
        self.norm_mlp, self.mlp = norm(dim), mlp(dim, bias=bias)

    def forward(self, x, context=None, *, mask=None, cache=None, keep=None, angles=None):
        """x (b, n, d) -> (b, n, d), or (b, k, d) at the positions keep (b, k) alone.

        The others are read, but nothing is computed for them. angles: of rotary positions, (b, n,
        c / 2).
        """
        q = kv = self.norm_attention(x)  # (b, n, d)
        q_angles = angles
        if keep is not None:
            x, q = (torch.take_along_dim(a, keep[..., None], 1) for a in (x, kv))  # (b, k, d)
            if mask is not None:
                mask = torch.take_along_dim(mask, keep[:, None, :, None], 2)  # (b, 1, k, m)
            if angles is not None:
                q_angles = torch.take_along_dim(angles, keep[..., None], 1)  # (b, k, c / 2)
        angles = None if angles is None else (q_angles, angles)
        x = x + self.attention(q, kv, mask=mask, cache=cache, angles=angles)
        if context is not None:
            x = x + self.cross(self.norm_cross(x), context)
        return x + self.mlp(self.norm_mlp(x))


class Head(nn.Linear):
    """A linear layer that leaves a model: to logits, or into the space that CLIP's towers share.

    A type of its own, for the optimizer: Muon trains what lies inside, AdamW the rim (optim.py).
    """


def sincos_2d(points, dim):
    """2-D sine-cosine code of points (n, 2) in [0, 1]: (n, dim), amplitude 1; see MAE, He (2021).

    The wavelengths run from 1/7 of the picture (two patches, whose cosines are 0 at the middles of
    patches) to about twice its side. Worked out in float64 and rounded: a library's float32 sine
    has other last bits on another day. ValueError unless dim is a multiple of 4.
    """
    if dim % 4:
        raise ValueError(
            f"width {dim} is not a multiple of 4, which 2-D sine-cosine positions need"
        )
    octaves = torch.arange(dim // 4, dtype=torch.float64) * 8 / dim
    frequency = torch.pi * 14 / 4**octaves  # (dim / 4,)
    angle = points[:, :, None] * frequency  # (n, 2, dim / 4)
    return rearrange([angle.sin(), angle.cos()], "two n xy f -> n (xy two f)").float()


def rotary_angles(positions, width):
    """Angles by which heads of this width are turned at positions (b, t, 2): (b, t, width / 2).

    RoFormer, Su et al. (2021), with two coordinates as in Qwen2-VL, Wang et al. (2024): of the
    frequencies each second one counts rows and the others columns. Where both are the same number,
    as those of words are, these are RoFormer's one-dimensional positions. width: a multiple of 4.
    """
    frequency = 10_000 ** -(torch.arange(0, width, 2, device=positions.device) / width)
    frequency = rearrange(frequency, "(f two) -> f two", two=2)
    return rearrange(positions[:, :, None] * frequency, "b t f two -> b t (f two)")


def rotate(x, angles):
    """Turn pairs of numbers of x (b, h, n, c) by angles (b, n, c / 2): what two of them have in
    common then depends on how far apart they stand."""
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]  # (b, 1, n, c / 2)
    one, other = x.chunk(2, dim=-1)
    return torch.cat([one * cos - other * sin, one * sin + other * cos], -1).type_as(x)


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


@torch.no_grad()
def begin_alike(module, other):
    """What both have begins in `module` as in `other`, in place: two of one seed differ in nothing
    but what they are."""
    weights = other.state_dict()
    for name, weight in module.state_dict().items():
        if name in weights and weights[name].shape == weight.shape:
            weight.copy_(weights[name])
