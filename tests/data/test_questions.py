"""Training's questions: true, decided, of all kinds, and their answers balanced."""

import numpy as np
import pytest

from data.shapes import questions, truth
from data.shapes.minimal_pairs import sample_minimal_pairs
from data.shapes.scene import sample
from data.shapes.truth import KIND, KINDS, NONE, PRESUPPOSING, SEVERAL, UNDECIDED, WIDTH, YES, A, B
from data.shapes.world import COLOUR, SHAPE, WORLDS, World, diagonal_of

pytestmark = pytest.mark.quick

WORLD, FULL = WORLDS["default"], WORLDS["full"]


def drawn(world, pictures, each=9):
    """Training's questions about so many pictures, flat: rows, answers, each with its scene."""
    indices = np.arange(pictures)
    objects = sample(world, 0, "train", indices).objects
    rows, answers = questions.sample_questions(
        world, 0, "train", indices, objects, questions.TRAIN_FAMILIES, each, teaches=True
    )
    return rows.reshape(-1, WIDTH), answers.reshape(-1), objects.repeat(each, 0)


@pytest.fixture(scope="module")
def answers_of():
    """{kind: (the rows of 4,000 pictures that are of it, their answers)}."""
    rows, answers, _ = drawn(WORLD, 4000)
    masks = {kind: rows[:, KIND] == number for number, kind in enumerate(KINDS)}
    return {kind: (rows[mask], answers[mask]) for kind, mask in masks.items()}


@pytest.mark.parametrize("world", [WORLD, FULL, World(max_objects=1)])
def test_training_questions_are_true_and_decided(world):
    rows, answers, objects = drawn(world, 1000)
    assert (truth.answer(rows, objects) == answers).all() and (answers != UNDECIDED).all()


@pytest.mark.parametrize("kind", ["existence", "relation", "compare"])
def test_yes_and_no_are_equally_frequent(answers_of, kind):
    _, answers = answers_of[kind]
    assert 0.4 < (answers[answers < NONE] == YES).mean() < 0.6


def test_zero_to_three_are_counted_equally_often(answers_of):
    _, answers = answers_of["count"]
    assert (np.bincount(answers)[1:5] > 0.15 * len(answers)).all() and answers.max() == 4


def test_it_is_asked_how_many_things_there_are_in_all(answers_of):
    rows, answers = answers_of["count"]
    everything = (rows[:, A] == 0).all(1)
    assert 0.04 < everything.mean() < 0.1
    assert set(answers[everything]) == {2, 3, 4}  # one to three


def test_two_and_three_of_a_colour_or_shape_are_counted_often():
    """What only those get right who count: 6 % of all questions, either answer about as often."""
    rows, answers, objects = drawn(WORLD, 4000)
    is_hard = (rows[:, KIND] == truth.COUNT) & ((objects[..., SHAPE] > 0).sum(1) == 3)
    is_hard &= ((rows[:, A] > 0).sum(1) == 1) & (answers > 2)  # the code of two is 3
    assert 0.05 < is_hard.mean() < 0.12 and 0.35 < (answers[is_hard] == 4).mean() < 0.65


def test_things_of_which_there_is_more_than_one_are_compared_often_with_either_answer():
    rows, answers, objects = drawn(WORLD, 4000)
    a, b = (truth.matches(rows[:, noun], objects).sum(1) for noun in (A, B))
    is_hard = (rows[:, KIND] == truth.COMPARE) & (np.minimum(a, b) == 1) & (np.maximum(a, b) == 2)
    assert is_hard.mean() > 0.03 and 0.4 < (answers[is_hard] == YES).mean() < 0.6


def cases(kind, rows, objects):
    """How much of what a question names is there: pairs of numbers (n, 2).

    Of a comparison how many of either; of a count how many, and how many there are of the most
    frequent other colour or shape.
    """
    a, b = (truth.matches(rows[:, noun], objects).sum(1) for noun in (A, B))
    if kind == "compare":
        return np.stack([a, b], 1)
    column = np.where(rows[:, A][:, COLOUR] > 0, COLOUR, SHAPE)
    shown = np.take_along_axis(objects, column[:, None, None], 2)[..., 0]  # (n, m)
    named = np.take_along_axis(rows[:, A], column[:, None], 1)
    equal = (shown[:, :, None] == shown[:, None]) & (shown > 0)[:, :, None]
    return np.stack([a, (equal.sum(1) * (shown != named)).max(1)], 1)


@pytest.mark.parametrize("kind", ["count", "compare"])
def test_whatever_is_asked_of_test_pictures_is_asked_in_training(kind):
    """What training never asked (which is more where there is neither?) was right in 0.09."""
    rows, _, objects = drawn(WORLD, 8000)
    is_of_kind = (rows[:, KIND] == KINDS.index(kind)) & (rows[:, A][:, : SHAPE + 1] > 0).any(1)
    trained = cases(kind, rows[is_of_kind], objects[is_of_kind])
    pairs = sample_minimal_pairs(WORLD, 0, "test", kind, 400)
    indices = (pairs.indices[:, None] + [0, 1]).reshape(-1)
    asked = cases(kind, pairs.rows.repeat(2, 0), sample(WORLD, 0, "test", indices).objects)
    found, number = np.unique(asked, axis=0, return_counts=True)
    assert len(found) > 5
    for case, share in zip(found, number / len(asked), strict=True):
        if share > 0.02:
            assert (trained == case).all(1).mean() > share / 10, case


@pytest.mark.parametrize("kind", ["colour", "shape", "size", "place"])
def test_no_answer_is_rare(answers_of, kind):
    _, answers = answers_of[kind]
    values = np.bincount(answers[answers < NONE])[1:]
    assert len(values) == dict(size=2, place=9).get(kind, 8)
    assert values.min() > 0.7 * values.mean()


def test_one_question_in_eight_is_about_what_is_not_there_or_not_alone(answers_of):
    answers = np.concatenate([answers for _, answers in answers_of.values()])
    assert len(answers) == 36000
    assert 0.10 < (answers >= NONE).mean() < 0.16


@pytest.mark.parametrize("kind", KINDS)
def test_what_presupposes_a_thing_is_denied_either_way(answers_of, kind):
    _, answers = answers_of[kind]
    shares = [(answers == code).mean() for code in (NONE, SEVERAL)]
    if KINDS.index(kind) in PRESUPPOSING:
        assert min(shares) > 0.08 and max(shares) < 0.25
    else:
        assert shares == [0, 0]


@pytest.mark.parametrize("kind", ["colour", "shape", "relation", "place"])
def test_several_are_presupposed_by_one_and_by_two_attributes(answers_of, kind):
    rows, answers = answers_of[kind]
    names_two = (rows[answers == SEVERAL][:, A] > 0).sum(1) > 1
    assert 0.2 < names_two.mean() < 0.8


def test_every_kind_is_asked(answers_of):
    assert min(len(answers) for _, answers in answers_of.values()) > 1800


def test_held_out_pairs_are_not_named_in_training():
    world, indices = World(held_out=2), np.arange(1000)
    objects = sample(world, 0, "train", indices).objects
    families = questions.TRAIN_FAMILIES
    rows, _ = questions.sample_questions(world, 0, "train", indices, objects, families, 9)
    for start in (1, 6):
        colour, shape = rows[..., start + COLOUR], rows[..., start + SHAPE]
        assert not ((colour > 0) & (shape > 0) & (diagonal_of(colour, shape) < 2)).any()
