"""Every number of a table by hand: what its definition says, ties and nonsense included."""

import itertools
import math

import numpy as np
import pytest
import torch

from data.shapes.facts import judge_caption
from data.shapes.languages import grammars_of
from tinyvlm.evaluation import metrics

pytestmark = pytest.mark.quick
# A small red circle at the top left, a large blue square in the center.
PARSER = grammars_of("en")["en"].parser
SCENE = np.array([[1, 1, 1, 1], [2, 6, 2, 5], [0, 0, 0, 0]])
CAPTIONS = (
    "a small red circle and a large blue square",
    "a small red circle and a large red star",
    "a large red circle",
    "yes",
    "",
)


# ---------------------------------------------------------------- CLIP


def test_recall_by_hand():
    similarity = [[3, 2, 1], [3, 2, 1], [3, 2, 1]]
    is_match = [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert metrics.recall_at_k(1, similarity, is_match) == pytest.approx(1 / 3)
    assert metrics.recall_at_k(2, similarity, is_match) == 1.0
    assert metrics.recall_at_k(1, [[1, 2]], [[0, 0]]) == 0.0


def recall_in_all_orders(k, scores, true):
    """The mean over all orders in which ties can be broken."""
    hits = []
    for order in itertools.permutations(range(len(scores))):
        ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], order[i]))
        hits.append(any(true[i] for i in ranked[:k]))
    return np.mean(hits)


def test_a_tie_in_recall_counts_its_share():
    rng = np.random.default_rng(0)
    for k in (1, 2, 4):
        for _ in range(20):
            scores, true = rng.integers(0, 3, 5), rng.random(5) < 0.4
            wanted = recall_in_all_orders(k, scores.tolist(), true.tolist())
            assert metrics.recall_at_k(k, [scores], [true]) == pytest.approx(wanted)


def test_constant_scores_recall_what_chance_does():
    assert metrics.recall_at_k(5, np.zeros((20, 20)), np.eye(20)) == pytest.approx(5 / 20)


def test_accuracy_gives_a_tie_of_k_one_kth():
    scores = [[1, 0, 0], [0, 1, 2], [5, 5, 1], [7, 7, 7], [2, 2, 1]]
    label = [0, 1, 1, 2, 2]
    assert metrics.accuracy(scores, label) == pytest.approx((1 + 0 + 1 / 2 + 1 / 3 + 0) / 5)


def test_a_win_counts_one_and_a_tie_one_half():
    assert metrics.win_rate([1, 2, 3], np.array([2, 2, 2])).tolist() == [0, 0.5, 1]


def test_winoground_by_hand_and_by_chance():
    right, same = [[2, 1], [1, 2]], [[0, 0], [0, 0]]
    half = [[3, 2], [1, 0]]  # everybody likes caption 0 and picture 0 best
    text, image, group = metrics.winoground([right, same, half])
    assert text.tolist() == [1.0, 0.25, 0.0] and image.tolist() == [1.0, 0.25, 0.0]
    assert group.tolist() == [1.0, pytest.approx(1 / 6), 0.0]


def test_winoground_tells_texts_from_images():
    # Each picture prefers its own caption; both captions prefer picture 0. And the reverse.
    by_text, by_image = [[9, 1], [8, 2]], [[9, 8], [1, 2]]
    text, image, group = metrics.winoground([by_text, by_image])
    assert text.tolist() == [1.0, 0.0] and image.tolist() == [0.0, 1.0]
    assert group.tolist() == [0.0, 0.0]


def test_winoground_breaks_ties_in_all_orders():
    text, image, group = metrics.winoground([[[1, 0], [0, 0]], [[1, 1], [0, 2]]])
    assert text.tolist() == [0.5, 1.0] and image.tolist() == [0.5, 0.5]
    assert group.tolist() == [pytest.approx(1 / 3), 0.5]  # first: the tie at the lower right


def test_the_modality_gap_is_the_distance_of_the_means():
    image, text = np.tile([[1.0, 0.0]], (5, 1)), np.tile([[0.0, 1.0]], (5, 1))
    assert metrics.modality_gap(image, text) == pytest.approx(np.full(5, math.sqrt(2)))
    assert not metrics.modality_gap(image, image).any()
    opposite = metrics.modality_gap(np.array([[1.0], [-1.0]]), np.array([[-1.0], [1.0]]))
    assert opposite.tolist() == [0, 0]  # each is far from its own, the means are not
    rng = np.random.default_rng(0)
    image, text = rng.normal(0.3, 1, (50, 8)), rng.normal(0, 1, (50, 8))
    distance = np.linalg.norm(image.mean(0) - text.mean(0))
    assert metrics.modality_gap(image, text).mean() == pytest.approx(distance)


