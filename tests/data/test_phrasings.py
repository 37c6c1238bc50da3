"""Ways to ask: how many there are, of which words, and that what is held out is never trained."""

import numpy as np
import pytest

from data.shapes import english, questions, truth
from data.shapes.grammar import words_of
from data.shapes.languages import TABLES, grammars_of
from data.shapes.questions import FAMILIES
from data.shapes.scene import sample
from data.shapes.templates import CHOICES, expand, replace_macros
from data.shapes.truth import KIND, KINDS, PROMPTS, A
from data.shapes.world import COLOUR, SHAPE, SIZE, WORLDS

pytestmark = pytest.mark.quick

# Words that people ask with; each is to occur in phrasings of several families.
WORDS_OF_PEOPLE = [
    "a",
    "an",
    "the",
    "this",
    "that",
    "it",
    "there",
    "here",
    "in",
    "of",
    "at",
    "to",
    "and",
    "or",
    "any",
    "some",
    "is",
    "are",
    "do",
    "does",
    "can",
    "you",
    "me",
    "i",
    "see",
    "find",
    "show",
    "tell",
    "say",
    "count",
    "look",
    "picture",
    "image",
    "photo",
    "thing",
    "things",
    "object",
    "objects",
    "one",
    "which",
    "what",
    "how",
    "many",
    "much",
    "number",
    "colour",
    "size",
    "shape",
    "big",
    "large",
    "small",
    "kind",
    "have",
    "has",
    "more",
    "fewer",
    "than",
    "as",
    "same",
    "where",
    "left",
    "right",
    "above",
    "below",
    "up",
    "down",
]


def ways(tables, templates):
    """All expansions of templates: a set of tuples of words."""
    lines = [replace_macros(template, tables.MACROS) for template in templates]
    return {tuple(words) for line in lines for words, _ in expand(line)}


@pytest.mark.parametrize("name", TABLES)
def test_every_family_has_ten_ways_to_ask_and_four_that_are_held_out(name):
    tables = TABLES[name]
    for family in FAMILIES:
        assert len(set(tables.QUESTIONS[family])) >= 10, family
        assert len(set(tables.HELD_OUT[family])) >= 4, family
    for kind in KINDS + PROMPTS:
        assert len(set(tables.QUESTIONS[kind])) >= 6 and len(set(tables.HELD_OUT[kind])) >= 2


@pytest.mark.parametrize("name", TABLES)
def test_what_is_held_out_is_never_trained(name):
    tables = TABLES[name]
    starts = ways(tables, [tables.START])
    for kind in KINDS + PROMPTS:
        trained = ways(tables, tables.QUESTIONS[kind])
        for words in ways(tables, tables.HELD_OUT[kind]):
            rests = [words[k:] for k in range(len(words)) if words[:k] in starts]
            assert trained.isdisjoint(rests), " ".join(words)


@pytest.mark.parametrize("name", TABLES)
def test_what_is_held_out_is_made_of_trained_words(name):
    tables, slots = TABLES[name], set(truth_slots())
    known = set(words_of(tables)) | slots
    for kind in KINDS + PROMPTS:
        assert {w for words in ways(tables, tables.HELD_OUT[kind]) for w in words} <= known


def truth_slots():
    return ("{a}", "{as}", "{b}", "{bs}", "{link}", "{place}")


def test_the_words_of_people_occur_in_several_families():
    grammar = grammars_of("en")["en"]
    rng, families = np.random.default_rng(0), {word: set() for word in WORDS_OF_PEOPLE}
    for family in FAMILIES:
        rows = np.zeros((6000, truth.WIDTH), np.int64)
        rows[:, KIND], rows[:, truth.LINK] = KINDS.index(family), rng.integers(1, 5, 6000)
        rows[:, A.start + SIZE], rows[:, A.start + COLOUR] = rng.integers(0, 3, (2, 6000))
        phrasing = rng.integers(0, CHOICES, (6000, 4))
        ids = grammar.render_question(rows, phrasing)
        for word in {grammar.words[i] for i in np.unique(ids[ids >= 0])} & families.keys():
            families[word].add(family)
    rare = {word: found for word, found in families.items() if len(found) < 2}
    assert not rare


@pytest.mark.parametrize("name", TABLES)
def test_what_is_asked_for_is_not_named(name):
    grammar, indices = grammars_of(name)[name], np.arange(300)
    objects = sample(WORLDS["default"], 0, "train", indices).objects
    rows, _ = questions.sample_questions(
        WORLDS["default"], 0, "train", indices, objects, ("colour", "shape", "size"), 3
    )
    rows = rows.reshape(-1, truth.WIDTH)
    phrasing = np.random.default_rng(0).integers(0, CHOICES, (len(rows), 4))
    tables = dict(colour=grammar.colours, shape=grammar.singular, size=grammar.sizes)
    for kind, column in (("colour", COLOUR), ("shape", SHAPE), ("size", SIZE)):
        mask = rows[:, KIND] == KINDS.index(kind)
        assert mask.any() and not rows[mask, A.start + column].any()
        if kind == "size":  # "is it small or large ?" names both
            continue
        asked = grammar.render_question(rows[mask], phrasing[mask])
        values = tables[kind][:, 1:, 0]
        assert not np.isin(asked, values[values >= 0]).any()


def test_plain_questions_are_plain():
    rows = np.zeros((7, truth.WIDTH), np.int64)
    rows[:, KIND], rows[:, A.start + SHAPE], rows[:, truth.LINK] = np.arange(7), 1, 1
    rows[:, truth.B.start + COLOUR] = 1
    grammar = grammars_of("en")["en"]
    assert grammar.texts(grammar.render_question(rows)) == [
        "is there a circle ?",
        "how many circles are there ?",
        "what colour is the circle ?",
        "what shape is the circle ?",
        "what size is the circle ?",
        "is the circle left of the red object ?",
        "are there more circles than red objects ?",
    ]


def test_an_article_agrees_with_what_follows():
    grammar = grammars_of("en")["en"]
    phrases = np.array([[[0, 2, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0]]])
    assert grammar.caption_texts(phrases) == ["an orange circle , a red circle and a small object"]
    assert ("a", "an", 1, ("orange", "object", "image")) in english.AGREEMENT
