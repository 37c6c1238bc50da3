"""Evaluating CLIP: cosines, retrieval, zero-shot, compositionality."""

import numpy as np
import torch

from data.batch import NotEnoughItems
from tinyvlm.evaluation import metrics
from tinyvlm.evaluation.common import evaluation_mode, in_each_language, saliency_of
from tinyvlm.evaluation.statistics import proportion

CHUNK = 128  # pictures or captions that are encoded together
CANDIDATES = 256  # of retrieval
MANY = 2048  # the same, where a good CLIP is right in nearly all of 256
PAIRS = ("held_out", "control")  # splits of pairs never shown in training, and of some that are
BINDING = ("attributes", "relation_in_other_order")  # whose group scores stand in metrics.json


class CLIPEmbedder:
    """CLIP as the evaluation knows it: pictures and captions in, unit vectors (n, d) out.

    Tests put others in its place.
    """

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer

    def embed_images(self, pictures):
        with evaluation_mode(self.model):
            vectors = [
                self.model.encode_image(pictures[k : k + CHUNK].pixels()).float().cpu()
                for k in range(0, len(pictures), CHUNK)
            ]
        return torch.cat(vectors).numpy()

    def embed_texts(self, captions):
        device = next(self.model.parameters()).device
        tokens = torch.tensor(self.tokenizer.encode_captions(captions))
        with evaluation_mode(self.model):
            vectors = [
                self.model.encode_text(part.to(device)).float().cpu()
                for part in tokens.split(CHUNK)
            ]
        return torch.cat(vectors).numpy()


def evaluate_retrieval(embedder, pictures, omit=("place",)):
    """Cosines of pictures with full captions, and retrieval among the first 256: {name: metric}.

    Captions leave out the attributes in `omit`. False captions are those among the first 1,024. Any
    caption that is true of a picture is a hit, and any picture that a caption is true of, too.
    """
    captions = pictures.captions(omit)
    images, texts = embedder.embed_images(pictures), embedder.embed_texts(captions)
    similarity = images @ texts[:1024].T
    is_match = pictures.is_match(captions[:1024])
    mismatched = [row[~match].mean() for row, match in zip(similarity, is_match, strict=True)]
    cosines = dict(
        matched_cosine=proportion(
            (images * texts).sum(1), pictures.cluster, "a picture and its caption"
        ),
        mismatched_cosine=proportion(
            mismatched, pictures.cluster, "a picture and captions false of it"
        ),
    )
    few = slice(CANDIDATES)
    return cosines | recalls(similarity[few, few], is_match[few, few], pictures.cluster[few])


def evaluate_large_retrieval(embedder, split):
    """R@1 among 2,048 pictures and their full captions: {"r_at_1_of_2048": metric}."""
    pictures = split.pictures(MANY)
    captions = pictures.captions()
    similarity = embedder.embed_images(pictures) @ embedder.embed_texts(captions).T
    found = recalls(similarity, pictures.is_match(captions), pictures.cluster, ks=(1,))
    return {f"r_at_1_of_{MANY}": found["r_at_1"]}


def recalls(similarity, is_match, cluster, ks=(1, 5, 10)):
    """R@k, both ways and one by one: similarity, is_match (n, n) -> {name: metric}."""
    ways = dict(to_caption=(similarity, is_match), to_picture=(similarity.T, is_match.T))
    meanings = dict(to_caption="from picture to caption", to_picture="from caption to picture")
    result = {}
    for k in ks:
        hits = {
            way: [metrics.recall_at_k(k, s[[q]], m[[q]]) for q in range(len(s))]
            for way, (s, m) in ways.items()
        }
        nothing = [metrics.recall_at_k(k, np.zeros(m.shape), m) for _, m in ways.values()]
        result[f"r_at_{k}"] = proportion(
            hits["to_caption"] + hits["to_picture"],
            np.tile(cluster, 2),
            f"R@{k} of {len(similarity)}, both ways",
            float(np.mean(nothing)),
        )
        for way, meaning in meanings.items():
            result[f"r_at_{k}_{way}"] = proportion(hits[way], cluster, meaning)
    return result


def evaluate_pairs(embedder, split, pairs):
    """Is a picture's own caption nearer than that of the other one of its minimal pair? Metric.

    Pairs whose captions fit both pictures are left out.
    """
    pictures, tells = split.minimal_pairs(pairs)
    image = embedder.embed_images(pictures)
    text = embedder.embed_texts(pictures.captions())
    other = text[np.arange(len(text)) ^ 1]
    right = metrics.win_rate((image * text).sum(1), (image * other).sum(1))
    meaning = "own caption against the edited picture's"
    return proportion(right[tells], pictures.cluster[tells], meaning, 0.5)


def evaluate_order(embedder, pictures):
    """How much the cosine of a picture and its caption moves where the caption names the same
    things from the last to the first; of pictures of two things or more. Metric."""
    pictures = pictures.of_several()
    image = embedder.embed_images(pictures)
    texts = [embedder.embed_texts(pictures.captions(backwards=b)) for b in (False, True)]
    change = np.abs((image * texts[0]).sum(1) - (image * texts[1]).sum(1))
    return proportion(change, pictures.cluster, "the same things in another order of mention")


