"""Contrastive losses: LOSSES.

The contract: unit vectors image (b, d) and text (k b, d), of which k are picture 0's captions, then
k picture 1's and so on; a scale, a bias (or None), and who is true of whom, is_match: bool
(b, k b) or None, [i, j] = text j is true of image i -> a scalar, natural logarithm.

A picture's own caption that is false of it is a hard negative, as in NegCLIP (Yuksekgonul et al.,
"When and why vision-language models behave like bags-of-words, and what to do about it?", 2022):
pictures are pushed away from it, and it chooses no picture itself.

A loss that needs a bias has a `bias` without default; what it starts from: initial_bias.
"""

import inspect
import math

import torch
import torch.nn.functional as F

LEFT_OUT = -1e9  # a logit that adds nothing to a denominator, and no NaN to a gradient


def clip_loss(image, text, scale, bias=None, is_match=None):
    """The symmetric cross-entropy of CLIP (Radford et al. 2021, figure 3).

    Only a picture's own captions count as right.
    """
    own = own_pairs(image, text, is_match)
    return own_against_others(scale * text @ image.T, own, left_out=own)


def masked_clip_loss(image, text, scale, bias=None, is_match=None):
    """The same, but other true captions are neither pulled nor pushed: they leave the denominator.

    A pair's softmax runs over it and all that is false. Without duplicates, and where nothing is
    known of them, it equals clip_loss.
    """
    own = own_pairs(image, text, is_match)
    left_out = own if is_match is None else is_match.T  # (k b, b)
    return own_against_others(scale * text @ image.T, own, left_out)


def sigmoid_loss(image, text, scale, bias, is_match=None):
    """Each pair by itself: do picture and caption belong together? SigLIP, Zhai et al. (2023).

    The sum over all pairs, for each true caption. As in masked_clip_loss other true captions are
    neither pulled nor pushed.
    """
    logits = scale * text @ image.T + bias  # (k b, b)
    own = own_pairs(image, text, is_match)
    losses = -F.logsigmoid(torch.where(own, logits, -logits))
    if is_match is not None:
        losses = losses.masked_fill(is_match.T & ~own, 0)
    return losses.sum() / own.sum()


def own_pairs(image, text, is_match=None):
    """Which text is which picture's own, and true of it: bool (k b, b)."""
    b, k = len(image), len(text) // len(image)
    own = torch.eye(b, dtype=torch.bool, device=image.device).repeat_interleave(k, 0)
    return own if is_match is None else own & is_match.T


def own_against_others(logits, own, left_out):
    """Along both axes of (k b, b), halved: each caption should choose its picture, and be chosen by
    it, among all but what is left out. Several captions of a picture are no rivals of one another.
    """
    right = (logits * own).sum(1)  # (k b,)
    wrong = logits.masked_fill(left_out, LEFT_OUT)
    to_image = torch.logaddexp(right, wrong.logsumexp(1)) - right  # (k b,)
    k = len(logits) // logits.shape[1]
    to_text = torch.logaddexp(right, wrong.logsumexp(0).repeat_interleave(k)) - right
    is_true = own.any(1)  # (k b,): a hard negative chooses nothing
    means = [(losses * is_true).sum() / is_true.sum() for losses in (to_image, to_text)]
    return sum(means) / 2


def initial_bias(loss, batch_size):
    """What a loss's bias starts from, or None if it needs none.

    -log(batch_size - 1): a caption belongs to one picture of the batch, and while the cosines are
    noise about 0, sigmoid(bias) is that share. (SigLIP's -10 is that of batches of 22,000; see
    open_clip#650.)
    """
    arguments = inspect.signature(loss).parameters.values()
    needs_bias = any(a.name == "bias" and a.default is a.empty for a in arguments)
    return -math.log(batch_size - 1) if needs_bias else None


LOSSES = {"clip": clip_loss, "masked_clip": masked_clip_loss, "sigmoid": sigmoid_loss}
