"""Templates: what they can be, how ways are drawn from them, and which of them are errors."""

from types import SimpleNamespace

import numpy as np
import pytest

from data.shapes import english
from data.shapes.grammar import Grammar
from data.shapes.languages import grammars_of
from data.shapes.templates import (
    CHOICES,
    Templates,
    expand,
    join,
    read_choice,
    replace_macros,
    ways_to_say,
)

pytestmark = pytest.mark.quick


def english_with(table, **templates):
    """English, in which some kinds have one more template, in QUESTIONS or in HELD_OUT."""
    lists = {k: (*v, *templates.get(k, ())) for k, v in getattr(english, table).items()}
    return SimpleNamespace(**vars(english) | {table: lists})


def test_each_choice_gives_its_alternatives_equal_shares():
    ways = expand("x (a|(b|c)|) y")
    assert [join(words) for words, _ in ways] == ["x a y", "x b y", "x c y", "x y"]
    assert [share for _, share in ways] == [1 / 3, 1 / 6, 1 / 6, 1 / 3]


def test_the_plain_way_is_the_first():
    assert ways_to_say("(large|big) (thing|one|)") == [
        "large thing",
        "large one",
        "large",
        "big thing",
        "big one",
        "big",
    ]


def test_macros_stand_in_macros():
    assert replace_macros("see THE one", dict(THE="(the|a A)", A="b")) == "see (the|a b) one"


def test_an_end_of_a_word_is_written_close_to_it():
    assert join(["빨간", "-색", "원", "-은"]) == "빨간색 원은"


def test_ways_are_drawn_as_often_as_their_shares_say():
    compiled = Templates([["a", "b (c|d)"], ["a (c|)"]], dict(a=0, b=1, c=2, d=3), {})
    rng = np.random.default_rng(0)
    for kind, shares in enumerate(({"a": 1 / 2, "bc": 1 / 4, "bd": 1 / 4}, {"ac": 0.5, "a": 0.5})):
        numbers = np.append(0, rng.integers(0, CHOICES, 20000))
        drawn = compiled.draw(np.full(20001, kind), numbers)
        words = ["".join("abcd"[i] for i in row if i >= 0) for row in drawn]
        assert set(words) == set(shares) and words[0] == next(iter(shares))  # 0 is plain
        for way, share in shares.items():
            assert abs(words.count(way) / 20001 - share) < 0.02


def test_all_ways_to_ask_are_drawn():
    grammar = grammars_of("en")["en"]
    kind = np.zeros(60000, np.int64)
    drawn = grammar.questions.draw(kind, np.random.default_rng(0).integers(0, CHOICES, 60000))
    ways = grammar.questions.words[grammar.questions.first[0] : grammar.questions.last[0] + 1]
    assert {tuple(row) for row in drawn} <= {tuple(row) for row in ways}
    assert len(np.unique(drawn, axis=0)) > 0.7 * len(np.unique(ways, axis=0))


# ---------------------------------------------------------------- errors


def test_a_question_that_can_be_read_in_two_ways_is_an_error():
    ambiguous = dict(colour=["tell me of the {a}"], shape=["tell me of the {a}"])
    for table in ("QUESTIONS", "HELD_OUT"):
        parser = Grammar(english_with(table, **ambiguous)).parser
        with pytest.raises(ValueError, match="a question that can be read in 2 ways"):
            parser.parse("tell me of the circle ?", question=True)
        assert parser.parse("what colour is the circle ?", question=True)[0] == 2


def test_a_bracket_that_is_never_closed_is_an_error():
    with pytest.raises(ValueError, match="never closed"):
        read_choice("a (b|c", 2)


def test_a_macro_that_is_not_known_is_an_error():
    with pytest.raises(KeyError, match="UNKNOWN"):
        Grammar(english_with("QUESTIONS", colour=["what UNKNOWN is the {a}"]))


def test_a_held_out_question_in_a_word_that_is_not_trained_is_an_error():
    Grammar(english_with("HELD_OUT", colour=["that {a} has which colour"]))
    with pytest.raises(KeyError, match="hue"):
        Grammar(english_with("HELD_OUT", colour=["which hue has that {a}"]))
