"""Hard negatives: captions almost true, pictures almost alike, questions about what might be there.

`sample_sugarcrepe`: for a picture, a true caption and a false one, both fluent, that differ in one
thing. `sample_winoground`: two pictures, two captions, each true of its own picture only.
`sample_pope`: is there a SHAPE, half of them there and half of them not.

Captions are lists of noun phrases (n, m, 4) as everywhere; `grammar.caption` writes them, in
reading order. They tell sizes, colours, shapes and places, but no places where attributes change
hands and no sizes where one is added. What a false caption puts in is as frequent in the world as
what it replaces, and none names a held-out pair, so that words alone do not tell it, with two
exceptions: what is added makes a caption longer, and with the cooccurrence prior a replaced shape
has lost its partner.
"""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from data.shapes.false_captions import FOILS, make_foil
from data.shapes.rng import CounterRNG
from data.shapes.scene import Scenes, joined, sample, select
from data.shapes.truth import EXISTENCE, KIND, WIDTH, A, caption_truth, without
from data.shapes.world import (
    COLOUR,
    EDITS,
    PLACE,
    SHAPE,
    NotEnoughScenes,
    in_reading_order,
    is_allowed,
    pair_table,
)

KINDS = tuple(FOILS)
CONTRASTS = {
    "attributes": ("swap_colour", "swap_shape", "swap_size"),
    "relation": ("swap_place",),
    "one_more_or_less": (),
}
NEGATIVES = ("random", "popular", "adversarial")


def is_true(caption, objects):
    """Is a caption (m, 4) true of a scene (k, 4)?"""
    return bool(caption_truth(caption[None], objects[None])[0, 0])


# ---------------------------------------------------------------- SugarCrepe (Hsieh et al. 2023)


@dataclass
class HardNegatives:
    """scenes of n pictures; true, false: (n, m, 4), what the two captions say."""

    scenes: Scenes
    true: np.ndarray
    false: np.ndarray


def sample_sugarcrepe(world, seed, split, kind, number):
    """The first `number` pictures of a split that allow this kind of hard negative: HardNegatives.

    NotEnoughScenes if there are too few.
    """
    found, start = [], 0
    while sum(len(part.true) for part in found) < number and start < 40 * number + 2000:
        indices = np.arange(start, start + 2 * number + 50, 2)  # one picture of each minimal pair
        found.append(find_hard_negatives(world, seed, split, kind, indices))
        start = indices[-1] + 2
    if sum(len(part.true) for part in found) < number:
        raise NotEnoughScenes(
            f"this world has too few pictures for hard negatives of the kind {kind!r}; "
            "it takes more objects in a picture"
        )
    scenes = select(joined([part.scenes for part in found]), slice(number))
    true = np.concatenate([part.true for part in found])[:number]
    return HardNegatives(scenes, true, np.concatenate([part.false for part in found])[:number])


def find_hard_negatives(world, seed, split, kind, indices):
    """Those of these samples that have a false caption of this kind: HardNegatives."""
    scenes = sample(world, seed, split, indices)
    rng, pairs = CounterRNG(seed, split, indices), pair_table(world, "train")
    true, false = make_foil(scenes.objects, rng, kind, pairs)
    keep = np.array([not is_true(*both) for both in zip(false, scenes.objects, strict=True)])
    if split != "held_out":
        keep &= is_allowed(world, "train", false)
    return HardNegatives(select(scenes, keep), true[keep], false[keep])


# ---------------------------------------------------------------- Winoground (Thrush et al. 2022)


def sample_winoground(world, seed, split, contrast, number):
    """Two pictures each: scenes, scenes, captions (n, m, 4), captions; 0 is true of 0 only, 1 of 1.

    "attributes": two objects exchanged a colour, a shape or a size; the captions tell all but
    places. "relation": they changed places; the captions tell them. "one_more_or_less": an object
    is gone; the caption that does not mention it is true of picture 0 only if it is read as
    complete. NotEnoughScenes if there are too few.
    """
    first, second = [], []
    for start in range(0, 64 * number + 4096, 2048):
        one, two, suits = contrasting_pairs(world, seed, split, contrast, start)
        first.append(select(one, suits))
        second.append(select(two, suits))
        if sum(len(scenes.objects) for scenes in first) >= number:
            one, two = (select(joined(parts), slice(number)) for parts in (first, second))
            omit = (PLACE,) if contrast == "attributes" else ()
            return one, two, without(one.objects, *omit), without(two.objects, *omit)
    raise NotEnoughScenes(
        f"this world has too few pictures for the contrast {contrast!r}; "
        "it takes more objects in a picture"
    )


