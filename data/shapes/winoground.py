"""Winoground: two pictures that differ in one edit and two captions, each true of its own picture.

Thrush et al., "Winoground: probing vision and language models for visio-linguistic
compositionality" (2022). Captions are lists of noun phrases (n, m, 4) as everywhere.
"""

from dataclasses import replace

import numpy as np

from data.shapes.hard_negatives import is_true
from data.shapes.scene import joined, sample, select
from data.shapes.truth import without
from data.shapes.world import COLOUR, EDITS, PLACE, SHAPE, NotEnoughScenes, in_reading_order


def all_said(objects, other):
    return objects


def without_places(objects, other):
    return without(objects, PLACE)


def in_other_order(objects, other):
    """All that is to say of objects (n, m, 4), of which two stand in each other's place in `other`,
    in the order in which they stand there: (n, m, 4)."""
    moved, n = (objects != other).any(2), np.arange(len(objects))  # (n, m)
    first, last = moved.argmax(1), moved.shape[1] - 1 - moved[:, ::-1].argmax(1)
    said = objects.copy()
    said[n, first], said[n, last] = objects[n, last], objects[n, first]
    return said


# By name: which edits make such pairs, and what a caption says of objects (n, m, 4), if the other
# picture's are (n, m, 4).
CONTRASTS = {
    "attributes": (("swap_colour", "swap_shape", "swap_size"), without_places),
    "relation": (("swap_place",), all_said),
    "relation_in_other_order": (("swap_place",), in_other_order),
    "one_more_or_less": ((), all_said),
}
# No contrast: both captions are true of both pictures, and each has its own picture's order.
YARDSTICKS = {"relation_by_order_alone": (("swap_place",), without_places)}


def sample_winoground(world, seed, split, contrast, number):
    """Two pictures each: scenes, scenes, captions (n, m, 4), captions; 0 is true of 0 only, 1 of 1.

    "attributes": two objects exchanged a colour, a shape or a size; the captions tell all but
    places. "relation": they changed places; the captions tell them, but reading order does, too.
    "relation_in_other_order": the same, and each caption names things in the order in which the
    other picture has them, so that who goes by the order of mention is always wrong.
    "relation_by_order_alone", a yardstick: what reading order is worth, in captions that tell no
    places. "one_more_or_less": an object is gone; the caption that does not mention it is true of
    picture 0 only if it is read as complete. NotEnoughScenes if there are too few.
    """
    edits, say = (CONTRASTS | YARDSTICKS)[contrast]
    first, second = [], []
    for start in range(0, 64 * number + 4096, 2048):
        one, two, suits = contrasting_pairs(world, seed, split, edits, start)
        first.append(select(one, suits))
        second.append(select(two, suits))
        if sum(len(scenes.objects) for scenes in first) >= number:
            one, two = (select(joined(parts), slice(number)) for parts in (first, second))
            return one, two, say(one.objects, two.objects), say(two.objects, one.objects)
    raise NotEnoughScenes(
        f"this world has too few pictures for the contrast {contrast!r}; "
        "it takes more objects in a picture"
    )


def contrasting_pairs(world, seed, split, edits, start):
    """1,024 pairs of scenes from index `start` on, and which of them differ in one of the edits:
    (n,). No edits: in one object more or less."""
    indices = np.arange(start, start + 2048, 2)
    one = sample(world, seed, split, indices)
    if not edits:
        return one, *remove_object(one)
    two = sample(world, seed, split, indices + 1)
    suits = np.isin(one.edit, [EDITS.index(edit) for edit in edits])
    if "swap_place" not in edits:
        suits &= tell_apart(one.objects, two.objects)
    return one, two, suits


def tell_apart(one, two):
    """Of which scenes (n, m, 4) captions without places are true of one only: (n,).

    Where two circles exchange their colours, say, both captions are true of both pictures.
    """
    captions, others = np.concatenate([one, two]), np.concatenate([two, one])
    pairs = zip(without(captions, PLACE), others, strict=True)
    false = np.array([not is_true(caption, objects) for caption, objects in pairs])
    return false[: len(one)] & false[len(one) :]


def remove_object(scenes):
    """The same scenes without one object, and which of them have one that can go: bool (n,).

    Its colour + shape + place must be a multiple of 4, so that the scene stays in its split.
    """
    objects = scenes.objects
    can_go = (objects[..., SHAPE] > 0) & (objects[..., COLOUR:].sum(-1) % 4 == 0)
    left = objects.copy()
    left[np.arange(len(left)), can_go.argmax(1)] = 0
    return replace(scenes, objects=in_reading_order(left)), can_go.any(1) & (scenes.count > 1)
