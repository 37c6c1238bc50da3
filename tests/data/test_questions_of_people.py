"""Questions and pictures as people bring them."""

import numpy as np
import pytest
import torch

from data.dataset import DATASETS
from data.shapes.questions_of_people import (
    describe_shift,
    explain_question,
    normalize_question,
    spell,
)

pytestmark = pytest.mark.quick

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


@pytest.mark.parametrize("text", SPELLINGS)
def test_spelling_changes_nothing(text):
    assert normalize_question(text) == "what colour is the circle ?"


def test_a_question_of_this_world_needs_no_note_and_others_say_what_is_unknown():
    assert explain_question(normalize_question("is there a circle")) == ""
    assert explain_question(normalize_question("what is at the Centre?")) == ""
    note = explain_question(normalize_question("What is the weather?"))
    assert "not a question of this world" in note and "unknown: weather" in note
    assert "not their order" in explain_question("circle the is what colour ?")


def test_captions_are_spelled_as_the_grammar_does():
    assert spell("A red Circle, and a 'grey' ring.") == "a red circle , and a gray ring"


def test_normalizing_twice_is_normalizing_once():
    for text in (*SPELLINGS, "", "?", "무엇이 보여요?", "\ud800 \x00", "a,b ? c"):
        once = normalize_question(text)
        assert normalize_question(once) == once


def test_generic_questions_are_asked_in_training():
    data = DATASETS["shapes"]()
    asked = set()
    for start in range(0, 2000, 500):
        batch = data.vqa_batch("train", np.arange(start, start + 500), with_pixels=False)
        for ids, segments in zip(batch.input_ids, batch.segment_ids, strict=True):
            asked |= {data.tokenizer.decode(ids[segments == k].tolist()) for k in range(2, 11)}
    for question in data.generic_questions:
        assert any(text.startswith(question) for text in asked), question


def test_pictures_of_this_world_are_not_called_strange_and_white_paper_is():
    pixels = DATASETS["shapes-full"]().split("test").pictures(200).pixels()
    assert {describe_shift(picture) for picture in pixels} == {""}
    assert "bright background" in describe_shift(torch.full((3, 56, 56), 255, dtype=torch.uint8))
    light = torch.full((3, 56, 56), 150, dtype=torch.uint8)
    light[:, :, 0] = light[:, :, -1] = light[:, 0] = light[:, -1] = 40
    assert "a bright picture" in describe_shift(light)
