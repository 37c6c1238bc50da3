"""Contrastive losses: LOSSES.

The contract: unit vectors image (b, d) and text (k b, d), of which k are picture 0's captions, then
k picture 1's and so on; a scale, a bias (or None), and who is true of whom, is_match: bool
(b, k b) or None, [i, j] = text j is true of image i -> a scalar, natural logarithm.
"""

import torch

LEFT_OUT = -1e9  # a logit that adds nothing to a denominator, and no NaN to a gradient


def clip_loss(image, text, scale, bias=None, is_match=None):
    """The symmetric cross-entropy of CLIP (Radford et al. 2021, figure 3).

    Only a picture's own captions count as right.
    """
    return own_against_others(scale * text @ image.T)


def masked_clip_loss(image, text, scale, bias=None, is_match=None):
    """The same, but other true captions are neither pulled nor pushed: they leave the denominator.

    A pair's softmax runs over it and all that is false. Without duplicates, and where nothing is
    known of them, it equals clip_loss.
    """
    return own_against_others(scale * text @ image.T, is_match)


def own_against_others(logits, is_match=None):
    """Along both axes of (k b, b), halved: each caption should choose its picture, and be chosen by
    it, among all that is no match. Several captions of a picture are no rivals of one another."""
    b = logits.shape[1]
    k = len(logits) // b
    own = torch.eye(b, dtype=torch.bool, device=logits.device).repeat_interleave(k, 0)  # (k b, b)
    right = (logits * own).sum(1)  # (k b,)
    wrong = logits.masked_fill(own if is_match is None else own | is_match.T, LEFT_OUT)
    to_image = torch.logaddexp(right, wrong.logsumexp(1)) - right  # (k b,)
    to_text = torch.logaddexp(right, wrong.logsumexp(0).repeat_interleave(k)) - right
    return (to_image.mean() + to_text.mean()) / 2


LOSSES = {"clip": clip_loss, "masked_clip": masked_clip_loss}
