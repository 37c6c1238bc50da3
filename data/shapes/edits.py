"""What makes the second picture of a minimal pair: one edit that keeps the scene in its split."""

import numpy as np

from data.shapes.world import (
    COLOUR,
    EDITS,
    PLACE,
    SHAPE,
    SIZE,
    in_reading_order,
    is_allowed,
    pair_table,
)

SWAPS = {"swap_colour": COLOUR, "swap_shape": SHAPE, "swap_size": SIZE, "swap_place": PLACE}
REPLACE, REPLACE_BY_TWIN = EDITS.index("replace"), EDITS.index("replace_by_twin")


def apply_edit(world, split, objects, edit, rng):
    """The other half of each pair: (b, m, 4), and the edit that was made of it (b,).

    A swap that is impossible (one object, equal attributes, a pair that is held out) becomes a
    replacement, and a replacement for which no pair of colour and shape is left changes the size as
    well.
    """
    i, j = objects_to_edit(objects, edit, rng)
    swapped = swap_attribute(objects, edit, i, j)
    replaced, becomes_twin = replace_object(world, split, objects, edit, i, rng)
    changed = (in_reading_order(swapped) != objects).any((1, 2))
    use_swap = changed & (world.held_out == 0 or is_allowed(world, split, swapped))
    edited = in_reading_order(np.where(use_swap[:, None, None], swapped, replaced))
    replacement = np.where(becomes_twin, REPLACE_BY_TWIN, REPLACE)
    return edited, np.where(use_swap, edit, replacement)


def objects_to_edit(objects, edit, rng):
    """Which object is edited and which other one takes part in a swap: two arrays (b,)."""
    there = objects[..., SHAPE] > 0
    count = there.sum(1)
    i = rng.randint("touched", count)
    # For a twin to be possible, two objects other than i must share something.
    rows = [np.full(len(objects), row) for row in range(objects.shape[1])]
    odd_one = there & np.stack([most_shared(objects, row).any(1) for row in rows], 1)
    i = np.where((edit == REPLACE_BY_TWIN) & odd_one.any(1), odd_one.argmax(1), i)
    j = (i + 1 + rng.randint("partner", np.maximum(count - 1, 1))) % count
    return i, j


def swap_attribute(objects, edit, i, j):
    """Where the edit is a swap, objects i and j (b,) exchange what it names: (b, m, 4)."""
    swapped = objects.copy()
    for name, column in SWAPS.items():
        b = np.flatnonzero(edit == EDITS.index(name))
        swapped[b, i[b], column] = objects[b, j[b], column]
        swapped[b, j[b], column] = objects[b, i[b], column]
    return swapped


def replace_object(world, split, objects, edit, i, rng):
    """Object i becomes another one: (b, m, 4), and whether it became a twin of others (b,)."""
    b, pairs = np.arange(len(objects)), pair_table(world, split)
    fits, becomes_twin = fitting_pairs(pairs, objects, edit, i)
    random_rank = np.where(fits, rng.randint("replacement", 2**31, (len(pairs),)), -1)
    replaced = objects.copy()
    found = fits.any(1)
    replaced[b[found], i[found], COLOUR : SHAPE + 1] = pairs[random_rank.argmax(1)][found]
    stuck = b[~found]
    replaced[stuck, i[stuck], SIZE] = 3 - objects[stuck, i[stuck], SIZE]
    return replaced, becomes_twin


def fitting_pairs(pairs, objects, edit, i):
    """Which of `pairs` (k, 2) may replace object i: (b, k), and whether that makes a twin (b,).

    A replacement has another colour and another shape and the same sum of both modulo 4. A twin
    takes the colour or the shape that two other objects share.
    """
    old = objects[np.arange(len(objects)), i, COLOUR : SHAPE + 1]
    fits = (pairs[None] != old[:, None]).all(-1)
    fits &= (pairs.sum(1)[None] - old.sum(1)[:, None]) % 4 == 0
    shared = most_shared(objects, i)[:, None]  # (b, 1, 2)
    fits_as_twin = fits & ((pairs[None] == shared) & (shared > 0)).any(-1)
    becomes_twin = (edit == REPLACE_BY_TWIN) & fits_as_twin.any(1)
    return np.where(becomes_twin[:, None], fits_as_twin, fits), becomes_twin


def most_shared(objects, i):
    """The colour and shape that two objects other than i share and i lacks, else 0: (b, 2)."""
    result, b = np.zeros((len(objects), 2), np.int64), np.arange(len(objects))
    others = objects.copy()
    others[b, i] = 0
    for k, column in enumerate((COLOUR, SHAPE)):
        values, own = others[..., column], objects[b, i, column]
        equal = (values[:, :, None] == values[:, None, :]) & (values[:, :, None] > 0)  # (b, m, m)
        shared = (equal.sum(2) > 1) & (values != own[:, None])
        result[:, k] = np.where(shared, values, 0).max(1)
    return result
