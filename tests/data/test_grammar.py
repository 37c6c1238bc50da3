"""Grammar: in each language what is rendered parses back to what was meant, and nothing else."""

import itertools

import numpy as np
import pytest

from data.shapes.languages import TABLES, grammars_of
from data.shapes.scene import sample
from data.shapes.templates import CHOICES
from data.shapes.truth import (
    COMPARE,
    CONTENT,
    COUNT,
    KIND,
    KINDS,
    LINK,
    PROMPTS,
    RELATION,
    SIZE_OF,
    WIDTH,
    A,
    B,
    said,
)
from data.shapes.world import PLACE, SHAPE, SIZE, WORLDS
from data.tokenizer import FIRST_WORD

pytestmark = pytest.mark.quick

ALL = KINDS + PROMPTS
NO_SENTENCES = [
    "",
    "red",
    "a red",
    "a red circle and",
    "a circle red",
    "a red circle a blue ring",
    "the red circle is",
    "a red circle ,",
    "빨간",
    "빨간 원과",
    "원은는 있어요",
]


def statements(n, seed=0):
    """n random statements of all kinds, captions that are asked for among them: (n, 10)."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, WIDTH), np.int64)
    rows[:, KIND] = np.arange(n) % len(ALL)
    for noun in (A, B):
        rows[:, noun] = np.stack([rng.integers(0, k, n) for k in (3, 9, 9, 10)], 1)
    rows[:, A.start + PLACE] = rng.integers(1, 10, n)
    rows[:, LINK] = rng.integers(1, np.where(rows[:, KIND] == SIZE_OF, 3, 5))
    everything = (rows[:, KIND] == COUNT) & (rng.random(n) < 0.2)
    rows[everything, A] = 0
    return rows


def meant(rows, question=True):
    """What a sentence can say of statements (n, 10): the rest is 0."""
    rows, kind = rows.copy(), rows[:, KIND]
    has_link = np.isin(kind, (RELATION,) if question else (1, 2, 3, 4, 5, 7))
    rows[~has_link, LINK] = 0
    rows[~np.isin(kind, (RELATION, COMPARE)), B] = 0
    rows[:, B.start + PLACE] = 0
    rows[kind != CONTENT, A.start + PLACE] = 0
    if question:
        rows[kind == CONTENT, A.start : A.start + PLACE] = 0
    rows[kind >= len(KINDS), A] = 0
    return rows


def assert_parse_back(grammar, rows, ids, question=True):
    """Word ids, as text, are read as the statements (n, 10), and are the tokens of that text."""
    parser = grammar.parser
    for row, words, text in zip(meant(rows, question), ids, grammar.texts(ids), strict=True):
        assert (parser.parse(text, question) == row).all(), text
        tokens = parser.tokenizer.encode(text)
        assert tokens == (words[words >= 0] + FIRST_WORD).tolist(), text
        assert parser.tokenizer.decode(tokens) == text


# ---------------------------------------------------------------- questions and statements


@pytest.mark.parametrize("surrounded", [False, True])
@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_every_way_to_ask_parses_back(name, held_out, surrounded):
    """surrounded: behind each START and before each END, in turn."""
    grammar = grammars_of(name)[name]
    templates = grammar.held_out if held_out else grammar.questions
    spans = zip(templates.first, templates.last + 1, strict=True)
    for kind, (first, end) in enumerate(spans):
        ways = np.arange(first, end)
        rows = statements(len(ALL) * len(ways))[kind :: len(ALL)]
        assert (rows[:, KIND] == kind).all()
        filled = [templates.words[ways]]
        if surrounded:
            start, ending = grammar.start.words, grammar.end.words
            filled.insert(0, start[ways % len(start)])
            filled.append(ending[ways // 3 % len(ending)])
        assert_parse_back(grammar, rows, grammar.fill(np.concatenate(filled, 1), rows, ways))


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_questions_as_they_are_drawn_parse_back(name, held_out):
    grammar, rows = grammars_of("both")[name], statements(2600, seed=1)
    phrasing = np.random.default_rng(2).integers(0, CHOICES, (len(rows), 4))
    assert_parse_back(grammar, rows, grammar.render_question(rows, phrasing, held_out))


@pytest.mark.parametrize(
    "kind, noun, asked",
    [
        ("existence", (0, 1, 1), "is the circle red ?"),
        ("existence", (2, 1, 1), "is the red circle large ?"),
        ("existence", (2, 1, 1), "is the large circle red ?"),
        ("existence", (0, 1, 0), "is there any thing red ?"),
        ("existence", (0, 0, 1), "is the circle there ?"),
        ("count", (0, 1, 1), "how many circles are red ?"),
        ("count", (0, 1, 0), "how many of the objects are red , please ?"),
    ],
)
def test_an_attribute_may_stand_behind_its_noun(kind, noun, asked):
    grammar, row = grammars_of("en")["en"], np.zeros((1, WIDTH), np.int64)
    row[0, KIND], row[0, A.start : A.start + 3] = KINDS.index(kind), noun
    assert (grammar.parser.parse(asked, question=True) == row[0]).all()
    drawn = np.random.default_rng(0).integers(0, CHOICES, (30000, 4))
    assert asked in grammar.texts(grammar.render_question(row.repeat(30000, 0), drawn))


@pytest.mark.parametrize("asked", ["is the red circle blue ?", "is the large circle small ?"])
def test_a_question_that_contradicts_itself_is_none(asked):
    with pytest.raises(ValueError, match="not a question"):
        grammars_of("en")["en"].parser.parse(asked, question=True)


def whole_grammar(kind, tables):
    """Every statement of a kind: each noun with each link and some second nouns: (n, 10)."""
    nouns = list(itertools.product(range(3), range(9), range(9)))
    links = range(1, 1 + len(tables.LINKS.get(KINDS[kind], "?")))
    places = range(1, 10) if kind == CONTENT else [0]
    others = [(0, 3, 4), (1, 0, 8), (2, 5, 0)] if kind in (RELATION, COMPARE) else [(0, 0, 0)]
    return np.array(
        [
            [kind, *noun, place, link, *other, 0]
            for noun, place, link, other in itertools.product(nouns, places, links, others)
        ]
    )


@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize("name", TABLES)
def test_every_statement_parses_back(name, kind):
    grammar = grammars_of(name)[name]
    rows = whole_grammar(kind, TABLES[name])
    assert_parse_back(grammar, rows, grammar.render_statement(rows), question=False)
    phrasing = np.random.default_rng(0).integers(0, CHOICES, (len(rows), 2))
    assert_parse_back(grammar, rows, grammar.render_statement(rows, phrasing), question=False)


# ---------------------------------------------------------------- captions


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("world", ["default", "full"])
def test_captions_parse_back(name, world):
    grammar = grammars_of(name)[name]
    noun_phrases = sample(WORLDS[world], 0, "train", np.arange(400)).objects
    noun_phrases[::2, :, PLACE] = 0
    noun_phrases[::3, :, SIZE] = 0
    for as_list in (False, True):
        phrases = noun_phrases * ([0, 0, 1, 0] if as_list else [1, 1, 1, 1])
        captions = grammar.texts(grammar.render_caption(phrases, as_list))
        for wanted, caption in zip(phrases, captions, strict=True):
            assert (grammar.parser.parse_caption(caption) == wanted[said(wanted)]).all()
            pieces = grammar.parser.caption_pieces(caption)
            assert "".join(pieces).replace(",", " ,") == caption
            assert len(pieces) == 2 * said(wanted).sum() - 1


@pytest.mark.parametrize(
    "caption",
    [
        "red circle",  # a list says shapes alone
        "a circle , a ring",
        "a circle and a ring and a star",
        "a circle , and a ring",
    ],
)
def test_captions_are_joined_by_commas_and_one_and_at_the_end(caption):
    parse = grammars_of("en")["en"].parser.parse_caption
    assert parse("a circle , a ring and a star")[:, SHAPE].tolist() == [1, 6, 7]
    assert parse("circle , ring and star")[:, SHAPE].tolist() == [1, 6, 7]
    with pytest.raises(ValueError, match="not a caption"):
        parse(caption)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("text", NO_SENTENCES)
def test_what_is_not_of_the_grammar_is_refused(name, text):
    parser = grammars_of(name)[name].parser
    for parse in (parser.parse, lambda t: parser.parse(t, question=True), parser.parse_caption):
        with pytest.raises(ValueError, match="not a"):
            parse(text)
