"""Vision encoders: VISION_ENCODERS.

The contract: `__init__(*, image_size, dim, ...)`, then pictures, uint8 (b, 3, H, W), -> tokens
(b, num_tokens, dim) and one pooled vector (b, pooled_dim), with `.dim`, `.pooled_dim` and
`.num_tokens`. `.has_class_token` where the pooled vector is that of one, and so not made of the
tokens. ValueError for sizes that do not fit.

All of these have a grid of 14 x 14 tokens and start alike: blocks add nothing at first.
"""

import torch
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import nn

from tinyvlm.convolutions import BasicBlock, ConvNeXtBlock, strided_conv
from tinyvlm.layers import Block, begin_alike, init_weights, patch_centers, sincos_2d

GRID = 14  # patches along a side; the picture's side is GRID * patch_size
REGISTERS = 4


def begin_as_identity(block):
    """A block adds nothing to its input at first, so that a patch stays what it is until there is
    something to add; Zhang et al., "Fixup" (2019). For `blocks.apply`."""
    if hasattr(block, "attention"):
        nn.init.zeros_(block.attention.out.weight)
    if hasattr(block, "mlp"):
        nn.init.zeros_(block.mlp.down.weight)
    if hasattr(block, "conv2"):
        nn.init.zeros_(block.conv2.weight)
        nn.init.zeros_(block.conv2.bias)


def normalize_pixels(pixels):
    """Bytes 0 .. 255 -> floats -1 .. 1."""
    return pixels.float() / 127.5 - 1


class VisionEncoder(nn.Module):
    """What all of them share: patches, fixed sine-cosine positions, blocks, a norm.

    The tokens are what the last block gives, normed; the pooled vector is their maximum, dimension
    by dimension (experiments/LOG.md says why not their mean).
    """

    num_tokens = GRID * GRID
    has_class_token = False
    skipped = 0  # so many of the last blocks are left out

    def __init__(self, image_size, dim, blocks=()):
        super().__init__()
        if image_size % (2 * GRID):
            raise ValueError(f"image size {image_size} is not a multiple of {2 * GRID}")
        self.dim = self.pooled_dim = dim
        self.patch_embed = self.make_patch_embed(image_size // GRID, dim)
        pos_embed = sincos_2d(patch_centers(self.num_tokens), dim)
        self.register_buffer("pos_embed", pos_embed, persistent=False)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)
        self.apply(init_weights)
        self.blocks.apply(begin_as_identity)

    def make_patch_embed(self, patch_size, dim):
        return nn.Sequential(
            Rearrange("b c (i p) (j q) -> b (i j) (p q c)", p=patch_size, q=patch_size),
            nn.Linear(patch_size * patch_size * 3, dim),
        )

    def forward(self, pixels):
        x = self.patch_embed(normalize_pixels(pixels))  # (b, 3, H, W) -> (b, n, d)
        tokens = self.norm(self.run_blocks(x + self.pos_embed))  # (b, n, d)
        return tokens, tokens.max(1).values  # pooled (b, d)

    def run_blocks(self, x):
        for block in self.blocks[: len(self.blocks) - self.skipped]:
            x = block(x)
        return x


class Patches(VisionEncoder):
    """No encoder: each patch through one matrix, and all is left to the language model; Fuyu,
    Bavishi et al. (2023)."""

    def __init__(self, *, image_size=56, dim=64):
        super().__init__(image_size, dim)


# ---------------------------------------------------------------- vision transformers


class ViT(VisionEncoder):
    """Vision transformer, Dosovitskiy et al. (2020)."""

    def __init__(self, *, image_size=56, dim=64, depth=4, heads=2):
        super().__init__(image_size, dim, (Block(dim, heads) for _ in range(depth)))


