"""Sample indices to a batch of pixels and tokens. Same index, same bits, whatever the batch.

`PairsForCLIP` gives a picture, a caption and the truth about which captions fit which pictures. `Conversations` gives a picture, a
description in words, and one packed row of text that holds the caption and several questions:

    text      a small red circle and ... [EOS]  is there a ring ? no [EOS]  what colour is ... ? red [EOS]  [PAD]
    segment   1 1 1 1 ...                       2 2 2 2 2 2 2 2             3 3 ...                         0
    learn     1 1 1 1 ...                       0 0 0 0 0 0 1 1             0 0 ...                         0

A segment sees the picture and itself, no other segment, so that each question is asked as if it stood alone
while the picture's tokens are paid for once (compare LLaVA's conversations, where later turns see earlier ones).
"""

from dataclasses import dataclass

import numpy as np
import torch

from data.shapes import grammar, questions
from data.shapes.render import render
from data.shapes.scene import COLOUR, PLACE, SHAPE, SIZE, CounterRNG, sample
from data.tokenizer import BOS, EOS, FIRST_WORD, PAD, Tokenizer

tokenizer = Tokenizer(grammar.WORDS)


@dataclass
class Batch:
    """pixels: uint8 (b, 3, H, W). The rest depends on the dataset."""

    pixels: torch.Tensor


@dataclass
class CaptionBatch(Batch):
    """tokens: (b, t) `[BOS] caption [EOS] [PAD]...`; positives: bool (b, b), [i, j] = caption j is true of picture i."""

    tokens: torch.Tensor
    is_match: torch.Tensor


@dataclass
class VLMBatch(Batch):
    """description: (b, p) words; text, segment, position, learn: (b, t) as drawn at the top of this file.

    position counts from the start of the segment. blind: (b, t), True where a segment must not see the picture.
    """

    object_tokens: torch.Tensor
    input_ids: torch.Tensor
    segment_ids: torch.Tensor
    position_ids: torch.Tensor
    loss_mask: torch.Tensor
    blind: torch.Tensor


def to_tokens(words, start=(), end=(EOS,)):
    """Word ids (n, length) with -1 at the ends -> tokens (n, len(start) + length + len(end)) with [PAD] at the ends."""
    ids = np.where(words >= 0, words + FIRST_WORD, -1)
    length = (ids >= 0).sum(1)
    n = len(ids)
    body = np.concatenate([np.tile(start, (n, 1)), ids, np.full((n, len(end)), -1)], 1).astype(np.int64)
    for k, token in enumerate(end):
        body[np.arange(n), len(start) + length + k] = token
    return np.where(body < 0, PAD, body)


def caption_things(scenes, rng, detail):
    """What the caption of each picture says of each object: (b, m, 4) noun phrases.

    detail: "full" says size, colour and shape of all. "mixed" draws what is said: shapes alone, colours and shapes, all
    three, or these and the places. (Shapes are the slowest to learn; a caption that says nothing else makes them count.)
    """
    if detail == "full":
        return grammar.without(scenes.objects, PLACE)
    told = scenes.objects.copy()
    level = rng.randint("detail", 8)
    told[level < 3, :, COLOUR] = 0
    told[level < 5, :, SIZE] = 0
    told[level < 7, :, PLACE] = 0
    return told


class CaptionDataset:
    """Pictures and captions for contrastive training; `detail` as in caption_things."""

    def __init__(self, world, seed=0, image_size=56, device="cpu", detail="mixed"):
        self.world, self.seed, self.image_size, self.device, self.detail = world, seed, image_size, device, detail

    def batch(self, split, indices):
        scenes = sample(self.world, self.seed, split, indices)
        noun_phrases = caption_things(scenes, CounterRNG(self.seed, split, indices), self.detail)
        tokens = to_tokens(grammar.caption(noun_phrases), start=(BOS,))
        pixels = render(self.world, scenes, self.image_size, self.device)
        return CaptionBatch(pixels, torch.from_numpy(tokens).to(self.device), self.truth(noun_phrases, scenes))

    def truth(self, noun_phrases, scenes):
        """Which caption (j) is true of which picture (i): bool (b, b)."""
        return torch.from_numpy(grammar.caption_truth(noun_phrases, scenes.objects).T).to(self.device)

    def is_match(self, split, indices):
        """A batch's positives without its pictures, for a process that holds a part of them only: bool (b, b)."""
        scenes = sample(self.world, self.seed, split, indices)
        return self.truth(caption_things(scenes, CounterRNG(self.seed, split, indices), self.detail), scenes)


