"""Every number that a table shows, defined once. The definitions stand in the docstrings; sources in brackets."""

import math
from collections import Counter

import numpy as np

from data import language
from data.scene import COLOUR, PLACE, SHAPE, SIZE

# ---------------------------------------------------------------- intervals


def share_interval(right, items):
    """95 % interval of a share of independent items (Wilson 1927): (low, high)."""
    z, p = 1.96, right / items
    middle = (p + z * z / (2 * items)) / (1 + z * z / items)
    half = z * math.sqrt(p * (1 - p) / items + z * z / (4 * items * items)) / (1 + z * z / items)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def group_interval(values, groups, draws=1000, seed=0):
    """95 % bootstrap interval of the mean of `values` (n,), whole groups (n,) drawn together: (low, high)."""
    values, (_, member) = np.asarray(values, float), np.unique(groups, return_inverse=True)
    total, size = np.bincount(member, values), np.bincount(member)
    pick = np.random.default_rng(seed).integers(0, len(size), (draws, len(size)))
    means = total[pick].sum(1) / size[pick].sum(1)
    return tuple(np.quantile(means, [0.025, 0.975]).tolist())


# ---------------------------------------------------------------- CLIP


def retrieval_at(k, similarity, truth):
    """Share of queries (rows) with a true item among their k most similar: similarity, truth (q, items).

    An item that ties with the k-th place is in with the share of the places that are left, so constant scores give chance.
    """
    hits = []
    for scores, true in zip(np.asarray(similarity, float), np.asarray(truth, bool)):
        threshold = np.sort(scores)[-k]
        sure, tied = scores > threshold, scores == threshold
        if (sure & true).any():
            hits.append(1.0)
            continue
        places, wrong, n = k - sure.sum(), (tied & ~true).sum(), tied.sum()
        missing = math.comb(wrong, places) / math.comb(n, places)
        hits.append(1.0 - missing)
    return float(np.mean(hits))


def accuracy(scores, label):
    """Share of rows (n, classes) whose highest score is the label's (n,); a tie of k counts 1 / k."""
    scores = np.asarray(scores, float)
    best = scores == scores.max(1, keepdims=True)
    return float((best[np.arange(len(label)), label] / best.sum(1)).mean())


def plain_ceiling(tokens):
    """The best accuracy that the plain contrastive loss can reach on captions (b, t): identical ones cannot be told apart."""
    rows = [tuple(row) for row in tokens.tolist()]
    count = Counter(rows)
    return sum(1 / count[row] for row in rows) / len(rows)


# ---------------------------------------------------------------- captions


def facts_of(things):
    """The typed facts of a list of things (m, 4): for each, its shape, its colour and its size, bound to that shape.

    A Counter, so that two red circles are two facts. What a thing does not say is no fact.
    """
    facts = Counter()
    for thing in np.asarray(things):
        if not thing[SHAPE]:
            continue
        shape = int(thing[SHAPE])
        facts["shape", shape] += 1
        for name, column in (("colour", COLOUR), ("size", SIZE)):
            if thing[column]:
                facts[name, shape, int(thing[column])] += 1
    return facts


def score_caption(caption, objects):
    """A caption (a string) against a scene (m, 4) -> (true facts, stated facts, facts of the scene, exact, unparseable).

    An unparseable caption states nothing that is true. `exact`: every object in reading order with all its attributes.
    """
    scene = objects[objects[:, SHAPE] > 0].copy()
    scene[:, PLACE] = 0
    there = facts_of(scene)
    try:
        things = language.parse_caption(caption)
    except ValueError:
        return 0, 0, there.total(), False, True
    stated = facts_of(things)
    exact = things.shape == scene.shape and bool((things == scene).all())
    return (stated & there).total(), stated.total(), there.total(), exact, False


def caption_scores(captions, scenes):
    """Fact precision, recall and F1 (pooled over pictures), share of exact and of unparseable captions, F1's interval.

    captions: n strings; scenes: (n, m, 4). The interval is a bootstrap over pictures.
    """
    table = np.array([score_caption(c, s) for c, s in zip(captions, scenes)], float)
    draws = np.random.default_rng(0).integers(0, len(table), (1000, len(table)))
    f1s = [f1_of(table[pick, :3].sum(0)) for pick in draws]
    true, stated, there = table[:, :3].sum(0)
    return dict(
        fact_precision=true / max(stated, 1),
        fact_recall=true / max(there, 1),
        fact_f1=f1_of((true, stated, there)),
        fact_f1_interval=tuple(np.quantile(f1s, [0.025, 0.975]).tolist()),
        exact_caption=table[:, 3].mean(),
        unparseable=table[:, 4].mean(),
    )


def f1_of(counts):
    """2 x true / (stated + there): the harmonic mean of precision and recall."""
    true, stated, there = counts
    return 2 * true / max(stated + there, 1)


# ---------------------------------------------------------------- answers


def is_right(said, wanted):
    """Exact answers only; what is no answer of the grammar is wrong."""
    return np.array([a == b for a, b in zip(said, wanted)], float)
