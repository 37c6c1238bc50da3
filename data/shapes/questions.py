"""Many questions about each picture, with answers balanced by construction.

A target answer is drawn first, then a question that has it is looked for. (Tests ask one question
about both pictures of a minimal pair: minimal_pairs.py.)
"""

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
    kind = draw_kinds(rng, families, number)  # (b * number * TRIES,)
    scene = np.repeat(objects, number * TRIES, 0)
    premise = rng.randint("premise", 7, (number,)).reshape(-1)
    single = rng.randint("single", 4, (number,)).reshape(-1) > 0
    everything = rng.randint("everything", 16, (number,)).reshape(-1) == 0
    draw = rng.randint("wish", 4, (number,)).reshape(-1)
    least = rng.randint("how many", 8, (number,)).reshape(-1) if teaches else 3 * (draw > 0)
    compares_nothing = rng.randint("compares nothing", 4, (number,)).reshape(-1) == 0
    compares_nothing = np.repeat(compares_nothing & teaches & (draw % 2 == 1), TRIES)

    def randint(tag, sides):
        return rng.randint_flat("about " + tag, sides, number * TRIES)

    single = np.repeat(single, TRIES)
    if teaches:
        single = np.where(
            np.isin(kind, truth.PRESUPPOSING), randint("single of these", 2) > 0, single
        )
    rows = propose_questions(
        kind, scene, randint, single=single,
        everything=np.repeat(everything, TRIES), premise=np.repeat(premise, TRIES),
        compares_mixed=randint("compares what is there", 3) == 0,
        compares_nothing=compares_nothing,
    )  # fmt: skip
    answers = answer(rows, scene)
    valid = is_valid(rows, world) & (answers != truth.UNDECIDED)
    # How well each proposal fits: 0 is no question at all.
    hits = is_target_answer(kind, answers, valid, draw, premise, least)
    as_presupposed = (answers >= truth.NONE) == np.repeat(premise < 2, TRIES)
    is_fine = suits_comparison(rows, scene, compares_nothing)
    if teaches:  # two things alike in two ways are rare: they are asked about in half of the cases
        is_several = (answers == truth.SEVERAL) & ((rows[:, A] > 0).sum(1) > 1)
        is_fine = is_fine + (is_several & np.repeat(draw > 1, TRIES))
    fit = (valid * (1 + as_presupposed + 2 * hits + is_fine)).reshape(-1, TRIES)
    choice = np.arange(b * number) * TRIES + fit.argmax(1)
    rows, answers = rows[choice], answers[choice]
    ask_for_existence(rows, answers, fit.max(1) == 0, np.repeat(objects, number, 0), draw)
    return rows.reshape(b, number, truth.WIDTH), answers.reshape(b, number)


def draw_kinds(rng, families, number):
    """The kind of each try: the families in turn, from a random one on: (b * number * TRIES,)."""
    kinds = np.array([KINDS.index(family) for family in families])
    turn = rng.randint("turn", len(kinds))[:, None] + np.arange(number)
    return np.repeat(kinds[turn % len(kinds)].reshape(-1), TRIES)


def is_target_answer(kind, answers, valid, draw, premise, least):
    """Which tries (n * TRIES,) have the answer that their question (n,) aims at.

    Yes or no; zero or one; but where two or more can be counted, that in most cases, for it is
    rare: zero if `least` (n,) is 0, one if it is 1, else the most there is. Where something is
    presupposed and premise (n,) is 0 or 1: that there is none, that there are several. Otherwise
    any answer.
    """
    draw, premise, least = (np.repeat(part, TRIES) for part in (draw, premise, least))
    most = np.repeat((answers * valid).reshape(-1, TRIES).max(1), TRIES)
    of_many = np.select([least == 0, least == 1], [1, 2], most)  # a number is n + 1
    target_answer = np.where((kind == truth.COUNT) & (most > 2), of_many, draw % 2 + 1)
    is_denied = np.isin(kind, truth.PRESUPPOSING) & (premise < 2)
    target_answer = np.where(is_denied, truth.NONE + premise, target_answer)
    by_kind = np.isin(kind, (truth.EXISTENCE, truth.COUNT, truth.RELATION, truth.COMPARE))
    return np.where(is_denied | by_kind, answers == target_answer, answers < truth.NONE)


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
