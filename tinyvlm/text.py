"""CLIP's text tower: tokens (b, t) -> one vector (b, d), read at [EOS]."""

import torch
from torch import nn

from data.tokenizer import EOS
from tinyvlm.layers import Block, init_weights


class TextTower(nn.Module):
    """A causal transformer over `[BOS] words [EOS]`; Radford et al., CLIP (2021), section 2.4.

    Causal attention makes what stands behind [EOS] invisible to it, so padding needs no mask.
    """

    def __init__(self, *, vocab_size, dim=64, depth=2, heads=2, max_length=64):
        super().__init__()
        self.tok_embed, self.pos_embed = nn.Embedding(vocab_size, dim), nn.Embedding(max_length, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.apply(init_weights)

    def forward(self, tokens):
        """ValueError if a row is longer than the tower's positions."""
        b, t = tokens.shape
        if t > self.pos_embed.num_embeddings:
            raise ValueError(f"a caption of {t} tokens is longer than the limit of {self.pos_embed.num_embeddings}")
        x = self.tok_embed(tokens) + self.pos_embed.weight[:t]
        causal = torch.ones(t, t, dtype=torch.bool, device=x.device).tril()
        for block in self.blocks:
            x = block(x, mask=causal)
        end = (tokens == EOS).int().argmax(1)
        return self.norm(x[torch.arange(b, device=x.device), end])
