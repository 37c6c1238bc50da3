"""Tokenizer: every text comes back, and a word of the grammar is one token."""

import numpy as np
import pytest

from data.shapes.languages import grammars_of
from data.tokenizer import PAD, Tokenizer

pytestmark = pytest.mark.quick

TOKENIZER = Tokenizer(grammars_of("en")["en"].words)
TEXTS = [
    "",
    " ",
    "a red circle",
    "a  red circle ",
    "Zwölf 🙂 rote",
    "\x00",
    "red",
    " red",
    "redred",
    "red\n\tcircle",
    "\ud800 red",
    "שלום red ?",
]


@pytest.mark.parametrize("text", TEXTS)
def test_every_text_comes_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_random_texts_come_back():
    rng = np.random.default_rng(0)
    pieces = ["red", "circle", " ", "  ", "x", "é", "and", ",", "\n"]
    for _ in range(3000):
        text = "".join(rng.choice(pieces, rng.integers(0, 9)))
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_words_of_the_grammar_are_single_tokens():
    text = "a small red circle and a large blue ring at the top left"
    assert len(TOKENIZER.encode(text)) == 13


def test_a_prompt_ends_with_the_models_turn():
    texts = ["is there a ring", "is there a ring?", "is there a ring ?", ""]
    bare, close, asked, nothing = TOKENIZER.encode_prompts(texts)
    assert bare == close == asked and TOKENIZER.decode(bare) == "is there a ring ?"
    assert set(nothing) == {PAD}
