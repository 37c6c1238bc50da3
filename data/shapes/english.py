"""English as data: the words for all that can be said, and the templates that say and ask it.

A language is a file of such tables; grammar.py fills them, parser.py reads them back, and how a
template is written stands in templates.py. The values of a table are 1, 2, ... The first way to say
a thing is the plain one, which answers and captions use.
"""

from data.shapes.english_held_out import HELD_OUT  # noqa: F401
from data.shapes.english_questions import END, MACROS, QUESTIONS, START  # noqa: F401
from data.shapes.world import COLOURS, PLACES, SHAPES

SIZES = ("small", "(large|big)")
PLURALS = tuple(shape + ("es" if shape == "cross" else "s") for shape in SHAPES)
OBJECT, OBJECTS = "(object|thing|one)", "(objects|things)"  # where no shape is said
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RELATIONS = (
    "(left of|to the left of|on the left of|at the left of|more to the left than)",
    "(right of|to the right of|on the right of|at the right of|more to the right than)",
    "(above|up above|up from|more up than|over)",
    "(below|down below|down from|more down than|under)",
)
YES_NO = ("yes", "no")
# What {link} stands for in a statement or a question, and {answer} in an answer.
LINKS = dict(
    count=NUMBERS, colour=COLOURS, shape=SHAPES, size=SIZES, relation=RELATIONS, place=PLACES
)
VALUES = LINKS | dict(existence=YES_NO, relation=YES_NO, compare=YES_NO)

STATEMENTS = dict(
    existence=("there is a {a}",),
    count=("the number of {as} is {link}",),
    colour=("the {a} is {link}", "the colour of the {a} is {link}"),
    shape=("the {a} is a {link}", "the shape of the {a} is a {link}"),
    size=("the {a} is {link}", "the size of the {a} is {link}"),
    relation=("the {a} is {link} the {b}",),
    compare=("there are more {as} than {bs}", "there are fewer {bs} than {as}"),
    place=("the {a} is at the {link}",),
    content=("a {a} is at the {place}", "at the {place} is a {a}"),
)
ANSWERS = dict.fromkeys(STATEMENTS, "{answer}") | dict(
    content="a {a}", nothing="nothing", none="there is none", several="there are several"
)
CAPTION, CAPTION_WITH_PLACE, CAPTION_AS_LIST = "a {a}", "a {a} at the {place}", "{a}"
THERE = "there"  # for an {attribute}, where a thing has none
COMMA, AND = ",", "and"  # between the noun phrases of a caption, and before the last
# A word that changes beside others: (word, what it becomes, where those stand, those).
AGREEMENT = (("a", "an", 1, ("orange", "object", "image")),)

# What people say, and how it is said here: (pattern, instead), for questions that are not known.
REWORDINGS = (
    (r"\b(also|too|as well)\b", ""),
    (r"\bhow much\b", "how many"),
    (r"\b(on|in|to) the (?=(top|bottom|left|right|center)\b)", "at the "),
    (r"\b(objects|things)\b", "shapes"),
    (r"\bshapes\b", "objects"),
    # As in "is the circle red": is there such a thing?
    (r"^is (?:the|this|that) (.+) (?:thing|object|one) an? (.+)$", r"is there a \1 \2"),
)