def evaluate_zero_shot(embedder, split, items=640):
    """Pictures of one object against the 64 captions "a COLOUR SHAPE": {name: metric}.

    Once with that template, once with the mean of twelve: the ensemble averages the unit vectors
    and makes the mean a unit vector again, as in Radford et al. (2021), section 3.1.4; and once
    with the mean of those templates that training never shows.
    """
    found = split.zero_shot(items)
    image = embedder.embed_images(found.pictures)
    vectors = {name: embedder.embed_texts(texts) for name, texts in found.templates.items()}
    result = {}
    for name, templates, meaning in (
        ("zero_shot", ["plain"], "one object against 64 captions"),
        ("zero_shot_ensemble", list(vectors), f"the same, mean of {len(vectors)} templates"),
        ("zero_shot_new_template", found.unseen, "the same, templates never trained on"),
    ):
        mean = np.mean([vectors[template] for template in templates], 0)
        classes = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        scores = image @ classes.T
        right = [metrics.accuracy(scores[[q]], found.label[[q]]) for q in range(items)]
        result[name] = proportion(right, found.pictures.cluster, meaning, found.chance)
    return result


def evaluate_winoground(embedder, split, items, contrasts=()):
    """{contrast: {"text", "image", "group": metric}} for those contrasts that the split has (of the
    ones named, or of all and its yardsticks).

    Thrush et al. (2022), on pairs that differ in one edit.
    """
    result = {}
    for contrast in contrasts or (*split.contrasts, *split.yardsticks):
        try:
            pictures, captions = split.winoground(contrast, items)
        except NotEnoughItems:
            continue
        images = [embedder.embed_images(p) for p in pictures]
        texts = [embedder.embed_texts(c) for c in captions]
        similarity = np.array([[(t * i).sum(1) for i in images] for t in texts]).transpose(2, 0, 1)
        scores = zip(
            ("text", "image", "group"),
            metrics.winoground(similarity),
            (1 / 4, 1 / 4, 1 / 6),
            strict=True,
        )
        items_of = np.arange(items)
        result[contrast] = {n: proportion(r, items_of, "", chance) for n, r, chance in scores}
    return result


def evaluate_sugarcrepe(embedder, split, items):
    """Is the true caption nearer than the foil? Hsieh et al. (2023).

    Returns {kind: (accuracy, the same without picture)}. Without picture: the mean of all other
    pictures' vectors asks instead, so what it gets right the captions alone have told.
    """
    result = {}
    for kind in split.foil_kinds:
        try:
            pictures, *captions = split.sugarcrepe(kind, items)
        except NotEnoughItems:
            continue
        image = embedder.embed_images(pictures)
        true, false = (embedder.embed_texts(c) for c in captions)
        others = (image.sum(0) - image) / max(len(image) - 1, 1)  # (n, d)
        seeing = metrics.win_rate((image * true).sum(1), (image * false).sum(1))
        blind = metrics.win_rate((others * true).sum(1), (others * false).sum(1))
        result[kind] = tuple(proportion(r, np.arange(items), "", 0.5) for r in (seeing, blind))
    return result


def evaluate_modality_gap(embedder, pictures):
    """The distance between the mean picture and the mean caption."""
    image, text = embedder.embed_images(pictures), embedder.embed_texts(pictures.captions())
    meaning = "between the mean picture and the mean caption"
    return proportion(metrics.modality_gap(image, text), pictures.cluster, meaning)


# ---------------------------------------------------------------- for the training script


def validate(model, data, pictures=256):
    """Retrieval and cosines of validation pictures with full captions: {"val_...": number}."""
    embedder = CLIPEmbedder(model, data.tokenizer)
    scores = evaluate_retrieval(embedder, data.split("val").pictures(pictures))
    names = dict(r_at_1="r_at_1", matched="matched_cosine", mismatched="mismatched_cosine")
    return {f"val_{short}": scores[name].value for short, name in names.items()}


def evaluate_test(model, data, items):
    """The test split: {title: metric} for the table, and all of {name: metric}."""
    return in_each_language(evaluate_language, model, data, items)


def evaluate_language(model, data, items):
    """The test split in one language, see evaluate_test."""
    embedder, split = CLIPEmbedder(model, data.tokenizer), data.split("test")
    scores = evaluate_retrieval(embedder, split.pictures(items))
    scores |= evaluate_zero_shot(embedder, split)
    scores["pair_accuracy"] = evaluate_pairs(embedder, split, items)
    kept = ("matched_cosine", "mismatched_cosine", "zero_shot", "r_at_1", "pair_accuracy")
    scores = {name: scores[name] for name in kept}
    hidden = evaluate_large_retrieval(embedder, split)
    hidden["modality_gap"] = evaluate_modality_gap(embedder, split.pictures(items))
    for name in PAIRS:
        if name in data.splits:
            found = evaluate_zero_shot(embedder, data.split(name))
            scores[f"zero_shot_{name}"] = found["zero_shot"]
    for contrast, asked in evaluate_winoground(embedder, split, items // 2, BINDING).items():
        scores[f"group_{contrast}"] = asked["group"]
    table = {name.replace("_", " "): metric for name, metric in scores.items()}
    return table, scores | hidden


# ---------------------------------------------------------------- where a cosine came from


def grad_x_input(model, pixels, text):
    """Where the cosine of each picture with its caption (b, d) came from: (b, rows, columns).

    |gradient x patch token|, see predictor.py.
    """
    tokens, pooled = model.vision(pixels)
    cosine = model.embed_patches(tokens, pooled) * text
    return saliency_of(cosine.sum(), tokens)