class VQADataset:
    """Pictures with a full caption and `number` questions each, `blind` of them asked without the picture."""

    def __init__(self, world, seed=0, image_size=56, device="cpu", num_questions=9, blind=1, families=questions.TRAIN_FAMILIES):
        self.world, self.seed, self.image_size, self.device = world, seed, image_size, device
        self.num_questions, self.blind, self.families = num_questions, blind, families

    def batch(self, split, indices, with_pixels=True):
        scenes = sample(self.world, self.seed, split, indices)
        rng = CounterRNG(self.seed, split, indices)
        b = len(scenes.objects)
        captions = grammar.caption(caption_things(scenes, rng, "full"))
        rows, answers = questions.sample_questions(self.world, self.seed, split, indices, scenes.objects, self.families, self.num_questions)
        flat, answers = rows.reshape(-1, grammar.WIDTH), answers.reshape(-1)
        asked, replied = grammar.render_question(flat), grammar.render_answer(flat, answers)
        packed = pack(
            [(captions[:, :0], captions)]
            + [(part_a, part_b) for part_a, part_b in zip(split_up(asked, b), split_up(replied, b))],
            blind_from=1 + self.num_questions - self.blind,
        )
        pixels = render(self.world, scenes, self.image_size, self.device) if with_pixels else torch.zeros(b, 0)
        described = phrases(shuffled(scenes.objects, rng))
        arrays = [torch.from_numpy(a).to(self.device) for a in (described, *packed)]
        return VLMBatch(pixels, *arrays)


def split_up(ids, b):
    """(b * number, length) -> a list of `number` arrays (b, length)."""
    return list(ids.reshape(b, -1, ids.shape[1]).transpose(1, 0, 2))


def shuffled(objects, rng):
    """The objects in random order, empty rows last: what the language stage reads instead of a picture."""
    random_rank = rng.randint("order", 2**31, (objects.shape[1],)) + (objects[..., SHAPE] == 0) * 2**32
    return np.take_along_axis(objects, random_rank.argsort(1)[..., None], 1)


def phrases(objects):
    """Each object as a bag of words, (b, m, 4) -> tokens (b, m, 5): size, colour, shape and one or two words for its place."""
    b, m, _ = objects.shape
    flat = objects.reshape(b * m, 4)
    ids = np.concatenate([grammar.nouns(flat), grammar.PLACE_WORDS[flat[:, PLACE]]], 1)
    ids[flat[:, SHAPE] == 0] = -1
    return np.where(ids >= 0, ids + FIRST_WORD, PAD).reshape(b, m, 5)


def pack(segments, blind_from=None):
    """Segments [(prompt words (b, p), target words (b, q)), ...] -> text, segment, position, learn, blind: (b, t) each."""
    columns = []
    for num_questions, (prompt, target) in enumerate(segments, start=1):
        prompt = to_tokens(prompt, end=())
        target = to_tokens(target)
        input_ids = np.concatenate([prompt, target], 1)
        there = input_ids != PAD
        loss_mask = np.concatenate([np.zeros_like(prompt, bool), target != PAD], 1)
        blind = np.full_like(there, blind_from is not None and num_questions > blind_from)
        columns.append((input_ids, there * num_questions, np.maximum(there.cumsum(1) - 1, 0), loss_mask, blind & there))
    input_ids, segment_ids, position_ids, loss_mask, blind = (np.concatenate(parts, 1) for parts in zip(*columns))
    order = (input_ids == PAD).argsort(1, kind="stable")[:, : max((input_ids != PAD).sum(1).max(), 1)]
    return tuple(np.take_along_axis(a, order, 1) for a in (input_ids, segment_ids, position_ids, loss_mask, blind))


DATASETS = {"captions": CaptionDataset, "conversations": VQADataset}
