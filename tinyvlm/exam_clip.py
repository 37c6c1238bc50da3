"""Examining CLIP: cosines, retrieval, zero-shot, compositionality. What the rankings are worth is decided in metrics.py."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from data import foils, language
from data.dataset import to_tokens
from data.render import render
from data.scene import COLOUR, PLACE, SHAPE, SIZE, TooPoor, sample
from data.tokenizer import BOS
from tinyvlm import metrics
from tinyvlm.exam import as_grid


class Ranker:
    """CLIP as the exams know it: scenes and captions in, unit vectors out. Tests put other ones in its place."""

    def __init__(self, model, world, image_size, device, chunk=128):
        self.model, self.world, self.image_size, self.device, self.chunk = model, world, image_size, device, chunk

    def encode(self, encoder, tensor):
        """Any batch, a chunk at a time, in evaluation mode: (n, d) numpy."""
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad():
            vectors = torch.cat([encoder(part.to(self.device)).float().cpu() for part in tensor.split(self.chunk)])
        self.model.train(was_training)
        return vectors.numpy()

    def pictures(self, scenes):
        parts = [foils.take(scenes, slice(k, k + self.chunk)) for k in range(0, len(scenes.objects), self.chunk)]
        return np.concatenate([self.encode(self.model.encode_image, render(self.world, part, self.image_size, self.device)) for part in parts])

    def captions(self, things):
        """things: (n, m, 4), what each caption says."""
        return self.encode(self.model.encode_text, torch.from_numpy(to_tokens(language.caption(things), start=(BOS,))))


def retrieval_exam(ranker, world, seed, split, items, silent=(PLACE,), among=256):
    """Cosines of `items` pictures with full captions (with false ones among the first 1,024), and retrieval among the first 256: {name: metrics.Score}.

    silent: the columns that captions do not say. Any caption that is true of a picture is a hit, any picture a caption is true of, too.
    """
    indices = np.arange(0, 2 * items, 2)
    scenes = sample(world, seed, split, indices)
    things, scene = language.without(scenes.objects, *silent), indices // 2
    images, texts = ranker.pictures(scenes), ranker.captions(things)
    similarity = images @ texts[:1024].T
    true = np.concatenate([language.caption_truth(part, scenes.objects) for part in np.array_split(things[:1024], -(-min(items, 1024) // 256))]).T
    mismatched = np.array([row[~fits].mean() for row, fits in zip(similarity, true)])
    result = dict(
        matched_cosine=metrics.share((images * texts).sum(1), scene, "a picture and its caption"),
        mismatched_cosine=metrics.share(mismatched, scene, "a picture and captions false of it"),
    )
    small, fits, k_all = similarity[:among, :among], true[:among, :among], (1, 5, 10)
    ways = (("to_caption", small, fits), ("to_picture", small.T, fits.T))
    hits = {(name, k): [metrics.retrieval_at(k, s[[q]], f[[q]]) for q in range(len(s))] for name, s, f in ways for k in k_all}
    for k in k_all:
        chance = np.mean([metrics.retrieval_at(k, np.zeros(f.shape), f) for _, _, f in ways])
        both = hits["to_caption", k] + hits["to_picture", k]
        result[f"r_at_{k}"] = metrics.share(both, np.tile(scene[:among], 2), f"R@{k} of {len(small)}, both ways", float(chance))
        for name, meaning in (("to_caption", "from picture to caption"), ("to_picture", "from caption to picture")):
            result[f"r_at_{k}_{name}"] = metrics.share(hits[name, k], scene[:among], meaning)
    return result


def pair_exam(ranker, world, seed, split, items):
    """Is a picture's own caption nearer than that of the other one of its minimal pair? Score; pairs whose captions fit both are left out."""
    indices = np.arange(2 * items)
    scenes = sample(world, seed, split, indices)
    things, other = language.without(scenes.objects, PLACE), indices ^ 1
    clear = np.array([not foils.is_true(things[o], s) for o, s in zip(other, scenes.objects)])
    image, text = ranker.pictures(scenes), ranker.captions(things)
    right = metrics.better((image * text).sum(1), (image * text[other]).sum(1))
    return metrics.share(right[clear], indices[clear] // 2, "own caption against the edited picture's", 0.5)


def zero_shot_exam(ranker, world, seed, split="test", items=640):
    """Pictures of one object against the 64 captions "a COLOUR SHAPE": {name: Score}, with one template and with the mean of twelve.

    The ensemble averages the unit vectors of "a COLOUR SHAPE", of "a small ...", "a large ..." and of the nine "... at the PLACE" (all colours and
    shapes, no sizes, a template that training has not), and makes the mean a unit vector again, as in Radford et al. (2021), section 3.1.4.
    """
    lonely = replace(world, min_objects=1, max_objects=1)
    indices = np.arange(0, 2 * items, 2)
    scenes = sample(lonely, seed, split, indices)
    image, plain = ranker.pictures(scenes), language.every_colour_and_shape()
    label = (scenes.objects[:, 0, COLOUR] - 1) * 8 + scenes.objects[:, 0, SHAPE] - 1
    templates = [plain]
    for column, values in ((SIZE, 2), (PLACE, 9)):
        for value in range(1, values + 1):
            templates.append(plain.copy())
            templates[-1][..., column] = value
    vectors = [ranker.captions(things) for things in templates]
    places = np.mean(vectors[3:], 0)
    chance = 1 / 64 if world.prior == "uniform" and not world.held_out else float(np.bincount(label).max() / items)  # or the most frequent label
    result = {}
    for name, mean, meaning in (
        ("zero_shot", vectors[0], "one object against 64 captions"),
        ("zero_shot_ensemble", np.mean(vectors, 0), "the same, mean of 12 templates"),
        ("zero_shot_new_template", places, "the same, colour, shape and place: never trained on"),
    ):
        classes = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        scores = image @ classes.T
        result[name] = metrics.share([metrics.accuracy(scores[[q]], label[[q]]) for q in range(items)], indices // 2, meaning, chance)
    return result


def winoground_exam(ranker, world, seed, split, items):
    """{contrast: {"text", "image", "group": Score}} on counterfactual pairs, for those that the split has. Thrush et al. (2022)."""
    result = {}
    for contrast in foils.CONTRASTS:
        try:
            *scenes, first, second = foils.counterfactuals(world, seed, split, contrast, items)
        except TooPoor:
            continue
        images, texts = [ranker.pictures(s) for s in scenes], [ranker.captions(t) for t in (first, second)]
        similarity = np.stack([[(text * image).sum(1) for image in images] for text in texts]).transpose(2, 0, 1)
        scores = zip(("text", "image", "group"), metrics.winoground(similarity), (1 / 4, 1 / 4, 1 / 6))
        result[contrast] = {name: metrics.share(right, np.arange(items), "", chance) for name, right, chance in scores}
    return result


def foil_exam(ranker, world, seed, split, items):
    """{kind of SugarCrepe: (accuracy, the same without picture)}: is the true caption nearer than the foil? Hsieh et al. (2023).

    Without picture: the mean of all pictures' vectors asks instead, so what it gets right the captions alone have told.
    """
    result = {}
    for kind in foils.KINDS:
        try:
            found = foils.foils(world, seed, split, kind, items)
        except TooPoor:
            continue
        image, true, false = ranker.pictures(found.scenes), ranker.captions(found.true), ranker.captions(found.false)
        nobody = image.mean(0)
        scores = metrics.better((image * true).sum(1), (image * false).sum(1)), metrics.better(true @ nobody, false @ nobody)
        result[kind] = tuple(metrics.share(right, np.arange(items), "", 0.5) for right in scores)
    return result


def longest_caption(world, seed, split, items):
    """How many tokens the longest caption of a split has that tells everything."""
    return language.caption(sample(world, seed, split, np.arange(0, 2 * items, 2)).objects).shape[1] + 2


def gap_exam(ranker, world, seed, split, items):
    """The modality gap, with an interval: metrics.Measured."""
    scenes = sample(world, seed, split, np.arange(0, 2 * items, 2))
    image, text = ranker.pictures(scenes), ranker.captions(language.without(scenes.objects, PLACE))
    return metrics.modality_gap(image, text)


def heat(model, pixels, text):
    """Where the cosine of each picture with its caption (b, d) came from: |gradient x patch token|, (b, 14, 14); see exam.heat."""
    tokens, pooled = model.vision(pixels)
    cosine = F.normalize(model.image_head(pooled), dim=-1) * text
    (gradient,) = torch.autograd.grad(cosine.sum(), tokens)
    return as_grid(gradient * tokens)
