"""Typed statements about a scene: to words, parsed back from words, true / false / undecided in a scene.

A noun phrase is a row (size, colour, shape, place) in the layout of scene.py, 0 where nothing is said. A statement
is a row of ten integers, and one row is one sentence and one question:

    KIND   a: size colour shape place   LINK   b: size colour shape place

LINK is what a question asks for: the number, colour, shape, size or place; in a relation it names the relation, and
the question asks for yes or no. A caption is not such a row but a list of noun phrases, (m, 4).
"""

import re

import numpy as np

from data.shapes.scene import ATTRIBUTES, COLOUR, COLOURS, PLACE, PLACES, SHAPE, SHAPES, SIZE, SIZES

KINDS = ("existence", "count", "colour", "shape", "size", "relation", "compare", "place", "content")
EXISTENCE, COUNT, COLOUR_OF, SHAPE_OF, SIZE_OF, RELATION, COMPARE, PLACE_OF, CONTENT = range(len(KINDS))
KIND, A, LINK, B, WIDTH = 0, slice(1, 5), 5, slice(6, 10), 10

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RELATIONS = ("left of", "right of", "above", "below")
UNDECIDED, YES, NO = 0, 1, 2

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
LINKS = (("yes", "no"), NUMBERS, COLOURS, SHAPES, SIZES, RELATIONS, ("yes", "no"), PLACES, ())
ANSWERS = LINKS[:RELATION] + (("yes", "no"),) + LINKS[COMPARE:]  # a relation is asked with yes or no
NOTHING = 129  # the answer to "what is at the top ?" where nothing is; 1..128 number size x colour x shape

PLURALS = tuple(shape + ("es" if shape == "cross" else "s") for shape in SHAPES) + ("objects",)
LITERALS = "a an the and , ? is are there at of than more how many what where colour shape size number nothing yes no object"
WORDS = tuple(
    dict.fromkeys(
        LITERALS.split() + [w for group in ATTRIBUTES + (NUMBERS, RELATIONS, PLURALS) for phrase in group for w in phrase.split()]
    )
)
ID = {word: i for i, word in enumerate(WORDS)}


def word_table(phrases, words_each=1):
    """Value -> word ids, -1 where there is none: (len(phrases) + 1, words_each); row 0 is "not said"."""
    rows = [[-1] * words_each] + [([ID[w] for w in p.split()] + [-1] * words_each)[:words_each] for p in phrases]
    return np.array(rows)


SIZE_WORDS, COLOUR_WORDS, PLACE_WORDS = word_table(SIZES), word_table(COLOURS), word_table(PLACES, 2)
ONE_WORDS, MANY_WORDS = word_table(SHAPES), word_table(PLURALS[:-1])
ONE_WORDS[0], MANY_WORDS[0] = ID["object"], ID["objects"]  # a noun whose shape is not said
LINK_WORDS = tuple(word_table(values, 2) for values in LINKS)


# ---------------------------------------------------------------- statements to words


def nouns(noun_phrases, plural=False):
    """(n, 4) -> word ids (n, 3), -1 where a word is left out."""
    shape_words = MANY_WORDS if plural else ONE_WORDS
    return np.concatenate([SIZE_WORDS[noun_phrases[:, SIZE]], COLOUR_WORDS[noun_phrases[:, COLOUR]], shape_words[noun_phrases[:, SHAPE]]], 1)


def fill(template, kind, rows):
    """One template for all rows (n, 10) of one kind -> word ids (n, length) with gaps of -1."""
    fillings = {
        "{a}": lambda: nouns(rows[:, A]),
        "{as}": lambda: nouns(rows[:, A], plural=True),
        "{b}": lambda: nouns(rows[:, B]),
        "{bs}": lambda: nouns(rows[:, B], plural=True),
        "{link}": lambda: LINK_WORDS[kind][rows[:, LINK]],
        "{place}": lambda: PLACE_WORDS[rows[:, A][:, PLACE]],
    }
    parts = [fillings[w]() if w in fillings else np.full((len(rows), 1), ID[w]) for w in template.split()]
    return np.concatenate(parts, 1)


def compact_ids(ids):
    """Move the -1 of each row to its end, write "an" before a vowel, and cut to the longest row: (n, length)."""
    ids = np.take_along_axis(ids, (ids < 0).argsort(1, kind="stable"), 1)
    vowel = np.isin(ids[:, 1:], [ID["orange"], ID["object"]])
    ids[:, :-1][(ids[:, :-1] == ID["a"]) & vowel] = ID["an"]
    return ids[:, : max((ids >= 0).sum(1).max(initial=1), 1)]


def render_rows(templates, rows):
    """Statements (n, 10) -> word ids (n, length), -1 at the ends."""
    ids = np.full((len(rows), 24), -1)
    for kind in range(len(KINDS)):
        mine = rows[:, KIND] == kind
        if mine.any():
            filled = fill(templates[kind], kind, rows[mine])
            ids[mine, : filled.shape[1]] = filled
    return compact_ids(ids)


def render_statement(rows):
    """Statements (n, 10) as sentences, word ids (n, length)."""
    return render_rows(STATEMENTS, rows)


