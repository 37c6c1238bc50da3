"""The VLM: encode, project, fuse, decode. `[BOS] h_1 .. h_n words [EOS]`."""

import torch
import torch.nn.functional as F
from torch import nn

from data.tokenizer import BOS, EOS, PAD
from tinyvlm.gpt import MAX_WORDS
from tinyvlm.layers import grid_points, sine_cosine


class VLM(nn.Module):
    """Vision encoder -> projector -> decoder; LLaVA, Liu et al. (2023)."""

    def __init__(self, vision, projector, decoder):
        super().__init__()
        self.vision, self.projector, self.decoder = vision, projector, decoder
        # Contrastive training needs no places, so the encoder's tokens may have lost theirs: they get them back.
        place = sine_cosine(grid_points(round(vision.num_tokens**0.5)), vision.dim)
        self.register_buffer("place", place, persistent=False)

    def see(self, pixels):
        """(b, 3, H, W) -> image tokens (b, n, d)."""
        tokens, _ = self.vision(pixels)
        return self.projector(tokens + self.place)

    def read(self, description):
        """A description in words (b, p) in the place of the image tokens -> (b, p, d), and which are there (b, p)."""
        position = torch.arange(description.shape[1], device=description.device) + MAX_WORDS
        return self.decoder.embed(description, position.expand_as(description)), description != PAD

    def fuse(self, prefix, text, position):
        """[BOS], prefix (b, n, d) and text (b, t) as one row of embeddings (b, 1 + n + t, d)."""
        start = torch.full_like(text[:, :1], BOS)
        words = self.decoder.embed(torch.cat([start, text], 1), torch.cat([0 * start, position], 1))
        return torch.cat([words[:, :1], prefix, words[:, 1:]], 1)

    def forward(self, prefix, there, batch):
        """Loss for each text token (b, t), 0 where `batch.learn` is False: natural-log cross-entropy.

        prefix: (b, n, d) image tokens or words; there: (b, n) bool or None. The last prefix position predicts the first word.
        """
        x = self.fuse(prefix, batch.text, batch.position)
        mask = fusion_mask(prefix.shape[1], there, batch.segment, batch.blind)
        hidden = self.decoder(x, mask)[:, prefix.shape[1] : -1]
        loss = torch.zeros(batch.text.shape, device=x.device)
        logits = self.decoder.head(hidden[batch.learn])
        loss[batch.learn] = F.cross_entropy(logits.float(), batch.text[batch.learn], reduction="none")
        return loss


def fusion_mask(n, there, segment, blind):
    """Who may look at whom in `[BOS] prefix text`: bool (b, 1, 1 + n + t, 1 + n + t).

    Causal; a segment (b, t) of the text sees the start, the prefix and itself; where `blind` (b, t) it does not see
    the prefix. Everybody sees [BOS] and itself, so that no row is empty.
    """
    b, t = segment.shape
    if there is None:
        there = torch.ones(b, n, dtype=torch.bool, device=segment.device)
    number = F.pad(segment, (1 + n, 0))  # 0: start and prefix
    same = number[:, :, None] == number[:, None, :]
    is_start = torch.arange(1 + n + t, device=segment.device) == 0
    readable = F.pad(there, (1, t), value=False)[:, None, :] & ~F.pad(blind, (1 + n, 0))[:, :, None]
    mask = (same & ~is_prefix(n, t, segment.device)) | readable | is_start
    causal = torch.ones(1 + n + t, 1 + n + t, dtype=torch.bool, device=segment.device).tril()
    diagonal = torch.eye(1 + n + t, dtype=torch.bool, device=segment.device)
    return ((mask & causal) | diagonal)[:, None]


def is_prefix(n, t, device):
    k = torch.arange(1 + n + t, device=device)
    return (k > 0) & (k <= n)
