"""Hard negatives: captions almost true, questions about what might be there.

`sample_sugarcrepe`: for a picture, a true caption and a false one, both fluent, that differ in one
thing. `sample_pope`: is there a SHAPE, half of them there and half of them not. (Two pictures and
two captions: winoground.py.)

Captions are lists of noun phrases (n, m, 4) as everywhere; `grammar.caption_texts` writes them, in
reading order. They tell sizes, colours, shapes and places, but no places where attributes change
hands and no sizes where one is added. What a false caption puts in is as frequent in the world as
what it replaces, and none names a held-out pair, so that words alone do not tell it, with two
exceptions: what is added makes a caption longer, and with the cooccurrence prior a replaced shape
has lost its partner.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from data.shapes.false_captions import FOILS, make_foil
from data.shapes.rng import CounterRNG
from data.shapes.scene import Scenes, joined, sample, select
from data.shapes.truth import EXISTENCE, KIND, WIDTH, A, caption_truth
from data.shapes.world import (
    SHAPE,
    NotEnoughScenes,
    is_allowed,
    pair_table,
)

KINDS = tuple(FOILS)
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
