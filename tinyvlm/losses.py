"""Contrastive losses: LOSSES.

The contract: unit vectors image (b, d) and text (b, d), a scale, a bias (or None), and who is true
of whom, is_match: bool (b, b) or None, [i, j] = text j is true of image i -> a scalar, natural
logarithm.
"""

import torch
import torch.nn.functional as F


def clip_loss(image, text, scale, bias=None, is_match=None):
    """The symmetric cross-entropy of CLIP (Radford et al. 2021, figure 3).

    Only the diagonal counts as right.
    """
    return diagonal_cross_entropy(scale * image @ text.T)


def masked_clip_loss(image, text, scale, bias=None, is_match=None):
    """The same, but other true captions are neither pulled nor pushed: they leave the denominator.

    For row i and column j = i the softmax runs over j and all that is false of i. Without
    duplicates, and where nothing is known of them, it equals clip_loss.
    """
    logits = scale * image @ text.T  # (b, b)
    if is_match is not None:
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill(is_match & ~own, float("-inf"))
    return diagonal_cross_entropy(logits)


def diagonal_cross_entropy(logits):
    """Along both axes of (b, b), halved: row i and column i should choose i."""
    label = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2


LOSSES = {"clip": clip_loss, "masked_clip": masked_clip_loss}
