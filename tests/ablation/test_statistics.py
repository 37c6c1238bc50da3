"""The statistics of an ablation, against cases worked by hand and values of scipy 1.17."""

import math

import numpy as np
import pytest

from tinyvlm.ablation import statistics
from tinyvlm.evaluation.statistics import proportion

pytestmark = pytest.mark.quick
NAN = math.nan


def test_student_t_as_scipy_has_it():
    """scipy.stats.t.ppf and .cdf."""
    for p, df, value in (
        (0.975, 1, 12.706204736174694),
        (0.975, 2, 4.302652729749462),
        (0.975, 4, 2.7764451051977934),
        (0.95, 9, 1.833112932656237),
        (0.8, 2, 1.0606601717798214),
        (0.025, 4, -2.7764451051977943),
    ):
        assert statistics.t_quantile(p, df) == pytest.approx(value, rel=1e-7)
    assert statistics.t_cdf(-2.5, 7) == pytest.approx(0.020496109292876444)
    assert statistics.t_cdf(3.1, 11) == pytest.approx(0.9949479305437773)
    assert statistics.t_cdf(0.0, 5) == pytest.approx(0.5)
    assert statistics.t_cdf(1.0, 1) == pytest.approx(0.75)  # Cauchy: 1/2 + atan(1) / pi
    assert statistics.t_cdf(-2.0, 1) == pytest.approx(0.5 - math.atan(2) / math.pi)
    assert statistics.t_cdf(math.sqrt(2), 2) == pytest.approx(0.5 + math.sqrt(2) / 4)


def test_a_paired_t_test_by_hand():
    """1, 2, 3: mean 2, standard error 1 / sqrt(3), t = 3.4641 with 2 degrees of freedom; for two
    degrees the CDF is 1/2 + t / (2 sqrt(2 + t^2))."""
    differences = [1.0, 2.0, 3.0]
    t = 2 * math.sqrt(3)
    p = 2 * (0.5 - t / (2 * math.sqrt(2 + t * t)))
    assert statistics.paired_p(differences) == pytest.approx(p)
    half = 4.302652729749462 / math.sqrt(3)
    assert statistics.paired_interval(differences) == pytest.approx((2 - half, 2 + half))
    assert statistics.paired_p([-1.0, -2.0, -3.0]) == pytest.approx(p)


def test_pairs_as_scipy_has_them():
    """ttest_rel, t.interval, and ttest_1samp against -0.02 (greater) and 0.02 (less)."""
    one, other = np.array([0.91, 0.93, 0.90, 0.95]), np.array([0.90, 0.90, 0.91, 0.92])
    assert statistics.paired_p(one - other) == pytest.approx(0.21516994256955022)
    low, high = statistics.paired_interval(one - other)
    assert (low, high) == pytest.approx((-0.01546960361657624, 0.04546960361657621))
    assert statistics.one_sided_p(one - other, -0.02) == pytest.approx(0.017676423501258667)
    assert statistics.tost_p(one - other, 0.02) == pytest.approx(0.3188090457003003)


def test_one_seed_tells_nothing_and_equal_seeds_all():
    assert all(math.isnan(x) for x in statistics.paired_interval([0.3]))
    assert math.isnan(statistics.paired_p([0.3])) and math.isnan(statistics.tost_p([0.3], 0.1))
    assert statistics.paired_p([0.25, 0.25]) == 0.0 and statistics.paired_p([0.0, 0.0]) == 1.0
    assert statistics.tost_p([0.0, 0.0], 0.01) == 0.0 and statistics.tost_p([0.5, 0.5], 0.01) == 1.0


def test_equivalence_is_the_worse_of_two_one_sided_tests():
    """Differences 1, 2, 3 and a margin of 5: the upper test has t = (2 - 5) sqrt(3)."""
    t = 3 * math.sqrt(3)
    wanted = 0.5 - t / (2 * math.sqrt(2 + t * t))
    assert statistics.tost_p([1.0, 2.0, 3.0], 5.0) == pytest.approx(wanted)
    assert statistics.tost_p([-1.0, -2.0, -3.0], 5.0) == pytest.approx(wanted)
    assert statistics.tost_p([1.0, 2.0, 3.0], 1.0) > 0.5


def test_holm_by_hand():
    """0.01 x 3, 0.03 x 2, 0.04 x 1, none below the one before it; one that is unknown counts."""
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    found = statistics.holm([0.02, NAN, 0.01])
    assert found[0] == pytest.approx(0.04) and found[2] == pytest.approx(0.03)
    assert math.isnan(found[1])


