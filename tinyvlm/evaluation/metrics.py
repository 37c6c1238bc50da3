"""Every number that a table shows, defined once. The definitions stand in the docstrings; sources in brackets."""

import functools
import itertools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from data.shapes import grammar
from data.shapes.scene import COLOUR, PLACE, SHAPE, SIZE

# ---------------------------------------------------------------- intervals


def wilson_interval(right, items):
    """95 % interval of a share of independent items (Wilson 1927): (low, high)."""
    z, p = 1.96, right / items
    middle = (p + z * z / (2 * items)) / (1 + z * z / items)
    half = z * math.sqrt(p * (1 - p) / items + z * z / (4 * items * items)) / (1 + z * z / items)
    return max(middle - half, 0.0), min(middle + half, 1.0)


@dataclass
class RatioMetric:
    """A number of a table: the sum of `top` (n,) over the sum of `bottom` (n,), items of one scene in one `group` (n,).

    A share has a bottom of ones; precision, F1 and CHAIR have counts there. Intervals are 95 % bootstraps over whole scenes.
    """

    numerator: np.ndarray
    denominator: np.ndarray
    cluster: np.ndarray
    meaning: str = ""
    chance: float = math.nan

    @property
    def value(self):
        return float(self.numerator.sum() / max(self.denominator.sum(), 1e-12))

    @property
    def items(self):
        return round(float(self.denominator.sum()))

    def bootstrap(self, scenes):
        """The value in 1,000 resamplings of `scenes`, the sorted numbers of all scenes: (1000,)."""
        member = np.searchsorted(scenes, self.cluster)
        numerator, denominator = (np.bincount(member, part, len(scenes)) for part in (self.numerator, self.denominator))
        weight = bootstrap_weights(len(scenes))
        return weight @ numerator / np.maximum(weight @ denominator, 1e-12)

    def interval(self):
        """95 %: (low, high). Where all items agree a bootstrap knows no doubt; there it is Wilson's over the scenes that count."""
        if not self.denominator.sum():
            return 0.0, 1.0  # nothing was counted, nothing is known
        if self.is_degenerate:
            scenes = len(np.unique(self.cluster[self.denominator > 0]))
            return wilson_interval(self.value * scenes, scenes)
        return spread(self.bootstrap(np.unique(self.cluster)))

    @property
    def is_degenerate(self):
        """Is every item right, or every one wrong?"""
        return self.value in (0.0, 1.0)

    def paired_difference(self, other):
        """The difference to another model's score on the same scenes: (value, (low, high)), the scenes drawn together for both (paired).

        Where the items of one of them all agree, so that it has no draws to pair, the two single intervals are combined: Newcombe (1998).
        """
        difference = self.value - other.value
        if self.is_degenerate or other.is_degenerate:
            (low, high), (other_low, other_high) = self.interval(), other.interval()
            return difference, (
                difference - math.hypot(self.value - low, other_high - other.value),
                difference + math.hypot(high - self.value, other.value - other_low),
            )
        scenes = np.union1d(self.cluster, other.cluster)
        return difference, spread(self.bootstrap(scenes) - other.bootstrap(scenes))


@functools.lru_cache(maxsize=4)
def bootstrap_weights(scenes, number=1000):
    """How often each of so many scenes occurs in each of `number` resamplings, always the same ones: (number, scenes)."""
    rng = np.random.default_rng(0)
    return np.stack([np.bincount(rng.integers(0, scenes, scenes), minlength=scenes) for _ in range(number)]).astype(np.float32)


@dataclass
class BootstrapMetric:
    """A number that is no ratio of sums, with its values in resamplings of the scenes (k,); in tables it stands as a Score does."""

    value: float
    resampled: np.ndarray
    items: int
    meaning: str = ""
    chance: float = math.nan

    def interval(self):
        return spread(self.resampled)

    def paired_difference(self, other):
        """The difference to another model's on the same scenes: (value, (low, high))."""
        return self.value - other.value, spread(self.resampled - other.resampled)


def table_row(name, score, extra=""):
    """A Score as a row of a printed table: (name, value, interval, items, what it means)."""
    chance = "" if math.isnan(score.chance) else f"chance {score.chance:.3f}"
    return name, score.value, score.interval(), score.items, ", ".join(part for part in (score.meaning, chance, extra) if part)


def spread(bootstrap):
    return tuple(np.quantile(bootstrap, [0.025, 0.975]).tolist())


def proportion(right, cluster, meaning="", chance=math.nan):
    """The Score of a share: right (n,) in [0, 1], one item each."""
    right = np.asarray(right, float)
    return RatioMetric(right, np.ones(len(right)), np.asarray(cluster), meaning, chance)


