"""The statistics of an ablation: paired over seeds, corrected for many claims, with a verdict.

Differences are those of two arms at the same seed: same data, same order, same shared weights. All
is written out; tests compare with cases worked by hand and with scipy's values.
"""

import math
from functools import lru_cache

import numpy as np

from tinyvlm.evaluation.statistics import percentiles

ALPHA = 0.05
POWER = 0.8  # the chance to see an effect that is there, where seeds are planned
MIN_SEEDS = 3  # with fewer nothing is decided
MAX_SEEDS = 1000  # more are not planned

# ---------------------------------------------------------------- Student's t


def t_cdf(t, df):
    """The probability that Student's t with df degrees of freedom is below t.

    By the incomplete beta function: Abramowitz and Stegun (1964), 26.7.1.
    """
    tail = incomplete_beta(df / (df + t * t), df / 2, 0.5) / 2
    return 1 - tail if t > 0 else tail


def incomplete_beta(x, a, b, terms=400):
    """The regularized incomplete beta function I_x(a, b), by its continued fraction, from its end
    to its front: Abramowitz and Stegun (1964), 26.5.8."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, the other tail
        return 1 - incomplete_beta(1 - x, b, a)
    fraction = 1.0
    for k in range(terms, 0, -1):
        m = k // 2
        if k % 2:
            part = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            part = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + part / fraction
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta) / a / fraction


@lru_cache  # a few are asked for again and again, at 15 ms each
def t_quantile(p, df):
    """The t below which Student's t lies with probability p, by bisection."""
    low, high = -1e4, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return (low + high) / 2


# ---------------------------------------------------------------- a difference over seeds


def standard_error(differences):
    """Of the mean of differences (seeds,): their standard deviation over the root of their number;
    nan for a single one."""
    n = len(differences)
    return float(np.std(differences, ddof=1) / math.sqrt(n)) if n > 1 else math.nan


def paired_interval(differences):
    """95 % interval of the mean of differences (seeds,) by Student's t: (low, high)."""
    mean, error = float(np.mean(differences)), standard_error(differences)
    if math.isnan(error):
        return math.nan, math.nan
    half = t_quantile(1 - ALPHA / 2, len(differences) - 1) * error
    return mean - half, mean + half


def one_sided_p(differences, bound):
    """How likely a mean as high as theirs would be if the true one were `bound`."""
    error, df = standard_error(differences), len(differences) - 1
    distance = float(np.mean(differences)) - bound
    if math.isnan(error):
        return math.nan
    if error == 0:  # all seeds agree to the last bit
        return 0.5 if distance == 0 else float(distance < 0)
    return 1 - t_cdf(distance / error, df)


def paired_p(differences, margin=0.0):
    """Two-sided p of a paired t-test: could the true mean be 0, or lie between -margin and margin?
    (A minimum-effect test, Murphy and Myors (1999).)"""
    differences = np.asarray(differences)
    p = min(one_sided_p(differences, margin), one_sided_p(-differences, margin))
    return min(2 * p, 1.0)


def tost_p(differences, margin):
    """Two one-sided tests, Schuirmann (1987): p of the claim that the true mean lies between
    -margin and margin. Nothing is called "no difference" without it."""
    below = one_sided_p(-np.asarray(differences), -margin)
    return max(one_sided_p(differences, -margin), below)


def holm(ps):
    """p-values corrected for how many they are, Holm (1979), in the order given.

    nan stays, and counts: a claim whose cells are still to come is one of those that were made.
    """
    ps = np.asarray(ps, float)
    adjusted, known = ps.copy(), np.flatnonzero(~np.isnan(ps))
    highest = 0.0
    for rank, k in enumerate(known[ps[known].argsort(kind="stable")]):
        highest = max(highest, min((len(ps) - rank) * ps[k], 1.0))
        adjusted[k] = highest
    return adjusted.tolist()


def bootstrap_interval(pairs):
    """95 % interval of the mean difference over seeds and scenes at once: (low, high).

    pairs: [(metric of one arm, metric of the other)], one a seed, over the same scenes. Seeds and
    scenes are crossed, so each draw takes seeds and, for all of them, scenes; Owen (2007). Few
    seeds make it too narrow: the t interval stands beside it.
    """
    scenes = np.union1d(pairs[0][0].cluster, pairs[0][1].cluster)
    by_seed = np.stack([one.bootstrap(scenes) - other.bootstrap(scenes) for one, other in pairs])
    seeds, draws = by_seed.shape
    picks = np.random.default_rng(0).integers(0, seeds, (draws, seeds))
    return percentiles(by_seed[picks, np.arange(draws)[:, None]].mean(1))


# ---------------------------------------------------------------- planning, and the verdict


def detectable(deviation, seeds, claims=1):
    """The smallest true difference that so many seeds show with a chance of 80 %, where differences
    scatter by `deviation` (their standard deviation) and so many claims share Holm's correction."""
    if seeds < MIN_SEEDS:
        return math.inf
    df, alpha = seeds - 1, ALPHA / claims
    return (t_quantile(1 - alpha / 2, df) + t_quantile(POWER, df)) * deviation / math.sqrt(seeds)


def equivalence_shown(deviation, seeds, claims=1):
    """The smallest margin within which so many seeds show arms to be that are truly the same, see
    detectable; both tests of tost_p have to succeed."""
    if seeds < MIN_SEEDS:
        return math.inf
    df, alpha = seeds - 1, ALPHA / claims
    both = t_quantile(1 - (1 - POWER) / 2, df)
    return (t_quantile(1 - alpha, df) + both) * deviation / math.sqrt(seeds)


def seeds_needed(deviation, smallest, relation=">", claims=1):
    """How many seeds decide a claim: show a difference of `smallest`, or that arms are equal within
    it; MAX_SEEDS if no fewer do."""
    shown = equivalence_shown if relation == "=" else detectable
    low, high = 1, MAX_SEEDS
    while high - low > 1:  # what is shown falls with the number of seeds
        middle = (low + high) // 2
        is_enough = shown(deviation, middle, claims) <= smallest
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def verdict(relation, difference, p, p_equivalent, interval, smallest):
    """What became of a claim: "REPRODUCED", "REVERSED", "NULL" or "INCONCLUSIVE".

    relation: what was claimed of the first arm, ">" or "<" the second, or "=". p, p_equivalent:
    Holm's, of paired_p (where "=" is claimed, with the smallest of interest as its margin) and
    tost_p, which know of seeds alone; interval: of bootstrap_interval, that knows of scenes, too.
    What is said holds by both. A difference that is there, but smaller than the smallest of
    interest, is a NULL: Lakens (2017). nan: too few seeds.
    """
    low, high = interval
    margin = smallest if relation == "=" else 0.0
    is_there = p < ALPHA and not (low <= margin and high >= -margin)
    is_equivalent = p_equivalent < ALPHA and -smallest < low <= high < smallest
    if relation == "=":
        return "REPRODUCED" if is_equivalent else "REVERSED" if is_there else "INCONCLUSIVE"
    if is_equivalent:
        return "NULL"
    if not is_there:
        return "INCONCLUSIVE"
    return "REPRODUCED" if (difference > 0) == (relation == ">") else "REVERSED"
