"""CLIP's text encoders: TEXT_ENCODERS.

The contract: `__init__(*, vocab_size, dim, depth, heads)`, then tokens (b, t),
`[BOS] words [EOS] [PAD]...`, -> one vector each (b, dim), with `.dim` and `.max_length`, in
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
        b, t = tokens.shape
        if t > self.max_length:
            raise ValueError(f"a caption of {t} tokens is longer than the limit, {self.max_length}")
        is_eos = tokens == EOS  # (b, t)
        if not is_eos.any(1).all():
            raise ValueError("a caption has no [EOS], which is where it is read")
        previous = F.pad(tokens, (1, 0), value=PAD)[:, :-1]
        x = self.tok_embed(tokens) + self.prev_embed(previous)  # (b, t, d)
        x = x + self.pos_embed.weight[:t]
        causal = torch.ones(t, t, dtype=torch.bool, device=x.device).tril()
        for block in self.blocks:
            x = block(x, mask=causal)
        end = is_eos.int().argmax(1)  # (b,)
        return self.norm(x[torch.arange(b, device=x.device), end])  # (b, d)


TEXT_ENCODERS = {"causal": CausalTextEncoder}
