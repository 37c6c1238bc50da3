"""Projectors of projectors.py that take the tokens as the grid in which the patches lie."""

import torch.nn.functional as F
from einops import rearrange
from torch import nn

from tinyvlm.convolutions import BasicBlock
from tinyvlm.layers import MLP, grid_shape, init_weights


class PixelShuffle(nn.Module):
    """Patches 2 x 2 side by side, then the MLP: a quarter of its tokens, nothing thrown away.

    InternVL 1.5, Chen et al. (2024), there with a norm before the MLP; the name is that of the way
    back, Shi et al. (2016). A grid with odd sides gets an empty row or column.
    """

    def __init__(self, *, vision_dim, text_dim, num_patches):
        super().__init__()
        self.rows, self.columns = grid_shape(num_patches)
        self.num_tokens = -(-self.rows // 2) * -(-self.columns // 2)
        self.project = MLP(4 * vision_dim, hidden=2 * text_dim, out=text_dim)
        self.apply(init_weights)

    def forward(self, tokens, pooled):
        grid = rearrange(tokens, "b (y x) d -> b y x d", y=self.rows)
        grid = F.pad(grid, (0, 0, 0, self.columns % 2, 0, self.rows % 2))
        squares = rearrange(grid, "b (y i) (x j) d -> b (y x) (i j d)", i=2, j=2)
        return self.project(squares)  # (b, n / 4, 4 vision_dim) -> (b, n / 4, text_dim)


def pooled_shape(image_tokens):
    """Rows and columns of the grid that patches are averaged to: 49 -> (7, 7), 32 -> (4, 8).
    ValueError for numbers that only make a strip, which would mix what stands above what."""
    rows, columns = grid_shape(image_tokens)
    if columns > 2 * rows:
        raise ValueError(f"{image_tokens} image tokens make no grid (49 or 32 would)")
    return rows, columns


class AveragePool(nn.Module):
    """The means over a smaller grid, then the MLP; DeCo, Yao et al. (2024): compressing needs
    nothing learned. Where sides do not divide, cells overlap.
    ValueError for image_tokens that make no grid."""

    def __init__(self, *, vision_dim, text_dim, num_patches, image_tokens=32):
        super().__init__()
        self.rows, self.num_tokens = grid_shape(num_patches)[0], image_tokens
        self.pooled = pooled_shape(image_tokens)
        self.project = MLP(vision_dim, hidden=2 * text_dim, out=text_dim)
        self.apply(init_weights)

    def forward(self, tokens, pooled):
        grid = rearrange(tokens, "b (i j) d -> b d i j", i=self.rows)
        small = F.adaptive_avg_pool2d(grid, self.pooled)
        return self.project(rearrange(small, "b d i j -> b (i j) d"))  # (b, n', text_dim)


class CAbstractor(nn.Module):
    """The same between convolutions, so that neighbours are told apart before they are averaged;
    C-Abstractor of Honeybee, Cha et al. (2023).

    A plain residual block on either side, where Honeybee has three of RegNet's: it costs what the
    Q-Former costs. ValueError for image_tokens that make no grid.
    """

    def __init__(self, *, vision_dim, text_dim, num_patches, image_tokens=32):
        super().__init__()
        self.rows, self.num_tokens = grid_shape(num_patches)[0], image_tokens
        self.pooled = pooled_shape(image_tokens)
        self.before = BasicBlock(vision_dim, vision_dim)
        self.after = BasicBlock(vision_dim, text_dim)
        self.project = nn.Linear(text_dim, text_dim)
        self.apply(init_weights)

    def forward(self, tokens, pooled):
        grid = rearrange(tokens, "b (i j) d -> b d i j", i=self.rows)
        small = F.adaptive_avg_pool2d(self.before(grid), self.pooled)
        out = self.after(small)  # (b, text_dim, i', j')
        return self.project(rearrange(out, "b d i j -> b (i j) d"))  # (b, n', text_dim)
