"""Numbers with intervals: ratios of sums and other statistics, and how they scatter over scenes."""

import functools
import math
from dataclasses import dataclass

import numpy as np


def wilson_interval(right, items):
    """95 % interval of a share of independent items (Wilson 1927): (low, high)."""
    z, p = 1.96, right / items
    middle = (p + z * z / (2 * items)) / (1 + z * z / items)
    half = z * math.sqrt(p * (1 - p) / items + z * z / (4 * items * items)) / (1 + z * z / items)
    return max(middle - half, 0.0), min(middle + half, 1.0)


@dataclass
class RatioMetric:
    """A number of a table: the sum of `numerator` (n,) over the sum of `denominator` (n,).

    Items of one scene have one `cluster` (n,): intervals, 95 %, are as whole scenes scatter. A
    proportion has a denominator of ones; precision, F1 and CHAIR have counts there.
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
        numerator, denominator = (
            np.bincount(member, part, len(scenes)) for part in (self.numerator, self.denominator)
        )
        weights = bootstrap_weights(len(scenes))
        return weights @ numerator / np.maximum(weights @ denominator, 1e-12)

    def interval(self):
        """95 %: (low, high). Of a share it is Wilson's over so many independent items as would
        scatter like whole scenes do in the bootstrap (Kish's effective sample size), whose own
        percentiles know too little doubt near 0 and 1; of other numbers those percentiles."""
        if not self.denominator.sum():
            return 0.0, 1.0  # nothing was counted, nothing is known
        scenes = len(np.unique(self.cluster[self.denominator > 0]))
        if self.is_degenerate:
            return wilson_interval(self.value * scenes, scenes)
        draws = self.bootstrap(np.unique(self.cluster))
        if not self.counts:
            return percentiles(draws)
        variance = float(draws.var())
        items = self.value * (1 - self.value) / variance if variance else scenes
        return wilson_interval(self.value * items, items)

    @property
    def counts(self):
        """Is it a share of things that are counted, right ones among all?"""
        whole = np.array_equal(self.numerator, np.round(self.numerator))
        return whole and bool(((self.numerator >= 0) & (self.numerator <= self.denominator)).all())

    @property
    def is_degenerate(self):
        """Is every item right, or every one wrong?"""
        return self.value in (0.0, 1.0)

    def paired_difference(self, other):
        """The difference to another model's on the same scenes: (value, (low, high)).

        The scenes are drawn together for both. Where the items of one of them all agree, so that it
        has no draws to pair, the two single intervals are combined: Newcombe (1998).
        """
        if self.is_degenerate or other.is_degenerate:
            return unpaired_difference(self, other)
        difference = self.value - other.value
        scenes = np.union1d(self.cluster, other.cluster)
        return difference, percentiles(self.bootstrap(scenes) - other.bootstrap(scenes))


@functools.lru_cache(maxsize=4)
def bootstrap_weights(scenes, draws=1000):
    """How often each scene occurs in each resampling, always the same ones: (draws, scenes)."""
    rng = np.random.default_rng(0)
    picks = (rng.integers(0, scenes, scenes) for _ in range(draws))
    return np.stack([np.bincount(pick, minlength=scenes) for pick in picks]).astype(np.float32)


@dataclass
class BootstrapMetric:
    """A share that is no ratio of sums (a macro F1), with its values in resamplings of the scenes
    (k,). Where it is 0 or 1 in all of them its interval is Wilson's, as a RatioMetric's is."""

    value: float
    resampled: np.ndarray
    items: int
    meaning: str = ""
    chance: float = math.nan

    @property
    def is_degenerate(self):
        return self.value in (0.0, 1.0) and bool((self.resampled == self.value).all())

    def interval(self):
        if self.is_degenerate:
            return wilson_interval(self.value * self.items, self.items)
        return percentiles(self.resampled)

    def paired_difference(self, other):
        """The difference to another model's on the same scenes: (value, (low, high))."""
        if self.is_degenerate or other.is_degenerate:
            return unpaired_difference(self, other)
        return self.value - other.value, percentiles(self.resampled - other.resampled)


def unpaired_difference(one, other):
    """The difference of two metrics by their single intervals, Newcombe (1998): (value, (low,
    high))."""
    difference = one.value - other.value
    (low, high), (other_low, other_high) = one.interval(), other.interval()
    return difference, (
        difference - math.hypot(one.value - low, other_high - other.value),
        difference + math.hypot(high - one.value, other.value - other_low),
    )


def percentiles(draws):
    """The middle 95 % of draws (k,): (low, high)."""
    return tuple(np.quantile(draws, [0.025, 0.975]).tolist())


def proportion(right, cluster, meaning="", chance=math.nan):
    """The metric of a share: right (n,) in [0, 1], one item each."""
    right = np.asarray(right, float)
    return RatioMetric(right, np.ones(len(right)), np.asarray(cluster), meaning, chance)


def macro_mean(shares, meaning="", chance=math.nan):
    """The mean of several proportions, each with the same weight whatever its items."""
    weights = [np.full(len(s.numerator), 1 / len(s.numerator) / len(shares)) for s in shares]
    total = sum(len(s.numerator) for s in shares)
    right = np.concatenate([s.numerator * w for s, w in zip(shares, weights, strict=True)])
    cluster = np.concatenate([s.cluster for s in shares])
    return RatioMetric(right * total, np.concatenate(weights) * total, cluster, meaning, chance)