def render_question(rows, templates=QUESTIONS):
    """The questions to these statements, word ids (n, length); LINK is not looked at, but in a relation."""
    return render_rows(templates, rows)


def render_answer(rows, answers):
    """The answers (n,) as `answer` gives them in words, word ids (n, length)."""
    ids = np.full((len(rows), 4), -1)
    for kind, values in enumerate(ANSWERS):
        mine = rows[:, KIND] == kind
        if kind != CONTENT:
            ids[mine, :2] = word_table(values, 2)[answers[mine]]
    noun_phrase = (rows[:, KIND] == CONTENT) & (answers < NOTHING)
    ids[noun_phrase, 0], ids[noun_phrase, 1:] = ID["a"], nouns(thing_of(answers[noun_phrase]))
    ids[(rows[:, KIND] == CONTENT) & (answers == NOTHING)] = [ID["nothing"], -1, -1, -1]
    return compact_ids(ids)


def thing_of(code):
    """The number 1..128 of a fully described thing -> its row (size, colour, shape, 0)."""
    code = code - 1
    return np.stack([code // 64 + 1, code // 8 % 8 + 1, code % 8 + 1, 0 * code], 1)


def caption(noun_phrases):
    """Lists of noun phrases (n, m, 4), empty ones last -> "a red circle, a ... and a ...", word ids (n, length)."""
    n, m, _ = noun_phrases.shape
    there = said(noun_phrases)
    count = there.sum(1)
    ids = np.full((n, m, 9), -1)
    for k in range(m):
        if k > 0:
            ids[:, k, 0] = np.where(k == count - 1, ID["and"], ID[","])
        ids[:, k, 1] = ID["a"]
        ids[:, k, 2:5] = nouns(noun_phrases[:, k])
        placed = noun_phrases[:, k, PLACE] > 0
        ids[placed, k, 5], ids[placed, k, 6] = ID["at"], ID["the"]
        ids[:, k, 7:9] = PLACE_WORDS[noun_phrases[:, k, PLACE]]
    ids[~there] = -1
    return compact_ids(ids.reshape(n, -1))


def text(ids):
    """Word ids (length,) -> a string."""
    return " ".join(WORDS[i] for i in ids if i >= 0)


def texts(ids):
    """Word ids (n, length) -> n strings."""
    return [text(row) for row in ids]


def every_colour_and_shape():
    """The 64 captions "a COLOUR SHAPE" as lists of one noun phrase, (64, 1, 4), colour by colour."""
    noun_phrases = np.zeros((64, 1, 4), np.int64)
    noun_phrases[:, 0, COLOUR], noun_phrases[:, 0, SHAPE] = np.arange(64) // 8 + 1, np.arange(64) % 8 + 1
    return noun_phrases


# ---------------------------------------------------------------- words to statements


def one_of(phrases):
    return "(" + "|".join(sorted(phrases, key=len, reverse=True)) + ")"


def pattern_of(template, kind):
    """A template as a regular expression; `order` says which field each group fills."""
    single = rf"(?:{one_of(SIZES)} )?(?:{one_of(COLOURS)} )?{one_of(SHAPES + ('object',))}"
    many = rf"(?:{one_of(SIZES)} )?(?:{one_of(COLOURS)} )?{one_of(PLURALS)}"
    slots = {"a": single, "as": many, "b": single, "bs": many, "link": one_of(LINKS[kind]), "place": one_of(PLACES)}
    order = re.findall(r"{(\w+)}", template)
    pattern = template.replace("?", r"\?").replace("is a {", "is an? {").replace("there a {", "there an? {")
    if pattern.startswith("a "):
        pattern = "an? " + pattern[2:]
    return re.compile(re.sub(r"{(\w+)}", lambda slot: slots[slot[1]], pattern)), order


def patterns_of(templates):
    return tuple((kind, *pattern_of(template, kind)) for kind, template in enumerate(templates))


SENTENCE_PATTERNS, QUESTION_PATTERNS = patterns_of(STATEMENTS), patterns_of(QUESTIONS) + patterns_of(PARAPHRASES)
THING_PATTERN = re.compile(rf"an? {pattern_of('{a}', 0)[0].pattern}(?: at the {one_of(PLACES)})?")


def value_of(phrases, phrase):
    return phrases.index(phrase) + 1 if phrase in phrases else 0


def parse(sentence, question=False):
    """A sentence (or a question) of the grammar -> its statement (10,). ValueError for any other text."""
    for kind, pattern, order in QUESTION_PATTERNS if question else SENTENCE_PATTERNS:
        match = pattern.fullmatch(sentence)
        if not match:
            continue
        row, groups = np.zeros(WIDTH, np.int64), list(match.groups())
        row[KIND] = kind
        for slot in order:
            if slot == "link":
                row[LINK] = value_of(LINKS[kind], groups.pop(0))
            elif slot == "place":
                row[A.start + PLACE] = value_of(PLACES, groups.pop(0))
            else:
                start = A.start if slot[0] == "a" else B.start
                row[start : start + 4] = parse_noun(groups[:3])
                groups = groups[3:]
        return row
    raise ValueError(f"not a {'question' if question else 'statement'} of the grammar: {sentence!r}")


def parse_noun(words):
    size, colour, shape = words
    shapes = SHAPES if shape in SHAPES else PLURALS[:-1]
    return [value_of(SIZES, size), value_of(COLOURS, colour), value_of(shapes, shape), 0]


def parse_caption(sentence):
    """A caption -> its noun phrases (m, 4). ValueError for any other text."""
    head, *last = sentence.rsplit(" and ", 1)
    phrases = (head.split(" , ") if last else [head]) + last
    noun_phrases = []
    for phrase in phrases:
        match = THING_PATTERN.fullmatch(phrase)
        if not match:
            raise ValueError(f"not a caption of the grammar: {sentence!r}")
        *noun, place = match.groups()
        noun_phrases.append(parse_noun(noun)[:3] + [value_of(PLACES, place)])
    return np.array(noun_phrases)


# ---------------------------------------------------------------- statements and scenes


def said(noun_phrases):
    """Which rows of (..., 4) describe anything."""
    return (noun_phrases > 0).any(-1)


def without(noun_phrases, *columns):
    """The same things (..., 4), not saying these columns."""
    noun_phrases = noun_phrases.copy()
    noun_phrases[..., list(columns)] = 0
    return noun_phrases


def matches(noun_phrases, objects):
    """Which objects (n, m, 4) a noun phrase (n, 4) fits: (n, m)."""
    noun_phrases = noun_phrases[:, None]
    return ((noun_phrases == 0) | (noun_phrases == objects)).all(-1) & (objects[..., SHAPE] > 0)


def answer(rows, objects):
    """What the question to statement (n, 10) is answered with in objects (n, m, 4): (n,), 0 = undecided.

    YES or NO; a number + 1; a colour, shape, size or place; 1..128 or NOTHING for "what is at". "The red circle"
    takes exactly one red circle, and a relation two objects that differ clearly on its axis.
    """
    fit_a, fit_b = matches(rows[:, A], objects), matches(rows[:, B], objects)
    count_a, count_b = fit_a.sum(1), fit_b.sum(1)
    n = np.arange(len(rows))
    one_a, one_b = objects[n, fit_a.argmax(1)], objects[n, fit_b.argmax(1)]
    is_one = count_a == 1
    side = relation_holds(rows[:, LINK], one_a, one_b)
    code = ((one_a[:, SIZE] - 1) * 8 + one_a[:, COLOUR] - 1) * 8 + one_a[:, SHAPE]
    by_kind = np.stack(
        [
            yes_no(count_a > 0),
            np.minimum(count_a, 9) + 1,
            one_a[:, COLOUR] * is_one,
            one_a[:, SHAPE] * is_one,
            one_a[:, SIZE] * is_one,
            side * (is_one & (count_b == 1)),
            yes_no(count_a > count_b),
            one_a[:, PLACE] * is_one,
            np.where(count_a > 0, code, NOTHING),
        ]
    )
    return by_kind[rows[:, KIND], n]


def yes_no(truth):
    return np.where(truth, YES, NO)


def relation_holds(relation, one, other):
    """YES, NO or UNDECIDED for objects (n, 4): decided only between different columns (rows) of places."""
    sideways = (one[:, PLACE] - 1) % 3 - (other[:, PLACE] - 1) % 3
    downwards = (one[:, PLACE] - 1) // 3 - (other[:, PLACE] - 1) // 3
    signed = np.stack([0 * sideways, -sideways, sideways, -downwards, downwards])[relation, np.arange(len(one))]
    return np.where(signed == 0, UNDECIDED, yes_no(signed > 0))


def truth(rows, objects):
    """Is the statement (n, 10) true in objects (n, m, 4)? YES, NO or UNDECIDED, (n,)."""
    answers = answer(rows, objects)
    there = yes_no(matches(rows[:, A], objects).any(1))
    by_link = np.where(answers == UNDECIDED, UNDECIDED, yes_no(answers == rows[:, LINK]))
    by_answer = np.isin(rows[:, KIND], (EXISTENCE, RELATION, COMPARE))
    return np.where(rows[:, KIND] == CONTENT, there, np.where(by_answer, answers, by_link))


def caption_truth(noun_phrases, objects):
    """Which captions (c, m, 4) are true of which scenes (s, k, 4): bool (c, s).

    Each noun phrase needs an object of its own: as many objects fit it as the caption has phrases like it. (Exact for
    captions whose phrases are equally detailed, as all captions here are.)
    """
    there = said(noun_phrases)
    alike = ((noun_phrases[:, :, None] == noun_phrases[:, None]).all(-1) & there[:, None]).sum(2)  # (c, m)
    flat = noun_phrases.reshape(-1, 4)
    fits = np.zeros((len(flat), len(objects)), np.int64)
    for k in range(objects.shape[1]):
        one = objects[:, k]
        fits += ((flat[:, None] == 0) | (flat[:, None] == one[None])).all(-1) & (one[None, :, SHAPE] > 0)
    enough = fits.reshape(*noun_phrases.shape[:2], -1) >= alike[..., None]
    return (enough | ~there[..., None]).all(1)