def macro_mean(scores, meaning="", chance=math.nan):
    """The mean of several shares, each with the same weight whatever its items: Score."""
    weight = [np.full(len(s.numerator), 1 / len(s.numerator) / len(scores)) for s in scores]
    numerator = np.concatenate([s.numerator * w for s, w in zip(scores, weight)])
    total = sum(len(s.numerator) for s in scores)
    return RatioMetric(numerator * total, np.concatenate(weight) * total, np.concatenate([s.cluster for s in scores]), meaning, chance)


# ---------------------------------------------------------------- CLIP


def recall_at_k(k, similarity, truth):
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


def win_rate(scores, other):
    """Is `scores` higher than `other`, item by item? A tie counts one half: (n,)."""
    return (np.asarray(scores) > other) + 0.5 * (np.asarray(scores) == other)


def winoground(similarity):
    """Text, image and group score of each item, (n,) each; Thrush et al. (2022).

    similarity (n, 2 captions, 2 pictures). Text: each picture prefers its own caption. Image: each caption prefers its own picture. Group:
    both. Chance is 1/4, 1/4, 1/6. Ties are broken in all 24 orders and averaged, so constant scores give just that.
    """
    flat = np.asarray(similarity, float).reshape(-1, 4)  # c0 i0, c0 i1, c1 i0, c1 i1
    orders = list(itertools.permutations(range(4)))
    text, image, cluster = np.zeros((3, len(flat)))
    for order in orders:
        above = lambda a, b: (flat[:, a] > flat[:, b]) | ((flat[:, a] == flat[:, b]) & (order[a] > order[b]))
        by_text, by_image = above(0, 2) & above(3, 1), above(0, 1) & above(3, 2)
        text, image, cluster = text + by_text, image + by_image, cluster + (by_text & by_image)
    return text / len(orders), image / len(orders), cluster / len(orders)


def modality_gap(image, text, bootstrap=200):
    """The distance between the mean picture and the mean caption, unit vectors (n, d): 0 to 2, Measured. Liang et al. (2022)."""
    gap = lambda pick: float(np.linalg.norm(image[pick].mean(0) - text[pick].mean(0)))
    picks = np.random.default_rng(0).integers(0, len(image), (bootstrap, len(image)))
    return BootstrapMetric(gap(np.arange(len(image))), np.array([gap(pick) for pick in picks]), len(image), "between the mean picture and the mean caption")


def max_accuracy_with_duplicates(tokens):
    """The best accuracy that the plain contrastive loss can reach on captions (b, t): identical ones cannot be told apart."""
    rows = [tuple(row) for row in tokens.tolist()]
    count = Counter(rows)
    return sum(1 / count[row] for row in rows) / len(rows)


# ---------------------------------------------------------------- captions


def extract_facts(noun_phrases):
    """The typed facts of a list of things (m, 4): for each, its shape, its colour and its size, bound to that shape.

    A Counter, so that two red circles are two facts. What a thing does not say is no fact.
    """
    facts = Counter()
    for noun_phrase in np.asarray(noun_phrases):
        if not noun_phrase[SHAPE]:
            continue
        shape = int(noun_phrase[SHAPE])
        facts["shape", shape] += 1
        for name, column in (("colour", COLOUR), ("size", SIZE)):
            if noun_phrase[column]:
                facts[name, shape, int(noun_phrase[column])] += 1
    return facts


def score_caption(caption, objects):
    """A caption (a string) against a scene (m, 4) -> (true facts, stated facts, facts of the scene, exact, unparseable).

    An unparseable caption states nothing that is true. `exact`: every object in reading order with all its attributes.
    """
    scene = objects[objects[:, SHAPE] > 0].copy()
    scene[:, PLACE] = 0
    there = extract_facts(scene)
    try:
        noun_phrases = grammar.parse_caption(caption)
    except ValueError:
        return 0, 0, there.total(), False, True
    stated = extract_facts(noun_phrases)
    exact = noun_phrases.shape == scene.shape and bool((noun_phrases == scene).all())
    return (stated & there).total(), stated.total(), there.total(), exact, False


def facts_by_kind(noun_phrases):
    """What a list of things (m, 4) in reading order says, as Counters of typed facts: objects, attributes, relations, counts.

    objects: its shapes. attributes: colours and sizes, bound to their shapes. relations: which shape comes before which in reading order. counts:
    the number of things, and of each shape.
    """
    bound = extract_facts(noun_phrases)
    shapes = [int(t[SHAPE]) for t in np.asarray(noun_phrases) if t[SHAPE]]
    return dict(
        objects=Counter({fact: n for fact, n in bound.items() if fact[0] == "shape"}),
        attributes=Counter({fact: n for fact, n in bound.items() if fact[0] != "shape"}),
        relations=Counter(itertools.combinations(shapes, 2)),
        counts=Counter([("all", len(shapes)), *Counter(shapes).items()]),
    )


