"""Counterparts: captions that are almost true, pictures that are almost the same, questions about what might be there.

`foils` is SugarCrepe in this world: for a picture, a true caption and a false one, both fluent, that differ in one thing.
`counterfactuals` is Winoground: two pictures, two captions, each true of its own picture only.
`presence` is POPE: is there a SHAPE, half of them there and half of them not.

Captions are lists of noun phrases (n, m, 4) as everywhere; `language.caption` writes them, in reading order. They tell sizes, colours,
shapes and places, but no places where attributes change hands and no sizes where one is added. What a foil puts in is as frequent in the world as what it
replaces, and no foil names a held-out pair, so that words alone do not tell it, with two exceptions: what is added makes a caption longer, and in a world of friends a
replaced shape has lost its friend.
"""

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np

from data.shapes.grammar import EXISTENCE, KIND, WIDTH, A, caption_truth, without
from data.shapes.scene import COLOUR, EDITS, PLACE, SHAPE, SIZE, CounterRNG, Scenes, NotEnoughScenes, in_reading_order, is_allowed, pair_table, sample

KINDS = ("replace_object", "replace_attribute", "replace_relation", "swap_object", "swap_attribute", "add_object", "add_attribute")
CONTRASTS = {
    "attributes": ("swap_colour", "swap_shape", "swap_size"),
    "relation": ("swap_place",),
    "one_more_or_less": (),
}
NEGATIVES = ("random", "popular", "adversarial")


@dataclass
class Foils:
    """scenes of n pictures; true, false: (n, m, 4), what the two captions say."""

    scenes: Scenes
    true: np.ndarray
    false: np.ndarray


def select(scenes, keep):
    """Those scenes that `keep` (a mask, indices or a slice) names."""
    return Scenes(scenes.objects[keep], scenes.edit[keep], scenes.style[keep], scenes.background[keep])


def joined(parts):
    """Several Scenes as one."""
    return Scenes(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("objects", "edit", "style", "background")))


def sample_sugarcrepe(world, seed, split, kind, number):
    """The first `number` pictures of a split that allow this kind of foil: Foils. TooPoor if there are too few."""
    found, start = [], 0
    while sum(len(f.true) for f in found) < number and start < 40 * number + 2000:
        indices = np.arange(start, start + 2 * number + 50, 2)  # one picture of each minimal pair
        start = indices[-1] + 2
        scenes = sample(world, seed, split, indices)
        true, false = make_foil(scenes.objects, CounterRNG(seed, split, indices), kind, pair_table(world, "train"))
        keep = np.array([not is_true(f, o) for f, o in zip(false, scenes.objects)])
        if split != "held_out":
            keep &= is_allowed(world, "train", false)
        found.append(Foils(select(scenes, keep), true[keep], false[keep]))
    if sum(len(f.true) for f in found) < number:
        raise NotEnoughScenes(f"this world has too few pictures for foils of the kind {kind!r}; it takes more objects in a picture")
    true, false = (np.concatenate([getattr(f, side) for f in found])[:number] for side in ("true", "false"))
    return Foils(select(joined([f.scenes for f in found]), slice(number)), true, false)


def make_foil(objects, rng, kind, pairs):
    """What a true caption says and what the foil says of scenes (n, m, 4): (n, m, 4) and (n, m or m + 1, 4). pairs: colours and shapes to draw from, (k, 2).

    Not every scene has room for every kind: the caller throws away foils that came out true.
    """
    n = np.arange(len(objects))
    count = (objects[..., SHAPE] > 0).sum(1)
    i = rng.randint("foil of", count)
    j = (i + 1 + rng.randint("foil with", np.maximum(count - 1, 1))) % count
    drawn = pairs[rng.randint("drawn", len(pairs))]
    true, false = objects.copy(), objects.copy()
    action, _, what = kind.partition("_")
    coin = rng.randint("which attribute", 2) == 0
    if action == "replace" and what == "object":
        false[n, i, SHAPE] = drawn[:, 1]
    elif action == "replace" and what == "attribute":
        false[n, i, COLOUR] = np.where(coin, drawn[:, 0], objects[n, i, COLOUR])
        false[n, i, SIZE] = np.where(coin, objects[n, i, SIZE], 3 - objects[n, i, SIZE])
    elif action == "replace":  # where it is: another place, one that is free
        false[n, i, PLACE] = (objects[n, i, PLACE] + rng.randint("other place", 8)) % 9 + 1
        taken = (false[n, i, PLACE][:, None] == objects[..., PLACE]).any(1)
        false[taken] = objects[taken]
    elif action == "swap":
        columns = {"object": [(SIZE, COLOUR, SHAPE)] * 2, "attribute": [(COLOUR,), (SIZE,)]}[what]
        for mine, group in zip((coin, ~coin), columns):
            for column in group:
                false[n[mine], i[mine], column], false[n[mine], j[mine], column] = objects[n[mine], j[mine], column], objects[n[mine], i[mine], column]
    elif what == "object":  # one more, at a place that is free
        new = np.stack([rng.randint("new size", 2) + 1, *drawn.T, rng.randint("new place", 9) + 1], 1)
        new[(new[:, PLACE][:, None] == objects[..., PLACE]).any(1)] = 0
        false = np.concatenate([false, new[:, None]], 1)
    else:  # the true caption tells no size; the foil tells one, a wrong one
        true[..., SIZE] = 0
        false = true.copy()
        false[n, i, SIZE] = 3 - objects[n, i, SIZE]
    false = in_reading_order(false)
    return (without(true, PLACE), without(false, PLACE)) if kind == "swap_attribute" else (true, false)


