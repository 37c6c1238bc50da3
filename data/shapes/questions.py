"""Questions about scenes, with answers balanced by construction.

`about(...)` asks many questions about each picture: an answer is wished for first, then a question that has it is looked for.
`pairs(...)` asks one question about both pictures of a minimal pair, where the answers differ. So a model that
does not look is right in at most one of the two, and chance is 1 / (number of possible answers).
"""

from dataclasses import dataclass

import numpy as np

from data.shapes.grammar import (
    A, ANSWERS, B, COLOUR_OF, COMPARE, CONTENT, COUNT, EXISTENCE, KIND, KINDS, LINK, RELATION, SHAPE_OF, SIZE_OF, UNDECIDED, WIDTH, YES, answer, matches,
)  # fmt: skip
from data.shapes.scene import COLOUR, EDITS, PLACE, SHAPE, SIZE, CounterRNG, NotEnoughScenes, diagonal_of, sample

FAMILIES = KINDS[:7]  # what VQA accuracy is about; places are asked for in training only
TRAIN_FAMILIES = KINDS + ("count", "relation")  # what training asks in turn: these two are the slowest to learn
TRIES, PAIR_TRIES = 6, 24  # proposals for each question in training, in a test; the first that fits is asked

# Which edits of a pair can change the answer of which family.
EDITS_OF = {
    "existence": ("swap_colour", "swap_shape", "replace"),
    "count": ("replace_by_twin",),
    "colour": ("swap_colour",),
    "shape": ("swap_shape",),
    "size": ("swap_size",),
    "relation": ("swap_place",),
    "compare": ("replace", "replace_by_twin"),
}
CHANCE = {family: 1 / len(ANSWERS[KINDS.index(family)]) for family in FAMILIES} | {"count": 1 / 4}


@dataclass
class Pairs:
    """Minimal pairs of one family: `indices` (n,) of the even samples, `rows` (n, 10), `answers` (n, 2) for 2k and 2k+1.

    hard (n,): a count of two or three, a comparison of things that are in both pictures, so that it takes counting.
    """

    indices: np.ndarray
    rows: np.ndarray
    answers: np.ndarray
    needs_counting: np.ndarray


def propose_questions(kind, objects, randint, single=False):
    """Random statements of each row's kind about objects (n, m, 4), for kind (n,): (n, 10).

    `roll(stream, sides)` gives one random integer for each row. `single` (a bool for each row, or one for all): where a
    count is asked, name the colour or the shape alone, so that the words of the question tell nothing about its answer.
    """
    n = np.arange(len(objects))
    count = (objects[..., SHAPE] > 0).sum(1)
    first = randint("i", count)
    i = objects[n, first]
    j = objects[n, (first + 1 + randint("j", np.maximum(count - 1, 1))) % count]
    anything = np.stack([randint("size", 2), randint("colour", 8), randint("shape", 8), randint("place", 9)], 1) + 1

    # The mixed thing takes each attribute from object i, object j or from nowhere: plausible, often not there.
    source = randint("colour from", 4), randint("shape from", 4)
    mixed = i.copy()
    for column, come_from in zip((COLOUR, SHAPE), source):
        mixed[:, column] = np.choose(np.minimum(come_from, 2), [i[:, column], j[:, column], anything[:, column]])

    rows = np.zeros((len(objects), WIDTH), np.int64)
    rows[:, KIND] = kind
    one = np.where(np.isin(kind, (EXISTENCE, COUNT, COMPARE))[:, None], mixed, i)
    # What of the thing is named: colour, shape, size + one of the two, or more. What is asked for is never named.
    named = np.array([(0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 1, 1), (1, 1, 0), (1, 0, 1), (1, 1, 1)])
    which = randint("named", np.where(((kind == COUNT) & single) | (kind == COMPARE), 2, 7))
    mask_a, mask_b = named[which], named[randint("named b", 7)]
    for asked, column in ((COLOUR_OF, COLOUR), (SHAPE_OF, SHAPE), (SIZE_OF, SIZE)):
        mask_a[kind == asked, column] = 0
    empty = mask_a.sum(1) == 0
    mask_a[empty, np.where(kind[empty] == SHAPE_OF, COLOUR, SHAPE)] = 1
    rows[:, A][:, :3] = one[:, :3] * mask_a
    is_relation, is_compare, is_content = kind == RELATION, kind == COMPARE, kind == CONTENT
    rows[is_relation, B.start : B.start + 3] = (j[:, :3] * mask_b)[is_relation]
    rows[is_relation, LINK] = randint("link", 4)[is_relation] + 1
    other = np.where((randint("other", 3) > 0)[:, None], j, anything)
    rows[is_compare, B.start : B.start + 3] = (other[:, :3] * mask_a)[is_compare]
    place = np.where(randint("somewhere", 5) == 0, anything[:, PLACE], i[:, PLACE])
    rows[is_content, 1:5] = np.stack([0 * place, 0 * place, 0 * place, place], 1)[is_content]
    return rows


