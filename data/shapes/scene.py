"""What is in a picture: a scene is a table of objects, a pure function of (seed, split, index).

Arrays are numpy: `objects` is (b, m, 4), rows as in world.py, in reading order and empty rows at
the end. Samples come in **minimal pairs**: 2k and 2k+1 differ in one edit (two objects swap a
colour, a shape, a size or their places, or one object is replaced), so that a question about the
edit has another answer.
"""

from dataclasses import dataclass

import numpy as np

from data.shapes.edits import apply_edit
from data.shapes.rng import CounterRNG
from data.shapes.world import (
    COLOUR,
    EDITS,
    PLACE,
    REMAINDERS,
    SHAPE,
    SIZE,
    SPLITS,
    checksum,
    in_reading_order,
    pair_table,
)


@dataclass
class Scenes:
    """objects: (b, m, 4). edit: (b,) index into EDITS, what was done to sample 2k to get 2k+1.

    style: (b, 9, 6) in [0, 1), how an object at a place is drawn (offset x, y, radius, three colour
    channels); background: (b, 4) in [0, 1).
    """

    objects: np.ndarray
    edit: np.ndarray
    style: np.ndarray
    background: np.ndarray

    @property
    def count(self):
        return (self.objects[..., SHAPE] > 0).sum(1)


def select(scenes, keep):
    """Those scenes that `keep` (a mask, indices or a slice) names."""
    return Scenes(
        scenes.objects[keep], scenes.edit[keep], scenes.style[keep], scenes.background[keep]
    )


def joined(parts):
    """Several Scenes as one."""
    names = ("objects", "edit", "style", "background")
    return Scenes(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def sample(world, seed, split, indices):
    """The scenes of these sample indices, whatever stands beside them: Scenes."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    indices = np.asarray(indices, np.int64)
    rng = CounterRNG(seed, split, indices // 2)
    edit = draw_edit(split, rng)
    objects = first_of_pair(world, split, rng, twins=edit == EDITS.index("replace_by_twin"))
    edited, edit = apply_edit(world, split, objects, edit, rng)
    objects = np.where((indices % 2 == 1)[:, None, None], edited, objects)
    style = rng.randint("style", 256, (9, 6)) / 256
    background = rng.randint("backdrop", 256, (4,)) / 256
    return Scenes(objects, edit, style, background)


def draw_edit(split, rng):
    """What is done to each pair, (b,). In training one in three is drawn to show twins: two and
    three alike are what counting is learned from, and by chance they are rare."""
    edit = rng.randint("edit", len(EDITS))
    more_twins = (split == "train") & (rng.randint("more twins", 3) == 0)
    return np.where(more_twins, EDITS.index("replace_by_twin"), edit)


# ---------------------------------------------------------------- the even samples


def first_of_pair(world, split, rng, twins):
    """Objects (b, m, 4) of the even samples, m the most that the split may have.

    twins: (b,), where the edit will replace an object by a twin of others. That needs two objects
    that share a colour or a shape, and a third.
    """
    count, m = draw_count(world, split, rng, twins)
    objects = draw_objects(world, split, rng, len(count), m)
    if world.prior == "cooccurrence":
        add_cooccurrence(objects, rng)
    if m > 2 and world.held_out == 0:
        share_an_attribute(objects, rng, twins)
    objects[np.arange(m) >= count[:, None]] = 0
    fit_into_split(world, split, objects, rng)
    return in_reading_order(objects)


def draw_count(world, split, rng, twins):
    """How many objects each scene has (b,), and the most that one can have."""
    low, high = world.min_objects, world.max_objects
    if split == "more":
        low, high = world.max_objects + 1, world.widest
    # One object alone is half as frequent as each other number.
    counts = [n for n in range(low, high + 1) for _ in range(1 if n == 1 and high > 1 else 2)]
    count = np.array(counts)[rng.randint("count", len(counts))]
    if high > 2 and world.held_out == 0:
        count = np.where(twins, np.maximum(count, 3), count)
    return count, high


def draw_objects(world, split, rng, b, m):
    """m objects at different places, each drawn from what the split may show: (b, m, 4)."""
    objects = np.zeros((b, m, 4), np.int64)
    places = rng.randint("place", 2**31, (9,)).argsort(1, kind="stable")
    objects[..., PLACE] = places[:, :m] + 1
    objects[..., SIZE] = rng.randint("size", 2, (m,)) + 1
    # In these two splits only object 0 shows the pair in question.
    pairs = pair_table(world, "train" if split in ("held_out", "control") else split)
    objects[..., COLOUR : SHAPE + 1] = pairs[rng.randint("pair", len(pairs), (m,))]
    return objects


def partner_of(shape):
    """The shape (1..8) that often comes with this one: 1 and 2, 3 and 4, 5 and 6, 7 and 8."""
    return ((shape - 1) ^ 1) + 1


def add_cooccurrence(objects, rng):
    """Three of four objects 2, 4 ... take the partner shape of the one before; in place."""
    for row in range(2, objects.shape[1], 2):
        follows = rng.randint(f"friend {row}", 4) > 0
        objects[follows, row, SHAPE] = partner_of(objects[follows, row - 1, SHAPE])


def share_an_attribute(objects, rng, twins):
    """Object 2 copies the colour or the shape of object 1, where `twins` (b,) says so, and each
    further object does in one of two scenes; in place."""
    for row in range(2, objects.shape[1]):
        also = row == 2 or rng.randint(f"twin {row}", 2) == 0
        for coin, column in enumerate((COLOUR, SHAPE)):
            copy = twins & also & (rng.randint("twin", 2) == coin)
            objects[copy, row, column] = objects[copy, 1, column]


def fit_into_split(world, split, objects, rng):
    """Object 0 takes a colour and a shape that bring the whole scene into its split; in place."""
    remainders = np.array(REMAINDERS.get(split, (3,)))
    target = remainders[rng.randint("remainder", len(remainders))]
    needed = (target - checksum(objects[:, 1:]) - objects[:, 0, PLACE]) % 4
    pairs, choice = pair_table(world, split), rng.randint("first", 2**31)
    has_partner = rng.randint("first friend", 4) > 0
    for remainder in range(4):
        fitting, scenes = pairs[pairs.sum(1) % 4 == remainder], needed == remainder
        objects[scenes, 0, COLOUR : SHAPE + 1] = fitting[choice[scenes] % len(fitting)]
        if world.prior == "cooccurrence" and objects.shape[1] > 1:
            fit_with_partner(objects, scenes & has_partner, fitting, choice)


def fit_with_partner(objects, scenes, fitting, choice):
    """Of the `fitting` pairs (k, 2), object 0 takes one with the partner of object 1's shape."""
    for shape in range(1, 9):
        follows = scenes & (objects[:, 1, SHAPE] == shape)
        matching = fitting[fitting[:, 1] == partner_of(shape)]
        objects[follows, 0, COLOUR : SHAPE + 1] = matching[choice[follows] % len(matching)]
