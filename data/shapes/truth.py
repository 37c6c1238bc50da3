"""Typed statements about a scene, and whether they are true, false or undecided in it.

A noun phrase is a row (size, colour, shape, place) in the layout of world.py, 0 where nothing is
said. A statement is a row of ten integers, and one row is one sentence and one question:

    KIND   a: size colour shape place   LINK   b: size colour shape place

LINK is what a question asks for: the number, colour, shape, size or place; in a relation it names
the relation, and the question asks for yes or no. A caption is not such a row but a list of noun
phrases, (m, 4). Nothing here knows a word of any language: that is grammar.py.
"""

import numpy as np

from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE

KINDS = (
    "existence", "count", "colour", "shape", "size", "relation", "compare", "place", "content"
)  # fmt: skip
# What else can be asked for: a caption, of shapes alone, as usual, with places, or a mere list.
PROMPTS = ("brief", "normal", "detailed", "list")
BRIEF, NORMAL, DETAILED, LIST = range(4)
EXISTENCE, COUNT, COLOUR_OF, SHAPE_OF, SIZE_OF, RELATION, COMPARE, PLACE_OF, CONTENT = range(9)
KIND, A, LINK, B, WIDTH = 0, slice(1, 5), 5, slice(6, 10), 10

UNDECIDED, YES, NO = 0, 1, 2
NOTHING = 129  # what is at a place where nothing is; 1..128 number size x colour x shape
NONE, SEVERAL = 130, 131  # the thing that a question presupposes is not there, or not alone
PRESUPPOSING = (COLOUR_OF, SHAPE_OF, SIZE_OF, RELATION, PLACE_OF)


# ---------------------------------------------------------------- noun phrases


def said(noun_phrases):
    """Which rows of (..., 4) describe anything."""
    return (noun_phrases > 0).any(-1)


def without(noun_phrases, *columns):
    """The same noun phrases (..., 4), not saying these columns."""
    noun_phrases = noun_phrases.copy()
    noun_phrases[..., list(columns)] = 0
    return noun_phrases


