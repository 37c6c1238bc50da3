"""Korean: right particles, counters, and a tokenizer that keeps them apart from their words."""

import unicodedata

import numpy as np
import pytest

from data.shapes import truth
from data.shapes.languages import grammars_of
from data.shapes.questions_of_people import normalize_question
from data.shapes.templates import CHOICES
from data.shapes.truth import KIND, KINDS, LINK, PROMPTS, A, B
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE
from data.tokenizer import FIRST_WORD, Tokenizer

pytestmark = pytest.mark.quick
GRAMMAR = grammars_of("ko")["ko"]
AFTER_CLOSED = ("은", "이", "을", "과", "이에요")
AFTER_OPEN = ("는", "가", "를", "와", "예요")


def ends_open(word):
    """Has its last syllable no final consonant? By the order of Unicode's syllables."""
    return (ord(word[-1]) - 0xAC00) % 28 == 0


def statements(n):
    rng = np.random.default_rng(0)
    rows = np.zeros((n, truth.WIDTH), np.int64)
    rows[:, KIND] = np.arange(n) % len(KINDS + PROMPTS)
    for noun in (A, B):
        rows[:, noun] = np.stack([rng.integers(0, k, n) for k in (3, 9, 9, 1)], 1)
        rows[(rows[:, noun] == 0).all(1), noun.start + SHAPE] = 1
    rows[:, A.start + PLACE], rows[:, LINK] = rng.integers(1, 10, n), rng.integers(1, 3, n)
    return rows


def said_of(rows):
    """Word ids of questions, trained and held out, statements, answers and captions."""
    phrasing = np.random.default_rng(1).integers(0, CHOICES, (len(rows), 4))
    is_statement = rows[:, KIND] < len(KINDS)
    yield GRAMMAR.render_question(rows, phrasing)
    yield GRAMMAR.render_question(rows, phrasing, held_out=True)
    yield GRAMMAR.render_statement(rows[is_statement])
    yield GRAMMAR.render_answer(rows[is_statement], rows[is_statement, LINK])
    yield GRAMMAR.render_caption(np.stack([rows[:, A], rows[:, B]], 1))


def test_particles_fit_the_syllable_before_them():
    seen = set()
    for ids in said_of(statements(3900)):
        for row in ids:
            words = [GRAMMAR.words[i] for i in row if i >= 0]
            for before, word in zip(words, words[1:], strict=False):
                particle = word.removeprefix("-")
                if word.startswith("-") and particle in AFTER_CLOSED + AFTER_OPEN:
                    assert ends_open(before) == (particle in AFTER_OPEN), f"{before}{particle}"
                    seen.add(particle)
    assert seen == {*AFTER_CLOSED, *AFTER_OPEN}


def test_what_is_said():
    rows = np.zeros((9, truth.WIDTH), np.int64)
    rows[:, KIND], rows[:, A.start + SHAPE], rows[:, B.start + SHAPE] = np.arange(9), 8, 7
    rows[:, A.start + COLOUR], rows[:, A.start + PLACE], rows[:, LINK] = 1, 5, 1
    rows[3, A.start + SHAPE] = 0
    assert GRAMMAR.texts(GRAMMAR.render_question(rows)) == [
        "빨간 하트가 있나요 ?",
        "빨간 하트는 몇 개 있나요 ?",
        "빨간 하트는 무슨 색인가요 ?",
        "빨간 물체는 무슨 모양인가요 ?",
        "빨간 하트는 무슨 크기인가요 ?",
        "빨간 하트는 별의 왼쪽에 있나요 ?",
        "빨간 하트가 별보다 많은가요 ?",
        "빨간 하트는 어디에 있나요 ?",
        "가운데에 무엇이 있나요 ?",
    ]
    answers = np.array([1, 3, 8, 8, 2, 2, 1, 1, truth.encode_object(np.array([[1, 2, 7, 0]]))[0]])
    assert GRAMMAR.answer_texts(rows, answers) == [
        "네",
        "두 개 있어요",
        "흰색이에요",
        "하트예요",
        "커요",
        "아니요",
        "네",
        "왼쪽 위에 있어요",
        "작은 주황색 별이 있어요",
    ]
    denied = GRAMMAR.answer_texts(rows[2:4], np.array([truth.NONE, truth.SEVERAL]))
    assert denied == ["그런 물체는 없어요", "그런 물체가 여러 개 있어요"]
    noun_phrases = np.array([[[1, 1, 1, 0], [2, 8, 6, 3]]])
    assert GRAMMAR.caption_texts(noun_phrases) == ["작은 빨간 원과 오른쪽 위의 큰 흰 고리"]


def test_counters():
    rows = np.zeros((10, truth.WIDTH), np.int64)
    rows[:, KIND], rows[:, A.start + SHAPE] = truth.COUNT, 1
    counted = GRAMMAR.answer_texts(rows, np.arange(1, 11))
    assert counted[:4] == ["하나도 없어요", "한 개 있어요", "두 개 있어요", "세 개 있어요"]
    assert len(set(counted)) == 10


@pytest.mark.parametrize(
    "text",
    ["빨간 원은 무슨 크기인가요?", "빨간  원은 무슨 크기인가요", "빨간 원은 무슨 크기인가요？"],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_questions_as_people_type_them(text, form):
    typed = unicodedata.normalize(form, text)
    known = normalize_question(typed, grammars_of("both"))
    assert known == "빨간 원은 무슨 크기인가요 ?"
    row = GRAMMAR.parser.parse(known, question=True)
    assert KINDS[row[KIND]] == "size" and row[A].tolist() == [0, 1, 1, 0]


STRINGS = [
    "빨간 원은 별의 왼쪽에 있나요 ?",
    "원 은",
    "원은는",
    "은",
    "-은",
    " 원은",
    "원은 ",
    "원은,별이",
    "a red circle 원과 star",
    "무엇이\n보여요?",
    "강아지는 어디에 있나요 ?",
    "\ud800 원\x00이",
]


@pytest.mark.parametrize("language", ["ko", "both"])
@pytest.mark.parametrize("text", STRINGS)
def test_the_tokenizer_is_lossless(text, language):
    tokenizer = Tokenizer(next(iter(grammars_of(language).values())).words)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_tokenizer_keeps_words_and_particles_apart():
    tokenizer = Tokenizer(GRAMMAR.words)
    names = [tokenizer.name(i) for i in tokenizer.encode("빨간색 원은 위쪽에는 있나요 ?")]
    assert names == ["빨간", "-색", "원", "-은", "위쪽", "-에", "-는", "있나요", "?"]
    assert min(tokenizer.encode("하트와 원과 별")) >= FIRST_WORD
    assert len(GRAMMAR.words) < 150


def test_the_columns_of_a_noun_are_read_in_any_way_it_can_be_said():
    parse = GRAMMAR.parser.parse
    for noun in ("큰 흰 별", "커다란 흰 별", "큰 하얀 별", "큰 흰색 별"):
        row = parse(f"{noun}이 있나요 ?", question=True)
        assert row[A].tolist() == [2, 8, 7, 0]
    assert parse("빨간 것은 무슨 모양인가요 ?", question=True)[A.start + SIZE] == 0
