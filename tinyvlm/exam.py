"""Asking a VLM: captions and answers for a whole test, in words. What they are worth is decided in metrics.py."""

import numpy as np
import torch

from data import language, questions
from data.dataset import tokenizer
from data.render import render
from data.scene import sample
from data.tokenizer import PAD
from tinyvlm import metrics
from tinyvlm.gpt import MAX_WORDS


@torch.no_grad()
def see_all(model, pixels, chunk=128):
    """Pictures (b, 3, H, W) -> image tokens (b, n, d), a chunk at a time."""
    return torch.cat([model.see(p) for p in pixels.split(chunk)])


def respond(model, prefix, prompts, chunk=256, **options):
    """Answers to prompts (a list of strings, "" for a caption) about image tokens (b, n, d): a list of strings.

    options: of VLM.generate; greedy if none are given."""
    rows = [tokenizer.encode(p) for p in prompts]
    width = max(len(r) for r in rows)
    padded = torch.tensor([r + [PAD] * (width - len(r)) for r in rows], dtype=torch.long, device=prefix.device).reshape(len(rows), width)
    said = []
    for image, question in zip(prefix.split(chunk), padded.split(chunk)):
        tokens = model.generate(image, question, max_new=MAX_WORDS - width, **options)
        said += [tokenizer.decode(row) for row in tokens.tolist()]
    return said


@torch.no_grad()
def caption_test(model, data, split, items):
    """Captions of `items` pictures (no two of one minimal pair) scored fact by fact: metrics.caption_scores."""
    scenes = sample(data.world, data.seed, split, np.arange(0, 2 * items, 2))
    prefix = see_all(model, render(data.world, scenes, data.image_size, data.device))
    return metrics.caption_scores(respond(model, prefix, [""] * items), scenes.objects)


@torch.no_grad()
def vqa_test(model, data, split, items):
    """Every family on `items` minimal pairs: {family: (right with picture (2 items,), right without, pair numbers)}.

    ValueError if the world is too poor for a family."""
    result = {}
    for family in questions.FAMILIES:
        pairs = questions.pairs(data.world, data.seed, split, family, items)
        indices = (pairs.indices[:, None] + [0, 1]).reshape(-1)
        prefix = see_all(model, render(data.world, sample(data.world, data.seed, split, indices), data.image_size, data.device))
        rows, answers = pairs.rows.repeat(2, 0), pairs.answers.reshape(-1)
        asked = language.texts(language.ask(rows))
        wanted = language.texts(language.reply(rows, answers))
        seeing, blind = (metrics.is_right(respond(model, prefix, asked, blind=b), wanted) for b in (False, True))
        result[family] = seeing, blind, indices // 2
    return result
