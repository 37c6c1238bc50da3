"""The decoder: a tiny GPT that takes embeddings, so that image tokens can stand among words."""

from torch import nn

from tinyvlm.layers import Block, init_weights

MAX_TEXT_TOKENS = 64  # in one text


class GPT(nn.Module):
    """Pre-norm causal transformer with learned positions; Radford et al. (2019).

    Only words have positions here; an image token brings its place in the picture along. So decoders are the same
    to the last weight whatever the number of image tokens in front of the words.
    """

    def __init__(self, *, vocab_size, dim=128, depth=4, heads=4):
        super().__init__()
        self.dim = dim
        self.tok_embed, self.pos_embed = nn.Embedding(vocab_size, dim), nn.Embedding(MAX_TEXT_TOKENS, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm, self.lm_head = nn.LayerNorm(dim), nn.Linear(dim, vocab_size)
        self.apply(init_weights)

    def embed(self, tokens, positions):
        """tokens, positions: (b, t) -> (b, t, d). A position counts the words of a text from 0."""
        return self.tok_embed(tokens) + self.pos_embed(positions)

    def forward(self, x, mask, caches=None, skip_prefix=0):
        """Embeddings x (b, t, d), mask (b, 1, t, seen) with True = may look -> hidden (b, t - wanted, d), normed; `head` makes logits of it.

        caches: one dict for each block, see Attention. The last block leaves out what nobody asks for, the positions before `wanted`:
        with 196 image tokens that is a seventh of a training step.
        """
        for i, block in enumerate(self.blocks):
            is_last = i + 1 == len(self.blocks)
            x = block(x, mask=mask, cache=caches[i] if caches else None, skip_prefix=skip_prefix if is_last else 0)
        return self.norm(x)

    def init_kv_cache(self):
        return [{} for _ in self.blocks]
