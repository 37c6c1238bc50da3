"""The tables and knobs of the generated world: what an object is, and which objects may occur.

One object is a row of four small integers, and 0 means "not there" (in a scene) or "not said" (in a
statement, see truth.py), so that scenes and sentences share one layout:

    column   SIZE 1..2    COLOUR 1..8    SHAPE 1..8    PLACE 1..9 (row by row, from the top left)

Train, val and test cannot overlap: the sum of colour + shape + place over all objects, taken modulo
4, is even in training, 1 in validation and 3 in test. Each edit keeps that sum, so a minimal pair
never leaves its split.
"""

from dataclasses import dataclass

import numpy as np

from data.batch import NotEnoughItems

SIZES = ("small", "large")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring", "star", "heart")
PLACES = (
    "top left", "top", "top right",
    "left", "center", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
ATTRIBUTES = (SIZES, COLOURS, SHAPES, PLACES)
SIZE, COLOUR, SHAPE, PLACE = range(4)

SPLITS = ("train", "val", "test", "more", "held_out", "control")
REMAINDERS = {"train": (0, 2), "val": (1,)}  # every other split: (3,)
PRIORS = ("uniform", "zipf", "cooccurrence")
EDITS = ("swap_colour", "swap_shape", "swap_size", "swap_place", "replace", "replace_by_twin")
# The order in which diagonal_of takes the colours: so every diagonal has pairs of each checksum.
COLOUR_PERMUTATION = np.array([0, 2, 5, 1, 7, 4, 6, 3])


class NotEnoughScenes(NotEnoughItems):
    """A world, or one of its splits, has nothing of a kind that was asked for."""


@dataclass(frozen=True)
class World:
    """The knobs that make the world easier or harder.

    min_objects, max_objects: objects in a picture; one alone is rarer than each other number.
    held_out: how many pairs of every colour (and every shape) with a shape (a colour) never occur
        in train, val and test: whole "diagonals" of the colour-shape table. Split "held_out" shows
        scenes with such a pair, "control" scenes with a pair of as many diagonals that did occur.
    prior: how often what occurs. "uniform"; "zipf": the k-th colour and the k-th shape are 1 / k as
        frequent as the first; "cooccurrence": a shape often comes with its partner (circle with
        square, triangle with diamond ...).
    large, small: radius of an object in picture widths. jitter: how far an object may stand from
        the middle of its place, in picture widths.
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
            raise ValueError(
                "a picture has 1 to 6 objects; set 1 <= min_objects <= max_objects <= 6"
            )
        if not 0 <= self.held_out <= 6:
            raise ValueError("held_out must be 0 to 6 of the 8 colour-shape diagonals")
        if self.prior not in PRIORS:
            raise ValueError(f"unknown prior {self.prior!r}; choose one of {', '.join(PRIORS)}")
        if self.prior == "cooccurrence" and self.held_out:
            raise ValueError(
                "the cooccurrence prior has no held-out pairs; choose another prior or held_out 0"
            )
        if not 0 < self.small < self.large <= 1 / 6 - self.jitter:
            raise ValueError(
                "sizes must satisfy 0 < small < large <= 1/6 - jitter, or objects would touch"
            )

    @property
    def widest(self):
        """Objects in the largest scene of any split."""
        return min(self.max_objects + 3, 6) if self.max_objects < 6 else 9


WORLDS = {
    "default": World(),
    "full": World(max_objects=6),
    "zipf": World(prior="zipf"),
    "cooccurrence": World(prior="cooccurrence"),
}


# ---------------------------------------------------------------- colour-shape pairs


def diagonal_of(colour, shape):
    """Which of 8 disjoint sets of pairs, each with every colour and every shape once, it is in."""
    return (shape - 1 - COLOUR_PERMUTATION[colour - 1]) % 8


def pair_table(world, split):
    """The (colour, shape) pairs that a split may show, (k, 2); a frequent pair has several rows."""
    colours, shapes = np.meshgrid(np.arange(1, 9), np.arange(1, 9), indexing="ij")
    table = np.stack([colours, shapes], -1).reshape(-1, 2)
    if world.prior == "zipf":
        table = np.repeat(table, (64 // table[:, 0]) * (64 // table[:, 1]) // 64, axis=0)
    diagonal = diagonal_of(table[:, 0], table[:, 1])
    if split == "held_out":
        return table[diagonal < max(world.held_out, 1)]
    if split == "control":
        return table[(diagonal >= world.held_out) & (diagonal < 2 * max(world.held_out, 1))]
    return table[diagonal >= world.held_out]


def is_allowed(world, split, objects):
    """Which scenes show only colour-shape pairs of their split, (b, m, 4) -> (b,)."""
    if split in ("held_out", "control"):  # an edit could take the pair away that the split is about
        return np.zeros(len(objects), bool)
    diagonal = diagonal_of(objects[..., COLOUR], objects[..., SHAPE])
    return ((objects[..., SHAPE] == 0) | (diagonal >= world.held_out)).all(1)


# ---------------------------------------------------------------- tables of objects


def checksum(objects):
    """Sum of colour + shape + place, (b, m, 4) -> (b,); its remainder modulo 4 names the split."""
    return objects[..., COLOUR:].sum((1, 2))


def in_reading_order(objects):
    """Sort rows by place, empty rows last. (b, m, 4)"""
    place = objects[..., PLACE]
    order = np.where(place > 0, place, 99).argsort(1, kind="stable")
    return np.take_along_axis(objects, order[..., None], 1)
