"""Projectors, from vision space to the language model's: PROJECTORS.

The contract: `__init__(*, vision_dim, text_dim, num_patches, **own)`, then the encoder's tokens
(b, num_patches, vision_dim) and pooled vector (b, pooled_dim) -> image tokens among words,
(b, .num_tokens, text_dim), or words themselves, token ids (b, .num_tokens), [PAD] for none.

`own` are settings by name: the script gives a projector those that its `__init__` asks for, of
pooled_dim, label_token_ids and image_tokens, a flag. One that has something to learn besides the
decoder's loss has an `aux_loss(object_tokens)`, a scalar, about its last call. One that can read
words beside the picture has `blocks` and `read_with_words`, for the stage of represent.py.

Image tokens do not begin at one scale: by root mean square linear, pooled and learned queries at
0.5 to 0.6, where words have 0.9, C-Abstractor at 0.26, MLP and pixel shuffle at 0.18, average pool
at 0.1.
"""

import torch
import torch.nn.functional as F
from torch import nn

from data.tokenizer import PAD
from tinyvlm.grid_projectors import AveragePool, CAbstractor, PixelShuffle
from tinyvlm.layers import MLP, Block, Head, init_weights, patch_centers, sincos_2d


class LinearProjector(nn.Module):
    """One matrix; LLaVA, Liu et al. (2023)."""

    def __init__(self, *, vision_dim, text_dim, num_patches):
        super().__init__()
        self.num_tokens = num_patches
        self.project = nn.Linear(vision_dim, text_dim)
        self.apply(init_weights)

    def forward(self, tokens, pooled):
        return self.project(tokens)  # (b, n, vision_dim) -> (b, n, text_dim)


class MLPProjector(nn.Module):
    """Two layers with a GELU; LLaVA-1.5, Liu et al. (2023), whose inner width is the outer one."""

    def __init__(self, *, vision_dim, text_dim, num_patches):
        super().__init__()
        self.num_tokens = num_patches
        self.project = MLP(vision_dim, hidden=2 * text_dim, out=text_dim)
        self.apply(init_weights)

    def forward(self, tokens, pooled):
        return self.project(tokens)  # (b, n, vision_dim) -> (b, n, text_dim)


class PooledProjector(nn.Module):
    """One image token, made of the pooled vector; compare ClipCap, Mokady et al. (2021)."""

    def __init__(self, *, vision_dim, text_dim, num_patches, pooled_dim):
        super().__init__()
        self.num_tokens = 1
        self.project = MLP(pooled_dim, hidden=2 * text_dim, out=text_dim)
        self.apply(init_weights)

    def forward(self, tokens, pooled):
        return self.project(pooled)[:, None]  # (b, pooled_dim) -> (b, 1, text_dim)


# ---------------------------------------------------------------- learned queries


class LearnedQueries(nn.Module):
    """Learned queries read the picture, block after block: Q-Former, resampler and slots.

    The queries start as the position codes of points spread over the picture, and queries and keys
    start with the same matrix, so that at first each query reads its own point most, if by little
    (slots twice as much as the others; compare the anchor points of DETR's successors). What they
    read has its places twice: once as all tokens have them, once in its own code. A subclass says
    how a block reads, and by which attention.
    """

    def __init__(self, blocks, vision_dim, text_dim, num_patches, image_tokens):
        super().__init__()
        self.num_tokens = image_tokens
        self.in_proj = nn.Linear(vision_dim, text_dim)
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.out_proj = nn.LayerNorm(text_dim), nn.Linear(text_dim, text_dim)
        self.apply(init_weights)
        self.query_tokens = nn.Parameter(sincos_2d(r2_sequence(image_tokens), text_dim))
        pos_embed = sincos_2d(patch_centers(num_patches), text_dim)
        self.register_buffer("pos_embed", pos_embed, persistent=False)
        for block in self.blocks:
            attention = self.reading(block)
            attention.key_value.weight.data[:text_dim] = attention.query.weight.data

    def begin(self, tokens):
        """(b, n, vision_dim) -> context (b, n, text_dim), queries (b, queries, text_dim)."""
        context = self.in_proj(tokens) + self.pos_embed
        return context, self.query_tokens.expand(len(tokens), -1, -1)

    def forward(self, tokens, pooled):
        context, x = self.begin(tokens)
        for block in self.blocks:
            x = self.read(block, x, context)
        return self.out_proj(self.norm(x))  # (b, queries, text_dim)


class QFormer(LearnedQueries):
    """Queries look at each other, then at the picture; BLIP-2, Li et al. (2023), where each second
    block looks at the picture."""

    def __init__(self, *, vision_dim, text_dim, num_patches, image_tokens=32, depth=2):
        heads = heads_of(text_dim)
        blocks = (Block(text_dim, heads, context_dim=text_dim) for _ in range(depth))
        super().__init__(blocks, vision_dim, text_dim, num_patches, image_tokens)

    def reading(self, block):
        return block.cross

    def read(self, block, x, context):
        return block(x, context)

    def read_with_words(self, tokens, words, mask, word_mlps):
        """Queries and words (b, t, text_dim) in one self-attention, whose mask (b, 1, n + t, n + t)
        says who sees whom -> queries (b, n, text_dim), normed, and words.

        Words see the picture through the queries alone, and pass an MLP of their own in each block.
        """
        context, queries = self.begin(tokens)
        sizes = [self.num_tokens, words.shape[1]]
        for block, word_mlp in zip(self.blocks, word_mlps, strict=True):
            x = torch.cat([queries, words], 1)  # (b, n + t, text_dim)
            x = x + block.attention(block.norm_attention(x), mask=mask)
            queries, words = x.split(sizes, 1)
            queries = queries + block.cross(block.norm_cross(queries), context)
            queries = queries + block.mlp(block.norm_mlp(queries))
            words = words + word_mlp(words)
        return self.norm(queries), words


