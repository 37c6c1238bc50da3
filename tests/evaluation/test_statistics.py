"""Values, intervals and paired differences: worked out by hand, or held against simple loops."""

import math
import random

import numpy as np
import pytest

from tinyvlm.evaluation.statistics import (
    BootstrapMetric,
    RatioMetric,
    bootstrap_weights,
    macro_mean,
    percentiles,
    proportion,
    wilson_interval,
)

pytestmark = pytest.mark.quick
# Two scenes: 7 has 4 of 6, 9 has 0 of 2.
TWO_SCENES = RatioMetric(np.array([1.0, 3, 0]), np.array([2.0, 4, 2]), np.array([7, 7, 9]))


def coins(seed, scenes, each=1, share=0.3):
    """Random right and wrong answers, `each` about every scene, all alike within a scene."""
    right = np.random.default_rng(seed).random(scenes) < share
    return proportion(right.repeat(each), np.arange(scenes).repeat(each))


def test_a_ratio_is_of_sums_and_its_interval_draws_whole_scenes():
    assert TWO_SCENES.value == 0.5 and TWO_SCENES.items == 8
    # Scene 9 twice, both, and scene 7 twice; single items would reach 3 / 4.
    draws = TWO_SCENES.bootstrap(np.array([7, 9]))
    assert {round(float(draw), 4) for draw in draws} == {0.0, 0.5, 0.6667}
    items = 0.25 / draws.var()
    assert TWO_SCENES.interval() == pytest.approx(wilson_interval(items / 2, items))


