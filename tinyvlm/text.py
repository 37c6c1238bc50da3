"""CLIP's text encoders: TEXT_ENCODERS.

The contract: `__init__(*, vocab_size, dim, ...)`, of `depth` and `heads` what it has, then tokens
(b, t), `[BOS] words [EOS] [PAD]...`, -> one vector each (b, dim), with `.dim` and `.max_length`, in
tokens. Padding changes nothing. ValueError for longer rows and for those without [EOS].
"""

import torch
import torch.nn.functional as F
from torch import nn

from data.tokenizer import EOS, PAD
from tinyvlm.layers import Block, init_weights


class CausalTextEncoder(nn.Module):
    """A causal transformer, read at [EOS]; Radford et al., CLIP (2021), section 2.4.

    Causal attention makes what stands behind [EOS] invisible to it, so padding needs no mask. A
    word is embedded together with the one before it, as in decoders.py: who goes by single words
    has "a red circle and a blue square" and "a blue circle and a red square" for one caption.
    """

    def __init__(self, *, vocab_size, dim=64, depth=2, heads=2, max_length=64):
        super().__init__()
        self.dim, self.max_length = dim, max_length
        self.tok_embed = nn.Embedding(vocab_size, dim)
        self.prev_embed = nn.Embedding(vocab_size, dim)
        self.pos_embed = nn.Embedding(max_length, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.apply(init_weights)

    def forward(self, tokens):
        """ValueError for a row longer than the positions, or one without [EOS]."""
        is_read, t = words_to_end(tokens, self.max_length), tokens.shape[1]
        x = self.tok_embed(tokens) + self.prev_embed(words_before(tokens))  # (b, t, d)
        x = x + self.pos_embed.weight[:t]
        mask = self.attention_mask(is_read)
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.norm(self.pool(x, is_read))  # (b, d)

    def attention_mask(self, is_read):
        t = is_read.shape[1]
        return torch.ones(t, t, dtype=torch.bool, device=is_read.device).tril()

    def pool(self, x, is_read):
        """(b, t, d) -> what stands at [EOS], (b, d)."""
        return x[torch.arange(len(x), device=x.device), is_read.sum(1) - 1]


class BidirectionalTextEncoder(CausalTextEncoder):
    """The same, but each word reads those before and behind it, as in BERT, Devlin et al. (2018),
    and what is read of the caption is the mean of all."""

    def attention_mask(self, is_read):
        return is_read[:, None, None]  # (b, 1, 1, t): nobody looks at padding

    def pool(self, x, is_read):
        return masked_mean(x, is_read)


class BagOfWords(nn.Module):
    """The mean of word vectors: who is described, and not what belongs to whom. The yardstick of
    Yuksekgonul et al., "When and why VLMs behave like bags-of-words" (2022)."""

    def __init__(self, *, vocab_size, dim=64, max_length=64):
        super().__init__()
        self.dim, self.max_length = dim, max_length
        self.tok_embed = nn.Embedding(vocab_size, dim)
        self.norm = nn.LayerNorm(dim)
        self.apply(init_weights)

    def forward(self, tokens):
        """ValueError as above, so that it reads what the others do."""
        is_read = words_to_end(tokens, self.max_length)
        return self.norm(masked_mean(self.tok_embed(tokens), is_read))  # (b, t, d) -> (b, d)


def words_before(tokens):
    """The token before each of (b, t), [PAD] before the first."""
    return F.pad(tokens, (1, 0), value=PAD)[:, :-1]


def words_to_end(tokens, max_length):
    """Which of tokens (b, t) stand no later than the first [EOS]: bool (b, t).

    ValueError for a row longer than max_length, or one without [EOS].
    """
    t = tokens.shape[1]
    if t > max_length:
        raise ValueError(f"a caption of {t} tokens is longer than the limit, {max_length}")
    is_eos = tokens == EOS  # (b, t)
    if not is_eos.any(1).all():
        raise ValueError("a caption has no [EOS], which is where it is read")
    end = is_eos.int().argmax(1, keepdim=True)  # (b, 1)
    return torch.arange(t, device=tokens.device) <= end


def masked_mean(x, is_read):
    """The mean of those of x (b, t, d) that are read, bool (b, t): (b, d)."""
    return (x * is_read[..., None]).sum(1) / is_read.sum(1, keepdim=True)


TEXT_ENCODERS = {
    "causal": CausalTextEncoder,
    "bidirectional": BidirectionalTextEncoder,
    "bag": BagOfWords,
}
