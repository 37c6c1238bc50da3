"""Models that cannot see, or cannot read, stay at chance on minimal pairs."""

import numpy as np
import pytest
import torch

from data.shapes import minimal_pairs, questions
from data.shapes.languages import grammars_of
from data.shapes.scene import sample
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE, WORLDS, World
from tinyvlm.evaluation.metrics import accuracy

WORLD = WORLDS["default"]
GRAMMAR = grammars_of("en")["en"]


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
