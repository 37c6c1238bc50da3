"""What is in a picture: a scene is a table of objects, a pure function of (seed, split, index).

One object is a row of four small integers, and 0 means "not there" (in a scene) or "not said" (in a
statement, see language.py), so that scenes and sentences share one layout:

    column   SIZE 1..2    COLOUR 1..8    SHAPE 1..8    PLACE 1..9 (row by row, from the top left)

Arrays are numpy: `objects` is (b, m, 4) with the objects in reading order and empty rows at the end.

Samples come in **minimal pairs**: 2k and 2k+1 differ in one edit (two objects swap a colour, a shape, a
size or their places, or one object is replaced), so that a question about the edit has another answer.

Train, val and test cannot overlap: the sum of colour + shape + place over all objects, taken modulo 4, is even in
training, 1 in validation and 3 in test. Each edit keeps that sum, so a pair never leaves its split.
"""

from dataclasses import dataclass

import numpy as np

SIZES = ("small", "large")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring", "star", "heart")
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
ATTRIBUTES = (SIZES, COLOURS, SHAPES, PLACES)
SIZE, COLOUR, SHAPE, PLACE = range(4)

SPLITS = ("train", "val", "test", "more", "held_out", "control")
REMAINDERS = {"train": (0, 2), "val": (1,)}  # every other split: (3,)
COLOUR_PERMUTATION = np.array([0, 2, 5, 1, 7, 4, 6, 3])  # a permutation of the colours, so that a diagonal has every checksum
PRIORS = ("uniform", "zipf", "friends")
EDITS = ("swap_colour", "swap_shape", "swap_size", "swap_place", "replace", "replace_by_twin")


class NotEnoughScenes(ValueError):
    """A world, or one of its splits, has nothing of a kind that was asked for."""


@dataclass(frozen=True)
class World:
    """The knobs that make the world easier or harder.

    min_objects, max_objects: objects in a picture; one alone is rarer than each other number.
    held_out: how many pairs of every colour (and every shape) with a shape (a colour) never occur in train,
        val and test: whole "diagonals" of the colour-shape table. Split "held_out" shows scenes with such
        a pair, "control" scenes with a pair of as many diagonals that did occur.
    prior: how often what occurs. "uniform"; "zipf": the k-th colour and the k-th shape are 1 / k as frequent as the first;
        "friends": a shape likes to come with its friend (circle with square, triangle with diamond ...).
    large, small: radius of an object in picture widths. jitter: how far an object may stand from the
        middle of its place, in picture widths.
    """

    min_objects: int = 1
    max_objects: int = 3
    held_out: int = 0
    prior: str = "uniform"
    large: float = 0.132
    small: float = 0.082
    jitter: float = 0.026

    def __post_init__(self):
        if not 1 <= self.min_objects <= self.max_objects <= 6:
            raise ValueError("a picture has 1 to 6 objects; set 1 <= min_objects <= max_objects <= 6")
        if not 0 <= self.held_out <= 4:
            raise ValueError("held_out must be 0 to 4 of the 8 colour-shape diagonals")
        if self.prior not in PRIORS:
            raise ValueError(f"unknown prior {self.prior!r}; choose one of {', '.join(PRIORS)}")
        if self.prior == "friends" and self.held_out:
            raise ValueError("a world of friends has no held-out pairs; choose another prior or held_out 0")
        if not 0 < self.small < self.large <= 1 / 6 - self.jitter:
            raise ValueError("sizes must satisfy 0 < small < large <= 1/6 - jitter, or objects would touch")

    @property
    def widest(self):
        """Objects in the largest scene of any split."""
        return min(self.max_objects + 3, 6) if self.max_objects < 6 else 9


WORLDS = {"default": World(), "full": World(max_objects=6), "zipf": World(prior="zipf"), "friends": World(prior="friends")}


class CounterRNG:
    """Random integers that depend on nothing but (seed, split, index, stream): splitmix64 of the four.

    The seed is that of the training pictures; every other split is the same whatever the seed, so that runs with
    different seeds are tested on the same items.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
    """

    def __init__(self, seed, split, indices):
        seed = seed if split == "train" else 0
        self.key = splitmix64(splitmix64(np.uint64(seed) + np.uint64(SPLITS.index(split) << 56)) ^ np.asarray(indices, np.uint64))

    def randint(self, tag, sides, shape=()):
        """Integers in [0, sides) of shape (b, *shape); `stream` is a name, one for each use."""
        salt = np.uint64(0)
        for byte in tag.encode():
            salt = splitmix64(salt ^ np.uint64(byte))
        lane = np.arange(int(np.prod(shape)), dtype=np.uint64) + salt
        bits = splitmix64(self.key[:, None] ^ splitmix64(lane)[None, :])
        numbers = (bits >> np.uint64(33)).astype(np.int64) * np.asarray(sides).reshape(-1, 1) >> 31
        return numbers.reshape(len(self.key), *shape)


