"""Statements and captions to words by the tables of a language, and parsed back from words.

The layout of a statement (10,) and of a noun phrase (4,) is told in truth.py. Words are ids,
indices into english.WORDS, and -1 where there is none.
"""

import re

import numpy as np

from data.shapes import english
from data.shapes.truth import (
    CONTENT,
    KIND,
    KINDS,
    LINK,
    NOTHING,
    WIDTH,
    A,
    B,
    decode_object,
    said,
)
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE

ID = {word: i for i, word in enumerate(english.WORDS)}


def word_table(phrases, words_each=1):
    """Value -> word ids, -1 where there is none: (values + 1, words_each); 0 is "not said"."""
    table = np.full((len(phrases) + 1, words_each), -1)
    for value, phrase in enumerate(phrases, start=1):
        ids = [ID[word] for word in phrase.split()][:words_each]
        table[value, : len(ids)] = ids
    return table


SIZE_WORDS, COLOUR_WORDS = word_table(english.SIZES), word_table(english.COLOURS)
PLACE_WORDS = word_table(english.PLACES, 2)
SINGULAR_WORDS, PLURAL_WORDS = word_table(english.SHAPES), word_table(english.PLURALS[:-1])
SINGULAR_WORDS[0], PLURAL_WORDS[0] = ID["object"], ID["objects"]  # where the shape is not said
LINK_WORDS = tuple(word_table(values, 2) for values in english.LINKS)
ANSWER_WORDS = tuple(word_table(values, 2) for values in english.ANSWERS)


# ---------------------------------------------------------------- statements to words


def nouns(noun_phrases, plural=False):
    """(n, 4) -> word ids (n, 3), -1 where a word is left out."""
    size, colour, shape = (noun_phrases[:, column] for column in (SIZE, COLOUR, SHAPE))
    shape_words = PLURAL_WORDS if plural else SINGULAR_WORDS
    return np.concatenate([SIZE_WORDS[size], COLOUR_WORDS[colour], shape_words[shape]], 1)


def fill_slot(word, kind, rows):
    """What one word of a template stands for in statements (n, 10) of one kind: word ids (n, k)."""
    if word in ("{a}", "{as}"):
        return nouns(rows[:, A], plural=word == "{as}")
    if word in ("{b}", "{bs}"):
        return nouns(rows[:, B], plural=word == "{bs}")
    if word == "{link}":
        return LINK_WORDS[kind][rows[:, LINK]]
    if word == "{place}":
        return PLACE_WORDS[rows[:, A][:, PLACE]]
    return np.full((len(rows), 1), ID[word])


def compact_ids(ids):
    """Move the -1 of each row to its end, write "an" where it belongs, cut to the longest row."""
    ids = np.take_along_axis(ids, (ids < 0).argsort(1, kind="stable"), 1)
    before_vowel = np.isin(ids[:, 1:], [ID[word] for word in english.AFTER_AN])
    ids[:, :-1][(ids[:, :-1] == ID["a"]) & before_vowel] = ID["an"]
    return ids[:, : max((ids >= 0).sum(1).max(initial=1), 1)]


def render_rows(templates, rows):
    """Statements (n, 10) -> word ids (n, length), -1 at the ends."""
    ids = np.full((len(rows), 24), -1)
    for kind in range(len(KINDS)):
        of_kind = rows[:, KIND] == kind
        if of_kind.any():
            words = templates[kind].split()
            filled = np.concatenate([fill_slot(word, kind, rows[of_kind]) for word in words], 1)
            ids[of_kind, : filled.shape[1]] = filled
    return compact_ids(ids)


def render_statement(rows):
    """Statements (n, 10) as sentences, word ids (n, length)."""
    return render_rows(english.STATEMENTS, rows)


def render_question(rows, templates=english.QUESTIONS):
    """The questions to statements (n, 10), word ids (n, length); LINK counts in relations only."""
    return render_rows(templates, rows)


def render_answer(rows, answers):
    """The answers (n,) that truth.answer gives, in words: word ids (n, length)."""
    ids = np.full((len(rows), 4), -1)
    for kind in range(CONTENT):
        of_kind = rows[:, KIND] == kind
        ids[of_kind, :2] = ANSWER_WORDS[kind][answers[of_kind]]
    is_content = rows[:, KIND] == CONTENT
    ids[is_content & (answers == NOTHING), 0] = ID["nothing"]
    is_object = is_content & (answers < NOTHING)
    ids[is_object, 0] = ID["a"]
    ids[is_object, 1:] = nouns(decode_object(answers[is_object]))
    return compact_ids(ids)


# ---------------------------------------------------------------- captions to words


