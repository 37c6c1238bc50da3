"""Korean: right particles, counters, and a tokenizer that keeps them apart from their words."""

import unicodedata

import numpy as np
import pytest

from data.shapes import korean, truth
from data.shapes.languages import grammars_of
from data.shapes.questions_of_people import normalize_question
from data.shapes.templates import CHOICES, ways_to_say
from data.shapes.truth import KIND, KINDS, LINK, PROMPTS, A, B
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE
from data.tokenizer import FIRST_WORD, Tokenizer

pytestmark = pytest.mark.quick
GRAMMAR = grammars_of("ko")["ko"]
ALL = KINDS + PROMPTS
NOUNS = (*korean.SHAPES, *ways_to_say(korean.OBJECT))
OTHER_NOUNS = "색 모양 크기 수 개수 개 위치 그림 사진 이미지 목록 설명 어디 얼마 뭐 무엇"
ENDS_OF_PLACES = sorted(
    {w.split()[-1] for p in korean.PLACES + korean.RELATIONS for w in ways_to_say(p)}
)
AFTER_CLOSED = ("은", "이", "을", "과", "이에요")
AFTER_OPEN = ("는", "가", "를", "와", "예요")


def ends_open(word):
    """Has its last syllable no final consonant? By the order of Unicode's syllables."""
    return (ord(word[-1]) - 0xAC00) % 28 == 0


def statements(n):
    """n statements, kind by kind in turn, and an answer to each, so that all occur."""
    rng, turn = np.random.default_rng(0), np.arange(n)
    rows = np.zeros((n, truth.WIDTH), np.int64)
    rows[:, KIND], rows[:, LINK] = turn % len(ALL), rng.integers(1, 3, n)
    for noun in (A, B):
        rows[:, noun] = np.stack([rng.integers(0, k, n) for k in (3, 9, 9, 1)], 1)
    rows[:, A.start + PLACE] = rng.integers(1, 10, n)
    number = np.array([2, 10, 8, 8, 2, 2, 2, 9, 131, *[1] * len(PROMPTS)])[rows[:, KIND]]
    return rows, turn // len(ALL) % number + 1


def said_of(rows, answers):
    """Word ids of questions, trained and held out, statements, answers and captions."""
    phrasing = np.random.default_rng(1).integers(0, CHOICES, (len(rows), 4))
    is_statement = rows[:, KIND] < len(KINDS)
    phrases = np.stack([rows[:, A], rows[:, B], rows[:, A] * [1, 1, 1, 0]], 1)
    yield GRAMMAR.render_question(rows, phrasing)
    yield GRAMMAR.render_question(rows, phrasing, held_out=True)
    yield GRAMMAR.render_statement(rows[is_statement], phrasing[is_statement, :2])
    yield GRAMMAR.render_answer(rows[is_statement], answers[is_statement])
    yield GRAMMAR.render_caption(phrases)
    yield GRAMMAR.render_caption(phrases * [0, 0, 1, 0], as_list=True)


@pytest.mark.parametrize("noun", [*NOUNS, *OTHER_NOUNS.split(), *ENDS_OF_PLACES])
def test_every_noun_takes_the_right_particles(noun):
    for closed, opened in zip(AFTER_CLOSED, AFTER_OPEN, strict=True):
        ids = GRAMMAR.compact(np.array([[GRAMMAR.ids[noun], GRAMMAR.ids[f"-{closed}"]]]))
        assert GRAMMAR.texts(ids) == [noun + (opened if ends_open(noun) else closed)]


def test_particles_fit_the_syllable_before_them():
    seen = set()
    for ids in said_of(*statements(7800)):
        for row in ids:
            words = [GRAMMAR.words[i] for i in row if i >= 0]
            for before, word in zip(words, words[1:], strict=False):
                particle = word.removeprefix("-")
                if word.startswith("-") and particle in AFTER_CLOSED + AFTER_OPEN:
                    assert ends_open(before) == (particle in AFTER_OPEN), f"{before}{particle}"
                    seen.add((before, particle))
    for k, particles in enumerate(zip(AFTER_CLOSED, AFTER_OPEN, strict=True)):
        for noun in NOUNS if k < 3 else korean.SHAPES:  # captions and answers say shapes
            assert (noun, particles[ends_open(noun)]) in seen


def test_no_particle_stands_alone():
    for ids in said_of(*statements(1300)):
        for text in GRAMMAR.texts(ids):
            assert "-" not in text and "  " not in text and text == text.strip()
            assert not {*AFTER_CLOSED, *AFTER_OPEN} - {"이"} & {*text.split()}, text  # "이 그림"


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


@pytest.mark.parametrize("language", ["ko", "both"])
def test_the_tokenizer_is_lossless_on_random_texts(language):
    tokenizer = Tokenizer(next(iter(grammars_of(language).values())).words)
    rng = np.random.default_rng(0)
    pieces = [
        "원",
        "은",
        "는",
        "-은",
        "이",
        "에",
        "예요",
        "이에요",
        "-",
        " ",
        "  ",
        "가",
        ",",
        "red",
    ]
    for _ in range(5000):
        text = "".join(rng.choice(pieces, rng.integers(0, 9)))
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
