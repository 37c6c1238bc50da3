"""Convolutional parts, for the encoders of vision.py and the C-Abstractor of projectors.py.

Shapes as in layers.py; i j: rows and columns of a grid.
"""

import math

import torch.nn.functional as F
from einops import rearrange
from torch import nn

from tinyvlm.layers import MLP, grid_shape


def strided_conv(in_channels, out_channels, stride):
    """A convolution that makes a side shorter by `stride` and leaves no pixel out.

    Its kernel is 3 x 3, or larger where the stride is.
    """
    size = max(3, stride | 1)
    padding = (size - stride + 1) // 2
    return nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=padding)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution between patches, then an MLP within each; (b, n, d) -> (b, n, d).

    The residual is taken before the convolution. Liu et al. (2022).
    """

    def __init__(self, dim):
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.norm, self.mlp = nn.LayerNorm(dim), MLP(dim)

    def forward(self, x):
        rows, _ = grid_shape(x.shape[1])
        grid = rearrange(x, "b (i j) d -> b d i j", i=rows)
        mixed = rearrange(self.depthwise(grid), "b d i j -> b (i j) d")  # (b, n, d)
        return x + self.mlp(self.norm(mixed))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, (b, c, i, j) -> (b, out_channels, i / stride, ...).

    He et al., "Deep residual learning" (2015), with norm and ReLU before each convolution as in
    "Identity mappings" (2016), so that nothing stands in the way of the residual. GroupNorm, Wu and
    He (2018): no picture of a batch knows of another. Where widths or strides differ, the shortcut
    is a 3 x 3 convolution, too (theirs: 1 x 1).
    """

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.norm1, self.norm2 = group_norm(in_channels), group_norm(out_channels)
        self.conv1 = strided_conv(in_channels, out_channels, stride)
        self.conv2 = strided_conv(out_channels, out_channels, 1)
        if (in_channels, 1) == (out_channels, stride):
            self.shortcut = nn.Identity()
        else:
            self.shortcut = strided_conv(in_channels, out_channels, stride)

    def forward(self, x):
        x = x.contiguous()  # else torch's GroupNorm crashes where x needs no gradient (2.13, CPU)
        y = self.conv1(F.relu(self.norm1(x)))  # (b, out_channels, i / stride, j / stride)
        return self.shortcut(x) + self.conv2(F.relu(self.norm2(y)))


def group_norm(channels):
    """Over 8 groups of channels, or as many as divide them."""
    return nn.GroupNorm(math.gcd(8, channels), channels)