def render_caption(noun_phrases):
    """Noun phrases (n, m, 4), empty ones last -> "a ring , a star and ...", ids (n, length)."""
    n, m, _ = noun_phrases.shape
    there = said(noun_phrases)
    last = there.sum(1) - 1
    ids = np.full((n, m, 9), -1)  # and | a | size colour shape | at the | place (2 words)
    for k in range(m):
        if k > 0:
            ids[:, k, 0] = np.where(k == last, ID["and"], ID[","])
        ids[:, k, 1] = ID["a"]
        ids[:, k, 2:5] = nouns(noun_phrases[:, k])
        has_place = noun_phrases[:, k, PLACE] > 0
        ids[has_place, k, 5:7] = ID["at"], ID["the"]
        ids[:, k, 7:9] = PLACE_WORDS[noun_phrases[:, k, PLACE]]
    ids[~there] = -1
    return compact_ids(ids.reshape(n, -1))


def every_colour_and_shape():
    """The 64 captions "a COLOUR SHAPE", each of one noun phrase, (64, 1, 4), colour by colour."""
    noun_phrases = np.zeros((64, 1, 4), np.int64)
    noun_phrases[:, 0, COLOUR] = np.arange(64) // 8 + 1
    noun_phrases[:, 0, SHAPE] = np.arange(64) % 8 + 1
    return noun_phrases


def text(ids):
    """Word ids (length,) -> a string."""
    return " ".join(english.WORDS[i] for i in ids if i >= 0)


def texts(ids):
    """Word ids (n, length) -> n strings."""
    return [text(row) for row in ids]


# ---------------------------------------------------------------- words to statements


def one_of(phrases):
    """A group that matches one of the phrases, the longest first."""
    return "(" + "|".join(sorted(phrases, key=len, reverse=True)) + ")"


SIZE_AND_COLOUR = f"(?:{one_of(english.SIZES)} )?(?:{one_of(english.COLOURS)} )?"
SINGULAR_PATTERN = SIZE_AND_COLOUR + one_of(english.SHAPES + ("object",))
PLURAL_PATTERN = SIZE_AND_COLOUR + one_of(english.PLURALS)
NOUN_PHRASE_PATTERN = re.compile(f"an? {SINGULAR_PATTERN}(?: at the {one_of(english.PLACES)})?")


def template_pattern(template, kind):
    """A template as a regular expression, and its slots in the order of their groups."""
    slots = {
        "{a}": SINGULAR_PATTERN,
        "{b}": SINGULAR_PATTERN,
        "{as}": PLURAL_PATTERN,
        "{bs}": PLURAL_PATTERN,
        "{link}": one_of(english.LINKS[kind]),
        "{place}": one_of(english.PLACES),
    }
    words, literals = template.split(), {"a": "an?", "?": r"\?"}
    pattern = " ".join((slots | literals).get(word, word) for word in words)
    return re.compile(pattern), [word for word in words if word in slots]


def compile_templates(templates):
    """Templates -> [(kind, pattern, slots), ...]."""
    return [(kind, *template_pattern(template, kind)) for kind, template in enumerate(templates)]


SENTENCE_PATTERNS = compile_templates(english.STATEMENTS)
QUESTION_PATTERNS = compile_templates(english.QUESTIONS) + compile_templates(english.PARAPHRASES)


def parse(sentence, question=False):
    """A sentence (or a question) of the grammar -> its statement (10,). Else ValueError."""
    for kind, pattern, slots in QUESTION_PATTERNS if question else SENTENCE_PATTERNS:
        match = pattern.fullmatch(sentence)
        if match:
            return to_statement(kind, slots, match.groups())
    raise ValueError(
        f"not a {'question' if question else 'statement'} of the grammar: {sentence!r}"
    )


def to_statement(kind, slots, groups):
    """What the groups of a matched template say: (10,)."""
    row, groups = np.zeros(WIDTH, np.int64), list(groups)
    row[KIND] = kind
    for slot in slots:
        if slot == "{link}":
            row[LINK] = value_of(english.LINKS[kind], groups.pop(0))
        elif slot == "{place}":
            row[A.start + PLACE] = value_of(english.PLACES, groups.pop(0))
        else:
            row[A if slot in ("{a}", "{as}") else B] = parse_noun(*groups[:3])
            groups = groups[3:]
    return row


def value_of(phrases, phrase):
    """Where a phrase stands in its table, from 1 on; 0 if it is not said."""
    return phrases.index(phrase) + 1 if phrase in phrases else 0


def parse_noun(size, colour, shape, place=None):
    """Words, None where one is left out -> [size, colour, shape, place]."""
    shapes = english.SHAPES if shape in english.SHAPES else english.PLURALS[:-1]
    noun = value_of(english.SIZES, size), value_of(english.COLOURS, colour), value_of(shapes, shape)
    return [*noun, value_of(english.PLACES, place)]


def parse_caption(sentence):
    """A caption -> its noun phrases (m, 4). ValueError for any other text."""
    head, *last = sentence.rsplit(" and ", 1)
    phrases = (head.split(" , ") if last else [head]) + last
    matches = [NOUN_PHRASE_PATTERN.fullmatch(phrase) for phrase in phrases]
    if not all(matches):
        raise ValueError(f"not a caption of the grammar: {sentence!r}")
    return np.array([parse_noun(*match.groups()) for match in matches])