def test_duplicates_bound_what_the_papers_loss_can_reach():
    tokens = torch.tensor([[1, 2], [1, 2], [1, 3], [1, 2]])
    own = torch.eye(4, dtype=torch.bool)
    assert metrics.max_accuracy_with_duplicates(tokens, own) == pytest.approx(2 / 4)
    assert metrics.max_accuracy_with_duplicates(tokens[1:3], own[1:3]) == 1.0
    # Two of one picture are no rivals, and one that is false of its own chooses nothing.
    assert metrics.max_accuracy_with_duplicates(tokens, own[[0, 0, 2, 2]]) == 2.5 / 4
    assert metrics.max_accuracy_with_duplicates(tokens, own & (own != own[0])) == pytest.approx(
        2 / 3
    )


# ---------------------------------------------------------------- captions


def caption_values(captions):
    judged = [judge_caption(PARSER, caption, SCENE) for caption in captions]
    report = metrics.caption_report(judged, np.arange(len(captions)))
    return {name: metric.value for name, metric in report.items()}


def test_captions_by_hand():
    value = caption_values(CAPTIONS)
    by_hand = dict(
        exact_caption=1 / 5,
        unparseable=2 / 5,
        # Five objects are mentioned: the red star's shape is nowhere, the large red circle's is.
        chair_i=1 / 5,
        chair_s=1 / 5,
        misdescribed_i=2 / 5,
        misdescribed_s=2 / 5,
        # The scene has six facts: two shapes, two colours, two sizes.
        fact_precision=11 / 15,
        fact_recall=11 / 30,
        fact_f1=22 / 45,
        objects_precision=4 / 5,
        objects_recall=4 / 10,
        attributes_precision=7 / 10,
        attributes_recall=7 / 20,
        relations_precision=1 / 2,  # circle before square; circle before star is false
        relations_recall=1 / 5,
        # Stated: (two, one circle, one square) right; (two, one circle) right, (one star) wrong;
        # (one) wrong, (one circle) right.
        counts_precision=6 / 8,
        counts_recall=6 / 15,
    )
    for name, wanted in by_hand.items():
        assert value[name] == pytest.approx(wanted), name


def test_saying_nothing_invents_nothing_and_recalls_nothing():
    value = caption_values(["", "a red"])
    assert value["unparseable"] == 1.0
    assert {value[n] for n in ("chair_i", "chair_s", "misdescribed_i", "fact_recall")} == {0.0}


def test_order_counts_for_exactness_and_not_for_facts():
    value = caption_values(["a large blue square and a small red circle"])
    assert value["fact_f1"] == 1.0 and value["exact_caption"] == 0.0
    assert value["relations_f1"] == 0.0


def test_a_phrase_said_twice_is_true_once():
    value = caption_values(["a small red circle and a small red circle"])
    assert value["fact_precision"] == 3 / 6 and value["fact_recall"] == 3 / 6
    assert value["chair_i"] == 0.0 and value["misdescribed_i"] == 1 / 2


# ---------------------------------------------------------------- labels


def test_macro_f1_by_hand():
    there = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 1]], bool)
    said = np.array([[1, 0, 0], [1, 0, 0], [1, 0, 1]], bool)
    score = metrics.macro_f1(said, there, "labels")
    assert score.value == pytest.approx((2 * 2 / 5 + 1 + 2 * 1 / 3) / 3)  # one is never there
    assert score.chance == pytest.approx((2 * 2 / 5 + 0 + 2 * 2 / 5) / 3)
    assert score.items == 3 and score.interval()[0] <= score.value <= score.interval()[1]
    assert metrics.macro_f1(there, there, "").value == 1.0
    assert metrics.macro_f1(~there, there, "").value == 0.0
    assert score.paired_difference(score) == (0.0, (0.0, 0.0))


# ---------------------------------------------------------------- answers


def pope_values(said):
    there = np.array([True, True, False, False])
    report = metrics.pope_report(said, there, np.arange(4))
    return {name: metric.value for name, metric in report.items()}


@pytest.mark.parametrize(
    "said, accuracy, precision, recall, f1, yes_rate, invalid",
    [
        (["yes", "yes", "no", "no"], 1.0, 1.0, 1.0, 1.0, 0.5, 0.0),
        (["yes"] * 4, 0.5, 0.5, 1.0, 2 / 3, 1.0, 0.0),
        (["no"] * 4, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0),
        ([""] * 4, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
        ([0.5] * 4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.0),
        (["yes", "no", "no", "red"], 0.5, 1.0, 0.5, 2 / 3, 0.25, 0.25),
        (["yes yes", "yes", "yes", "no"], 0.5, 0.5, 0.5, 0.5, 0.5, 0.25),
    ],
)
def test_presence_by_hand(said, accuracy, precision, recall, f1, yes_rate, invalid):
    assert pope_values(said) == dict(
        accuracy=accuracy,
        precision=precision,
        recall=recall,
        f1=pytest.approx(f1),
        yes_rate=yes_rate,
        invalid=invalid,
    )


def test_an_answer_is_right_to_the_letter_or_wrong():
    said = ["red", "Red", "red circle", "", "two"]
    assert metrics.exact_match(said, ["red"] * 4 + ["two"]).tolist() == [1, 0, 0, 0, 1]