def sample_winoground(world, seed, split, contrast, number):
    """Two pictures each, (scenes, scenes, captions (n, m, 4), captions): caption 0 is true of picture 0 only, 1 of 1 only.

    "attributes": two objects exchanged a colour, a shape or a size; the captions tell all but places. "relation": they changed places; the captions tell
    them. "one_more_or_less": an object is gone; the caption that does not mention it is true of picture 0 only if it is read as complete. TooPoor if the
    world is.
    """
    first, second = [], []
    for start in range(0, 64 * number + 4096, 2048):
        indices = np.arange(start, start + 2048, 2)
        one = sample(world, seed, split, indices)
        two = sample(world, seed, split, indices + 1)
        suits = np.isin(one.edit, [EDITS.index(e) for e in CONTRASTS[contrast]])
        if contrast == "one_more_or_less":
            two, suits = remove_object(one)
        if contrast == "attributes":  # where the captions are true of both pictures, as when two circles exchange their colours, they tell nothing
            plain = [without(s.objects, PLACE) for s in (one, two)]
            suits = suits & np.array([not is_true(a, t) and not is_true(b, o) for a, b, o, t in zip(*plain, one.objects, two.objects)])
        first.append(select(one, suits))
        second.append(select(two, suits))
        if sum(len(s.objects) for s in first) >= number:
            one, two = (select(joined(side), slice(number)) for side in (first, second))
            omit = (PLACE,) if contrast == "attributes" else ()
            return one, two, without(one.objects, *omit), without(two.objects, *omit)
    raise NotEnoughScenes(f"this world has too few pictures for the contrast {contrast!r}; it takes more objects in a picture")


def is_true(caption, objects):
    """Is a caption (m, 4) true of a scene (k, 4)?"""
    return bool(caption_truth(caption[None], objects[None])[0, 0])


def remove_object(scenes):
    """The same scenes without one object, and which of them have one that can go: its colour + shape + place must be a
    multiple of 4, so that the scene stays in its split."""
    objects = scenes.objects
    can_go = (objects[..., SHAPE] > 0) & (objects[..., COLOUR:].sum(-1) % 4 == 0)
    suits = can_go.any(1) & ((objects[..., SHAPE] > 0).sum(1) > 1)
    left = objects.copy()
    left[np.arange(len(left)), can_go.argmax(1)] = 0
    return replace(scenes, objects=in_reading_order(left)), suits


def sample_pope(world, seed, split, kind, number):
    """POPE (Li et al. 2023): `number` squares of two pictures and two shapes, each picture with one of the shapes and without the other: scenes (2 * number, a
    square's two side by side), the shapes 1..8 (2 * number, 2) that are asked for, and which are there, bool of the same shape. TooPoor if there are too few.

    kind: how a picture's missing shape is chosen: at random, the one most frequent in training, or the one that training shows most often beside what is
    there. Every picture is asked for one shape that it has and one that it has not, and so is every shape in a square: neither words alone nor
    a picture alone are worth more than one half. Frequencies are counted in 4,096 training scenes of seed 0, so that models of all
    seeds are asked the same. (In a uniform world they differ by chance alone; see World.prior.)
    """
    known = shapes_there(sample(world, 0, "train", np.arange(0, 8192, 2)).objects)
    beside = known.T.astype(float) @ known  # (8, 8); on the diagonal how often each shape occurs
    for pool in (8 * number, 64 * number, 512 * number):
        indices = np.arange(0, 2 * pool, 2)
        scenes = sample(world, seed, split, indices)
        there = shapes_there(scenes.objects)
        wishes = dict(
            random=CounterRNG(seed, split, indices).randint("absent", 2**31, (8,)),
            popular=np.tile(beside.diagonal(), (pool, 1)),
            adversarial=there.astype(float) @ beside,
        )
        missing = np.where(there, -1, wishes[kind]).argmax(1)
        pictures = np.array(pair_squares(there, missing)[:number], np.int64).reshape(-1, 2)
        if len(pictures) == number:
            shapes, pictures = missing[pictures].repeat(2, 0), pictures.reshape(-1)
            return select(scenes, pictures), shapes + 1, np.take_along_axis(there[pictures], shapes, 1)
    raise NotEnoughScenes(f"this world has too few pictures for questions about presence with {kind} negatives")


def pair_squares(there, missing):
    """Pairs of pictures (p, q), each showing the shape that the other one is `missing` (n,): there (n, 8). In order of q, each picture once at most."""
    waiting, used, found = defaultdict(list), set(), []
    for q, (shows, lacks) in enumerate(zip(there, missing.tolist())):
        mine = np.flatnonzero(shows).tolist()
        for shape in mine if not shows[lacks] else ():  # else all eight are there
            queue = waiting[shape, lacks]  # pictures without this shape that show what q lacks
            while queue and queue[-1] in used:
                queue.pop()
            if queue:
                found.append((queue.pop(), q))
                used.update(found[-1])
                break
        else:
            for shape in mine:
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
