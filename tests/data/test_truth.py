"""Truth: what the arrays decide is what plain loops over objects decide."""

import itertools

import numpy as np
import pytest

from data.shapes.english import LINKS
from data.shapes.scene import sample
from data.shapes.truth import (
    KIND,
    KINDS,
    LINK,
    NO,
    NONE,
    PRESUPPOSING,
    PROMPTS,
    RELATION,
    SEVERAL,
    UNDECIDED,
    WIDTH,
    YES,
    A,
    B,
    answer,
    asked_caption,
    caption_truth,
    truth,
)
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE, WORLDS

pytestmark = pytest.mark.quick

COLUMNS = {"colour": COLOUR, "shape": SHAPE, "size": SIZE, "place": PLACE}


def fits(noun, thing):
    return all(n in (0, x) for n, x in zip(noun, thing, strict=True))


def brute_force(row, scene):
    """The truth of a statement, worked out by plain loops."""
    objects = [tuple(o) for o in scene if o[SHAPE]]
    a, b = ([o for o in objects if fits(row[noun], o)] for noun in (A, B))
    kind, link = KINDS[row[KIND]], row[LINK]
    if kind in ("existence", "content"):
        return YES if a else NO
    if kind == "count":
        return YES if len(a) == link - 1 else NO
    if kind == "compare":
        return YES if len(a) > len(b) else NO
    if kind == "relation":
        return relation_by_hand(link, a[0], b[0]) if len(a) == len(b) == 1 else UNDECIDED
    if len(a) != 1:
        return UNDECIDED
    return YES if a[0][COLUMNS[kind]] == link else NO


def relation_by_hand(link, a, b):
    (x, y), (u, v) = (((o[PLACE] - 1) % 3, (o[PLACE] - 1) // 3) for o in (a, b))
    first, second = {1: (u, x), 2: (x, u), 3: (v, y), 4: (y, v)}[link]
    return UNDECIDED if first == second else YES if first > second else NO


def statements_about(objects):
    """A random statement about each scene (n, m, 4): (n, 10), so that all verdicts are frequent."""
    rng, n = np.random.default_rng(0), len(objects)
    rows = np.zeros((n, WIDTH), np.int64)
    rows[:, KIND] = rng.integers(0, len(KINDS), n)
    for start in (1, 6):  # nouns are mostly taken from the scene
        size, *others = rng.integers(1, 3, n), *(rng.integers(1, 9, n) for _ in range(3))
        anything = np.stack([size, *others], 1)
        noun = np.where(rng.random((n, 1)) < 0.7, objects[:, 0], anything)
        rows[:, start : start + 3] = (noun * (rng.random((n, 4)) < 0.5))[:, :3]
    is_content = rows[:, KIND] == KINDS.index("content")
    rows[:, 1 + PLACE] = np.where(is_content, objects[:, 0, PLACE], 0)
    most = [min(len(LINKS.get(KINDS[kind], ())), 4) for kind in rows[:, KIND]]
    rows[:, LINK] = [rng.integers(1, k + 1) if k else 0 for k in most]
    return rows


def test_truth_against_brute_force():
    objects = sample(WORLDS["full"], 0, "train", np.arange(6000)).objects
    rows = statements_about(objects)
    verdicts = truth(rows, objects)
    by_hand = [brute_force(row, scene) for row, scene in zip(rows, objects, strict=True)]
    assert (verdicts == by_hand).all()
    assert np.bincount(verdicts, minlength=3).min() > 300


def denial_by_hand(row, scene):
    """NONE or SEVERAL where a thing that the question presupposes is not there or not alone."""
    if row[KIND] not in PRESUPPOSING:
        return None
    nouns = (A, B) if row[KIND] == RELATION else (A,)
    numbers = [sum(fits(row[noun], o) for o in scene if o[SHAPE]) for noun in nouns]
    return NONE if 0 in numbers else SEVERAL if max(numbers) > 1 else None


def test_denials_against_brute_force():
    objects = sample(WORLDS["full"], 0, "train", np.arange(6000)).objects
    rows, seen = statements_about(objects), set()
    for row, scene, code in zip(rows, objects, answer(rows, objects), strict=True):
        denial = denial_by_hand(row, scene)
        assert code == denial if denial else code < NONE
        seen.add((row[KIND], denial))
    assert {(kind, d) for kind in PRESUPPOSING for d in (NONE, SEVERAL, None)} <= seen


def test_caption_truth_against_brute_force():
    scenes = sample(WORLDS["default"], 0, "train", np.arange(60)).objects
    noun_phrases = scenes.copy()
    noun_phrases[..., PLACE] = 0
    noun_phrases[::2, :, SIZE] = 0
    noun_phrases[::3, 1:] = 0
    table = caption_truth(noun_phrases, scenes)
    for c, s in itertools.product(range(60), range(60)):
        caption = [phrase for phrase in noun_phrases[c] if phrase.any()]
        objects = [o for o in scenes[s] if o[SHAPE]]
        possible = any(
            all(fits(phrase, o) for phrase, o in zip(caption, chosen, strict=True))
            for chosen in itertools.permutations(objects, len(caption))
        )
        assert table[c, s] == possible
    assert table.diagonal().all()


def test_what_is_presupposed_is_there_once_or_denied():
    """Of two red circles and a blue ring: the red one, the blue one, the green one."""
    scene = np.array([[[1, 1, 1, 1], [2, 1, 1, 5], [1, 6, 6, 9]]])
    for kind in PRESUPPOSING:
        rows = np.zeros((3, WIDTH), np.int64)
        rows[:, KIND], rows[:, LINK] = kind, 1
        rows[:, A.start + COLOUR] = 1, 6, 4
        rows[:, B.start + COLOUR] = 6 if kind == RELATION else 0
        several, one, none = answer(rows, scene.repeat(3, 0))
        assert (several, none) == (SEVERAL, NONE)
        assert one == UNDECIDED if kind == RELATION else one not in (UNDECIDED, NONE, SEVERAL)
    # Either side of a relation may be the one that is not there; "none" comes before "several".
    rows = np.zeros((1, WIDTH), np.int64)
    rows[0, KIND], rows[0, LINK] = RELATION, 1
    rows[0, A.start + COLOUR], rows[0, B.start + COLOUR] = 1, 4
    assert answer(rows, scene) == NONE


def test_a_caption_that_is_asked_for_says_what_its_level_asks_for():
    objects = np.array([[2, 3, 4, 5], [1, 6, 7, 8], [0, 0, 0, 0]])
    shapes, usual = objects * [0, 0, 1, 0], objects * [1, 1, 1, 0]
    assert PROMPTS == ("brief", "normal", "detailed", "list")
    for level, wanted in enumerate((shapes, usual, objects, shapes)):
        assert (asked_caption([level], objects[None])[0] == wanted).all()
    together = asked_caption([0, 2], np.stack([objects, objects]))  # each picture its own
    assert (together == np.stack([shapes, objects])).all()
