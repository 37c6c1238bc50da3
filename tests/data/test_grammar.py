"""Grammar: in each language what is rendered parses back to what was meant, and nothing else."""

from types import SimpleNamespace

import numpy as np
import pytest

from data.shapes import english
from data.shapes.grammar import Grammar
from data.shapes.languages import TABLES, grammars_of
from data.shapes.scene import sample
from data.shapes.templates import CHOICES, expand, join, read_choice, replace_macros
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
        nameless = (rows[:, noun][:, :SHAPE] == 0).all(1)
        rows[nameless, noun.start + SHAPE] += rows[nameless, noun.start + SHAPE] == 0
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


def every_way(grammar, templates, rows):
    """For each kind, a question for each expansion of its templates: statements, word ids."""
    for kind, (first, last) in enumerate(zip(templates.first, templates.last, strict=True)):
        ways = np.arange(first, last + 1)
        own = rows[rows[:, KIND] == kind]
        taken = own[np.arange(len(ways)) % len(own)]
        yield taken, grammar.fill(templates.words[ways], taken, np.arange(len(ways)))


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_every_way_to_ask_parses_back(name, held_out):
    grammar = grammars_of(name)[name]
    templates = grammar.held_out if held_out else grammar.questions
    for rows, ids in every_way(grammar, templates, statements(1300)):
        keep = np.arange(0, len(rows), 1 + len(rows) // 400)  # of thousands some, in order
        for row, text in zip(meant(rows)[keep], grammar.texts(ids[keep]), strict=True):
            assert (grammar.parser.parse(text, question=True) == row).all(), text


@pytest.mark.parametrize("name", TABLES)
def test_what_stands_before_and_behind_a_question_changes_nothing(name):
    grammar, rows = grammars_of("both")[name], statements(1300, seed=1)
    rng = np.random.default_rng(2)
    for held_out in (False, True):
        phrasing = rng.integers(0, CHOICES, (len(rows), 4))
        texts = grammar.texts(grammar.render_question(rows, phrasing, held_out))
        for row, text in zip(meant(rows), texts, strict=True):
            assert (grammar.parser.parse(text, question=True) == row).all(), text
            assert grammar.parser.tokenizer.decode(grammar.parser.tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", TABLES)
def test_statements_parse_back(name):
    grammar, rows = grammars_of(name)[name], statements(1300)
    rows = rows[rows[:, KIND] < len(KINDS)]
    for phrasing in (0, CHOICES - 1):
        texts = grammar.texts(grammar.render_statement(rows, phrasing))
        for row, text in zip(meant(rows, question=False), texts, strict=True):
            assert (grammar.parser.parse(text) == row).all(), text


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
            assert "".join(pieces).replace(",", " ,") == caption and len(pieces) % 2


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("text", NO_SENTENCES)
def test_what_is_not_of_the_grammar_is_refused(name, text):
    parser = grammars_of(name)[name].parser
    for parse in (parser.parse, lambda t: parser.parse(t, question=True), parser.parse_caption):
        with pytest.raises(ValueError, match="not a"):
            parse(text)


def with_questions(**templates):
    """English, in which some kinds have one more template."""
    questions = {k: (*v, *templates.get(k, ())) for k, v in english.QUESTIONS.items()}
    return Grammar(SimpleNamespace(**vars(english) | dict(QUESTIONS=questions)))


def test_a_template_that_can_be_read_in_two_ways_is_an_error():
    grammar = with_questions(colour=["tell me of the {a}"], shape=["tell me of the {a}"])
    with pytest.raises(ValueError, match="read in 2 ways"):
        grammar.parser.parse("tell me of the circle", question=True)


def test_templates_are_expanded_each_choice_in_equal_shares():
    ways = expand("x (a|(b|c)|) y")
    assert [join(words) for words, _ in ways] == ["x a y", "x b y", "x c y", "x y"]
    assert [share for _, share in ways] == [1 / 3, 1 / 6, 1 / 6, 1 / 3]
    assert replace_macros("see THE one", dict(THE="(the|a A)", A="b")) == "see (the|a b) one"
    with pytest.raises(ValueError, match="never closed"):
        read_choice("a (b|c", 2)
    with pytest.raises(KeyError):
        with_questions(colour=["what UNKNOWN is the {a}"])


def test_all_ways_are_drawn_and_the_plain_one_first():
    grammar = grammars_of("en")["en"]
    kind = np.zeros(20000, np.int64)
    drawn = grammar.questions.draw(kind, np.random.default_rng(0).integers(0, CHOICES, 20000))
    ways = grammar.questions.words[grammar.questions.first[0] : grammar.questions.last[0] + 1]
    assert {tuple(row) for row in drawn} <= {tuple(row) for row in ways}
    assert len(np.unique(drawn, axis=0)) > 0.7 * len(np.unique(ways, axis=0))
    plain = grammar.texts(grammar.render_question(statements(13)))
    assert plain[0].startswith("is there a") and plain[10] == "describe the picture ?"
