"""Questions and pictures as people bring them."""

import unicodedata

import numpy as np
import pytest
import torch

from data.batch import IGNORE
from data.dataset import DATASETS
from data.shapes.languages import CHOICES, grammars_of
from data.shapes.questions_of_people import (
    describe_shift,
    explain_question,
    language_of,
    normalize_question,
    spell,
)
from data.shapes.truth import KIND, KINDS, PROMPTS

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
    "what colour is the circle …",
    "what colour is the circle？！",
    "what colour is the circle\u200b ;",
]


def normalize(text):
    return normalize_question(text, GRAMMARS)


@pytest.mark.parametrize("text", SPELLINGS)
def test_spelling_changes_nothing(text):
    assert normalize(text) == "what colour is the circle ?"


# What people do to a question.
HABITS = {
    "upper case": str.upper,
    "American": lambda text: text.replace("colour", "color"),
    "quotes": lambda text: f'"{text}"',
    "curly quotes": lambda text: "“" + text.replace(" ", "’ ", 1) + "”",
    "full stop": lambda text: text.removesuffix(" ?") + ".",
    "exclamation mark": lambda text: text.removesuffix(" ?") + "!!",
    "no question mark": lambda text: text.removesuffix(" ?"),
    "question mark close to its word": lambda text: text.removesuffix(" ?") + "?",
    "two question marks": lambda text: text.removesuffix(" ?") + "??",
    "commas close to their words": lambda text: text.replace(" ,", ","),
    "doubled spaces": lambda text: f"  {text.replace(' ', '  ')} \n",
    "decomposed letters": lambda text: unicodedata.normalize("NFD", text),
}


@pytest.fixture(scope="module")
def asked():
    """Questions of all families, of training and held out: {(language, held_out): texts}."""
    data, texts = DATASETS["shapes"](language="both"), {}
    for name in data.languages:
        split = data.speaking(name).split("test")
        pairs = [split.question_pairs(family, 12) for family in split.families]
        texts[name, False] = [text for found in pairs for text in found.asked[::2]]
        texts[name, True] = [text for found in pairs for text in found.paraphrases[::2]]
    return texts


@pytest.mark.parametrize("habit", HABITS)
@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("name", ["en", "ko"])
def test_no_habit_changes_what_is_asked(asked, name, held_out, habit):
    for text in asked[name, held_out]:
        spelled = text.removesuffix(" ?") + " ?"
        assert normalize(HABITS[habit](spelled)) == spelled


@pytest.mark.parametrize("typed", ["center", "Centre", "CENTRE"])
def test_the_middle_is_spelled_either_way(typed):
    assert normalize(f"what is at the {typed}?") == "what is at the center ?"
    assert normalize(f"say what you see at the {typed}.") == "say what you see at the center ?"


# ---------------------------------------------------------------- what is not known


def explain(text):
    return explain_question(text, GRAMMARS)


def test_a_question_of_this_world_needs_no_note(asked):
    for texts in asked.values():
        assert {explain(normalize(text)) for text in texts} == {""}
    assert explain(normalize("is there a circle")) == ""
    assert explain(normalize("Can you tell me what colour the big thing has?")) == ""


OF_PEOPLE = {
    "existence": ["do you see the circle", "빨간 원 있어요?", "이 그림에서 원이 있나요?"],
    "count": ["how many big things?", "원은 몇 개예요?", "그림에서 별이 몇 개 있어요?"],
    "colour": ["what is the colour of the ring?", "원 색은 뭐예요?", "고리의 색이 뭔가요?"],
    "shape": ["what is the red thing?", "빨간 것은 뭐예요?", "하얀색 물체는 무슨 모양이에요?"],
    "size": ["is the star big or small?", "별은 큰가요, 작은가요?", "초록 원은 얼마나 커요?"],
    "relation": ["is the ring above the star?", "원은 별의 왼쪽에 있어요?"],
    "compare": ["more circles than stars?", "별이 원보다 많나요?", "원보다 별이 더 많아요?"],
    "place": ["where's the star?", "원이 어디에 있나요?", "원은 어디 있어요?"],
    "content": ["what is at the top-left of the picture?", "중앙에 뭐가 있나요?"],
    "normal": ["what do you see?", "그림에 뭐가 있어요?", "뭐가 보여요?"],
}