def is_valid(rows, world):
    """Not every row the dice make is a question to ask: none compares a thing with itself or names a held-out pair."""
    sensible = (rows[:, KIND] != COMPARE) | (rows[:, A] != rows[:, B]).any(1)
    for noun in (rows[:, A], rows[:, B]):
        named = (noun[:, COLOUR] > 0) & (noun[:, SHAPE] > 0)
        sensible &= ~named | (diagonal_of(noun[:, COLOUR], noun[:, SHAPE]) >= world.held_out)
    return sensible


def first_good(good):
    """The first try (n, TRIES) that is good, and whether there is one."""
    return good.argmax(1), good.any(1)


def sample_questions(world, seed, split, indices, objects, families, number):
    """`number` questions about each picture: statements (b, number, 10) and answers (b, number).

    The families take turns. A wish (yes or no; how many) is drawn before the question, so that answers are as
    balanced as the scene allows; where no try fits, the question becomes "is there a COLOUR object ?".
    """
    b, kinds = len(objects), np.array([KINDS.index(f) for f in families])
    rng = CounterRNG(seed, split, indices)
    turn = rng.randint("turn", len(kinds))[:, None] + np.arange(number)
    kind = np.repeat(kinds[turn % len(kinds)].reshape(-1), TRIES)
    randint = lambda tag, sides: randint_flat(rng, "about " + tag, sides, number * TRIES)
    scene = np.repeat(objects, number * TRIES, 0)
    rows = propose_questions(kind, scene, randint, single=randint("single", 2) == 0)
    answers = answer(rows, scene)
    target_answer = np.repeat(rng.randint("wish", 4, (number,)).reshape(-1), TRIES)
    good = is_valid(rows, world) & (answers != UNDECIDED)
    # Yes or no; zero or one; but where two or more can be counted, that in three of four cases, for it is rare.
    most = np.repeat((answers * good).reshape(-1, TRIES).max(1), TRIES)
    wanted = np.where((kind == COUNT) & (most > 2) & (target_answer > 0), most, target_answer % 2 + 1)
    has_wish = np.isin(kind, (EXISTENCE, COUNT, RELATION, COMPARE))
    best, as_wished = first_good((good & (~has_wish | (answers == wanted))).reshape(-1, TRIES))
    second, possible = first_good(good.reshape(-1, TRIES))
    choice = np.arange(b * number) * TRIES + np.where(as_wished, best, second)
    rows, answers = rows[choice], answers[choice]
    # Nothing could be asked (a relation in a picture of one object): ask whether something is there.
    lost = ~possible
    if lost.any():
        rows[lost] = 0
        noun_phrase = np.repeat(objects[:, 0], number, 0)[lost]
        coin = target_answer[::TRIES][lost] % 2 == 0
        rows[lost, 1 + COLOUR] = np.where(coin, noun_phrase[:, COLOUR], noun_phrase[:, COLOUR] % 8 + 1)
        answers[lost] = answer(rows[lost], np.repeat(objects, number, 0)[lost])
    return rows.reshape(b, number, WIDTH), answers.reshape(b, number)


def randint_flat(rng, tag, sides, each):
    """A roll for each of b * each rows where `sides` may differ from row to row: (b * each,)."""
    big = rng.randint(tag, 2**31, (each,)).reshape(-1)
    return big * np.asarray(sides) >> 31


