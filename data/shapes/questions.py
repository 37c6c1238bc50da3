"""Questions about scenes, with answers balanced by construction.

`sample_questions` asks many questions about each picture: a target answer is drawn first, then a
question that has it is looked for. `sample_minimal_pairs` asks one question about both pictures of
a minimal pair, where the answers differ. So a model that does not look is right in at most one of
the two, and chance is 1 / (number of possible answers).
"""

from dataclasses import dataclass

import numpy as np

from data.shapes import truth
from data.shapes.english import ANSWERS
from data.shapes.proposals import is_valid, propose_questions
from data.shapes.rng import CounterRNG
from data.shapes.scene import sample
from data.shapes.truth import KINDS, A, B, answer
from data.shapes.world import COLOUR, EDITS, NotEnoughScenes

FAMILIES = KINDS[:7]  # what VQA accuracy is about; places are asked for in training only
# What training asks in turn: counts and relations twice, for they are the slowest to learn.
TRAIN_FAMILIES = KINDS + ("count", "relation")
# Proposals for each question in training, in a test; the first that fits is asked.
TRIES, PAIR_TRIES = 6, 24

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


def chance(world, family, answers):
    """What a guess is right in: 1 / (number of answers).

    Where pairs are held out a shape has that many colours less, and a colour shapes. Where not all
    is equally frequent it is the share of the most frequent answer (there the words of a question
    about a count tell a little, too: "red" hints at many).
    """
    if world.prior != "uniform":
        return float(np.bincount(answers.reshape(-1)).max() / answers.size)
    return 1 / (8 - world.held_out) if family in ("colour", "shape") else CHANCE[family]


def first_true(mask):
    """The first try (n, tries) that is true, and whether there is one: (n,) each."""
    return mask.argmax(1), mask.any(1)


# ---------------------------------------------------------------- many questions about a picture


def sample_questions(world, seed, split, indices, objects, families, number):
    """`number` questions about each picture: statements (b, number, 10) and answers (b, number).

    The families take turns. A target answer (yes or no; how many) is drawn before the question, so
    that answers are as balanced as the scene allows; where no try fits, the question becomes "is
    there a COLOUR object ?".
    """
    b, rng = len(objects), CounterRNG(seed, split, indices)
    kind = draw_kinds(rng, families, number)  # (b * number * TRIES,)
    scene = np.repeat(objects, number * TRIES, 0)

    def randint(tag, sides):
        return rng.randint_flat("about " + tag, sides, number * TRIES)

    rows = propose_questions(kind, scene, randint, single=randint("single", 2) == 0)
    answers = answer(rows, scene)
    valid = is_valid(rows, world) & (answers != truth.UNDECIDED)
    draw = rng.randint("wish", 4, (number,)).reshape(-1)
    hits_target = valid & is_target_answer(kind, answers, valid, draw)
    best, has_best = first_true(hits_target.reshape(-1, TRIES))
    second, has_second = first_true(valid.reshape(-1, TRIES))
    choice = np.arange(b * number) * TRIES + np.where(has_best, best, second)
    rows, answers = rows[choice], answers[choice]
    ask_for_existence(rows, answers, ~has_second, np.repeat(objects, number, 0), draw)
    return rows.reshape(b, number, truth.WIDTH), answers.reshape(b, number)


def draw_kinds(rng, families, number):
    """The kind of each try: the families in turn, from a random one on: (b * number * TRIES,)."""
    kinds = np.array([KINDS.index(family) for family in families])
    turn = rng.randint("turn", len(kinds))[:, None] + np.arange(number)
    return np.repeat(kinds[turn % len(kinds)].reshape(-1), TRIES)


def is_target_answer(kind, answers, valid, draw):
    """Which tries (n * TRIES,) have the answer that their question (n,) aims at.

    Yes or no; zero or one; but where two or more can be counted, that in three of four cases, for
    it is rare. The other families take any answer.
    """
    draw = np.repeat(draw, TRIES)
    most = np.repeat((answers * valid).reshape(-1, TRIES).max(1), TRIES)
    aims_at_most = (kind == truth.COUNT) & (most > 2) & (draw > 0)
    target_answer = np.where(aims_at_most, most, draw % 2 + 1)
    has_target = np.isin(kind, (truth.EXISTENCE, truth.COUNT, truth.RELATION, truth.COMPARE))
    return ~has_target | (answers == target_answer)


def ask_for_existence(rows, answers, lost, objects, draw):
    """Where nothing could be asked (a relation with one object), ask "is there ...?"; in place."""
    if not lost.any():
        return
    colour = objects[lost, 0, COLOUR]
    rows[lost] = 0
    rows[lost, A.start + COLOUR] = np.where(draw[lost] % 2 == 0, colour, colour % 8 + 1)
    answers[lost] = answer(rows[lost], objects[lost])


# ---------------------------------------------------------------- one question about a pair


@dataclass
class Pairs:
    """Minimal pairs of one family, each asked one question.

    indices (n,) of the even samples, rows (n, 10), answers (n, 2) for 2k and 2k+1. needs_counting
    (n,): a count of two or three, a comparison of things that are in both pictures.
    """

    indices: np.ndarray
    rows: np.ndarray
    answers: np.ndarray
    needs_counting: np.ndarray


