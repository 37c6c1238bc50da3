"""Every number that a table shows, defined once. The docstrings define; sources in brackets."""

import itertools
import math
from collections import Counter

import numpy as np

from tinyvlm.evaluation.statistics import BootstrapMetric, RatioMetric, bootstrap_weights

# ---------------------------------------------------------------- CLIP


def recall_at_k(k, similarity, is_match):
    """Share of queries (rows) with a true item among their k most similar: (q, items) both.

    An item that ties with the k-th place is in with the share of the places that are left, so
    constant scores give chance.
    """
    hits = []
    for scores, true in zip(np.asarray(similarity, float), np.asarray(is_match, bool), strict=True):
        threshold = np.sort(scores)[-k]
        sure, tied = scores > threshold, scores == threshold
        if (sure & true).any():
            hits.append(1.0)
            continue
        places, wrong, n = k - sure.sum(), (tied & ~true).sum(), tied.sum()
        hits.append(1.0 - math.comb(wrong, places) / math.comb(n, places))
    return float(np.mean(hits))


def accuracy(scores, label):
    """Share of rows (n, classes) whose highest score is the label's (n,); a tie of k counts 1/k."""
    scores = np.asarray(scores, float)
    best = scores == scores.max(1, keepdims=True)
    return float((best[np.arange(len(label)), label] / best.sum(1)).mean())


def win_rate(scores, other):
    """Is `scores` higher than `other`, item by item? A tie counts one half: (n,)."""
    return (np.asarray(scores) > other) + 0.5 * (np.asarray(scores) == other)


def winoground(similarity):
    """Text, image and group score of each item, (n,) each; Thrush et al. (2022).

    similarity (n, 2 captions, 2 pictures). Text: each picture prefers its own caption. Image: each
    caption prefers its own picture. Group: both. Chance is 1/4, 1/4, 1/6. Ties are broken in all 24
    orders and averaged, so constant scores give just that.
    """
    flat = np.asarray(similarity, float).reshape(-1, 4)  # c0 i0, c0 i1, c1 i0, c1 i1
    orders = list(itertools.permutations(range(4)))
    text, image, group = np.zeros((3, len(flat)))
    for order in orders:
        by_text = is_above(flat, order, 0, 2) & is_above(flat, order, 3, 1)
        by_image = is_above(flat, order, 0, 1) & is_above(flat, order, 3, 2)
        text, image, group = text + by_text, image + by_image, group + (by_text & by_image)
    return text / len(orders), image / len(orders), group / len(orders)


def is_above(flat, order, a, b):
    """Is column a of (n, 4) higher than column b, ties broken by `order`? bool (n,)."""
    return (flat[:, a] > flat[:, b]) | ((flat[:, a] == flat[:, b]) & (order[a] > order[b]))


def modality_gap(image, text):
    """How far each picture and its caption lie apart along the line from the mean caption to the
    mean picture, (n,); the mean of it is the distance of the means, 0 to 2: Liang et al. (2022).

    image, text: unit vectors (n, d).
    """
    apart = image - text
    line = apart.mean(0)
    return apart @ line / max(np.linalg.norm(line), 1e-12)


def max_accuracy_with_duplicates(tokens, is_true):
    """The best accuracy that captions (n, t) can reach in choosing their pictures by the loss of
    the CLIP paper: those of several pictures that are identical cannot be told apart.

    is_true: bool (n, pictures), which caption is which picture's own, and true; at most one each.
    """
    has_picture, picture = is_true.any(1), is_true.int().argmax(1)
    pairs = zip(tokens[has_picture].tolist(), picture[has_picture].tolist(), strict=True)
    pairs = [(tuple(words), whose) for words, whose in pairs]
    pictures = Counter(words for words, _ in set(pairs))  # that have such a caption
    return sum(1 / pictures[words] for words, _ in pairs) / len(pairs)


# ---------------------------------------------------------------- captions


