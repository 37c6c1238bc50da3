"""Many questions about each picture, with answers balanced by construction.

A target answer is drawn first, then a question that has it is looked for. (Tests ask one question
about both pictures of a minimal pair: minimal_pairs.py.)
"""

from typing import NamedTuple

import numpy as np

from data.shapes import truth
from data.shapes.proposals import is_valid, propose_questions
from data.shapes.rng import CounterRNG
from data.shapes.truth import KIND, KINDS, A, B, answer
from data.shapes.world import COLOUR

FAMILIES = KINDS[:7]  # what VQA accuracy is about; places are asked for in training only
# What training asks in turn: most often what is the slowest to learn.
TRAIN_FAMILIES = KINDS + (
    "count", "relation", "existence", "count", "relation", "count", "relation", "compare"
)  # fmt: skip
TRIES = 12  # proposals for each question; the one that fits best is asked


def sample_questions(world, seed, split, indices, objects, families, number, teaches=False):
    """`number` questions about each picture: statements (b, number, 10) and answers (b, number).

    The families take turns. A target answer (yes or no; how many; two of seven times that there is
    no such thing, or several) is drawn before the question, so that answers are as balanced as the
    scene allows; where no try fits, the question becomes "is there a COLOUR object ?".

    teaches: for training, in which nothing may go without saying. Where there are two of something
    the one of something else is counted, too, or the answer were always the most that there is of
    anything; things of which there is none are compared with each other; and what is there twice is
    presupposed by two of its attributes, too.
    """
    b, rng = len(objects), CounterRNG(seed, split, indices)
    wish = draw_wishes(rng, families, number, teaches)
    scene = np.repeat(objects, number * TRIES, 0)

    def randint(tag, sides):
        return rng.randint_flat("about " + tag, sides, number * TRIES)

    single = wish.single
    if teaches:
        is_presupposing = np.isin(wish.kind, truth.PRESUPPOSING)
        single = np.where(is_presupposing, randint("single of these", 2) > 0, single)
    rows = propose_questions(
        wish.kind, scene, randint, single=single, everything=wish.everything, premise=wish.premise,
        compares_mixed=randint("compares what is there", 3) == 0,
        compares_nothing=wish.compares_nothing,
    )  # fmt: skip
    answers = answer(rows, scene)
    valid = is_valid(rows, world) & (answers != truth.UNDECIDED)
    fit = (valid * how_well_it_fits(wish, rows, answers, valid, scene)).reshape(-1, TRIES)
    choice = np.arange(b * number) * TRIES + fit.argmax(1)
    rows, answers = rows[choice], answers[choice]
    is_lost = fit.max(1) == 0
    ask_for_existence(rows, answers, is_lost, np.repeat(objects, number, 0), wish.draw[choice])
    return rows.reshape(b, number, truth.WIDTH), answers.reshape(b, number)


class Wishes(NamedTuple):
    """What is drawn for each question before it is looked for, repeated for its tries: each (n,)
    with n = b * number * TRIES."""

    kind: np.ndarray  # of KINDS
    draw: np.ndarray  # 0 .. 3: yes or no; zero or one
    least: np.ndarray  # zero if 0, one if 1, else the most there is, where two can be counted
    premise: np.ndarray  # 0 .. 6: there is none, there are several, else as presupposed
    single: np.ndarray  # bool: a count names the colour or the shape alone
    everything: np.ndarray  # bool: all things are counted
    compares_nothing: np.ndarray  # bool: two things of which there is none
    is_several: np.ndarray  # bool: what is there twice has two attributes


def draw_wishes(rng, families, number, teaches):
    """The wishes of `number` questions about each picture, see sample_questions."""

    def once(tag, sides):
        return np.repeat(rng.randint(tag, sides, (number,)).reshape(-1), TRIES)

    draw = once("wish", 4)
    return Wishes(
        kind=draw_kinds(rng, families, number),
        draw=draw,
        least=once("how many", 8) if teaches else 3 * (draw > 0),
        premise=once("premise", 7),
        single=once("single", 4) > 0,
        everything=once("everything", 16) == 0,
        compares_nothing=(once("compares nothing", 4) == 0) & (draw % 2 == 1) & teaches,
        is_several=(draw > 1) & teaches,
    )


def draw_kinds(rng, families, number):
    """The kind of each try: the families in turn, from a random one on: (b * number * TRIES,)."""
    kinds = np.array([KINDS.index(family) for family in families])
    turn = rng.randint("turn", len(kinds))[:, None] + np.arange(number)
    return np.repeat(kinds[turn % len(kinds)].reshape(-1), TRIES)


def how_well_it_fits(wish, rows, answers, valid, scene):
    """How well each try, statements (n, 10) with answers (n,) about scenes (n, m, 4), is what its
    question wished for: (n,), 1 or more. The answer counts most."""
    hits = is_target_answer(wish, answers, valid)
    as_presupposed = (answers >= truth.NONE) == (wish.premise < 2)
    # Two things alike in two ways are rare: they are asked about in half of the cases.
    is_rare = (answers == truth.SEVERAL) & ((rows[:, A] > 0).sum(1) > 1) & wish.is_several
    suits = suits_comparison(rows, scene, wish.compares_nothing)
    return 1 + as_presupposed + 2 * hits + suits + is_rare


def is_target_answer(wish, answers, valid):
    """Which tries (n,) have the answer that their question aims at.

    Yes or no; zero or one; but where two or more can be counted, that in most cases, for it is
    rare. Where something is presupposed and wish.premise is 0 or 1: that there is none, that there
    are several. Otherwise any answer.
    """
    most = np.repeat((answers * valid).reshape(-1, TRIES).max(1), TRIES)
    of_many = np.select([wish.least == 0, wish.least == 1], [1, 2], most)  # a number is n + 1
    counts_many = (wish.kind == truth.COUNT) & (most > 2)
    target_answer = np.where(counts_many, of_many, wish.draw % 2 + 1)
    is_denied = np.isin(wish.kind, truth.PRESUPPOSING) & (wish.premise < 2)
    target_answer = np.where(is_denied, truth.NONE + wish.premise, target_answer)
    by_kind = (truth.EXISTENCE, truth.COUNT, truth.RELATION, truth.COMPARE)
    has_target = is_denied | np.isin(wish.kind, by_kind)
    return np.where(has_target, answers == target_answer, answers < truth.NONE)


def suits_comparison(rows, objects, compares_nothing):
    """How well comparisons (n,) suit: 1 where both things are there (elsewhere a glance is enough),
    2 where there are also two or more of one; where compares_nothing (n,), 3 where neither is.
    0 for all other questions."""
    a, b = (truth.matches(rows[:, noun], objects).sum(1) for noun in (A, B))
    takes_counting = ((a > 0) & (b > 0)) * (1 + ((a > 1) | (b > 1)))
    suits = np.where(compares_nothing, 3 * ((a == 0) & (b == 0)), takes_counting)
    return suits * (rows[:, KIND] == truth.COMPARE)


def ask_for_existence(rows, answers, lost, objects, draw):
    """Where nothing could be asked (a relation with one object), ask "is there ...?"; in place."""
    if not lost.any():
        return
    colour = objects[lost, 0, COLOUR]
    rows[lost] = 0
    rows[lost, A.start + COLOUR] = np.where(draw[lost] % 2 == 0, colour, colour % 8 + 1)
    answers[lost] = answer(rows[lost], objects[lost])
