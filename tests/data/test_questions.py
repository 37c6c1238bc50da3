"""Questions: true, decided and balanced; models that cannot read or cannot see stay at chance."""

import numpy as np
import pytest
import torch

from data.shapes import minimal_pairs, questions, truth
from data.shapes.languages import grammars_of
from data.shapes.scene import sample
from data.shapes.truth import (
    KIND,
    KINDS,
    NONE,
    PRESUPPOSING,
    SEVERAL,
    UNDECIDED,
    WIDTH,
    YES,
    A,
    B,
)
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE, WORLDS, World, diagonal_of
from tinyvlm.evaluation.metrics import accuracy

WORLD, FULL = WORLDS["default"], WORLDS["full"]
GRAMMAR = grammars_of("en")["en"]


# ---------------------------------------------------------------- what is asked


def test_held_out_pairs_are_not_named_in_training():
    world, indices = World(held_out=2), np.arange(1000)
    objects = sample(world, 0, "train", indices).objects
    families = questions.TRAIN_FAMILIES
    rows, _ = questions.sample_questions(world, 0, "train", indices, objects, families, 9)
    for start in (1, 6):
        colour, shape = rows[..., start + COLOUR], rows[..., start + SHAPE]
        assert not ((colour > 0) & (shape > 0) & (diagonal_of(colour, shape) < 2)).any()


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


def test_training_questions_are_true_and_mixed():
    indices = np.arange(1500)
    objects = sample(WORLD, 0, "train", indices).objects
    rows, answers = questions.sample_questions(WORLD, 0, "train", indices, objects, KINDS, 9)
    flat, answers = rows.reshape(-1, WIDTH), answers.reshape(-1)
    assert (truth.answer(flat, objects.repeat(9, 0)) == answers).all()
    assert (answers != UNDECIDED).all()
    for family in ("existence", "relation"):
        of_family = answers[(flat[:, KIND] == KINDS.index(family)) & (answers < NONE)]
        assert 0.42 < (of_family == YES).mean() < 0.58
    assert np.bincount(flat[:, KIND]).min() > 900


def test_training_counts_up_to_three_and_denies_what_is_not_there():
    indices = np.arange(3000)
    objects = sample(WORLD, 0, "train", indices).objects
    families = questions.TRAIN_FAMILIES
    rows, answers = questions.sample_questions(WORLD, 0, "train", indices, objects, families, 9)
    rows, answers = rows.reshape(-1, WIDTH), answers.reshape(-1)
    counts = answers[rows[:, KIND] == truth.COUNT]
    assert np.bincount(counts)[1:5].min() > 0.15 * len(counts)
    assert ((rows[:, KIND] == truth.COUNT) & (rows[:, A] == 0).all(1)).mean() > 0.02
    assert 0.10 < (answers >= NONE).mean() < 0.16
    for kind in range(len(KINDS)):
        shares = [(answers[rows[:, KIND] == kind] == code).mean() for code in (NONE, SEVERAL)]
        assert min(shares) > 0.05 if kind in PRESUPPOSING else max(shares) == 0


def test_a_premise_is_false_in_one_picture_of_a_pair():
    found = minimal_pairs.sample_premise_pairs(WORLD, 0, "test", 200)
    for side in (0, 1):
        objects = sample(WORLD, 0, "test", found.indices + side).objects
        assert (truth.answer(found.rows, objects) == found.answers[:, side]).all()
    denied = found.answers >= NONE
    assert (denied.sum(1) == 1).all() and abs(denied[:, 0].mean() - 0.5) < 0.15
    assert (found.answers == NONE).sum() == (found.answers == SEVERAL).sum() == 100
    kinds, each = np.unique(found.rows[:, KIND], return_counts=True)
    assert kinds.tolist() == sorted(PRESUPPOSING) and (each == 40).all()


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


# ---------------------------------------------------------------- models that cannot see or read


def learned(features, split_from, split_to, family, pairs, steps=150, world=WORLD):
    """Accuracy on `split_to` of a linear model trained on `split_from`.

    features: (rows, scenes) -> (n, d).
    """
    (x, y), (x_test, y_test) = (
        features_and_answers(features, world, split, family, pairs)
        for split in (split_from, split_to)
    )
    model = torch.nn.Linear(x.shape[1], 140)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.Adam(model.parameters(), 0.03, weight_decay=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        return accuracy(model(x_test).numpy(), y_test.numpy())


def features_and_answers(features, world, split, family, pairs):
    found = minimal_pairs.sample_minimal_pairs(world, 0, split, family, pairs)
    indices, rows = (found.indices[:, None] + [0, 1]).reshape(-1), found.rows.repeat(2, 0)
    x = features(rows, sample(world, 0, split, indices).objects)
    return torch.from_numpy(x).float(), torch.from_numpy(found.answers.reshape(-1))


def bag_of_words(rows, objects):
    ids = GRAMMAR.render_question(rows)
    return (ids[:, :, None] == np.arange(len(GRAMMAR.words))).any(1)


def bag_of_objects(rows, objects):
    """The picture without the question: how often attributes, pairs and numbers occur."""
    there = objects[..., SHAPE] > 0
    sizes = ((SIZE, 2), (COLOUR, 8), (SHAPE, 8), (PLACE, 9))
    one_hot = [(objects[..., c, None] == np.arange(1, k + 1)).sum(1) for c, k in sizes]
    pair = objects[..., COLOUR] * 9 + objects[..., SHAPE]
    pairs = (pair[..., None] == np.arange(10, 81)).sum(1)
    counts = there.sum(1)[:, None] == np.arange(7)
    twins = [(part > k)[:, None].any(-1) for part in one_hot[1:3] for k in (1, 2)]
    return np.concatenate([*one_hot, pairs, counts, *twins], 1)


@pytest.mark.parametrize("family", questions.FAMILIES)
def test_models_that_cannot_see_stay_at_chance(family):
    """A bag of the question's words, and the most frequent answer: chance + 1 point at most."""
    chance = minimal_pairs.CHANCE[family]
    number = 400 if chance == 0.5 else 2000  # with two answers every question has both
    assert learned(bag_of_words, "val", "test", family, number) <= chance + 0.01
    val, test = (
        minimal_pairs.sample_minimal_pairs(WORLD, 0, split, family, number).answers
        for split in ("val", "test")
    )
    assert (test == np.bincount(val.reshape(-1)).argmax()).mean() <= chance + 0.01


@pytest.mark.parametrize("family", ["colour", "shape"])
def test_chance_knows_which_pairs_are_held_out(family):
    """Where two of eight colours never come with a shape, the word for the shape tells six.

    That is the chance which tables show.
    """
    world = World(held_out=2)
    chance = minimal_pairs.chance(world, family, None)
    assert chance == 1 / 6
    reached = learned(bag_of_words, "val", "test", family, 2000, world=world)
    assert chance - 0.02 <= reached <= chance + 0.01


@pytest.mark.parametrize("family", questions.FAMILIES)
def test_models_that_cannot_read_stay_at_chance(family):
    """The picture without the question.

    Its answers are known (the colours of the two that were swapped; how many are alike, if many are
    meant), which leaves one half where there are more than two answers, and nothing where there are
    two.
    """
    bound = dict(colour=0.5, shape=0.5, count=0.5).get(family, minimal_pairs.CHANCE[family])
    assert learned(bag_of_objects, "val", "test", family, 1000) <= bound + 0.01