def contrasting_pairs(world, seed, split, contrast, start):
    """1,024 pairs of scenes from index `start` on, and which of them show the contrast: (n,)."""
    indices = np.arange(start, start + 2048, 2)
    one = sample(world, seed, split, indices)
    if contrast == "one_more_or_less":
        return one, *remove_object(one)
    two = sample(world, seed, split, indices + 1)
    suits = np.isin(one.edit, [EDITS.index(edit) for edit in CONTRASTS[contrast]])
    if contrast == "attributes":
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


# ---------------------------------------------------------------- POPE (Li et al. 2023)


def sample_pope(world, seed, split, kind, number):
    """`number` squares of two pictures and two shapes; each picture has one shape, lacks the other.

    Returns scenes (2 * number, a square's two side by side), the shapes 1..8 (2 * number, 2) that
    are asked for, and which are there, (2 * number, 2). NotEnoughScenes if there are too few.

    kind: how a picture's missing shape is chosen: at random, the one most frequent in training, or
    the one that training shows most often beside what is there. Every picture is asked for one
    shape that it has and one that it has not, and so is every shape in a square: neither words
    alone nor a picture alone are worth more than one half.
    """
    for pool in (8 * number, 64 * number, 512 * number):
        indices = np.arange(0, 2 * pool, 2)
        scenes = sample(world, seed, split, indices)
        there = shapes_there(scenes.objects)
        score = negative_scores(world, CounterRNG(seed, split, indices), kind, there)
        missing = np.where(there, -1, score).argmax(1)
        pictures = np.array(pair_squares(there, missing)[:number], np.int64).reshape(-1, 2)
        if len(pictures) == number:
            shapes, pictures = missing[pictures].repeat(2, 0), pictures.reshape(-1)
            is_there = np.take_along_axis(there[pictures], shapes, 1)
            return select(scenes, pictures), shapes + 1, is_there
    raise NotEnoughScenes(
        f"this world has too few pictures for questions about presence with {kind} negatives"
    )


def negative_scores(world, rng, kind, there):
    """How much each shape is worth as a negative for pictures with the shapes `there`: (n, 8).

    Frequencies are counted in 4,096 training scenes of seed 0, so that models of all seeds are
    asked the same. (In a uniform world they differ by chance alone; see World.prior.)
    """
    if kind == "random":
        return rng.randint("absent", 2**31, (8,))
    known = shapes_there(sample(world, 0, "train", np.arange(0, 8192, 2)).objects)
    # (8, 8); the diagonal is how often each shape occurs.
    cooccurrence = known.T.astype(float) @ known
    popular = np.tile(cooccurrence.diagonal(), (len(there), 1))
    return {"popular": popular, "adversarial": there.astype(float) @ cooccurrence}[kind]


def pair_squares(there, missing):
    """Pairs of pictures (p, q), each showing the shape that the other one is `missing` (n,).

    there: (n, 8). In order of q, each picture once at most.
    """
    waiting, used, found = defaultdict(list), set(), []
    for q, (shows, lacks) in enumerate(zip(there, missing.tolist(), strict=True)):
        if shows[lacks]:  # all eight are there: nothing is missing
            continue
        shown = np.flatnonzero(shows).tolist()
        for shape in shown:
            queue = waiting[shape, lacks]  # pictures without this shape that show what q lacks
            while queue and queue[-1] in used:
                queue.pop()
            if queue:
                found.append((queue.pop(), q))
                used.update(found[-1])
                break
        else:
            for shape in shown:
                waiting[lacks, shape].append(q)
    return found


def existence_statements(shapes):
    """The statements "there is a SHAPE" for shapes (k,): (k, 10)."""
    rows = np.zeros((len(shapes), WIDTH), np.int64)
    rows[:, KIND], rows[:, A.start + SHAPE] = EXISTENCE, shapes
    return rows


def shapes_there(objects):
    """Scenes (n, m, 4) -> which of the 8 shapes they show: bool (n, 8)."""
    return (objects[..., SHAPE, None] == np.arange(1, 9)).any(1)
