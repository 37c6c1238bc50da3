"""Decoders that take embeddings, so that image tokens can stand among words: DECODERS.

The contract: `__init__(*, vocab_size, dim, depth, heads)`; `embed(tokens, positions, previous)`,
all (b, t), -> (b, t, dim), where `previous` are the tokens before these in their texts, or [PAD];
`forward(embeddings, mask, kv_cache=None, keep=None)` -> hidden (b, t, dim), or (b, k, dim) at the
positions keep (b, k) alone, of which `lm_head` makes logits (b, t, vocab_size). With `.dim`,
`.max_length` (tokens in one text) and `tok_embed`. `init_kv_cache()` gives a list of dicts of
tensors whose first axis is the batch; with it and without it the logits are the same.
"""

from torch import nn

from tinyvlm.layers import Block, Head, init_weights

MAX_TEXT_TOKENS = 96  # in one text


class GPT(nn.Module):
    """Pre-norm causal transformer with learned positions; Radford et al. (2019).

    A word is embedded together with the one before it, so that "red circle" is one thing from the
    start (compare the token shift of RWKV, Peng et al. 2023): who is asked about is known earlier.

    Only words have positions here; an image token brings its place in the picture along. So
    decoders are the same to the last weight whatever the number of image tokens before the words.
    """

    def __init__(self, *, vocab_size, dim=128, depth=4, heads=4):
        super().__init__()
        self.dim, self.max_length = dim, MAX_TEXT_TOKENS
        self.tok_embed = nn.Embedding(vocab_size, dim)
        self.prev_embed = nn.Embedding(vocab_size, dim)
        self.pos_embed = nn.Embedding(MAX_TEXT_TOKENS, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm, self.lm_head = nn.LayerNorm(dim), Head(dim, vocab_size)
        self.apply(init_weights)

    def embed(self, tokens, positions, previous):
        """(b, t) each -> (b, t, d). A position counts the words of a text from 0."""
        return self.tok_embed(tokens) + self.prev_embed(previous) + self.pos_embed(positions)

    def forward(self, x, mask, kv_cache=None, keep=None):
        """Embeddings (b, t, d) -> hidden (b, t, d), or (b, k, d) at keep (b, k) alone, normed.

        mask: bool (b, 1, t, seen), True = may look. kv_cache: one dict a block, see Attention. The
        last block leaves out what nobody asks for: in training, all but what predicts a label.
        """
        for i, block in enumerate(self.blocks):
            is_last = i + 1 == len(self.blocks)
            cache = kv_cache[i] if kv_cache else None
            x = block(x, mask=mask, cache=cache, keep=keep if is_last else None)
        return self.norm(x)

    def init_kv_cache(self):
        return [{} for _ in self.blocks]


DECODERS = {"gpt": GPT}