def chance(world, family, answers):
    """What a guess is right in: 1 / (number of answers); where pairs are held out a shape has that many colours less, and a colour shapes. Where not all
    is equally frequent it is the share of the most frequent answer (there the words of a question about a count tell a little, too: "red" hints at many)."""
    if world.prior != "uniform":
        return float(np.bincount(answers.reshape(-1)).max() / answers.size)
    return 1 / (8 - world.held_out) if family in ("colour", "shape") else CHANCE[family]


def pair_questions(world, seed, split, family, pair_indices):
    """The question of `family` about pairs (2k, 2k+1), k in pair_indices: Pairs of those where there is one."""
    even = 2 * np.asarray(pair_indices, np.int64)
    scenes = sample(world, seed, split, even)
    crowded = world.max_objects > 2  # two or three alike are possible
    edits = EDITS_OF[family] if family != "count" or crowded else ("replace",)
    suits = np.isin(scenes.edit, [EDITS.index(e) for e in edits])
    even, before = even[suits], scenes.objects[suits]
    after = sample(world, seed, split, even + 1).objects
    b = len(even)
    rng = CounterRNG(seed, split, even)
    randint = lambda tag, sides: randint_flat(rng, f"pair {family} {tag}", sides, PAIR_TRIES)
    kind = np.full(b * PAIR_TRIES, KINDS.index(family))
    told = np.where(rng.randint("told", 2)[:, None, None] == 0, before, after)  # whose object the question names
    rows = propose_questions(kind, np.repeat(told, PAIR_TRIES, 0), randint, single=True)
    sides = [np.repeat(side, PAIR_TRIES, 0) for side in (before, after)]
    answers = np.stack([answer(rows, side) for side in sides], 1)
    good = (is_valid(rows, world) | (split == "held_out")) & (answers != UNDECIDED).all(1) & (answers[:, 0] != answers[:, 1])
    # A picture alone must not tell the answer: both a question about few and one about many can be asked of it (with two answers each), both one
    # where this picture has more and one where the other has. Then a coin decides.
    needs_counting = np.zeros(len(rows), bool)
    first = answers[:, 0] == YES
    either_way = lambda fits: np.repeat(np.logical_and(*((fits & side).reshape(b, PAIR_TRIES).any(1) for side in (first, ~first))), PAIR_TRIES)
    if family == "count":
        first = np.sort(answers - 1, 1)[:, 1] == 1
        needs_counting = ~first
        good &= first | (crowded & (np.sort(answers - 1, 1) == [2, 3]).all(1))
    if family == "compare" and crowded:
        needs_counting = np.logical_and.reduce([matches(rows[:, noun], side).any(1) for noun in (A, B) for side in sides])
        good &= needs_counting == either_way(good & needs_counting)  # they are rare: asked wherever they can be
    if family == "compare" or (family == "count" and crowded):
        good &= either_way(good) & (first == np.repeat(rng.randint(f"pair {family} coin", 2) == 0, PAIR_TRIES))
    best, found = first_good(good.reshape(-1, PAIR_TRIES))
    choice = (np.arange(b) * PAIR_TRIES + best)[found]
    return Pairs(even[found], rows[choice], answers[choice], needs_counting[choice])


def sample_minimal_pairs(world, seed, split, family, number):
    """The first `number` minimal pairs of a family in a split, answers balanced: Pairs.

    Raises TooPoor if the world is too poor for the family (a relation with one object, say).
    """
    found, start, chunk = [], 0, max(1024, 4 * number)
    while start < 64 * chunk:
        found.append(pair_questions(world, seed, split, family, np.arange(start, start + chunk)))
        start += chunk
        indices, rows, answers, needs_counting = (np.concatenate([getattr(p, name) for p in found]) for name in ("indices", "rows", "answers", "needs_counting"))
        keep = np.arange(len(indices))
        if family in ("count", "compare") and world.max_objects > 2:
            half = (number + 1) // 2
            keep = np.sort(np.concatenate([np.flatnonzero(~needs_counting)[:half], np.flatnonzero(needs_counting)[: number - half]]))
        if len(keep) >= number:
            keep = keep[:number]
            return Pairs(indices[keep], rows[keep], answers[keep], needs_counting[keep])
    raise NotEnoughScenes(f"this world has no questions of the family {family!r}; it takes more objects in a picture")
