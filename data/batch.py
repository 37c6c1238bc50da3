"""What a data set hands to training: captions for CLIP, conversations for a VLM.

A conversation is one packed row of text that holds a picture's caption and several questions:

    input_ids    a red circle ... [EOS]  is there a ring ? no [EOS]  what ... ? red [EOS]  [PAD]
    segment_ids  1 1 1 ...               2 2 2 2 2 2 2 2             3 3 ...               0
    labels       a red circle ... [EOS]  . . . . . . no [EOS]        . . ...  red [EOS]    .

A dot is IGNORE (-100): no loss there. A label stands where its word stands; the position before it
predicts it. A segment sees the picture and itself, no other segment, so that each question is asked
as if it stood alone while the picture's tokens are paid for once (compare LLaVA's conversations,
where later turns see earlier ones).
"""

from dataclasses import dataclass

import numpy as np
import torch

from data.tokenizer import EOS, FIRST_WORD, PAD

IGNORE = -100  # the label that F.cross_entropy leaves out


class NotEnoughItems(ValueError):
    """A data set, or one of its splits, has too few of what was asked for, or nothing of it."""


@dataclass
class CaptionBatch:
    """pixels: uint8 (b, 3, H, W). tokens: (k b, t) `[BOS] caption [EOS] [PAD]...`, k captions of
    picture 0, then k of picture 1 ...

    is_match: bool (b, k b), [i, j] = caption j is true of picture i. (A hard negative is a caption
    that is false of its own picture.)
    """

    pixels: torch.Tensor
    tokens: torch.Tensor
    is_match: torch.Tensor


@dataclass
class VLMBatch:
    """pixels: uint8 (b, 3, H, W), or None where a stage sees none.

    object_tokens: (b, m, w) the words of each object, [PAD] where there are fewer.
    input_ids, segment_ids, position_ids, labels: (b, t), see the top of this file; position_ids
    count from the start of each segment. blind: bool (b, t), where a segment sees no picture.
    """

    pixels: torch.Tensor | None
    object_tokens: torch.Tensor
    input_ids: torch.Tensor
    segment_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    blind: torch.Tensor


def to_tokens(word_ids, start=(), end=(EOS,)):
    """Word ids (n, length), -1 at the ends -> tokens (n, start + length + end), padded."""
    ids = np.where(word_ids >= 0, word_ids + FIRST_WORD, -1)
    n, length = len(ids), (ids >= 0).sum(1)
    tokens = np.concatenate(
        [np.tile(start, (n, 1)), ids, np.full((n, len(end)), -1)], axis=1
    ).astype(np.int64)
    for k, token in enumerate(end):
        tokens[np.arange(n), len(start) + length + k] = token
    return np.where(tokens < 0, PAD, tokens)


def pack(segments, blind=(), longest=None):
    """Segments, in order, as one row of text for each picture.

    segments: [(prompt word ids (b, p), target word ids (b, q)), ...]. blind: the numbers of those
    that see no picture, counted from 1. longest: a segment that would make its row longer is left
    out. (A batch costs what its longest row costs.) Returns input_ids, segment_ids, position_ids,
    labels, blind: (b, t) each, t the longest row.
    """
    parts, used = [], 0
    for number, (asked, answered) in enumerate(segments, start=1):
        prompt, target = to_tokens(asked, end=()), to_tokens(answered)
        input_ids = np.concatenate([prompt, target], axis=1)
        length = (input_ids != PAD).sum(1)
        if longest is not None:
            input_ids[used + length > longest] = PAD
            length = (input_ids != PAD).sum(1)
        used, is_word = used + length, input_ids != PAD
        labels = np.concatenate([np.full_like(prompt, IGNORE), target], axis=1)
        parts.append((
            input_ids,
            is_word * number,
            np.maximum(is_word.cumsum(1) - 1, 0),
            np.where(is_word, labels, IGNORE),
            is_word & (number in blind),
        ))  # fmt: skip
    columns = [np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)]
    is_pad = columns[0] == PAD
    order = is_pad.argsort(1, kind="stable")[:, : max((~is_pad).sum(1).max(), 1)]
    return tuple(np.take_along_axis(column, order, 1) for column in columns)
