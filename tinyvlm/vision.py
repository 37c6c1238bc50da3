"""Vision encoders: VISION_ENCODERS.

The contract: `__init__(*, image_size, dim, ...)`, then pictures, uint8 (b, 3, H, W), -> tokens
(b, num_tokens, dim) and one pooled vector (b, pooled_dim), with `.dim`, `.pooled_dim` and
`.num_tokens`. ValueError for sizes that do not fit.
"""

from einops import rearrange
from einops.layers.torch import Rearrange
from torch import nn

from tinyvlm.layers import MLP, Block, init_weights, patch_centers, sincos_2d

GRID = 14  # patches along a side; the picture's side is GRID * patch_size


def check_size(image_size):
    if image_size % (2 * GRID):
        raise ValueError(f"image size {image_size} is not a multiple of {2 * GRID}")


def strided_conv(in_channels, out_channels, stride):
    """A convolution that makes a side shorter by `stride` and leaves no pixel out.

    Its kernel is 3 x 3, or larger where the stride is.
    """
    size = max(3, stride | 1)
    padding = (size - stride + 1) // 2
    return nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=padding)


def begin_as_identity(block):
    """A block adds nothing to its input at first, so that a patch stays what it is until there is
    something to add; Zhang et al., "Fixup" (2019). For `blocks.apply`."""
    if hasattr(block, "attention"):
        nn.init.zeros_(block.attention.out.weight)
    if hasattr(block, "mlp"):
        nn.init.zeros_(block.mlp.down.weight)


def normalize_pixels(pixels):
    """Bytes 0 .. 255 -> floats -1 .. 1."""
    return pixels.float() / 127.5 - 1


class ViT(nn.Module):
    """Vision transformer, Dosovitskiy et al. (2020), with fixed sine-cosine positions.

    The tokens are what the last block gives, normed; the pooled vector is their maximum, dimension
    by dimension (experiments/LOG.md says why not their mean).
    """

    num_tokens = GRID * GRID

    def __init__(self, *, image_size=56, dim=64, depth=4, heads=2):
        super().__init__()
        check_size(image_size)
        self.dim = self.pooled_dim = dim
        self.patch_embed = self.make_patch_embed(image_size // GRID, dim)
        pos_embed = sincos_2d(patch_centers(self.num_tokens), dim)
        self.register_buffer("pos_embed", pos_embed, persistent=False)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
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
        x = x + self.pos_embed  # (n, d)
        for block in self.blocks:
            x = block(x)
        tokens = self.norm(x)  # (b, n, d)
        return tokens, tokens.max(1).values  # pooled (b, d)


class StemViT(ViT):
    """The same with three small convolutions before the grid: shapes are seen earlier.

    Xiao et al., "Early convolutions help transformers see better" (2021).
    """

    def make_patch_embed(self, patch_size, dim):
        return nn.Sequential(
            nn.Conv2d(3, dim // 2, 3, stride=2, padding=1),
            nn.GELU(),
            strided_conv(dim // 2, dim, patch_size // 2),
            nn.GELU(),
            nn.Conv2d(dim, dim, 3, padding=1),
            Rearrange("b d i j -> b (i j) d"),
        )


class ConvNeXt(nn.Module):
    """A convolutional encoder on the same grid: a small stem, then ConvNeXt blocks; Liu (2022).

    A 5 x 5 depthwise convolution on patches of 4 pixels reads just about one object.
    """

    num_tokens = GRID * GRID

    def __init__(self, *, image_size=56, dim=64, depth=3):
        super().__init__()
        check_size(image_size)
        self.dim = self.pooled_dim = dim
        self.patch_embed = nn.Sequential(
            nn.Conv2d(3, dim // 2, 3, stride=2, padding=1),
            nn.GELU(),
            strided_conv(dim // 2, dim, image_size // GRID // 2),
        )
        self.blocks = nn.ModuleList(ConvBlock(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        pos_embed = sincos_2d(patch_centers(self.num_tokens), dim)
        self.register_buffer("pos_embed", pos_embed, persistent=False)
        self.apply(init_weights)
        self.blocks.apply(begin_as_identity)

    def forward(self, pixels):
        x = self.patch_embed(normalize_pixels(pixels))  # (b, 3, H, W) -> (b, d, 14, 14)
        x = rearrange(x, "b d i j -> b (i j) d") + self.pos_embed
        for block in self.blocks:
            x = block(x)
        tokens = self.norm(x)  # (b, n, d)
        return tokens, tokens.max(1).values  # pooled (b, d)


class ConvBlock(nn.Module):
    """Depthwise convolution between patches, then an MLP within each; (b, n, d) -> (b, n, d).

    The residual is taken before the convolution.
    """

    def __init__(self, dim):
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.norm, self.mlp = nn.LayerNorm(dim), MLP(dim)

    def forward(self, x):
        grid = rearrange(x, "b (i j) d -> b d i j", i=GRID)  # (b, d, 14, 14)
        mixed = rearrange(self.depthwise(grid), "b d i j -> b (i j) d")  # (b, n, d)
        return x + self.mlp(self.norm(mixed))


class ConvViT(ConvNeXt):
    """The same, but the last block has attention: what is near is seen first, then who stands
    where; Dai et al., "CoAtNet" (2021)."""

    def __init__(self, *, image_size=56, dim=64, depth=3, heads=2):
        super().__init__(image_size=image_size, dim=dim, depth=depth - 1)
        self.blocks.append(Block(dim, heads))
        self.apply(init_weights)
        self.blocks.apply(begin_as_identity)


VISION_ENCODERS = {"vit": ViT, "stem": StemViT, "convnext": ConvNeXt, "convvit": ConvViT}
