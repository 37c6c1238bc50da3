"""What a caption claims, fact by fact, and which of its phrases have an object of their own."""

import itertools
from collections import Counter

import numpy as np
import pytest

from data.shapes.facts import (
    FACT_KINDS,
    extract_facts,
    judge_caption,
    mark_caption,
    match_objects,
)
from data.shapes.languages import grammars_of
from data.shapes.scene import sample
from data.shapes.world import SHAPE, WORLDS

pytestmark = pytest.mark.quick
PARSER = grammars_of("en")["en"].parser
# A small red circle at the top left, a large blue square in the center.
SCENE = np.array([[1, 1, 1, 1], [2, 6, 2, 5], [0, 0, 0, 0]])


# ---------------------------------------------------------------- phrases and objects


def test_phrases_share_objects_as_well_as_they_can():
    objects = np.array([[1, 1, 1, 1], [2, 1, 1, 2]])  # a small and a large red circle
    # "a red circle and a small red circle": the first one must take the large one.
    both = np.array([[0, 1, 1, 0], [1, 1, 1, 0]])
    assert match_objects(both, objects).tolist() == [True, True]
    twice = np.array([[1, 1, 1, 0], [1, 1, 1, 0]])
    assert match_objects(twice, objects).tolist() == [True, False]
    assert match_objects(np.array([[0, 2, 1, 0]]), objects).tolist() == [False]


def most_by_brute_force(phrases, objects):
    """The most phrases that can have an object each, of all ways to give them out."""
    fits = [[((p == 0) | (p == o)).all() and o[SHAPE] > 0 for o in objects] for p in phrases]
    free = [None] * len(phrases)  # a phrase may go without
    ways = itertools.permutations([*range(len(objects)), *free], len(phrases))
    return max(sum(k is not None and fits[i][k] for i, k in enumerate(way)) for way in ways)


def test_no_other_way_matches_more_phrases():
    rng = np.random.default_rng(0)
    found = set()
    for objects in sample(WORLDS["default"], 0, "train", np.arange(150)).objects:
        told = objects[objects[:, SHAPE] > 0]
        phrases = told[rng.integers(0, len(told), 3)] * (rng.random((3, 4)) < 0.5)
        phrases[:, SHAPE] = np.where(rng.random(3) < 0.2, rng.integers(1, 9), phrases[:, SHAPE])
        matched = match_objects(phrases, objects).sum()
        assert matched == most_by_brute_force(phrases, objects)
        found.add(matched)
    assert found == {0, 1, 2, 3}  # not all alike


# ---------------------------------------------------------------- facts


def test_facts_by_hand():
    facts = extract_facts(PARSER.parse_caption("a small red circle , a red circle and a square"))
    assert set(facts) == set(FACT_KINDS)
    assert facts["facts"] == facts["objects"] + facts["attributes"]
    assert facts["objects"] == Counter({("shape", 1): 2, ("shape", 2): 1})
    assert facts["attributes"] == Counter({("colour", 1, 1): 2, ("size", 1, 1): 1})
    assert facts["relations"] == Counter({(1, 1): 1, (1, 2): 2})
    assert facts["counts"] == Counter({("all", 3): 1, (1, 2): 1, (2, 1): 1})


def test_a_phrase_without_a_shape_is_no_fact():
    facts = extract_facts(PARSER.parse_caption("a red object and a circle"))
    assert facts == extract_facts(PARSER.parse_caption("a circle"))


def test_a_judged_caption_by_hand():
    judged = judge_caption(PARSER, "a large red circle and a large red star", SCENE)
    assert (judged.mentioned, judged.invented, judged.misdescribed) == (2, 1, 2)
    assert judged.is_parseable and not judged.is_exact
    true = judged.stated["facts"] & judged.there["facts"]
    assert true == Counter({("shape", 1): 1, ("colour", 1, 1): 1})
    assert judged.there["facts"].total() == 6


def test_only_the_whole_truth_in_reading_order_is_exact():
    exact = "a small red circle and a large blue square"
    assert judge_caption(PARSER, exact, SCENE).is_exact
    for other in (
        "a large blue square and a small red circle",
        "a red circle and a large blue square",
        "a small red circle",
        exact + " and a small red circle",
        "a small red circle at the top left and a large blue square",  # no caption says places
    ):
        assert not judge_caption(PARSER, other, SCENE).is_exact, other


def test_an_object_without_a_shape_is_not_invented():
    judged = judge_caption(PARSER, "a small object and a green object", SCENE)
    assert (judged.mentioned, judged.invented, judged.misdescribed) == (2, 0, 1)


@pytest.mark.parametrize("words", ["", "yes", "a red", "a small red circle and", "red circle"])
def test_what_the_grammar_does_not_know_states_nothing(words):
    judged = judge_caption(PARSER, words, SCENE)
    assert not judged.is_parseable and not judged.is_exact
    assert (judged.mentioned, judged.invented, judged.misdescribed) == (0, 0, 0)
    assert set(judged.stated) == set(FACT_KINDS) and not any(judged.stated.values())
    assert judged.there == extract_facts(SCENE * [1, 1, 1, 0])  # nobody asks for places


def test_a_caption_is_judged_for_what_was_asked():
    brief, places = "a circle and a square", "a small red circle at the top left and a large blue"
    places += " square at the center"
    usual = "a small red circle and a large blue square"
    for level, right, wrong in (
        ("brief", brief, usual), ("list", "circle and square", usual), ("detailed", places, usual),
        ("normal", usual, brief),
    ):  # fmt: skip
        judged = judge_caption(PARSER, right, SCENE, level)
        assert judged.is_exact and judged.stated == judged.there
        judged = judge_caption(PARSER, wrong, SCENE, level)
        assert not judged.is_exact and judged.stated["facts"] != judged.there["facts"]


# ---------------------------------------------------------------- a page's pieces


def test_a_marked_caption_is_the_caption_in_pieces():
    assert mark_caption(PARSER, "a red circle , a blue star and a large blue square", SCENE) == [
        ("a red circle", True),
        (", ", None),
        ("a blue star", False),
        (" and ", None),
        ("a large blue square", True),
    ]
    assert mark_caption(PARSER, "a red circle", SCENE) == [("a red circle", True)]


def test_what_is_no_caption_is_marked_as_wrong():
    assert mark_caption(PARSER, "no way", SCENE) == [("no way", False)]
    assert mark_caption(PARSER, "", SCENE) == [("(nothing)", False)]
