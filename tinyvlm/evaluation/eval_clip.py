"""Examining CLIP: cosines, retrieval, zero-shot, compositionality. What the rankings are worth is decided in metrics.py."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from data.shapes import grammar, hard_negatives
from data.dataset import to_tokens
from data.shapes.render import render
from data.shapes.scene import COLOUR, PLACE, SHAPE, SIZE, NotEnoughScenes, sample
from data.tokenizer import BOS
from tinyvlm.evaluation import metrics
from tinyvlm.evaluation.eval_vlm import as_grid


class CLIPEmbedder:
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

    def embed_images(self, scenes):
        parts = [hard_negatives.select(scenes, slice(k, k + self.chunk)) for k in range(0, len(scenes.objects), self.chunk)]
        return np.concatenate([self.encode(self.model.encode_image, render(self.world, part, self.image_size, self.device)) for part in parts])

    def embed_texts(self, noun_phrases):
        """things: (n, m, 4), what each caption says."""
        return self.encode(self.model.encode_text, torch.from_numpy(to_tokens(grammar.caption(noun_phrases), start=(BOS,))))


def evaluate_retrieval(embedder, world, seed, split, items, omit=(PLACE,), num_candidates=256):
    """Cosines of `items` pictures with full captions (with false ones among the first 1,024), and retrieval among the first 256: {name: metrics.Score}.

    silent: the columns that captions do not say. Any caption that is true of a picture is a hit, any picture a caption is true of, too.
    """
    indices = np.arange(0, 2 * items, 2)
    scenes = sample(world, seed, split, indices)
    noun_phrases, scene = grammar.without(scenes.objects, *omit), indices // 2
    images, texts = embedder.embed_images(scenes), embedder.embed_texts(noun_phrases)
    similarity = images @ texts[:1024].T
    true = np.concatenate([grammar.caption_truth(part, scenes.objects) for part in np.array_split(noun_phrases[:1024], -(-min(items, 1024) // 256))]).T
    mismatched = np.array([row[~fits].mean() for row, fits in zip(similarity, true)])
    result = dict(
        matched_cosine=metrics.proportion((images * texts).sum(1), scene, "a picture and its caption"),
        mismatched_cosine=metrics.proportion(mismatched, scene, "a picture and captions false of it"),
    )
    small, fits, k_all = similarity[:num_candidates, :num_candidates], true[:num_candidates, :num_candidates], (1, 5, 10)
    ways = (("to_caption", small, fits), ("to_picture", small.T, fits.T))
    hits = {(name, k): [metrics.recall_at_k(k, s[[q]], f[[q]]) for q in range(len(s))] for name, s, f in ways for k in k_all}
    for k in k_all:
        chance = np.mean([metrics.recall_at_k(k, np.zeros(f.shape), f) for _, _, f in ways])
        both = hits["to_caption", k] + hits["to_picture", k]
        result[f"r_at_{k}"] = metrics.proportion(both, np.tile(scene[:num_candidates], 2), f"R@{k} of {len(small)}, both ways", float(chance))
        for name, meaning in (("to_caption", "from picture to caption"), ("to_picture", "from caption to picture")):
            result[f"r_at_{k}_{name}"] = metrics.proportion(hits[name, k], scene[:num_candidates], meaning)
    return result


def evaluate_pairs(embedder, world, seed, split, items):
    """Is a picture's own caption nearer than that of the other one of its minimal pair? Score; pairs whose captions fit both are left out."""
    indices = np.arange(2 * items)
    scenes = sample(world, seed, split, indices)
    noun_phrases, other = grammar.without(scenes.objects, PLACE), indices ^ 1
    clear = np.array([not hard_negatives.is_true(noun_phrases[o], s) for o, s in zip(other, scenes.objects)])
    image, text = embedder.embed_images(scenes), embedder.embed_texts(noun_phrases)
    right = metrics.win_rate((image * text).sum(1), (image * text[other]).sum(1))
    return metrics.proportion(right[clear], indices[clear] // 2, "own caption against the edited picture's", 0.5)


def evaluate_zero_shot(embedder, world, seed, split="test", items=640):
    """Pictures of one object against the 64 captions "a COLOUR SHAPE": {name: Score}, with one template and with the mean of twelve.

    The ensemble averages the unit vectors of "a COLOUR SHAPE", of "a small ...", "a large ..." and of the nine "... at the PLACE" (all colours and
    shapes, no sizes, a template that training has not), and makes the mean a unit vector again, as in Radford et al. (2021), section 3.1.4.
    """
    lonely = replace(world, min_objects=1, max_objects=1)
    indices = np.arange(0, 2 * items, 2)
    scenes = sample(lonely, seed, split, indices)
    image, plain = embedder.embed_images(scenes), grammar.every_colour_and_shape()
    label = (scenes.objects[:, 0, COLOUR] - 1) * 8 + scenes.objects[:, 0, SHAPE] - 1
    templates = [plain]
    for column, values in ((SIZE, 2), (PLACE, 9)):
        for value in range(1, values + 1):
            templates.append(plain.copy())
            templates[-1][..., column] = value
    vectors = [embedder.embed_texts(noun_phrases) for noun_phrases in templates]
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
        result[name] = metrics.proportion([metrics.accuracy(scores[[q]], label[[q]]) for q in range(items)], indices // 2, meaning, chance)
    return result


def evaluate_winoground(embedder, world, seed, split, items):
    """{contrast: {"text", "image", "group": Score}} on counterfactual pairs, for those that the split has. Thrush et al. (2022)."""
    result = {}
    for contrast in hard_negatives.CONTRASTS:
        try:
            *scenes, first, second = hard_negatives.sample_winoground(world, seed, split, contrast, items)
        except NotEnoughScenes:
            continue
        images, texts = [embedder.embed_images(s) for s in scenes], [embedder.embed_texts(t) for t in (first, second)]
        similarity = np.stack([[(text * image).sum(1) for image in images] for text in texts]).transpose(2, 0, 1)
        scores = zip(("text", "image", "group"), metrics.winoground(similarity), (1 / 4, 1 / 4, 1 / 6))
        result[contrast] = {name: metrics.proportion(right, np.arange(items), "", chance) for name, right, chance in scores}
    return result


def evaluate_sugarcrepe(embedder, world, seed, split, items):
    """{kind of SugarCrepe: (accuracy, the same without picture)}: is the true caption nearer than the foil? Hsieh et al. (2023).

    Without picture: the mean of all pictures' vectors asks instead, so what it gets right the captions alone have told.
    """
    result = {}
    for kind in hard_negatives.KINDS:
        try:
            found = hard_negatives.sample_sugarcrepe(world, seed, split, kind, items)
        except NotEnoughScenes:
            continue
        image, true, false = embedder.embed_images(found.scenes), embedder.embed_texts(found.true), embedder.embed_texts(found.false)
        nobody = image.mean(0)
        scores = metrics.win_rate((image * true).sum(1), (image * false).sum(1)), metrics.win_rate(true @ nobody, false @ nobody)
        result[kind] = tuple(metrics.proportion(right, np.arange(items), "", 0.5) for right in scores)
    return result


def longest_caption(world, seed, split, items):
    """How many tokens the longest caption of a split has that tells everything."""
    return grammar.caption(sample(world, seed, split, np.arange(0, 2 * items, 2)).objects).shape[1] + 2


def evaluate_modality_gap(embedder, world, seed, split, items):
    """The modality gap, with an interval: metrics.Measured."""
    scenes = sample(world, seed, split, np.arange(0, 2 * items, 2))
    image, text = embedder.embed_images(scenes), embedder.embed_texts(grammar.without(scenes.objects, PLACE))
    return metrics.modality_gap(image, text)


def grad_x_input(model, pixels, text):
    """Where the cosine of each picture with its caption (b, d) came from: |gradient x patch token|, (b, 14, 14); see exam.heat."""
    tokens, pooled = model.vision(pixels)
    cosine = F.normalize(model.image_proj(pooled), dim=-1) * text
    (gradient,) = torch.autograd.grad(cosine.sum(), tokens)
    return as_grid(gradient * tokens)