def split_noun(noun_phrases, way):
    """(n, 4) -> without one of their attributes, and that one alone: (n, 4) each.

    way: (n,), which, where both size and colour are said.
    """
    bare, attribute = noun_phrases.copy(), 0 * noun_phrases
    size, colour = noun_phrases[:, SIZE] > 0, noun_phrases[:, COLOUR] > 0
    column = np.where(size & ~(colour & (np.asarray(way) // 5 % 2 == 1)), SIZE, COLOUR)
    rows = np.arange(len(noun_phrases))
    bare[rows, column], attribute[rows, column] = 0, noun_phrases[rows, column]
    return bare, attribute


def backwards(noun_phrases):
    """The same noun phrases (n, m, 4), said from the last to the first, empty ones last."""
    turn = np.where(said(noun_phrases), -np.arange(noun_phrases.shape[1]), 1)  # (n, m)
    return np.take_along_axis(noun_phrases, turn.argsort(1, kind="stable")[..., None], 1)


def matches(noun_phrases, objects):
    """Which objects (n, m, 4) a noun phrase (n, 4) fits: (n, m)."""
    noun_phrases = noun_phrases[:, None]
    fits = ((noun_phrases == 0) | (noun_phrases == objects)).all(-1)
    return fits & (objects[..., SHAPE] > 0)


def encode_object(objects):
    """Size, colour and shape of objects (n, 4) as one number 1..128: (n,)."""
    return ((objects[:, SIZE] - 1) * 8 + objects[:, COLOUR] - 1) * 8 + objects[:, SHAPE]


def decode_object(code):
    """The number 1..128 of an object -> its row (size, colour, shape, 0)."""
    code = code - 1
    return np.stack([code // 64 + 1, code // 8 % 8 + 1, code % 8 + 1, 0 * code], 1)


def labels_of(noun_phrases):
    """Which sizes, colours and shapes noun phrases or objects (n, m, 4) have: bool (n, 18)."""
    tables = ((SIZE, 2), (COLOUR, 8), (SHAPE, 8))
    there = [(noun_phrases[..., c, None] == np.arange(1, n + 1)).any(1) for c, n in tables]
    return np.concatenate(there, 1)


# ---------------------------------------------------------------- statements


def yes_no(truth):
    return np.where(truth, YES, NO)


def relation_holds(relation, one, other):
    """YES, NO or UNDECIDED for objects (n, 4): decided only in different columns (rows)."""
    sideways = (one[:, PLACE] - 1) % 3 - (other[:, PLACE] - 1) % 3
    downwards = (one[:, PLACE] - 1) // 3 - (other[:, PLACE] - 1) // 3
    # none, left of, right of, above, below
    by_relation = np.stack([0 * sideways, -sideways, sideways, -downwards, downwards])
    signed = by_relation[relation, np.arange(len(one))]
    return np.where(signed == 0, UNDECIDED, yes_no(signed > 0))


def answer(rows, objects):
    """The answer to the question of statement (n, 10) in objects (n, m, 4): (n,), 0 = undecided.

    YES or NO; a number + 1; a colour, shape, size or place; 1..128 or NOTHING for "what is at".
    "The red circle" takes exactly one red circle: otherwise the answer is NONE or SEVERAL. A
    relation takes two objects that differ clearly on its axis.
    """
    n = np.arange(len(rows))
    fits_a, fits_b = matches(rows[:, A], objects), matches(rows[:, B], objects)
    count_a, count_b = fits_a.sum(1), fits_b.sum(1)
    object_a, object_b = objects[n, fits_a.argmax(1)], objects[n, fits_b.argmax(1)]
    by_kind = np.stack(
        [
            yes_no(count_a > 0),
            np.minimum(count_a, 9) + 1,
            object_a[:, COLOUR],
            object_a[:, SHAPE],
            object_a[:, SIZE],
            relation_holds(rows[:, LINK], object_a, object_b),
            yes_no(count_a > count_b),
            object_a[:, PLACE],
            np.where(count_a > 0, encode_object(object_a), NOTHING),
        ]
    )
    answers = by_kind[rows[:, KIND], n]
    presupposes_b = rows[:, KIND] == RELATION
    no_thing = (count_a == 0) | (presupposes_b & (count_b == 0))
    not_alone = (count_a > 1) | (presupposes_b & (count_b > 1))
    denied = np.where(no_thing, NONE, np.where(not_alone, SEVERAL, answers))
    return np.where(np.isin(rows[:, KIND], PRESUPPOSING), denied, answers)


def truth(rows, objects):
    """Is the statement (n, 10) true in objects (n, m, 4)? YES, NO or UNDECIDED, (n,)."""
    kind, answers = rows[:, KIND], answer(rows, objects)
    by_presence = yes_no(matches(rows[:, A], objects).any(1))
    answers = np.where(np.isin(answers, (NONE, SEVERAL)), UNDECIDED, answers)
    by_link = np.where(answers == UNDECIDED, UNDECIDED, yes_no(answers == rows[:, LINK]))
    is_yes_no = np.isin(kind, (EXISTENCE, RELATION, COMPARE))
    return np.where(kind == CONTENT, by_presence, np.where(is_yes_no, answers, by_link))


# ---------------------------------------------------------------- captions


def asked_caption(level, objects):
    """What a caption says where it is asked for as level (n,) of PROMPTS: (n, m, 4).

    "brief" and "list" say shapes, "normal" all but places, "detailed" all.
    """
    level, phrases = np.asarray(level)[:, None], objects.copy()
    phrases[..., PLACE] *= level == DETAILED
    phrases[..., [SIZE, COLOUR]] *= ((level == NORMAL) | (level == DETAILED))[..., None]
    return phrases


def caption_truth(noun_phrases, objects):
    """Which captions (c, m, 4) are true of which scenes (s, k, 4): bool (c, s).

    Each noun phrase needs an object of its own: as many objects fit it as the caption has phrases
    like it. (Exact for captions whose phrases are equally detailed, as all captions here are.)
    """
    there = said(noun_phrases)
    equal = (noun_phrases[:, :, None] == noun_phrases[:, None]).all(-1)  # (c, m, m)
    needed = (equal & there[:, None]).sum(2)  # (c, m)
    fits = count_matches(noun_phrases.reshape(-1, 4), objects)
    enough = fits.reshape(*noun_phrases.shape[:2], -1) >= needed[..., None]  # (c, m, s)
    return (enough | ~there[..., None]).all(1)


def count_matches(noun_phrases, objects):
    """How many objects of each scene (s, k, 4) each noun phrase (p, 4) fits: (p, s)."""
    fits = np.zeros((len(noun_phrases), len(objects)), np.int64)
    noun_phrases = noun_phrases[:, None]
    for k in range(objects.shape[1]):  # object by object, which keeps the arrays small
        one = objects[None, :, k]
        fits += ((noun_phrases == 0) | (noun_phrases == one)).all(-1) & (one[..., SHAPE] > 0)
    return fits
