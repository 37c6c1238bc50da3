"""Decoders that take embeddings, so that image tokens can stand among words: DECODERS.

The contract: `__init__(*, vocab_size, dim, depth, heads)`; `embed(tokens, positions, previous)`,
all (b, t), -> (b, t, dim), where `positions` count the words of a text from 0 and `previous` are
the tokens before these in their texts, or [PAD]. `forward(embeddings, positions, mask,
kv_cache=None, keep=None)` -> hidden (b, t, dim), or (b, k, dim) at the places keep (b, k) alone, of
which `lm_head` makes logits (b, t, vocab_size); here `positions` (b, t, 2) are those in the whole
row, as `number_row` gives them. `init_kv_cache()` gives a list of dicts of tensors whose first axis
is the batch; with it and without it the logits are the same. With `.dim`, `.max_length` (tokens in
one text) and `tok_embed`.
"""

import torch
import torch.nn.functional as F
from torch import nn

from tinyvlm.layers import (
    Block,
    Head,
    SquaredReLU,
    SwiGLU,
    begin_alike,
    grid_shape,
    init_weights,
    rotary_angles,
)

MAX_TEXT_TOKENS = 96  # in one text


# ---------------------------------------------------------------- how image tokens are numbered
#
# image_mask (b, n), False for those that are not there, which nobody else sees -> positions
# (b, n, 2), rows and columns, from 0, and how many positions the image takes, (b,). (A caption's
# first word is predicted where the last one would stand: from a blank, if it is not there.)


def raster(image_mask):
    """One after the other, as words are: both coordinates are the same number."""
    order = image_mask.cumsum(1) - 1  # (b, n)
    return order[..., None].expand(-1, -1, 2), image_mask.sum(1)


def one_position(image_mask):
    """All at the same place, so that none is nearer to the words than another."""
    place = torch.zeros_like(image_mask, dtype=torch.long)
    return place[..., None].expand(-1, -1, 2), image_mask.any(1).long()