class StemViT(ViT):
    """The same with three small convolutions before the grid: shapes are seen earlier.

    Xiao et al., "Early convolutions help transformers see better" (2021), who take out a block in
    their place; here they come on top (with depth 3, a third more parameters).
    """

    def __init__(self, *, image_size=56, dim=64, depth=4, heads=2):
        vit = ViT(image_size=image_size, dim=dim, depth=depth, heads=heads)
        super().__init__(image_size=image_size, dim=dim, depth=depth, heads=heads)
        begin_alike(self, vit)

    def make_patch_embed(self, patch_size, dim):
        return nn.Sequential(
            nn.Conv2d(3, dim // 2, 3, stride=2, padding=1),
            nn.GELU(),
            strided_conv(dim // 2, dim, patch_size // 2),
            nn.GELU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            Rearrange("b d i j -> b (i j) d"),
        )


class RegisterViT(ViT):
    """ViT with registers: tokens without a patch, which all may read and write and nobody gets.

    Darcet et al., "Vision transformers need registers" (2023): without them, patches of little
    interest are made to hold what is known of the whole picture.
    """

    def __init__(self, *, image_size=56, dim=64, depth=4, heads=2):
        super().__init__(image_size=image_size, dim=dim, depth=depth, heads=heads)
        self.registers = nn.Parameter(0.02 * torch.randn(REGISTERS, dim))

    def run_blocks(self, x):
        registers = self.registers.expand(len(x), -1, -1)  # (b, r, d)
        x = super().run_blocks(torch.cat([x, registers], dim=1))  # (b, n + r, d)
        return x[:, : self.num_tokens]


class LearnedPositionViT(ViT):
    """ViT with learned positions, as in its paper; they begin as strong as the fixed ones."""

    def __init__(self, *, image_size=56, dim=64, depth=4, heads=2):
        super().__init__(image_size=image_size, dim=dim, depth=depth, heads=heads)
        self.pos_embed = nn.Parameter(torch.randn(self.num_tokens, dim) * 0.5**0.5)


class ClassTokenViT(ViT):
    """ViT whose pooled vector is that of a class token, as in its paper: attention does the
    pooling. As blocks add nothing at first, it sees nothing before the second step."""

    has_class_token = True

    def __init__(self, *, image_size=56, dim=64, depth=4, heads=2):
        super().__init__(image_size=image_size, dim=dim, depth=depth, heads=heads)
        self.class_token = nn.Parameter(0.02 * torch.randn(dim))

    def forward(self, pixels):
        x = self.patch_embed(normalize_pixels(pixels)) + self.pos_embed  # (b, n, d)
        first = self.class_token.expand(len(x), 1, -1)  # (b, 1, d)
        x = self.norm(self.run_blocks(torch.cat([first, x], dim=1)))  # (b, 1 + n, d)
        return x[:, 1:], x[:, 0]


# ---------------------------------------------------------------- convolutional ones


class ConvEncoder(VisionEncoder):
    """A small stem, then ConvNeXt blocks; Liu et al. (2022).

    A 5 x 5 depthwise convolution on patches of 4 pixels reads just about one object.
    """

    def __init__(self, image_size, dim, depth):
        super().__init__(image_size, dim, (ConvNeXtBlock(dim) for _ in range(depth)))

    def make_patch_embed(self, patch_size, dim):
        return nn.Sequential(
            nn.Conv2d(3, dim // 2, 3, stride=2, padding=1),
            nn.GELU(),
            strided_conv(dim // 2, dim, patch_size // 2),
            Rearrange("b d i j -> b (i j) d"),
        )


class ConvViT(ConvEncoder):
    """The last block has attention: what is near is seen first, then who stands where; Dai et al.,
    "CoAtNet" (2021)."""

    def __init__(self, *, image_size=56, dim=64, depth=3, heads=2):
        super().__init__(image_size, dim, depth - 1)
        self.blocks.append(Block(dim, heads))
        self.apply(init_weights)
        self.blocks.apply(begin_as_identity)


class ConvNeXt(ConvEncoder):
    """A convolutional encoder on the same grid, to the last block."""

    def __init__(self, *, image_size=56, dim=64, depth=3):
        convvit = ConvViT(image_size=image_size, dim=dim, depth=depth)
        super().__init__(image_size, dim, depth)
        begin_alike(self, convvit)


class ResNet(VisionEncoder):
    """Residual network of basic blocks, He et al. (2015): one that halves the sides of a grid of
    28 x 28, then depth blocks on that of 14 x 14."""

    def __init__(self, *, image_size=56, dim=64, depth=3):
        super().__init__(image_size, dim, (BasicBlock(dim, dim) for _ in range(depth)))

    def make_patch_embed(self, patch_size, dim):
        return nn.Sequential(
            strided_conv(3, dim // 2, patch_size // 2),
            BasicBlock(dim // 2, dim, stride=2),
            Rearrange("b d i j -> b (i j) d"),
        )

    def run_blocks(self, x):
        grid = super().run_blocks(rearrange(x, "b (i j) d -> b d i j", i=GRID))
        return rearrange(grid, "b d i j -> b (i j) d")


VISION_ENCODERS = {
    "vit": ViT,
    "vit-registers": RegisterViT,
    "vit-learned": LearnedPositionViT,
    "vit-cls": ClassTokenViT,
    "stem": StemViT,
    "convnext": ConvNeXt,
    "convvit": ConvViT,
    "resnet": ResNet,
    "patches": Patches,
}