@pytest.mark.parametrize(
    "typed, known",
    [
        ("Is the red thing a circle?", "is there a red circle ?"),
        ("is the small red one a star", "is there a small red star ?"),
        ("what is the circle's colour?", "what is the colour of the circle ?"),
        ("list the objects", "list the shapes ?"),
        ("How many shapes are there?", "how many objects are there ?"),
        ("is there a star too?", "is there a star ?"),
        ("how much stars are there", "how many stars are there ?"),
        ("what is on the left?", "what is at the left ?"),
        ("what's in the top right", "what is in the top right ?"),
        ("원이 몇개 있나요?", "원이 몇 개 있나요 ?"),
        ("그림을 설명해주세요", "그림을 설명해 주세요 ?"),
        ("원의 크기를 알려주세요", "원의 크기를 알려 주세요 ?"),
        ("원은 무슨색인가요?", "원은 무슨 색인가요 ?"),
        ("빨간원이 있나요?", "빨간 원이 있나요 ?"),
        ("왼쪽위에 무엇이 있나요", "왼쪽 위에 무엇이 있나요 ?"),
        ("빨간 원이 있습니까?", "빨간 원이 있나요 ?"),
        ("원은 무슨 색깔입니까?", "원은 무슨 색인가요 ?"),
        ("원이 있어?", "원이 있나요 ?"),
        ("모두 몇 개 있나요?", "물체는 몇 개 있나요 ?"),
        ("별보다 원이 많나요?", "별보다 원이 더 많나요 ?"),
        ("원은 빨간색인가요?", "빨간 원이 있나요 ?"),
        ("고리는 큰가요?", "큰 고리가 있나요 ?"),
    ],
)
def test_what_people_say_otherwise_is_put_as_the_grammar_has_it(typed, known):
    assert normalize(typed) == known and explain(known) == ""


def test_what_is_known_is_not_reworded(asked):
    for texts in asked.values():
        for text in texts:
            assert normalize(text).removesuffix(" ?") == text.removesuffix(" ?")


@pytest.mark.parametrize("kind", OF_PEOPLE)
def test_common_questions_are_known(kind):
    for typed in OF_PEOPLE[kind]:
        text = normalize(typed)
        parser = GRAMMARS[language_of(text, GRAMMARS)].parser
        assert (KINDS + PROMPTS)[parser.parse(text, question=True)[KIND]] == kind


@pytest.mark.parametrize(
    "typed, understood, unknown",
    [
        ("What is the weather?", "what is the", "weather"),
        ("Is there a dog or a cat", "is there a or a", "dog, cat"),
        ("is a dog a dog?", "is a a", "dog"),
        ("강아지 색은?", "색은", "강아지"),
        ("dog", "nothing", "dog"),
    ],
)
def test_a_note_names_the_words_that_are_known_and_those_that_are_not(typed, understood, unknown):
    text = normalize(typed)
    note = explain(text)
    assert note.startswith(f"not a question of this world: {text!r} (")
    assert f"understood: {understood};" in note and f"unknown: {unknown})" in note


def test_a_note_says_where_the_words_are_known_and_their_order_is_not():
    note = explain("circle the is what colour ?")
    assert "not a question of this world" in note
    assert "its words are known, not what they say together" in note


@pytest.mark.parametrize("typed", ["what is the weather?", "what is the weather ? ?"])
def test_what_is_not_known_keeps_its_question_mark_if_it_has_one(typed):
    assert normalize(typed) == "what is the weather ?"
    assert normalize("what is the weather") == "what is the weather"


def test_captions_are_spelled_as_the_grammar_does():
    assert spell("A red Circle, and a 'grey' ring.") == "a red circle , and a grey ring"
    assert spell("The Top-left star - or - what's left") == "the top left star - or - what is left"


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
        assert len(set(speaking.generic_questions)) == 3
        assert bool(speaking.caption_prompt) == (name != data.languages[0])


def test_pictures_of_this_world_are_not_called_strange_and_white_paper_is():
    pixels = DATASETS["shapes-full"]().split("test").pictures(200).pixels()
    assert {describe_shift(picture) for picture in pixels} == {""}
    assert "bright background" in describe_shift(torch.full((3, 56, 56), 255, dtype=torch.uint8))
    light = torch.full((3, 56, 56), 150, dtype=torch.uint8)
    light[:, :, 0] = light[:, :, -1] = light[:, 0] = light[:, -1] = 40
    assert "a bright picture" in describe_shift(light)


def test_a_shortened_is_is_written_out():
    assert normalize("What's at the centre?") == "what is at the center ?"
    assert normalize("where’s the ring") == "where is the ring ?"
    assert normalize("원은 어디에 있나요。") == "원은 어디에 있나요 ?"
