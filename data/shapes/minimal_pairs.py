"""One question about both pictures of a minimal pair, where the answers differ.

So a model that does not look is right in at most one of the two, and chance is 1 / (number of
possible answers).
"""

from dataclasses import dataclass

import numpy as np

from data.shapes import truth
from data.shapes.proposals import is_valid, propose_questions
from data.shapes.rng import CounterRNG
from data.shapes.scene import sample
from data.shapes.truth import KINDS, A, B, answer
from data.shapes.world import EDITS, NotEnoughScenes

PAIR_TRIES = 24  # proposals for each question; the first that fits is asked
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
# Which edits can take away the only thing of a kind, or give it a twin.
PREMISE_EDITS = ("swap_colour", "swap_shape", "replace", "replace_by_twin")
CHANCE = dict(
    existence=1 / 2, count=1 / 4, colour=1 / 8, shape=1 / 8, size=1 / 2, relation=1 / 2,
    compare=1 / 2,
)  # fmt: skip


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


@dataclass
class Pairs:
    """Minimal pairs of one family, each asked one question.

    indices (n,) of the even samples, rows (n, 10), answers (n, 2) for 2k and 2k+1. needs_counting
    (n,): a count of two or more, a comparison of things that are in both pictures.
    """

    indices: np.ndarray
    rows: np.ndarray
    answers: np.ndarray
    needs_counting: np.ndarray


PAIR_COLUMNS = ("indices", "rows", "answers", "needs_counting")


def sample_minimal_pairs(world, seed, split, family, number):
    """The first `number` minimal pairs of a family in a split, answers balanced: Pairs.

    Raises NotEnoughScenes if the world is too poor for it (a relation with one object, say).
    """
    found, chunk = [], max(1024, 4 * number)
    for start in range(0, 64 * chunk, chunk):
        pair_indices = np.arange(start, start + chunk)
        found.append(pair_questions(world, seed, split, family, pair_indices))
        columns = [np.concatenate([getattr(p, name) for p in found]) for name in PAIR_COLUMNS]
        keep = np.arange(len(columns[0]))
        if family in ("count", "compare") and world.max_objects > 2:
            keep = half_of_each(columns[3], number)
        if len(keep) >= number:
            return Pairs(*(column[keep[:number]] for column in columns))
    raise NotEnoughScenes(
        f"this world has no questions of the family {family!r}; it takes more objects in a picture"
    )


def sample_premise_pairs(world, seed, split, number):
    """The first `number` minimal pairs in one picture of which what a question presupposes is not
    there, or not alone: Pairs, equally many of both and of each kind that presupposes.

    Raises NotEnoughScenes if the world is too poor for it.
    """
    kinds = [(KINDS[k], code) for k in truth.PRESUPPOSING for code in (truth.NONE, truth.SEVERAL)]
    parts = []
    for turn, (family, denial) in enumerate(kinds):
        each = number // len(kinds) + (turn < number % len(kinds))
        for pairs in sorted({32 * each, 512 * each, 8192}):  # some are rare
            found = pair_questions(world, seed, split, family, np.arange(pairs), denial)
            if len(found.indices) >= each:
                break
        else:
            raise NotEnoughScenes("this world has too few questions about what is not there")
        parts.append([getattr(found, name)[:each] for name in PAIR_COLUMNS])
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def half_of_each(needs_counting, number):
    """The first questions (n,) of which half need counting and half do not: at most `number`."""
    half = (number + 1) // 2
    easy = np.flatnonzero(~needs_counting)[:half]
    return np.sort(np.concatenate([easy, np.flatnonzero(needs_counting)[: number - half]]))


def pair_questions(world, seed, split, family, pair_indices, denial=None):
    """The question of `family` about pairs (2k, 2k+1), k in pair_indices: Pairs, where any.

    denial: NONE or SEVERAL, then one that has this answer in one of the pictures.
    """
    edits = PREMISE_EDITS if denial else edits_of(world, family)
    even, before, after = edited_pairs(world, seed, split, edits, pair_indices)
    rng = CounterRNG(seed, split, even)
    rows, sides = propose_for_pairs(family, before, after, rng)
    answers = np.stack([answer(rows, side) for side in sides], 1)
    valid = is_valid(rows, world) | (split == "held_out")
    valid &= (answers != truth.UNDECIDED).all(1) & (answers[:, 0] != answers[:, 1])
    is_denied = answers >= truth.NONE
    valid &= (is_denied.sum(1) == (denial is not None)) & (~is_denied | (answers == denial)).all(1)
    coin = np.repeat(rng.randint(f"pair {family} coin", 2) == 0, PAIR_TRIES)
    valid, needs_counting = balance(world, family, rows, sides, answers, valid, coin)
    best, found = first_true(valid.reshape(-1, PAIR_TRIES))
    choice = (np.arange(len(even)) * PAIR_TRIES + best)[found]
    return Pairs(even[found], rows[choice], answers[choice], needs_counting[choice])


def edits_of(world, family):
    """The edits that can change an answer of the family."""
    # Two objects at most cannot be three of a kind: there one is replaced by any other.
    return ("replace",) if family == "count" and world.max_objects <= 2 else EDITS_OF[family]


def edited_pairs(world, seed, split, edits, pair_indices):
    """The pairs with one of these edits: even indices (n,), both objects (n, m, 4)."""
    even = 2 * np.asarray(pair_indices, np.int64)
    scenes = sample(world, seed, split, even)
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
        few, many = higher == 1, (lower >= 2) & (higher == lower + 1)
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
