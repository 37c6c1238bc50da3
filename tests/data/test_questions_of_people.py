"""Questions and pictures as people bring them."""

import numpy as np
import pytest
import torch

from data.batch import IGNORE
from data.dataset import DATASETS
from data.shapes.languages import CHOICES, grammars_of
from data.shapes.questions_of_people import (
    describe_shift,
    explain_question,
    normalize_question,
    spell,
)

pytestmark = pytest.mark.quick
GRAMMARS = grammars_of("both")

SPELLINGS = [
    "what colour is the circle ?",
    "What color is the circle?",
    "WHAT COLOUR IS THE CIRCLE",
    "  what   colour is the circle  ??",
    '"what colour is the circle?"',
    "“What colour is the ‘circle’?”",
    "what color is the circle!",
    "what colour is the circle.",
]


def normalize(text):
    return normalize_question(text, GRAMMARS)


@pytest.mark.parametrize("text", SPELLINGS)
def test_spelling_changes_nothing(text):
    assert normalize(text) == "what colour is the circle ?"


@pytest.mark.parametrize("held_out", [False, True])
def test_spelling_changes_nothing_whatever_is_asked(held_out):
    data = DATASETS["shapes"]()
    for family in data.split("test").families:
        found = data.split("test").question_pairs(family, 20)
        for text in found.paraphrases if held_out else found.asked:
            known = normalize(text)
            assert known.endswith(" ?") and known.removesuffix(" ?") == text.removesuffix(" ?")
            typed = f'  "{text.upper()}"!'.replace("COLOUR", "Color").replace(" ?", "?")
            assert normalize(typed.replace(" ", "  ")) == known and explain(known) == ""


def explain(text):
    return explain_question(text, GRAMMARS)


def test_a_question_of_this_world_needs_no_note_and_others_say_what_is_unknown():
    assert explain(normalize("is there a circle")) == ""
    assert explain(normalize("what is at the Centre?")) == ""
    assert explain(normalize("Can you tell me what colour the big thing has?")) == ""
    note = explain(normalize("What is the weather?"))
    assert "not a question of this world" in note and "unknown: weather" in note
    assert "not their order" in explain("circle the is what colour ?")


def test_captions_are_spelled_as_the_grammar_does():
    assert spell("A red Circle, and a 'grey' ring.") == "a red circle , and a gray ring"


def test_normalizing_twice_is_normalizing_once():
    for text in (*SPELLINGS, "", "?", "무엇이 보여요?", "\ud800 \x00", "a,b ? c"):
        once = normalize(text)
        assert normalize(once) == once


@pytest.mark.parametrize("language", CHOICES)
def test_whatever_the_sampler_asks_by_itself_is_asked_in_training(language):
    data = DATASETS["shapes"](language=language)
    asked = set()
    for start in range(0, 3000, 500):
        batch = data.vqa_batch("train", np.arange(start, start + 500), with_pixels=False)
        for ids, labels, segments in zip(
            batch.input_ids, batch.labels, batch.segment_ids, strict=True
        ):
            for number in range(1, 11):
                prompt = ids[(segments == number) & (labels == IGNORE)]
                asked.add(data.tokenizer.decode(prompt.tolist()))
    for name in data.languages:
        speaking = data.speaking(name)
        assert {*speaking.generic_questions, speaking.caption_prompt} <= asked


def test_pictures_of_this_world_are_not_called_strange_and_white_paper_is():
    pixels = DATASETS["shapes-full"]().split("test").pictures(200).pixels()
    assert {describe_shift(picture) for picture in pixels} == {""}
    assert "bright background" in describe_shift(torch.full((3, 56, 56), 255, dtype=torch.uint8))
    light = torch.full((3, 56, 56), 150, dtype=torch.uint8)
    light[:, :, 0] = light[:, :, -1] = light[:, 0] = light[:, -1] = 40
    assert "a bright picture" in describe_shift(light)