class Resampler(LearnedQueries):
    """Queries look at the picture and each other at once: the Perceiver resampler of Flamingo,
    Alayrac et al. (2022), from Perceiver, Jaegle et al. (2021)."""

    def __init__(self, *, vision_dim, text_dim, num_patches, image_tokens=32, depth=2):
        blocks = (Block(text_dim, heads_of(text_dim)) for _ in range(depth))
        super().__init__(blocks, vision_dim, text_dim, num_patches, image_tokens)

    def reading(self, block):
        return block.attention

    def read(self, block, x, context):
        """One attention of all over all, of which the queries' rows alone are computed."""
        queries = torch.arange(self.num_tokens, device=x.device).expand(len(x), -1)
        return block(torch.cat([x, context], dim=1), keep=queries)


class SlotAttention(LearnedQueries):
    """Slots compete for the picture, so that what one has another lacks: slot attention, Locatello
    et al. (2020). Their slots start at random and have a GRU; these start as queries do."""

    def __init__(self, *, vision_dim, text_dim, num_patches, image_tokens=32):
        super().__init__([SlotBlock(text_dim)], vision_dim, text_dim, num_patches, image_tokens)

    def reading(self, block):
        return block

    def read(self, block, x, context):
        return block(x, context)


class SlotBlock(nn.Module):
    """Three rounds, of the same weights, in which slots (b, s, d) share a context (b, m, d) out."""

    def __init__(self, dim, rounds=3):
        super().__init__()
        self.rounds = rounds
        self.norm_slots, self.norm_context = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm_mlp, self.mlp = nn.LayerNorm(dim), MLP(dim)

    def forward(self, x, context):
        keys, values = self.key_value(self.norm_context(context)).chunk(2, dim=-1)  # (b, m, d)
        for _ in range(self.rounds):
            logits = self.query(self.norm_slots(x)) @ keys.mT * keys.shape[-1] ** -0.5  # (b, s, m)
            share = logits.softmax(1)  # over the slots: each patch goes to those that want it most
            share = share / (share.sum(2, keepdim=True) + 1e-6)  # a slot takes the mean of its own
            x = x + self.out(share @ values)
            x = x + self.mlp(self.norm_mlp(x))
        return x


def heads_of(width):
    """How many heads: so many that they are about 32 wide."""
    return next(h for h in range(max(width // 32, 1), 0, -1) if width % h == 0)


def r2_sequence(n):
    """n points that cover the unit square evenly, (n, 2): Roberts' R2 sequence (2018)."""
    k = torch.arange(1, n + 1)[:, None]
    return (0.5 + k * torch.tensor([0.7548776662466927, 0.5698402909980532])) % 1


# ---------------------------------------------------------------- words


class LabelBottleneck(nn.Module):
    """Classify the picture, let the language model talk about the labels: the baseline to beat.

    Each label (a word that the data set names: sizes, colours, shapes) is there or not, decided
    patch by patch; those that are there reach the decoder as the words they are, read with its own
    embeddings. So it knows what occurs, but not what belongs to what, where, or how often. The
    classifier learns from its aux_loss alone, as in a pipeline of two programs: no gradient of the
    decoder's loss comes through the decision.
    """

    def __init__(self, *, vision_dim, text_dim, num_patches, label_token_ids):
        super().__init__()
        self.num_tokens = len(label_token_ids)
        self.classify = MLP(vision_dim, hidden=2 * text_dim, out=self.num_tokens)
        self.classify.down = Head(2 * text_dim, self.num_tokens)  # as the optimizer knows logits
        self.apply(init_weights)
        self.register_buffer("label_token_ids", torch.tensor(label_token_ids), persistent=False)

    def forward(self, tokens, pooled):
        # What is anywhere is in the picture: (b, n, labels) -> (b, labels).
        self.logits = self.classify(tokens).amax(1)
        return torch.where(self.logits > 0, self.label_token_ids, PAD)  # (b, labels) ids

    def aux_loss(self, object_tokens):
        """How wrong the labels of the last forward are: binary cross-entropy.

        object_tokens: the true words of each object, (b, m, w).
        """
        is_there = (object_tokens[..., None] == self.label_token_ids).any(2).any(1)  # (b, labels)
        return F.binary_cross_entropy_with_logits(self.logits.float(), is_there.float())


PROJECTORS = {
    "linear": LinearProjector,
    "mlp": MLPProjector,
    "pooled": PooledProjector,
    "pixelshuffle": PixelShuffle,
    "avgpool": AveragePool,
    "cabstractor": CAbstractor,
    "resampler": Resampler,
    "slots": SlotAttention,
    "qformer": QFormer,
    "label": LabelBottleneck,
}