def caption_report(judged, cluster):
    """Captions judged by a data set (n JudgedCaption, see data/shapes/facts.py): {name: metric}.

    CHAIR (Rohrbach et al. 2018): `chair_i` is the share of mentioned objects whose shape is nowhere
    in the picture, `chair_s` the share of captions with one. `misdescribed_i` and `_s` are
    stricter: no object that is as described is left for the phrase. An unparseable caption mentions
    nothing: read all beside recall and the share of unparseable captions.
    """
    per_caption = {
        name: np.array([float(getattr(caption, name)) for caption in judged])
        for name in ("mentioned", "invented", "misdescribed", "is_exact", "is_parseable")
    }
    report = fact_scores(judged, "facts", "fact", cluster)
    mentioned, invented = per_caption["mentioned"], per_caption["invented"]
    misdescribed, ones = per_caption["misdescribed"], np.ones(len(judged))
    for name, numerator, denominator, meaning in (
        ("exact_caption", per_caption["is_exact"], ones, "every object, attribute, in order"),
        ("unparseable", 1 - per_caption["is_parseable"], ones, "no caption of the grammar"),
        ("chair_i", invented, mentioned, "mentioned objects whose shape is not there"),
        ("chair_s", invented > 0, ones, "captions with at least one of them"),
        ("misdescribed_i", misdescribed, mentioned, "mentioned objects not there as described"),
        ("misdescribed_s", misdescribed > 0, ones, "captions with at least one of them"),
    ):
        report[name] = RatioMetric(numerator.astype(float), denominator, cluster, meaning)
    for kind in ("objects", "attributes", "relations", "counts"):
        report |= fact_scores(judged, kind, kind, cluster)
    return report


def fact_scores(judged, kind, name, cluster):
    """Precision, recall and F1 of one kind of facts, micro-averaged: {name_precision: ...}."""
    counts = [
        [(c.stated[kind] & c.there[kind]).total(), c.stated[kind].total(), c.there[kind].total()]
        for c in judged
    ]
    true, stated, there = np.array(counts, float).T
    return {
        f"{name}_precision": RatioMetric(true, stated, cluster, "stated facts that are true"),
        f"{name}_recall": RatioMetric(
            true, there, cluster, "facts of the pictures that are stated"
        ),
        f"{name}_f1": RatioMetric(2 * true, stated + there, cluster, "both in one"),
    }


# ---------------------------------------------------------------- labels


def macro_f1(said, there, meaning):
    """The mean of the labels' F1; said, there: bool (n pictures, labels). Chance is that of who
    says all labels of every picture. A label that is neither there nor said counts as right."""

    def f1(hits, total):
        return np.where(total > 0, 2 * hits / np.maximum(total, 1), 1).mean(-1)

    counts = [(said & there).astype(float), said + there.astype(float)]  # (n, labels) each
    weights = bootstrap_weights(len(there))
    resampled = f1(*(weights @ count for count in counts))
    chance = float(f1(there.sum(0), len(there) + there.sum(0)))
    value = float(f1(*(count.sum(0) for count in counts)))
    return BootstrapMetric(value, resampled, len(there), meaning, chance)


# ---------------------------------------------------------------- answers


def pope_report(predictions, is_there, cluster, yes_no=("yes", "no")):
    """Answers about presence, "yes", "no" or anything else (invalid, and wrong): {name: metric}.

    is_there: bool (n,). yes_no: the two words. A number from 0 to 1 instead of a word is a share of
    "yes": 0.5 is a tie. Li et al. (2023).
    """
    values = dict(zip(yes_no, (1.0, 0.0), strict=True))
    yes = np.array(
        [values.get(p, math.nan) if isinstance(p, str) else p for p in predictions], float
    )
    invalid, there = np.isnan(yes), np.asarray(is_there, float)
    right = np.where(invalid, 0, 1 - np.abs(yes - there))
    yes, ones = np.where(invalid, 0, yes), np.ones(len(there))
    meaning = "yes where it is there, no where it is not"
    return dict(
        accuracy=RatioMetric(right, ones, cluster, meaning, 0.5),
        precision=RatioMetric(yes * there, yes, cluster),
        recall=RatioMetric(yes * there, there, cluster),
        f1=RatioMetric(2 * yes * there, yes + there, cluster),
        yes_rate=RatioMetric(yes, ones, cluster, "", 0.5),
        invalid=RatioMetric(invalid.astype(float), ones, cluster, "neither yes nor no"),
    )


def exact_match(predictions, targets):
    """Exact answers only, 1 or 0 each; what is no answer of the grammar is wrong: (n,)."""
    return np.array([p == t for p, t in zip(predictions, targets, strict=True)], float)