def match_objects(noun_phrases, objects):
    """Which phrases (m, 4) have an object (k, 4) of their own that they are true of: bool (m,), as many as can be at once (Kuhn 1955)."""
    fits = grammar.matches(np.repeat(noun_phrases, len(objects), 0), np.tile(objects, (len(noun_phrases), 1))[:, None])[:, 0].reshape(len(noun_phrases), len(objects))
    owner = {}

    def find(phrase, tried):
        for k in np.flatnonzero(fits[phrase]):
            if k not in tried:
                tried.add(k)
                if k not in owner or find(owner[k], tried):
                    owner[k] = phrase
                    return True
        return False

    for phrase in range(len(noun_phrases)):
        find(phrase, set())
    return np.isin(np.arange(len(noun_phrases)), list(owner.values()))


def caption_report(captions, scenes, cluster):
    """Captions (n strings) against scenes (n, m, 4): {name: Score}.

    CHAIR (Rohrbach et al. 2018): `chair_i` is the share of mentioned objects whose shape is nowhere in the picture, `chair_s` the share of captions with
    one. `misdescribed_i` and `_s` are stricter: no object that is as described is left for the phrase. An unparseable caption mentions nothing: read all
    beside recall and the share of unparseable captions.
    """
    meanings = dict(
        objects="facts of the kind: there is such a shape",
        attributes="colours and sizes, bound to a shape",
        relations="which shape stands before which in reading order",
        counts="how many things, and how many of each shape",
    )
    kinds = tuple(meanings)
    rows, table = [score_caption(c, s) for c, s in zip(captions, scenes)], []
    for caption, scene in zip(captions, scenes):
        there = facts_by_kind(scene)
        try:
            noun_phrases = grammar.parse_caption(caption)
        except ValueError:
            table.append([0, 0, 0] + [x for k in kinds for x in (0, 0, there[k].total())])
            continue
        stated, misdescribed = facts_by_kind(noun_phrases), (~match_objects(noun_phrases, scene)).sum()
        invented = ((noun_phrases[:, SHAPE] > 0) & ~np.isin(noun_phrases[:, SHAPE], scene[:, SHAPE])).sum()
        table.append([invented, misdescribed, len(noun_phrases)] + [x for k in kinds for x in ((stated[k] & there[k]).total(), stated[k].total(), there[k].total())])
    (true, stated, there, exact, unparseable), table = np.array(rows, float).T, np.array(table, float).T
    ones = np.ones(len(rows))
    report = dict(
        fact_precision=RatioMetric(true, stated, cluster, "stated facts (shapes, colours, sizes) that are true"),
        fact_recall=RatioMetric(true, there, cluster, "facts of the pictures that are stated"),
        fact_f1=RatioMetric(2 * true, stated + there, cluster, "both in one; items: facts stated and facts there"),
        exact_caption=RatioMetric(exact, ones, cluster, "every object, every attribute, in order"),
        unparseable=RatioMetric(unparseable, ones, cluster, "no caption of the grammar"),
        chair_i=RatioMetric(table[0], table[2], cluster, "mentioned objects whose shape is not there"),
        chair_s=RatioMetric((table[0] > 0).astype(float), ones, cluster, "captions with at least one of them"),
        misdescribed_i=RatioMetric(table[1], table[2], cluster, "mentioned objects that are not there as described"),
        misdescribed_s=RatioMetric((table[1] > 0).astype(float), ones, cluster, "captions with at least one of them"),
    )
    for k, kind in enumerate(kinds):
        true, stated, there = table[3 + 3 * k : 6 + 3 * k]
        report[f"{kind}_precision"] = RatioMetric(true, stated, cluster, meanings[kind])
        report[f"{kind}_recall"] = RatioMetric(true, there, cluster)
        report[f"{kind}_f1"] = RatioMetric(2 * true, stated + there, cluster)
    return report


# ---------------------------------------------------------------- answers


def pope_report(predictions, there, cluster):
    """Answers "yes", "no" or anything else (invalid, and wrong) about presence, there (n,) bool: {name: Score}. Li et al. (2023).

    A number from 0 to 1 instead of a word is a share of "yes": 0.5 is a tie.
    """
    values = {"yes": 1.0, "no": 0.0}
    yes = np.array([values.get(s, math.nan) if isinstance(s, str) else s for s in predictions], float)
    invalid, there = np.isnan(yes), np.asarray(there, float)
    right = np.where(invalid, 0, 1 - np.abs(yes - there))
    yes, ones = np.where(invalid, 0, yes), np.ones(len(there))
    return dict(
        accuracy=RatioMetric(right, ones, cluster, "yes where it is there, no where it is not", 0.5),
        precision=RatioMetric(yes * there, yes, cluster),
        recall=RatioMetric(yes * there, there, cluster),
        f1=RatioMetric(2 * yes * there, yes + there, cluster),
        yes_rate=RatioMetric(yes, ones, cluster, "", 0.5),
        invalid=RatioMetric(invalid.astype(float), ones, cluster, "neither yes nor no"),
    )


def exact_match(predictions, targets):
    """Exact answers only; what is no answer of the grammar is wrong."""
    return np.array([a == b for a, b in zip(predictions, targets)], float)