def test_wilson_intervals_by_hand():
    assert wilson_interval(0, 10) == (0.0, pytest.approx(1.96**2 / (10 + 1.96**2)))
    low, high = wilson_interval(5, 10)
    half = 1.96 * math.sqrt(0.025 + 1.96**2 / 400) / (1 + 1.96**2 / 10)
    assert (low, high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_where_all_agree_the_interval_is_wilsons():
    low, high = proportion(np.ones(100), np.arange(100)).interval()
    assert 0.95 < low < 0.99 and high == pytest.approx(1.0)
    low, high = proportion(np.zeros(100), np.arange(100)).interval()
    assert low == 0.0 and 0.01 < high < 0.05


def test_one_more_error_never_raises_a_bound():
    bounds = []
    for wrong in range(12):
        right = np.arange(500) >= wrong
        bounds.append(proportion(right, np.arange(500)).interval())
    lows, highs = zip(*bounds, strict=True)
    assert list(lows) == sorted(lows, reverse=True) and list(highs) == sorted(highs, reverse=True)
    assert bounds[1] == pytest.approx(wilson_interval(499, 500), abs=5e-4)


def test_near_one_an_interval_holds_the_truth_as_often_on_either_side():
    low, high = zip(*(coins(seed, 400, share=0.98).interval() for seed in range(400)), strict=True)
    assert sum(bound > 0.98 for bound in low) < 16 and sum(bound < 0.98 for bound in high) < 16


def test_a_mean_of_cosines_is_no_share():
    cosines = np.array([-0.5, 0.25, 0.5, 0.125])
    mean = proportion(cosines, np.arange(4))
    assert mean.interval() == percentiles(mean.bootstrap(np.arange(4)))


def test_scenes_with_nothing_that_counts_say_nothing():
    counted = np.array([3.0, 3, 0, 0, 0])
    few = RatioMetric(counted, counted, np.arange(5))
    assert few.interval() == pytest.approx(wilson_interval(2, 2))


def test_where_nothing_was_counted_nothing_is_known():
    nothing = RatioMetric(np.zeros(3), np.zeros(3), np.arange(3))
    assert nothing.value == 0.0 and nothing.items == 0 and nothing.interval() == (0.0, 1.0)


def test_more_answers_about_the_same_scenes_are_no_more_certainty():
    assert coins(0, 80, each=5).interval() == pytest.approx(coins(0, 80).interval())


def test_an_interval_holds_the_truth_in_19_of_20_cases():
    intervals = [coins(seed, 150).interval() for seed in range(300)]
    held = np.mean([low <= 0.3 <= high for low, high in intervals])
    assert 0.91 < held < 0.98


def test_a_paired_difference_knows_that_the_scenes_are_the_same():
    numerator = TWO_SCENES.numerator - TWO_SCENES.denominator / 4
    other = RatioMetric(numerator, TWO_SCENES.denominator, TWO_SCENES.cluster)
    # A quarter better in each scene: no doubt about it.
    difference, interval = TWO_SCENES.paired_difference(other)
    assert difference == 0.25 and interval == pytest.approx((0.25, 0.25))
    assert TWO_SCENES.paired_difference(TWO_SCENES) == (0.0, (0.0, 0.0))


def test_a_paired_difference_of_independent_answers_is_as_wide_as_both():
    one, other = coins(1, 400), coins(2, 400, share=0.5)
    difference, (low, high) = one.paired_difference(other)
    assert difference == one.value - other.value and low < difference < high
    widths = [high - low for low, high in (one.interval(), other.interval())]
    assert high - low == pytest.approx(math.hypot(*widths), rel=0.15)


def test_two_zeros_of_a_hundred_may_still_differ():
    nothing = proportion(np.zeros(100), np.arange(100))
    difference, (low, high) = nothing.paired_difference(nothing)
    upper = nothing.interval()[1]
    assert difference == 0.0 and (low, high) == (pytest.approx(-upper), pytest.approx(upper))


def test_a_difference_to_a_perfect_model_combines_both_intervals():
    perfect, half = proportion(np.ones(40), np.arange(40)), coins(0, 40, share=0.5)
    difference, (low, high) = perfect.paired_difference(half)
    (from_, _), (half_low, half_high) = perfect.interval(), half.interval()
    assert low == pytest.approx(difference - math.hypot(1 - from_, half_high - half.value))
    assert high == pytest.approx(difference + math.hypot(0, half.value - half_low))


def test_resamplings_are_always_the_same_and_as_large_as_the_sample():
    weights = bootstrap_weights(20)
    assert weights.shape == (1000, 20) and (weights.sum(1) == 20).all()
    bootstrap_weights.cache_clear()
    state, numpy_state = random.getstate(), np.random.get_state()[1].copy()
    assert (bootstrap_weights(20) == weights).all()
    assert random.getstate() == state and (np.random.get_state()[1] == numpy_state).all()


def test_a_proportion_counts_each_item_once():
    half = proportion([1, 0, 0.5], [4, 5, 5], "what it means", 0.25)
    assert half.value == 0.5 and half.items == 3
    assert half.meaning == "what it means" and half.chance == 0.25
    assert math.isnan(proportion([1], [0]).chance)


def test_a_macro_mean_gives_each_share_the_same_weight():
    shares = [proportion([1, 1], [0, 1]), proportion([0, 0, 0, 1], [2, 3, 4, 5])]
    mean = macro_mean(shares, chance=0.5)
    assert mean.value == pytest.approx((1 + 1 / 4) / 2) and mean.items == 6 and mean.chance == 0.5


def test_a_bootstrapped_number_has_the_middle_of_its_draws():
    draws = np.arange(1001) / 1000
    assert percentiles(draws) == (pytest.approx(0.025), pytest.approx(0.975))
    one, other = BootstrapMetric(0.5, draws, 9), BootstrapMetric(0.25, draws - 0.25, 9)
    assert one.interval() == percentiles(draws)
    assert one.paired_difference(other) == (0.25, pytest.approx((0.25, 0.25)))


def test_a_bootstrapped_share_of_one_is_not_known_without_doubt():
    perfect, good = (
        BootstrapMetric(1.0, np.ones(1000), 500),
        BootstrapMetric(0.9, np.full(1000, 0.9), 500),
    )
    assert perfect.interval() == wilson_interval(500, 500) and perfect.interval()[0] < 0.995
    difference, (low, high) = perfect.paired_difference(good)
    assert difference == pytest.approx(0.1) and low < 0.1 == pytest.approx(high)
