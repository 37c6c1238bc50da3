"""Stage 1 of BLIP-2, Li et al. (2023), section 3.1: the Q-Former's queries learn to see what words
say, before a language model is there.

    picture -> encoder (frozen) -> patches
                                      |  cross-attention
    queries ----------------------- [ Q-Former ] -> what the queries saw
       |  one self-attention for both, its mask says who sees whom
    [BOS] a red circle [EOS] ------ [ Q-Former ] -> what the words say

    itc   contrastive: which caption belongs to which picture       uni_modal_mask
    itm   matching: is the caption true of the picture, yes or no   bidirectional_mask
    itg   generation: the caption, word by word                     causal_mask

Later stages keep the queries; what only reads words (TextSide) is dropped.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from data.tokenizer import PAD
from tinyvlm.decoders import MAX_TEXT_TOKENS
from tinyvlm.layers import MLP, Head, init_weights
from tinyvlm.losses import LEFT_OUT, own_against_others
from tinyvlm.text import words_before

OBJECTIVES = ("itc", "itm", "itg")


class TextSide(nn.Module):
    """What the stage adds to a projector of width `dim`: embedded words, their own MLP in each of
    its `depth` blocks, and the heads of the three objectives.

    As in BLIP-2, words share the self-attention, have feed-forward layers of their own and no
    cross-attention. Left out: BLIP-2 begins a caption that is to be generated with a token of its
    own, [DEC]; here the mask alone tells.
    """

    def __init__(self, *, vocab_size, dim, depth):
        super().__init__()
        self.tok_embed = nn.Embedding(vocab_size, dim)
        self.prev_embed = nn.Embedding(vocab_size, dim)  # see decoders.py
        self.pos_embed = nn.Embedding(MAX_TEXT_TOKENS, dim)
        self.mlps = nn.ModuleList(nn.Sequential(nn.LayerNorm(dim), MLP(dim)) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.image_proj, self.text_proj = (Head(dim, dim, bias=False) for _ in range(2))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.match_head, self.lm_head = Head(dim, 1), Head(dim, vocab_size)
        self.apply(init_weights)
        nn.init.zeros_(self.match_head.weight)  # a sum over all queries, which knows nothing yet

    def embed(self, tokens):
        """(b, t) -> (b, t, d)."""
        x = self.tok_embed(tokens) + self.prev_embed(words_before(tokens))
        return x + self.pos_embed.weight[: tokens.shape[1]]

    @torch.no_grad()
    def clamp_logit_scale(self):
        """1 / temperature is at most 100; see CLIP."""
        self.logit_scale.clamp_(max=math.log(100))


class Represent(nn.Module):
    """A VLM's encoder and projector, and a text side: pictures and captions in, losses out.

    objectives: those of OBJECTIVES that are trained.
    """

    def __init__(self, vlm, text, objectives=OBJECTIVES):
        super().__init__()
        self.vision, self.projector, self.text = vlm.vision, vlm.projector, text
        self.encode_patches = vlm.encode_patches  # a method: the decoder stays outside
        self.objectives = objectives

    def forward(self, batch):
        """CaptionBatch, one caption a picture -> {objective: its loss, a scalar}."""
        self.text.clamp_logit_scale()
        patches, _ = self.encode_patches(batch.pixels)  # (b, m, vision_dim)
        losses, logits = {}, torch.zeros(batch.is_match.shape, device=patches.device)
        if "itc" in self.objectives:
            cosines = self.compare(patches, batch.tokens)
            logits = self.text.logit_scale.exp() * cosines  # (b, b), pictures by captions
            own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
            losses["itc"] = own_against_others(logits.T, own, left_out=batch.is_match.T)
        if "itm" in self.objectives:  # without itc all that is false is drawn alike
            images, texts = self.pairs_to_match(logits.detach(), batch.is_match)  # (3 b,) each
            matches = self.match(patches[images], batch.tokens[texts])
            target = batch.is_match[images, texts].float()
            losses["itm"] = F.binary_cross_entropy_with_logits(matches, target)
        if "itg" in self.objectives:
            losses["itg"] = self.generation_loss(patches, batch.tokens)
        return losses

    # ------------------------------------------------------------ the three objectives

    def read(self, patches, tokens, make_mask):
        """Patches (b, m, vision_dim) and captions (b, t), read together under one of the masks
        -> queries (b, n, d), words (b, t, d)."""
        mask = make_mask(self.projector.num_tokens, tokens != PAD)
        words = self.text.embed(tokens)
        queries, words = self.projector.read_with_words(patches, words, mask, self.text.mlps)
        return queries, self.text.norm(words)

    def compare(self, patches, tokens):
        """Cosines of b pictures and b captions (b, b): each caption with the picture's best query,
        and read at [BOS], which sees all of it."""
        queries, words = self.read(patches, tokens, uni_modal_mask)
        image = F.normalize(self.text.image_proj(queries), dim=-1)  # (b, n, d)
        text = F.normalize(self.text.text_proj(words[:, 0]), dim=-1)  # (b, d)
        with torch.autocast(image.device.type, enabled=False):  # bfloat16 has too few cosines
            cosines = torch.einsum("i n d, j d -> i j n", image.float(), text.float())
        return cosines.max(-1).values

    def match(self, patches, tokens):
        """Is caption k true of picture k? Logits (b,), the sum of what the queries say.

        (BLIP-2 takes their mean, which learns many times slower here.)
        """
        queries, _ = self.read(patches, tokens, bidirectional_mask)
        return self.text.match_head(queries).sum((1, 2)).float()

    def generation_loss(self, patches, tokens):
        """Cross-entropy of each next word, [EOS] included; [BOS] predicts the first."""
        _, words = self.read(patches, tokens[:, :-1], causal_mask)
        logits = rearrange(self.text.lm_head(words).float(), "b t v -> b v t")
        return F.cross_entropy(logits, tokens[:, 1:], ignore_index=PAD)

    def pairs_to_match(self, logits, is_match):
        """Which pictures to ask about which captions, numbers (3 b,) each: every caption about its
        own picture, then about one that it is false of, and every picture about a false caption.

        False partners are drawn by the contrastive logits (b, b), so that what looks alike is asked
        about most; in evaluation mode the likeliest is taken. (Where nothing is false, the pair is
        a true one, and its target says so.)
        """
        own = torch.arange(len(logits), device=logits.device)
        logits = logits.masked_fill(is_match, LEFT_OUT)
        image, text = self.draw(logits.T), self.draw(logits)  # (b,) each
        return torch.cat([own, image, own]), torch.cat([own, own, text])

    def draw(self, logits):
        """A column of each row (b, c), by its logits: (b,)."""
        if not self.training:
            return logits.argmax(1)
        return torch.multinomial(logits.softmax(1), 1)[:, 0]


# ---------------------------------------------------------------- who sees whom


def uni_modal_mask(n, is_word):
    """Contrast: queries and words do not see each other. bool (b, 1, n + t, n + t).

    is_word: (b, t), False for padding. For n = 2 and a caption of one word and one [PAD] (rows look
    at columns, x = may look):

                  h1 h2   BOS c1 EOS PAD
            h1    x  x    .   .  .   .
            h2    x  x    .   .  .   .
            BOS   .  .    x   x  x   .
            c1    .  .    x   x  x   .
            EOS   .  .    x   x  x   .
            PAD   .  .    x   x  x   .
    """
    is_query = queries_first(n, is_word)
    return bidirectional_mask(n, is_word) & (is_query[:, None] == is_query)


def bidirectional_mask(n, is_word):
    """Matching: everybody sees everybody but padding. As uni_modal_mask:

          h1 h2   BOS c1 EOS PAD
    h1    x  x    x   x  x   .
    h2    x  x    x   x  x   .
    BOS   x  x    x   x  x   .
    c1    x  x    x   x  x   .
    EOS   x  x    x   x  x   .
    PAD   x  x    x   x  x   .
    """
    is_there = F.pad(is_word, (n, 0), value=True)  # (b, n + t)
    return is_there[:, None, None].expand(-1, 1, is_there.shape[1], -1)


def causal_mask(n, is_word):
    """Generation: words see the queries and the words before them, queries see no word. Likewise:

          h1 h2   BOS c1 EOS PAD
    h1    x  x    .   .  .   .
    h2    x  x    .   .  .   .
    BOS   x  x    x   .  .   .
    c1    x  x    x   x  .   .
    EOS   x  x    x   x  x   .
    PAD   x  x    x   x  x   .
    """
    is_query = queries_first(n, is_word)
    earlier = torch.ones(len(is_query), len(is_query), dtype=torch.bool, device=is_word.device)
    return bidirectional_mask(n, is_word) & (earlier.tril() | (is_query[:, None] & is_query))


def queries_first(n, is_word):
    """Which positions of the row are queries: bool (n + t,)."""
    return torch.arange(n + is_word.shape[1], device=is_word.device) < n
