"""Grammar: what is rendered parses back to what was meant, and nothing else parses."""

import numpy as np
import pytest

from data.shapes import grammar
from data.shapes.english import LINKS, PARAPHRASES
from data.shapes.scene import sample
from data.shapes.truth import KIND, KINDS, LINK, said
from data.shapes.world import PLACE, SIZE, WORLDS

NO_SENTENCES = [
    "",
    "red",
    "a red",
    "a red circle and",
    "a circle red",
    "a red circle a blue ring",
    "the red circle is",
    "a red circle ,",
]


def all_nouns():
    return [(s, c, f, 0) for s in range(3) for c in range(9) for f in range(9)]


def whole_grammar():
    """Every statement of one noun; for statements of two, every first noun, a few second ones."""
    for kind, name in enumerate(KINDS):
        has_link = name not in ("existence", "compare", "content")
        links = range(1, len(LINKS[kind]) + 1) if has_link else [0]
        for a in all_nouns():
            for link in links:
                if name in ("relation", "compare"):
                    for b in ((0, 3, 4, 0), (1, 0, 8, 0), (2, 5, 0, 0)):
                        yield [kind, *a, link, *b]
                elif name == "content":
                    for place in range(1, 10):
                        yield [kind, *a[:3], place, link, 0, 0, 0, 0]
                else:
                    yield [kind, *a, link, 0, 0, 0, 0]


def test_parse_of_what_is_said_is_what_was_meant():
    rows = np.array(list(whole_grammar()))
    sentences = grammar.texts(grammar.render_statement(rows))
    questions = grammar.texts(grammar.render_question(rows))
    paraphrases = grammar.texts(grammar.render_question(rows, PARAPHRASES))
    for row, sentence, *both in zip(rows, sentences, questions, paraphrases, strict=True):
        assert (grammar.parse(sentence) == row).all(), (row, sentence)
        kept = row.copy()
        if KINDS[row[KIND]] != "relation":
            kept[LINK] = 0
        if KINDS[row[KIND]] == "content":
            kept[1:4] = 0
        for question in both:
            assert (grammar.parse(question, question=True) == kept).all(), question


@pytest.mark.parametrize("name", ["default", "full"])
def test_captions_parse_back(name):
    noun_phrases = sample(WORLDS[name], 0, "train", np.arange(800)).objects
    noun_phrases[::2, :, PLACE] = 0
    noun_phrases[::3, :, SIZE] = 0
    captions = grammar.texts(grammar.render_caption(noun_phrases))
    for meant, caption in zip(noun_phrases, captions, strict=True):
        assert (grammar.parse_caption(caption) == meant[said(meant)]).all()


@pytest.mark.parametrize("text", NO_SENTENCES)
def test_what_is_not_of_the_grammar_is_refused(text):
    with pytest.raises(ValueError):
        grammar.parse(text)
    with pytest.raises(ValueError):
        grammar.parse(text, question=True)
    with pytest.raises(ValueError):
        grammar.parse_caption(text)
