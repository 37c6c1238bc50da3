"""Random questions about scenes, of which questions.py asks those that have the answer it needs."""

import numpy as np

from data.shapes.truth import (
    COLOUR_OF,
    COMPARE,
    CONTENT,
    COUNT,
    EXISTENCE,
    KIND,
    LINK,
    PRESUPPOSING,
    RELATION,
    SHAPE_OF,
    SIZE_OF,
    WIDTH,
    A,
    B,
)
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE, diagonal_of

# What a noun phrase names, (size, colour, shape): one thing, two or all. A count may be asked with
# the first two alone.
NAMED = np.array([(0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 1, 1), (1, 1, 0), (1, 0, 1), (1, 1, 1)])


def propose_questions(
    kind, objects, randint, single=False, everything=False, premise=2, compares_mixed=True,
    compares_nothing=False,
):  # fmt: skip
    """Random statements about objects (n, m, 4), each of the kind that `kind` (n,) says: (n, 10).

    `randint(tag, sides)` gives one random integer for each row. The others are a bool for each row,
    or one for all. `single`: where a count is asked, name the colour or the shape alone, so that
    the words of the question tell nothing about its answer. `everything`: count all things.
    compares_mixed: a comparison may begin with something that no object is. compares_nothing: it is
    of any two things, there or not. premise (an integer for each row, or one for all): 0 and 1
    presuppose what may not be there, or not alone.
    """
    i, j = draw_two_objects(objects, randint)
    anything = draw_anything(randint)
    mixed = mix_attributes(i, j, anything, randint)
    names_mixed = np.isin(kind, (EXISTENCE, COUNT)) | (np.asarray(premise) < 2)
    names_mixed |= (kind == COMPARE) & compares_mixed
    may_be_single = (kind == COUNT) | (np.isin(kind, PRESUPPOSING) & (np.asarray(premise) == 1))
    mask_a, mask_b = draw_masks(kind, randint, single & may_be_single)
    mask_a[(kind == COUNT) & everything] = 0

    rows = np.zeros((len(objects), WIDTH), np.int64)
    rows[:, KIND] = kind
    rows[:, A][:, :PLACE] = np.where(names_mixed[:, None], mixed, i)[:, :PLACE] * mask_a
    complete_relations(rows, j[:, :PLACE] * mask_b, premise, randint)
    complete_comparisons(rows, j[:, :PLACE] * mask_a, anything[:, :PLACE] * mask_a, randint)
    if np.any(compares_nothing):
        compare_anything(rows, compares_nothing, mask_a, randint)
    complete_contents(rows, i[:, PLACE], anything[:, PLACE], randint)
    return rows


def draw_anything(randint, prefix=""):
    """Objects such as may be nowhere: (n, 4)."""
    sides = {"size": 2, "colour": 8, "shape": 8, "place": 9}
    return np.stack([randint(prefix + tag, number) for tag, number in sides.items()], 1) + 1


def draw_two_objects(objects, randint):
    """Two objects of each scene (n, m, 4), the same one twice if it is alone: two arrays (n, 4)."""
    n, count = np.arange(len(objects)), (objects[..., SHAPE] > 0).sum(1)
    i = randint("i", count)
    j = (i + 1 + randint("j", np.maximum(count - 1, 1))) % count
    return objects[n, i], objects[n, j]


def mix_attributes(i, j, anything, randint):
    """Size, colour and shape each from object i, from j or, rarely, from nowhere: plausible, often
    not there, and mostly for what goes with what."""
    mixed = i.copy()
    for column, tag in ((SIZE, "size from"), (COLOUR, "colour from"), (SHAPE, "shape from")):
        source = randint(tag, 5) // 2
        mixed[:, column] = np.choose(source, [i[:, column], j[:, column], anything[:, column]])
    return mixed


def draw_masks(kind, randint, single):
    """Which of size, colour and shape the nouns a and b name: (n, 3) each.

    single: which name one of them alone. What is asked for is never named; where nothing else would
    be, the shape (or the colour) is.
    """
    only_one = single | (kind == COMPARE)
    mask_a = NAMED[randint("named", np.where(only_one, 2, len(NAMED)))]
    mask_b = NAMED[randint("named b", len(NAMED))]
    for asked, column in ((COLOUR_OF, COLOUR), (SHAPE_OF, SHAPE), (SIZE_OF, SIZE)):
        mask_a[kind == asked, column] = 0
    empty = mask_a.sum(1) == 0
    mask_a[empty, np.where(kind[empty] == SHAPE_OF, COLOUR, SHAPE)] = 1
    return mask_a, mask_b


def complete_relations(rows, noun_b, premise, randint):
    """A relation names a second object and how the first one stands to it; in place.

    Either of the two may be the one that is not there."""
    mask = rows[:, KIND] == RELATION
    rows[mask, B.start : B.start + PLACE] = noun_b[mask]
    rows[mask, LINK] = randint("link", 4)[mask] + 1
    swap = mask & (np.asarray(premise) < 2) & (randint("which is not there", 2) == 0)
    rows[swap, A], rows[swap, B] = rows[swap, B].copy(), rows[swap, A].copy()


def complete_comparisons(rows, noun_b, anything, randint):
    """A comparison names something second, in one of three cases anything at all; in place."""
    mask = rows[:, KIND] == COMPARE
    noun_b = np.where((randint("other", 3) > 0)[:, None], noun_b, anything)
    rows[mask, B.start : B.start + PLACE] = noun_b[mask]


def compare_anything(rows, compares_nothing, mask, randint):
    """Where compares_nothing (n,) a comparison names any two things, there or not; in place."""
    chosen = (rows[:, KIND] == COMPARE) & compares_nothing
    for noun, prefix in ((A, "one "), (B, "another ")):
        named = draw_anything(randint, prefix)[:, :PLACE] * mask
        rows[chosen, noun.start : noun.start + PLACE] = named[chosen]


def complete_contents(rows, place, any_place, randint):
    """What is at a place? Nothing but the place is named, in one of five cases any; in place."""
    mask = rows[:, KIND] == CONTENT
    place = np.where(randint("somewhere", 5) == 0, any_place, place)
    rows[mask, A] = 0
    rows[mask, A.start + PLACE] = place[mask]


def is_valid(rows, world):
    """Which random rows (n, 10) are questions to ask: (n,).

    None compares a thing with itself or names a held-out pair.
    """
    valid = (rows[:, KIND] != COMPARE) | (rows[:, A] != rows[:, B]).any(1)
    for noun in (rows[:, A], rows[:, B]):
        colour, shape = noun[:, COLOUR], noun[:, SHAPE]
        names_pair = (colour > 0) & (shape > 0)
        valid &= ~names_pair | (diagonal_of(colour, shape) >= world.held_out)
    return valid