def splitmix64(x):
    """The finaliser of splitmix64, a bijection on uint64 that flips half of the bits."""
    x = np.atleast_1d(np.asarray(x, np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass
class Scenes:
    """objects: (b, m, 4). edit: (b,) index into EDITS, what was done to sample 2k to get 2k+1.

    style: (b, 9, 6) in [0, 1), how an object at a place is drawn (offset x, y, radius, three colour channels);
    backdrop: (b, 4) in [0, 1).
    """

    objects: np.ndarray
    edit: np.ndarray
    style: np.ndarray
    background: np.ndarray

    @property
    def count(self):
        return (self.objects[..., SHAPE] > 0).sum(1)


def sample(world, seed, split, indices):
    """The scenes of these sample indices, whatever stands beside them: Scenes."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    indices = np.asarray(indices, np.int64)
    rng = CounterRNG(seed, split, indices // 2)
    edit = rng.randint("edit", len(EDITS))
    objects = first_of_pair(world, split, rng, twins=edit == EDITS.index("replace_by_twin"))
    edited, edit = apply_edit(world, split, objects, edit, rng)
    style, background = rng.randint("style", 256, (9, 6)) / 256, rng.randint("backdrop", 256, (4,)) / 256
    objects = np.where((indices % 2 == 1)[:, None, None], edited, objects)
    return Scenes(objects, edit, style, background)


def first_of_pair(world, split, rng, twins):
    """Objects (b, m, 4) of the even samples, m the most that the split may have. The last object drawn makes the checksum fit the split."""
    low, high = world.min_objects, world.max_objects
    if split == "more":
        low, high = world.max_objects + 1, world.widest
    counts = [n for n in range(low, high + 1) for _ in range(1 if n == 1 and high > 1 else 2)]
    count = np.array(counts)[rng.randint("count", len(counts))]
    # The edit "replace by a twin" needs two objects that share a colour or a shape, and a third: object 2 copies object 1.
    if high > 2 and world.held_out == 0:
        count = np.where(twins, np.maximum(count, 3), count)
    m = high
    objects = np.zeros((len(count), m, 4), np.int64)
    objects[..., PLACE] = rng.randint("place", 2**31, (9,)).argsort(1, kind="stable")[:, :m] + 1
    objects[..., SIZE] = rng.randint("size", 2, (m,)) + 1
    pairs = pair_table(world, "train" if split in ("held_out", "control") else split)
    objects[..., COLOUR : SHAPE + 1] = pairs[rng.randint("pair", len(pairs), (m,))]
    if world.prior == "friends":
        add_cooccurrence(objects, rng)
    if m > 2 and world.held_out == 0:
        for coin, column in enumerate((COLOUR, SHAPE)):
            copy = twins & (rng.randint("twin", 2) == coin)
            objects[copy, 2, column] = objects[copy, 1, column]
    objects[np.arange(m) >= count[:, None]] = 0
    # Object 0 takes a colour and a shape such that the whole scene falls into its split.
    remainders = np.array(REMAINDERS.get(split, (3,)))
    wanted = remainders[rng.randint("remainder", len(remainders))]
    need = (wanted - checksum(objects[:, 1:]) - objects[:, 0, PLACE]) % 4
    pairs, choice = pair_table(world, split), rng.randint("first", 2**31)
    friendly = (rng.randint("first friend", 4) > 0) & (count > 1)
    for remainder in range(4):
        fitting = pairs[pairs.sum(1) % 4 == remainder]
        mine = need == remainder
        objects[mine, 0, COLOUR : SHAPE + 1] = fitting[choice[mine] % len(fitting)]
        for shape in range(1, 9) if world.prior == "friends" else ():
            liked = mine & friendly & (objects[:, 1 % m, SHAPE] == shape)
            matching = fitting[fitting[:, 1] == partner_of(shape)]
            objects[liked, 0, COLOUR : SHAPE + 1] = matching[choice[liked] % len(matching)]
    return in_reading_order(objects)


def partner_of(shape):
    """The shape (1..8) that comes with this one in a world of friends: 1 and 2, 3 and 4, 5 and 6, 7 and 8."""
    return (shape - 1 ^ 1) + 1


def add_cooccurrence(objects, rng):
    """In a world of friends, three of four even objects (2, 4 ...) take the shape of the friend of the one before; in place."""
    for row in range(2, objects.shape[1], 2):
        likes = rng.randint(f"friend {row}", 4) > 0
        objects[likes, row, SHAPE] = partner_of(objects[likes, row - 1, SHAPE])


def pair_table(world, split):
    """The (colour, shape) pairs that a split may show, (k, 2); a pair that is more frequent stands there more often."""
    table = np.stack(np.meshgrid(np.arange(1, 9), np.arange(1, 9), indexing="ij"), -1).reshape(-1, 2)
    if world.prior == "zipf":
        table = np.repeat(table, (64 // table[:, 0]) * (64 // table[:, 1]) // 64, axis=0)
    diagonal = diagonal_of(table[:, 0], table[:, 1])
    if split == "held_out":
        return table[diagonal < max(world.held_out, 1)]
    if split == "control":
        return table[(diagonal >= world.held_out) & (diagonal < 2 * max(world.held_out, 1))]
    return table[diagonal >= world.held_out]


def diagonal_of(colour, shape):
    """Which of 8 disjoint sets of pairs, each with every colour once and every shape once, this pair is in."""
    return (shape - 1 - COLOUR_PERMUTATION[colour - 1]) % 8


def checksum(objects):
    """Sum of colour + shape + place, (b, m, 4) -> (b,); its remainder modulo 4 names the split."""
    return objects[..., COLOUR:].sum((1, 2))


def in_reading_order(objects):
    """Sort rows by place, empty rows last. (b, m, 4)"""
    place = objects[..., PLACE]
    order = np.where(place > 0, place, 99).argsort(1, kind="stable")
    return np.take_along_axis(objects, order[..., None], 1)


def apply_edit(world, split, objects, edit, rng):
    """The other half of each pair: (b, m, 4), and the edit that was made of it (b,).

    A swap that is impossible (one object, equal attributes, a pair that is held out) becomes a replacement, and a
    replacement for which no pair of colour and shape is left changes the size as well.
    """
    b = np.arange(len(objects))
    count = (objects[..., SHAPE] > 0).sum(1)
    i = rng.randint("touched", count)
    odd_one = (objects[..., SHAPE] > 0) & np.stack([most_shared(objects, np.full(len(b), row)).any(1) for row in range(objects.shape[1])], 1)
    i = np.where((edit == EDITS.index("replace_by_twin")) & odd_one.any(1), odd_one.argmax(1), i)
    j = (i + 1 + rng.randint("partner", np.maximum(count - 1, 1))) % count
    swapped = objects.copy()
    for column, name in ((COLOUR, "swap_colour"), (SHAPE, "swap_shape"), (SIZE, "swap_size"), (PLACE, "swap_place")):
        mine = b[edit == EDITS.index(name)]
        swapped[mine, i[mine], column], swapped[mine, j[mine], column] = (
            objects[mine, j[mine], column],
            objects[mine, i[mine], column],
        )
    changed = (in_reading_order(swapped) != objects).any((1, 2))
    allowed = world.held_out == 0 or is_allowed(world, split, swapped)
    use_swap = (changed & allowed)[:, None, None]
    # A replacement has another colour and another shape and the same sum of both modulo 4. A twin takes the
    # colour or the shape that two other objects share.
    pairs = pair_table(world, split)
    old = objects[b, i, COLOUR : SHAPE + 1]
    fits = (pairs[None] != old[:, None]).all(-1) & ((pairs.sum(1)[None] - old.sum(1)[:, None]) % 4 == 0)
    shared = most_shared(objects, i)
    as_twin = fits & ((pairs[None] == shared[:, None]) & (shared[:, None] > 0)).any(-1)
    twin = (edit == EDITS.index("replace_by_twin")) & as_twin.any(1)
    fits = np.where(twin[:, None], as_twin, fits)
    random_rank = np.where(fits, rng.randint("replacement", 2**31, (len(pairs),)), -1)
    replaced = objects.copy()
    replaced[b, i, COLOUR : SHAPE + 1] = np.where(fits.any(1)[:, None], pairs[random_rank.argmax(1)], old)
    stuck = ~fits.any(1)
    replaced[stuck, i[stuck], SIZE] = 3 - replaced[stuck, i[stuck], SIZE]
    made = np.where(use_swap[:, 0, 0], edit, np.where(twin, EDITS.index("replace_by_twin"), EDITS.index("replace")))
    return in_reading_order(np.where(use_swap, swapped, replaced)), made


def is_allowed(world, split, objects):
    """Which scenes show only colour-shape pairs of their split, (b, m, 4) -> (b,)."""
    diagonal = diagonal_of(objects[..., COLOUR], objects[..., SHAPE])
    if split in ("held_out", "control"):
        return np.zeros(len(objects), bool)  # a swap could take the pair away that the split is about
    return ((objects[..., SHAPE] == 0) | (diagonal >= world.held_out)).all(1)


def most_shared(objects, i):
    """The colour and the shape that at least two objects other than row i have and row i has not, else 0: (b, 2)."""
    result = np.zeros((len(objects), 2), np.int64)
    others = objects.copy()
    others[np.arange(len(objects)), i] = 0
    for k, column in enumerate((COLOUR, SHAPE)):
        values = others[..., column]
        own = objects[np.arange(len(objects)), i, column]
        twice = ((values[:, :, None] == values[:, None, :]) & (values[:, :, None] > 0)).sum(2) > 1
        result[:, k] = np.where(twice & (values != own[:, None]), values, 0).max(1)
    return result
