"""English as data: the words for all that can be said, and the templates that say and ask it.

A language is a file of such tables; grammar.py fills them and reads them back. Templates, LINKS and
ANSWERS have one entry for each of truth.KINDS, in that order; the values of a table are 1, 2, ...
"""

from data.shapes.truth import COMPARE, RELATION
from data.shapes.world import ATTRIBUTES, COLOURS, PLACES, SHAPES, SIZES

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RELATIONS = ("left of", "right of", "above", "below")
YES_NO = ("yes", "no")
PLURALS = tuple(shape + ("es" if shape == "cross" else "s") for shape in SHAPES) + ("objects",)
AFTER_AN = ("orange", "object")  # these take "an" instead of "a"

# {a} is a noun, {as} its plural, {link} the value in LINK, {place} where the noun is.
STATEMENTS = (
    "there is a {a}",
    "the number of {as} is {link}",
    "the {a} is {link}",
    "the {a} is a {link}",
    "the {a} is {link}",
    "the {a} is {link} the {b}",
    "there are more {as} than {bs}",
    "the {a} is at the {link}",
    "a {a} is at the {place}",
)
QUESTIONS = (
    "is there a {a} ?",
    "how many {as} are there ?",
    "what colour is the {a} ?",
    "what shape is the {a} ?",
    "what size is the {a} ?",
    "is the {a} {link} the {b} ?",
    "are there more {as} than {bs} ?",
    "where is the {a} ?",
    "what is at the {place} ?",
)
# The same questions in the same words, but in an order that no training text has.
PARAPHRASES = (
    "is a {a} there ?",
    "there are how many {as} ?",
    "the {a} is what colour ?",
    "the {a} is what shape ?",
    "the {a} is what size ?",
    "the {a} is {link} the {b} ?",
    "are {as} more than {bs} ?",
    "the {a} is where ?",
    "at the {place} is what ?",
)

LINKS = (YES_NO, NUMBERS, COLOURS, SHAPES, SIZES, RELATIONS, YES_NO, PLACES, ())
# The same but for a relation, which is asked for with yes or no.
ANSWERS = LINKS[:RELATION] + (YES_NO,) + LINKS[COMPARE:]

LITERALS = (
    "a an the and , ? is are there at of than more how many what where "
    "colour shape size number nothing yes no object"
)
PHRASES = [phrase for table in ATTRIBUTES + (NUMBERS, RELATIONS, PLURALS) for phrase in table]
# Every word of the language once; its index is its id.
WORDS = tuple(dict.fromkeys(LITERALS.split() + " ".join(PHRASES).split()))
