"""Evaluating the stage of represent.py: does the projector know which captions are true?"""

import numpy as np
import torch

from tinyvlm.evaluation.common import evaluation_mode
from tinyvlm.evaluation.statistics import proportion
from tinyvlm.losses import LEFT_OUT

BATCH = 64  # pictures among which a false one is looked for


def evaluate_matching(model, data, split, items):
    """Is the caption true of the picture? {"matching", "matching_hard": metric}; chance is 1/2.

    Each caption is asked about its own picture and about one of its batch that it is false of: any,
    or ("hard") the most similar by the contrastive part, which one edit tells apart as a rule.
    """
    right, cluster = [], []
    with evaluation_mode(model):
        for first in range(0, items, BATCH):
            batch = data.caption_batch(split, np.arange(first, min(first + BATCH, items)))
            found = judge_pairs(model, batch, torch.Generator().manual_seed(first))  # (2, 2, c)
            right.append(found)
            cluster.append(np.arange(first, first + found.shape[2]))
    right, cluster = np.concatenate(right, 2), np.tile(np.concatenate(cluster) // 2, 2)
    meanings = dict(matching="captions, true and false", matching_hard="most similar false ones")
    return {
        name: proportion(both.ravel(), cluster, meaning, 0.5)
        for (name, meaning), both in zip(meanings.items(), right, strict=True)
    }


def judge_pairs(model, batch, generator):
    """Each caption with its own picture, and with false ones: is the answer right? Numbers 0 and 1,
    (any or hard, own or false, captions)."""
    patches, _ = model.encode_patches(batch.pixels)
    cosines = model.compare(patches, batch.tokens).T  # captions by pictures
    anything = torch.rand(cosines.shape, generator=generator).to(cosines.device)
    is_match, captions = batch.is_match.T, torch.arange(len(cosines), device=cosines.device)
    own, right = model.match(patches, batch.tokens) > 0, []
    for scores in (anything, cosines):
        other = scores.masked_fill(is_match, LEFT_OUT).argmax(1)
        says = model.match(patches[other], batch.tokens) > 0
        right.append(torch.stack([own, says == is_match[captions, other]]))
    return torch.stack(right).cpu().numpy().astype(float)


def validate_matching(model, data, items=BATCH):
    """{"val_loss", one for each objective, and how well it matches: number}."""
    with evaluation_mode(model):
        losses = model(data.caption_batch("val", np.arange(items)))
    scores = dict(loss=sum(losses.values()), **losses)
    found = evaluate_matching(model, data, "val", 2 * items)
    return {f"val_{name}": score.item() for name, score in scores.items()} | {
        f"val_{name}": metric.value for name, metric in found.items()
    }
