"""Scenes: the same index gives the same bits, splits cannot overlap, pairs differ in one edit."""

import dataclasses
import itertools

import numpy as np
import pytest

from data.shapes.languages import grammars_of
from data.shapes.render import render
from data.shapes.scene import sample
from data.shapes.world import (
    COLOUR,
    EDITS,
    PLACE,
    SHAPE,
    SIZE,
    SPLITS,
    WORLDS,
    World,
    checksum,
    diagonal_of,
)

GRAMMAR = grammars_of("en")["en"]

WORLD, FULL = WORLDS["default"], WORLDS["full"]
# Written down once; a change of the world on any machine or library version shows here.
FROZEN_CAPTIONS = [
    "a large blue circle at the top , a large red heart at the bottom"
    " and a small blue triangle at the bottom right",
    "a large blue circle at the top , a large blue triangle at the bottom"
    " and a small blue triangle at the bottom right",
    "a small green circle at the top right , a large orange circle at the center"
    " and a small green diamond at the bottom",
]
FROZEN_SUM = 1178543


def scene_keys(objects):
    return {tuple(map(tuple, scene[scene[:, SHAPE] > 0])) for scene in objects}


def test_scenes_equal_a_frozen_sample():
    scenes = sample(WORLD, 0, "train", np.arange(3))
    assert GRAMMAR.caption_texts(scenes.objects) == FROZEN_CAPTIONS
    assert int(render(WORLD, scenes, 56).long().sum()) == FROZEN_SUM


@pytest.mark.parametrize("world", [*WORLDS.values(), World(held_out=2)])
def test_no_scene_is_in_two_splits(world):
    splits = ("train", "val", "test")
    seen = {s: scene_keys(sample(world, 0, s, np.arange(4000)).objects) for s in splits}
    for one, other in itertools.combinations(seen, 2):
        assert not seen[one] & seen[other]
    for split, remainders in (("train", (0, 2)), ("val", (1,)), ("test", (3,))):
        checksums = checksum(sample(world, 1, split, np.arange(500)).objects)
        assert set(checksums % 4) <= set(remainders)


@pytest.mark.parametrize("split", SPLITS)
def test_objects_are_complete_apart_and_in_reading_order(split):
    objects = sample(World(held_out=1), 0, split, np.arange(1000)).objects
    there = objects[..., SHAPE] > 0
    assert ((objects > 0).all(-1) == there).all() and there[:, 0].all()
    for scene in objects:
        places = scene[scene[:, SHAPE] > 0, PLACE]
        assert (np.diff(places) > 0).all()


def test_two_thirds_of_the_pictures_have_two_objects_or_more():
    assert (sample(WORLD, 0, "test", np.arange(6000)).count > 1).mean() > 2 / 3


def shows_held_out(objects):
    diagonal = diagonal_of(objects[..., COLOUR], objects[..., SHAPE])
    return (diagonal < 2) & (objects[..., SHAPE] > 0)


def test_held_out_pairs_never_occur_but_every_colour_and_shape_does():
    world = World(held_out=2)
    for split in ("train", "val", "test", "more", "control"):
        objects = sample(world, 0, split, np.arange(3000)).objects
        assert not shows_held_out(objects).any()
        for column in (COLOUR, SHAPE):
            assert len(np.unique(objects[..., column])) == 9  # 8 and "none"
    objects = sample(world, 0, "held_out", np.arange(0, 3000, 2)).objects
    assert shows_held_out(objects).any(1).all()


@pytest.mark.parametrize("split", SPLITS)
def test_both_pictures_of_a_pair_differ_in_every_split(split):
    objects = sample(World(held_out=1), 0, split, np.arange(2000)).objects
    assert (objects[::2] != objects[1::2]).any((1, 2)).all()


def test_val_and_test_are_the_same_for_every_seed():
    indices = np.arange(50)
    for split in SPLITS[1:]:
        one, other = (sample(WORLD, seed, split, indices).objects for seed in (0, 7))
        assert (one == other).all()
    one, other = (sample(WORLD, seed, "train", indices).objects for seed in (0, 7))
    assert (one != other).any()


def test_a_pair_differs_in_one_edit():
    scenes = sample(WORLD, 0, "train", np.arange(4000))
    before, after = scenes.objects[::2], scenes.objects[1::2]
    assert (before != after).any((1, 2)).all()
    for name, column in (("swap_colour", COLOUR), ("swap_shape", SHAPE), ("swap_size", SIZE)):
        swapped = scenes.edit[::2] == EDITS.index(name)
        one, other = before[swapped], after[swapped]
        others = [c for c in range(4) if c != column]
        assert (np.sort(one, 1) == np.sort(other, 1)).all()  # the same bag of attributes
        assert (one[..., others] == other[..., others]).all() and swapped.sum() > 80
    assert (np.abs(scenes.count[::2] - scenes.count[1::2]) == 0).all()


def test_zipf_makes_some_shapes_frequent():
    shapes = {
        name: sample(WORLDS[name], 0, "train", np.arange(0, 8000, 2)).objects[..., SHAPE]
        for name in ("default", "zipf")
    }
    count = {k: np.bincount(v.reshape(-1), minlength=9)[1:] for k, v in shapes.items()}
    assert count["zipf"][0] > 2.5 * count["zipf"][2] > 2.5 * 1.4 * count["zipf"][7]
    assert count["default"].max() < 1.3 * count["default"].min()


def test_cooccurrence_makes_some_shapes_come_together():
    together = {}
    for name in ("default", "zipf", "cooccurrence"):
        objects = sample(WORLDS[name], 0, "train", np.arange(0, 8000, 2)).objects
        two = objects[(objects[..., SHAPE] > 0).sum(1) == 2][:, :2, SHAPE] - 1
        together[name] = (two[:, 0] ^ 1 == two[:, 1]).mean()
    assert together["cooccurrence"] > 0.7 and together["default"] < 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        dict(min_objects=0),
        dict(max_objects=7),
        dict(held_out=7),
        dict(large=0.2),
        dict(small=0.2),
        dict(prior="zip"),
        dict(prior="cooccurrence", held_out=1),
    ],
    ids=str,
)
def test_bad_worlds_are_refused(wrong):
    with pytest.raises(ValueError):
        World(**wrong)


def test_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="unknown split"):
        sample(WORLD, 0, "trian", [0])


def test_every_object_is_drawn_in_its_place_and_nowhere_else():
    scenes = sample(FULL, 0, "more", np.arange(600))
    nothing = dataclasses.replace(scenes, objects=0 * scenes.objects)
    changed = (render(FULL, scenes, 57) != render(FULL, nothing, 57)).any(1).numpy()
    changed = changed.reshape(600, 3, 19, 3, 19).any((2, 4)).reshape(600, 9)
    for scene, drawn in zip(scenes.objects, changed, strict=True):
        assert set(np.flatnonzero(drawn) + 1) == set(scene[scene[:, SHAPE] > 0, PLACE])
