"""Contrastive losses: unit vectors image (b, d) and text (b, d), a scale, and who is true of whom -> a scalar.

positives: bool (b, b), [i, j] = text j is true of image i. Natural logarithm.
"""

import torch
import torch.nn.functional as F


def clip_loss(image, text, scale, is_match=None):
    """The symmetric cross-entropy of CLIP (Radford et al. 2021, figure 3): only the diagonal counts as right."""
    logits = scale * image @ text.T
    label = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2


def masked_clip_loss(image, text, scale, is_match):
    """The same, but other true captions are neither pulled nor pushed: they leave the denominator.

    For row i and column j = i the softmax runs over j and all that is false of i. Without duplicates it equals `plain`.
    """
    logits = scale * image @ text.T
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(is_match & ~own, float("-inf"))
    label = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2


LOSSES = {"plain": clip_loss, "multi_positive": masked_clip_loss}
