"""A true caption and a fluent false one of the same picture that differ in one thing.

Captions are lists of noun phrases (n, m, 4) as everywhere. Each function of FOILS makes what the
false caption of scenes (n, m, 4) says; `pairs` (k, 2) are the colours and shapes to draw from.
"""

from itertools import combinations

import numpy as np

from data.shapes.truth import without
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE, in_reading_order, is_allowed


def make_foil(objects, rng, kind, pairs):
    """What a true and a false caption say of scenes (n, m, 4): (n, m, 4) and (n, m or m + 1, 4).

    Not every scene has room for every kind: the caller throws away what came out true.
    """
    true = without(objects, SIZE) if kind == "add_attribute" else objects.copy()
    false = in_reading_order(FOILS[kind](objects, rng, pairs))
    if kind == "swap_attribute":
        return without(true, PLACE), without(false, PLACE)
    return true, false


def swapped_caption(world, objects, rng):
    """For training, what a caption of scenes (n, m, 4) says with two colours or two sizes
    exchanged: (n, m, 4), one of the exchanges that make it false.

    One in three is left true, and where there is no room for an exchange (one thing, things that
    differ in one attribute alone, a pair that is held out) it is true, too: half of all. With more
    false ones pictures and their captions come less near (experiments/LOG.md).
    """
    said, (n, m, _) = without(objects, PLACE), objects.shape
    exchanges = [(i, j, column) for i, j in combinations(range(m), 2) for column in (COLOUR, SIZE)]
    false = np.repeat(said[:, None], len(exchanges) + 1, 1)  # the last one stays true
    has_room = np.zeros(false.shape[:2], bool)
    for k, (i, j, column) in enumerate(exchanges):
        false[:, k, [i, j], column] = said[:, [j, i], column]
        differs = said[:, i] != said[:, j]  # (n, 4)
        # Where nothing else differs, the two have exchanged their names alone.
        has_room[:, k] = differs[:, column] & (differs.sum(1) > 1) & (said[:, j, SHAPE] > 0)
    has_room &= is_allowed(world, "train", false.reshape(-1, m, 4)).reshape(has_room.shape)
    rank = rng.randint("exchange", 2**31, has_room.shape[1:])
    chosen = np.where(has_room, rank, -1).argmax(1)
    chosen[~has_room.any(1) | (rng.randint("left true", 3) == 0)] = len(exchanges)
    return false[np.arange(n), chosen]


def replace_object(objects, rng, pairs):
    """One object has another shape."""
    false, (n, i, _) = objects.copy(), draw_two(objects, rng)
    false[n, i, SHAPE] = draw_pair(rng, pairs)[:, 1]
    return false


def replace_attribute(objects, rng, pairs):
    """One object has another colour, or the other size."""
    false, (n, i, _) = objects.copy(), draw_two(objects, rng)
    colour, is_colour = draw_pair(rng, pairs)[:, 0], draw_coin(rng)
    false[n, i, COLOUR] = np.where(is_colour, colour, objects[n, i, COLOUR])
    false[n, i, SIZE] = np.where(is_colour, objects[n, i, SIZE], 3 - objects[n, i, SIZE])
    return false


def replace_relation(objects, rng, pairs):
    """One object is at another place; where that one is taken, all is left as it was."""
    false, (n, i, _) = objects.copy(), draw_two(objects, rng)
    place = (objects[n, i, PLACE] + rng.randint("other place", 8)) % 9 + 1
    free = (place[:, None] != objects[..., PLACE]).all(1)
    false[n[free], i[free], PLACE] = place[free]
    return false


def swap_object(objects, rng, pairs):
    """Two objects change places."""
    false, (n, i, j) = objects.copy(), draw_two(objects, rng)
    false[n, i, :PLACE], false[n, j, :PLACE] = objects[n, j, :PLACE], objects[n, i, :PLACE]
    return false


def swap_attribute(objects, rng, pairs):
    """Two objects exchange their colours, or their sizes."""
    false, (n, i, j) = objects.copy(), draw_two(objects, rng)
    column = np.where(draw_coin(rng), COLOUR, SIZE)
    false[n, i, column], false[n, j, column] = objects[n, j, column], objects[n, i, column]
    return false


def add_object(objects, rng, pairs):
    """One object more; where its place is taken, none."""
    size, place = rng.randint("new size", 2) + 1, rng.randint("new place", 9) + 1
    new = np.stack([size, *draw_pair(rng, pairs).T, place], 1)
    new[(place[:, None] == objects[..., PLACE]).any(1)] = 0
    return np.concatenate([objects, new[:, None]], 1)


def add_attribute(objects, rng, pairs):
    """The true caption tells no size; the false one tells one, a wrong one."""
    false, (n, i, _) = without(objects, SIZE), draw_two(objects, rng)
    false[n, i, SIZE] = 3 - objects[n, i, SIZE]
    return false


FOILS = {
    "replace_object": replace_object,
    "replace_attribute": replace_attribute,
    "replace_relation": replace_relation,
    "swap_object": swap_object,
    "swap_attribute": swap_attribute,
    "add_object": add_object,
    "add_attribute": add_attribute,
}


def draw_two(objects, rng):
    """Indices of all scenes (n, m, 4), and of two objects of each, or twice the only one."""
    count = (objects[..., SHAPE] > 0).sum(1)
    i = rng.randint("foil of", count)
    j = (i + 1 + rng.randint("foil with", np.maximum(count - 1, 1))) % count
    return np.arange(len(objects)), i, j


def draw_pair(rng, pairs):
    """A colour and a shape for each scene: (n, 2)."""
    return pairs[rng.randint("drawn", len(pairs))]


def draw_coin(rng):
    return rng.randint("which attribute", 2) == 0