def sample_minimal_pairs(world, seed, split, family, number):
    """The first `number` minimal pairs of a family in a split, answers balanced: Pairs.

    Raises NotEnoughScenes if the world is too poor for it (a relation with one object, say).
    """
    found, chunk = [], max(1024, 4 * number)
    for start in range(0, 64 * chunk, chunk):
        pair_indices = np.arange(start, start + chunk)
        found.append(pair_questions(world, seed, split, family, pair_indices))
        names = ("indices", "rows", "answers", "needs_counting")
        columns = [np.concatenate([getattr(pairs, name) for pairs in found]) for name in names]
        keep = np.arange(len(columns[0]))
        if family in ("count", "compare") and world.max_objects > 2:
            keep = half_of_each(columns[3], number)
        if len(keep) >= number:
            return Pairs(*(column[keep[:number]] for column in columns))
    raise NotEnoughScenes(
        f"this world has no questions of the family {family!r}; it takes more objects in a picture"
    )


def half_of_each(needs_counting, number):
    """The first questions (n,) of which half need counting and half do not: at most `number`."""
    half = (number + 1) // 2
    easy = np.flatnonzero(~needs_counting)[:half]
    return np.sort(np.concatenate([easy, np.flatnonzero(needs_counting)[: number - half]]))


def pair_questions(world, seed, split, family, pair_indices):
    """The question of `family` about pairs (2k, 2k+1), k in pair_indices: Pairs, where any."""
    even, before, after = edited_pairs(world, seed, split, family, pair_indices)
    rng = CounterRNG(seed, split, even)
    rows, sides = propose_for_pairs(family, before, after, rng)
    answers = np.stack([answer(rows, side) for side in sides], 1)
    valid = is_valid(rows, world) | (split == "held_out")
    valid &= (answers != truth.UNDECIDED).all(1) & (answers[:, 0] != answers[:, 1])
    coin = np.repeat(rng.randint(f"pair {family} coin", 2) == 0, PAIR_TRIES)
    valid, needs_counting = balance(world, family, rows, sides, answers, valid, coin)
    best, found = first_true(valid.reshape(-1, PAIR_TRIES))
    choice = (np.arange(len(even)) * PAIR_TRIES + best)[found]
    return Pairs(even[found], rows[choice], answers[choice], needs_counting[choice])


def edited_pairs(world, seed, split, family, pair_indices):
    """The pairs whose edit suits the family: even indices (n,), both objects (n, m, 4)."""
    even = 2 * np.asarray(pair_indices, np.int64)
    scenes = sample(world, seed, split, even)
    # Two objects at most cannot be three of a kind: there one is replaced by any other.
    edits = ("replace",) if family == "count" and world.max_objects <= 2 else EDITS_OF[family]
    suits = np.isin(scenes.edit, [EDITS.index(edit) for edit in edits])
    even, before = even[suits], scenes.objects[suits]
    return even, before, sample(world, seed, split, even + 1).objects


def propose_for_pairs(family, before, after, rng):
    """Questions about each pair: rows (n * PAIR_TRIES, 10), its two scenes repeated as often."""

    def randint(tag, sides):
        return rng.randint_flat(f"pair {family} {tag}", sides, PAIR_TRIES)

    kind = np.full(len(before) * PAIR_TRIES, KINDS.index(family))
    names_before = rng.randint("told", 2) == 0  # whose object the question names
    named = np.where(names_before[:, None, None], before, after)
    rows = propose_questions(kind, np.repeat(named, PAIR_TRIES, 0), randint, single=True)
    return rows, [np.repeat(side, PAIR_TRIES, 0) for side in (before, after)]


def balance(world, family, rows, sides, answers, valid, coin):
    """Which tries to ask so that a picture alone tells no answer, and which of them need counting.

    Of a pair both a question about few and one about many can be asked (with two answers each), or
    both one where this picture has more and one where the other has. Then a coin decides.
    """
    crowded = world.max_objects > 2  # two or three alike are possible
    if family == "count":
        lower, higher = np.sort(answers - 1, 1).T
        few, many = higher == 1, (lower == 2) & (higher == 3)
        valid = valid & (few | (crowded & many))
        return (valid & either_way(valid, few) & (few == coin) if crowded else valid), ~few
    needs_counting = np.zeros(len(rows), bool)
    if family == "compare":
        yes_first = answers[:, 0] == truth.YES
        if crowded:  # what needs counting is rare: it is asked wherever it can be
            there = [truth.matches(rows[:, noun], side).any(1) for noun in (A, B) for side in sides]
            needs_counting = np.logical_and.reduce(there)
            valid = valid & (needs_counting == either_way(valid & needs_counting, yes_first))
        valid = valid & either_way(valid, yes_first) & (yes_first == coin)
    return valid, needs_counting


def either_way(valid, first):
    """Which pairs have valid tries of both sorts, `first` and not; repeated for each try."""
    both = [(valid & side).reshape(-1, PAIR_TRIES).any(1) for side in (first, ~first)]
    return np.repeat(both[0] & both[1], PAIR_TRIES)