def test_the_bootstrap_knows_seeds_and_scenes():
    rng = np.random.default_rng(1)
    scenes = np.arange(400) // 2

    def arm(share, seed):
        right = np.random.default_rng(seed).random(400) < share
        return proportion(right, scenes)

    alike = [(arm(0.9, 10 + s), arm(0.8, 50 + s)) for s in range(5)]
    low, high = statistics.bootstrap_interval(alike)
    assert 0.05 < low < 0.1 < high < 0.15
    shares = rng.choice([0.5, 1.0], 5)
    apart = [(arm(share, 10 + s), arm(0.75, 50 + s)) for s, share in enumerate(shares)]
    assert np.diff(statistics.bootstrap_interval(apart)) > 2 * (high - low)  # the seeds part
    same = [(metric, metric) for metric, _ in alike]
    assert statistics.bootstrap_interval(same) == (0.0, 0.0)


def test_planning():
    """With 3 seeds: (t .975 + t .8 of 2 degrees) / sqrt(3) standard deviations."""
    wanted = (4.302652729749462 + 1.0606601717798212) / math.sqrt(3)
    assert statistics.detectable(0.01, 3) == pytest.approx(0.01 * wanted, rel=1e-6)
    assert statistics.detectable(0.01, 1) == math.inf
    n = statistics.seeds_needed(0.01, 0.01)
    assert statistics.detectable(0.01, n) <= 0.01 < statistics.detectable(0.01, n - 1)
    assert statistics.seeds_needed(0.0, 0.01) == statistics.MIN_SEEDS
    assert statistics.seeds_needed(1.0, 1e-6) == statistics.MAX_SEEDS


def test_planning_knows_how_many_claims_there_are_and_of_which_kind():
    """Of five claims Holm asks the first for 0.01: t .995 of 2 degrees. Arms that are the same are
    shown to be by two tests at once, of which each has to succeed in nine of ten cases."""
    wanted = (9.924843200918294 + 1.0606601717798212) / math.sqrt(3)
    assert statistics.detectable(0.01, 3, claims=5) == pytest.approx(0.01 * wanted, rel=1e-6)
    wanted = (2.919985580353726 + 1.8856180831641267) / math.sqrt(3)  # t .95, t .9
    assert statistics.equivalence_shown(0.01, 3) == pytest.approx(0.01 * wanted, rel=1e-6)
    one, five = (statistics.seeds_needed(0.02, 0.01, claims=claims) for claims in (1, 5))
    assert one < five
    assert statistics.seeds_needed(0.02, 0.01, "=") != one


def test_a_difference_has_to_be_larger_than_the_margin_where_equality_is_claimed():
    """Differences 1, 2, 3: their mean is 2, t = (2 - margin) sqrt(3) on either side."""
    t = math.sqrt(3)
    above = 0.5 - t / (2 * math.sqrt(2 + t * t))
    assert statistics.paired_p([1.0, 2.0, 3.0], 1.0) == pytest.approx(2 * above)
    assert statistics.paired_p([-1.0, -2.0, -3.0], 1.0) == pytest.approx(2 * above)
    assert statistics.paired_p([1.0, 2.0, 3.0], 2.0) == 1.0
    assert statistics.paired_p([0.1, -0.1, 0.0], 1.0) == 1.0


@pytest.mark.parametrize(
    "relation, difference, p, p_equivalent, half, wanted",
    [
        (">", 0.03, 0.01, 0.9, 0.02, "REPRODUCED"),
        (">", -0.03, 0.01, 0.9, 0.02, "REVERSED"),
        ("<", -0.03, 0.01, 0.9, 0.02, "REPRODUCED"),
        ("<", 0.03, 0.01, 0.9, 0.02, "REVERSED"),
        (">", 0.03, 0.01, 0.9, 0.04, "INCONCLUSIVE"),  # by seeds it is there, by scenes it may not
        (">", 0.002, 0.01, 0.001, 0.001, "NULL"),  # there, but of no interest
        (">", 0.002, 0.01, 0.001, 0.02, "INCONCLUSIVE"),
        (">", 0.02, 0.2, 0.6, 0.01, "INCONCLUSIVE"),
        ("=", 0.002, 0.3, 0.01, 0.004, "REPRODUCED"),
        ("=", 0.002, 0.3, 0.01, 0.02, "INCONCLUSIVE"),
        ("=", 0.03, 0.01, 0.9, 0.015, "REVERSED"),
        ("=", 0.03, 0.01, 0.9, 0.02, "INCONCLUSIVE"),  # it may be 0.01, which is of no interest
        ("=", -0.03, 0.01, 0.9, 0.015, "REVERSED"),
        ("=", 0.01, 0.2, 0.4, 0.01, "INCONCLUSIVE"),
        (">", NAN, NAN, NAN, NAN, "INCONCLUSIVE"),
    ],
)
def test_verdicts(relation, difference, p, p_equivalent, half, wanted):
    """Where 0.01 is the smallest of interest."""
    interval = (difference - half, difference + half)
    found = statistics.verdict(relation, difference, p, p_equivalent, interval, 0.01)
    assert found == wanted
