"""Minimal pairs: decided, different and balanced; words alone and pictures alone tell little."""

import zlib

import numpy as np
import pytest

from data.dataset import DATASETS
from data.shapes import minimal_pairs, questions, truth
from data.shapes.languages import CHOICES as LANGUAGES
from data.shapes.languages import grammars_of
from data.shapes.scene import sample
from data.shapes.truth import KIND, NONE, PRESUPPOSING, SEVERAL, UNDECIDED, YES, A, B
from data.shapes.world import WORLDS, World

WORLD, FULL = WORLDS["default"], WORLDS["full"]
GRAMMAR = grammars_of("en")["en"]


@pytest.mark.parametrize("world", [WORLD, FULL])
@pytest.mark.parametrize("family", questions.FAMILIES)
def test_minimal_pairs_are_decided_different_and_balanced(world, family):
    pairs = minimal_pairs.sample_minimal_pairs(world, 0, "test", family, 300)
    assert len(pairs.rows) == 300 and len(np.unique(pairs.indices)) == 300
    both = [sample(world, 0, "test", pairs.indices + side).objects for side in (0, 1)]
    for side, objects in enumerate(both):
        assert (truth.answer(pairs.rows, objects) == pairs.answers[:, side]).all()
    if family in ("colour", "shape", "size", "relation"):
        # The same bag of attributes on both sides: binding decides.
        assert (np.sort(both[0], 1) == np.sort(both[1], 1)).all()
    assert (pairs.answers != UNDECIDED).all() and (pairs.answers < NONE).all()
    assert (pairs.answers[:, 0] != pairs.answers[:, 1]).all()
    share = np.bincount(pairs.answers.reshape(-1)).max() / pairs.answers.size
    tolerance = 0.0 if minimal_pairs.CHANCE[family] >= 0.25 else 0.05
    assert share <= minimal_pairs.CHANCE[family] + tolerance + 1e-9


QUESTIONS_OF_THE_TEST_SPLIT = dict(
    existence=3599209681,
    count=1504477629,
    colour=224178932,
    shape=1106375997,
    size=2324632572,
    relation=2897081142,
    compare=2179236400,
    premises=1192028037,
)


@pytest.mark.parametrize("family", [*questions.FAMILIES, "premises"])
def test_the_test_split_asks_what_it_has_always_asked(family):
    """However training draws its questions: else no number could be compared with an older one."""
    if family == "premises":
        pairs = minimal_pairs.sample_premise_pairs(WORLD, 0, "test", 250)
    else:
        pairs = minimal_pairs.sample_minimal_pairs(WORLD, 0, "test", family, 250)
    objects = [sample(WORLD, 0, "test", pairs.indices + side).objects for side in (0, 1)]
    arrays = [pairs.indices, pairs.rows, pairs.answers, pairs.needs_counting, *objects]
    content = b"".join(np.ascontiguousarray(a, "<i8").tobytes() for a in arrays)
    assert zlib.crc32(content) == QUESTIONS_OF_THE_TEST_SPLIT[family]


@pytest.mark.parametrize("family", questions.FAMILIES)
def test_a_reader_of_questions_alone_stays_at_chance(family):
    # The best answer for each wording, learned on one half of the pairs and tried on the other.
    pairs = minimal_pairs.sample_minimal_pairs(WORLD, 0, "test", family, 2000)
    texts = GRAMMAR.texts(GRAMMAR.render_question(pairs.rows))
    table, right = {}, 0
    for text, answers in zip(texts[::2], pairs.answers[::2], strict=True):
        table.setdefault(text, []).extend(answers)
    for text, answers in zip(texts[1::2], pairs.answers[1::2], strict=True):
        known = table.get(text, [1])
        right += (answers == max(set(known), key=known.count)).mean()
    assert abs(right / 1000 - minimal_pairs.CHANCE[family]) < 0.05


def test_a_poor_world_says_that_it_has_no_relations():
    with pytest.raises(ValueError, match="relation"):
        minimal_pairs.sample_minimal_pairs(World(max_objects=1), 0, "test", "relation", 10)


def is_there(noun, objects):
    return truth.matches(noun, objects).any(1)


def test_half_of_the_comparisons_take_counting():
    found = minimal_pairs.sample_minimal_pairs(WORLD, 0, "test", "compare", 200)
    assert found.needs_counting.sum() == 100
    here, there = (sample(WORLD, 0, "test", found.indices + k).objects for k in (0, 1))
    both = [is_there(found.rows[:, noun], side) for noun in (A, B) for side in (here, there)]
    assert (np.logical_and.reduce(both) == found.needs_counting).all()
    # Who only knows what is there is right where one of the two is missing, and knows nothing
    # where both are there.
    says = is_there(found.rows[:, A], here) & ~is_there(found.rows[:, B], here)
    right = says == (found.answers[:, 0] == YES)
    assert right[found.needs_counting].mean() < 0.6


# ---------------------------------------------------------------- what is not there, or not alone


@pytest.fixture(scope="module")
def premises():
    return minimal_pairs.sample_premise_pairs(WORLD, 0, "test", 200)


def test_a_premise_is_false_in_one_picture_of_a_pair(premises):
    for side in (0, 1):
        objects = sample(WORLD, 0, "test", premises.indices + side).objects
        assert (truth.answer(premises.rows, objects) == premises.answers[:, side]).all()
    denied = premises.answers >= NONE
    assert (denied.sum(1) == 1).all() and (premises.answers != UNDECIDED).all()
    assert abs(denied[:, 0].mean() - 0.5) < 0.15  # in the first picture as often as in the second


def test_every_kind_that_presupposes_is_denied_either_way_equally_often(premises):
    for kind in PRESUPPOSING:
        own = premises.answers[premises.rows[:, KIND] == kind]
        assert ((own == NONE).sum(), (own == SEVERAL).sum(), len(own)) == (20, 20, 40)


@pytest.mark.parametrize("number", [1, 7, 10])
def test_so_many_pairs_are_found_as_are_asked_for(number):
    found = minimal_pairs.sample_premise_pairs(WORLD, 0, "val", number)
    assert len(found.rows) == number
    assert abs((found.answers == NONE).sum() - (found.answers == SEVERAL).sum()) <= 1


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_wording_tells_whether_a_premise_is_false(language, held_out):
    """Both pictures of a pair are asked the same, and in one of them it is."""
    data = DATASETS["shapes"](language=language)
    for name in data.languages:
        split = data.speaking(name).split("test")
        found = split.premise_pairs(50)
        asked, times = (found.paraphrases if held_out else found.asked), {}
        for text, is_denied, target in zip(asked, found.is_denied, found.targets, strict=True):
            times.setdefault(text, []).append(is_denied)
            assert is_denied == (target in split.denials)
        assert all(np.mean(own) == 0.5 for own in times.values()) and len(times) > 25


def test_a_poor_world_has_no_false_premises():
    with pytest.raises(ValueError, match="not there"):
        minimal_pairs.sample_premise_pairs(World(max_objects=1), 0, "test", 10)