def rows_and_columns(image_mask):
    """As they lie in the grid; M-RoPE of Qwen2-VL, Wang et al. (2024). The text goes on after the
    longer side."""
    shapes = [grid_shape(max(n, 1)) for n in range(image_mask.shape[1] + 1)]
    shapes = torch.tensor(shapes, device=image_mask.device)[image_mask.sum(1)]  # (b, 2)
    columns = shapes[:, 1:]  # (b, 1)
    order = image_mask.cumsum(1) - 1  # (b, n)
    places = torch.stack([order // columns, order % columns], dim=-1)
    return places, shapes.amax(1) * image_mask.any(1)


# ---------------------------------------------------------------- decoders


class Decoder(nn.Module):
    """What all share: embedded words, blocks, a norm. A subclass makes the blocks, norm, lm_head.

    A word is embedded together with the one before it, so that "red circle" is one thing from the
    start (compare the token shift of RWKV, Peng et al. 2023): who is asked about is known earlier.
    """

    block_parts = {}  # what its blocks have other than Block's defaults
    number_image = staticmethod(raster)

    def __init__(self, vocab_size, dim):
        super().__init__()
        self.dim, self.max_length = dim, MAX_TEXT_TOKENS
        self.tok_embed = nn.Embedding(vocab_size, dim)
        self.prev_embed = nn.Embedding(vocab_size, dim)

    def make_blocks(self, depth, heads):
        return nn.ModuleList(Block(self.dim, heads, **self.block_parts) for _ in range(depth))

    def number_row(self, n, image_mask, position_ids, blind):
        """Where each of `[BOS] image text` stands, n image tokens: (b, 1 + n + t, 2).

        image_mask: (b, n), or None. position_ids, blind: (b, t). A segment goes on from the image
        as if it stood alone, and a blind one from [BOS], for it knows of no image.
        """
        if image_mask is None:
            image_mask = torch.ones(len(blind), n, dtype=torch.bool, device=blind.device)
        places, taken = self.number_image(image_mask)  # (b, n, 2), (b,)
        words = position_ids + taken[:, None] * ~blind  # (b, t)
        row = torch.cat([places, words[..., None].expand(-1, -1, 2)], dim=1)
        return F.pad(1 + row, (0, 0, 1, 0))  # [BOS] stands at 0

    def forward(self, x, positions, mask, kv_cache=None, keep=None):
        """Embeddings (b, t, d) -> hidden (b, t, d), or (b, k, d) at keep (b, k) alone, normed.

        positions: (b, t, 2). mask: bool (b, 1, t, seen), True = may look, or one for each block
        (depth, b, 1, t, seen). kv_cache: one dict a block, see Attention. The last block leaves out
        what nobody asks for: in training, all but what predicts a label.
        """
        masks = mask if mask.dim() == 5 else mask.expand(len(self.blocks), *mask.shape)
        angles = self.angles(positions)
        for i, block in enumerate(self.blocks):
            is_last = i + 1 == len(self.blocks)
            cache = kv_cache[i] if kv_cache else None
            x = block(x, mask=masks[i], cache=cache, keep=keep if is_last else None, angles=angles)
        return self.norm(x)

    def init_kv_cache(self):
        return [{} for _ in self.blocks]


class GPT(Decoder):
    """Pre-norm causal transformer with learned positions; Radford et al. (2019).

    Only words have positions here; an image token brings its place in the picture along. So
    decoders are the same to the last weight whatever the number of image tokens before the words.
    """

    def __init__(self, *, vocab_size, dim=128, depth=4, heads=4):
        super().__init__(vocab_size, dim)
        self.pos_embed = nn.Embedding(MAX_TEXT_TOKENS, dim)
        self.blocks = self.make_blocks(depth, heads)
        self.norm, self.lm_head = nn.LayerNorm(dim), Head(dim, vocab_size)
        self.apply(init_weights)

    def embed(self, tokens, positions, previous):
        """(b, t) each -> (b, t, d). A position counts the words of a text from 0."""
        return self.tok_embed(tokens) + self.prev_embed(previous) + self.pos_embed(positions)

    def angles(self, positions):
        return None  # its words have their positions already


class GPTSquaredReLU(GPT):
    """GPT whose MLPs have a squared ReLU in the place of the GELU; So et al., "Primer" (2021)."""

    block_parts = dict(mlp=SquaredReLU)


class GPTQKNorm(GPT):
    """GPT whose queries and keys are normed; Henry et al. (2020), Dehghani et al. (2023)."""

    block_parts = dict(qk_norm=True)


class Llama(Decoder):
    """LLaMA, Touvron et al. (2023): RMSNorm, rotary positions, SwiGLU, no biases.

    Its image tokens have positions as words have, so how they are numbered counts.
    """

    block_parts = dict(norm=nn.RMSNorm, mlp=SwiGLU, bias=False)

    def __init__(self, *, vocab_size, dim=128, depth=4, heads=4):
        gpt = GPT(vocab_size=vocab_size, dim=dim, depth=depth, heads=heads)
        super().__init__(vocab_size, dim)
        self.blocks = self.make_blocks(depth, heads)
        self.head_width = dim // heads
        if self.head_width % 4:
            what = f"heads of width {self.head_width} = {dim} / {heads}"
            raise ValueError(f"{what} are no multiple of 4, which rotary positions need")
        self.norm, self.lm_head = nn.RMSNorm(dim), Head(dim, vocab_size, bias=False)
        self.apply(init_weights)
        begin_alike(self, gpt)

    def embed(self, tokens, positions, previous):
        """(b, t) each -> (b, t, d). Where a word stands is told by the angles alone."""
        return self.tok_embed(tokens) + self.prev_embed(previous)

    def angles(self, positions):
        """(b, t, 2) -> (b, t, half the width of a head)."""
        return rotary_angles(positions, self.head_width)


class LlamaSquaredReLU(Llama):
    """LLaMA with GPTSquaredReLU's MLPs, which have as many parameters as SwiGLU."""

    block_parts = Llama.block_parts | dict(mlp=SquaredReLU)


class LlamaQKNorm(Llama):
    """LLaMA whose queries and keys are normed before they are turned, as in Qwen3 (2025)."""

    block_parts = Llama.block_parts | dict(qk_norm=True)


class LlamaOnePosition(Llama):
    """LLaMA with all image tokens at one position."""

    number_image = staticmethod(one_position)


class Llama2D(Llama):
    """LLaMA with image tokens at rows and columns."""

    number_image = staticmethod(rows_and_columns)


DECODERS = {
    "gpt": GPT,
    "gpt-relu2": GPTSquaredReLU,
    "gpt-qknorm": GPTQKNorm,
    "llama": Llama,
    "llama-relu2": LlamaSquaredReLU,
    "llama-qknorm": LlamaQKNorm,
    "llama-one": LlamaOnePosition,
    "llama-2d": Llama2D,
}
