"""Korean as data, laid out like english.py.

"작은 빨간 원과 큰 별" is "a small red circle and a large star".

Particles are words of their own, written "-은": they join the word before them, and after an open
syllable (one without a final consonant) become the other form of AGREEMENT. A noun has no plural.
Things are counted with 개, and sentences are in the polite style (해요체). Checked against the
particle and colour tables of the National Institute of Korean Language's Basic Korean Dictionary.
"""

from data.shapes.korean_held_out import HELD_OUT  # noqa: F401
from data.shapes.korean_questions import END, MACROS, QUESTIONS, START  # noqa: F401

SIZES = ("작은", "(큰|커다란)")
COLOURS = (
    "(빨간|빨간 -색)", "(주황 -색|주황)", "(노란|노란 -색)", "(초록 -색|초록)",
    "(청록 -색|청록)", "(파란|파란 -색)", "(보라 -색|보라)", "(흰|하얀|흰 -색|하얀 -색)",
)  # fmt: skip
COLOUR_NAMES = tuple(
    f"{colour} -색"
    for colour in "빨간 주황 노란 초록 청록 파란 보라 흰".split()  # noqa: SIM905
)
SHAPES = ("원", "정사각형", "삼각형", "마름모", "십자", "고리", "별", "하트")
PLURALS = SHAPES
OBJECT, OBJECTS = "(물체|것|도형)", "(물체|도형)"
NUMBERS = ("하나도 없어요",) + tuple(
    f"{number} 개 있어요"
    for number in ["한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉"]
)
PLACES = (
    "왼쪽 위", "(위쪽|위)", "오른쪽 위",
    "왼쪽", "(가운데|중앙)", "오른쪽",
    "왼쪽 아래", "(아래쪽|아래)", "오른쪽 아래",
)  # fmt: skip
RELATIONS = ("왼쪽", "오른쪽", "(위쪽|위)", "(아래쪽|아래)")
YES_NO = ("네", "아니요")
LINKS = dict(
    count=NUMBERS,
    colour=COLOUR_NAMES,
    shape=SHAPES,
    size=("작아요", "커요"),
    relation=RELATIONS,
    place=PLACES,
)
VALUES = LINKS | dict(existence=YES_NO, relation=YES_NO, compare=YES_NO)

STATEMENTS = dict(
    existence=("{a} -이 있어요",),
    count=("{as} -은 {link}",),
    colour=("{a} -은 {link} -이에요", "{a} -의 색 -은 {link} -이에요"),
    shape=("{a} -은 {link} -이에요", "{a} -의 모양 -은 {link} -이에요"),
    size=("{a} -은 {link}",),
    relation=("{a} -은 {b} -의 {link} -에 있어요",),
    compare=("{as} -이 {bs} -보다 많아요", "{bs} -이 {as} -보다 적어요"),
    place=("{a} -은 {link} -에 있어요",),
    content=("{place} -에 {a} -이 있어요",),
)
ANSWERS = dict(
    existence="{answer}",
    count="{answer}",
    colour="{answer} -이에요",
    shape="{answer} -이에요",
    size="{answer}",
    relation="{answer}",
    compare="{answer}",
    place="{answer} -에 있어요",
    content="{a} -이 있어요",
    nothing="아무것도 없어요",
    none="그런 물체 -은 없어요",
    several="그런 물체 -이 여러 개 있어요",
)
CAPTION, CAPTION_WITH_PLACE, CAPTION_AS_LIST = "{a}", "{place} -의 {a}", "{a}"
COMMA, AND = ",", "-과"

ENDS_OPEN = (
    "마름모 십자 고리 하트 물체 뭐 크기 위치 개 수 개수 어디 얼마 여기 -에 위 아래 가운데 이미지"
)
AGREEMENT = tuple(
    (closed, opened, -1, ENDS_OPEN.split())
    for closed, opened in (
        ("-은", "-는"), ("-이", "-가"), ("-을", "-를"), ("-과", "-와"), ("-이에요", "-예요"),
    )
)  # fmt: skip

# What people write, and how it is written here, see english.py.
SHORT_COLOURS = "빨간|주황|노란|초록|청록|파란|보라|흰|하얀"
REWORDINGS = (
    (r"몇개", "몇 개"),
    (r"(해|려|어)(주세요|줘요|보세요)", r"\1 \2"),
    (r"(무슨|어떤)(색|모양|크기)", r"\1 \2"),
    (rf"\b({SHORT_COLOURS})(?=[가-힣])(?!색)", r"\1 "),
    (r"(왼쪽|오른쪽)(위|아래)", r"\1 \2"),
    (r"색깔", "색"),
    (r"있습니까|있니\b|있어\b", "있나요"),
    (r"입니까", "인가요"),
    (r"^(모두|다) 몇 개", "물체는 몇 개"),
    (r"(?<!더) (?=(많|적)(나요|은가요|아요|어요))", " 더 "),
    # "Is the circle red": is there such a thing?
    (rf"^(\S.*)은 ({SHORT_COLOURS})색?(인가요|이에요|예요)", r"\2 \1이 있나요"),
    (rf"^(\S.*)는 ({SHORT_COLOURS})색?(인가요|이에요|예요)", r"\2 \1가 있나요"),
    (r"^(\S.*)은 (큰|작은)가요(?=( \?)?$)", r"\2 \1이 있나요"),
    (r"^(\S.*)는 (큰|작은)가요(?=( \?)?$)", r"\2 \1가 있나요"),
)
