"""Statements, questions, answers and captions to words, by the tables of a language.

The layout of a statement (10,) and of a noun phrase (4,) is told in truth.py. Words are ids,
indices into a vocabulary, and -1 where there is none. parser.py is the way back.
"""

import itertools
import re
from functools import cached_property

import numpy as np

from data.shapes.parser import Parser
from data.shapes.templates import FIRST_SLOT, SLOTS, Templates, join, replace_macros, ways_to_say
from data.shapes.truth import (
    CONTENT,
    KIND,
    KINDS,
    LINK,
    NONE,
    NOTHING,
    PROMPTS,
    SEVERAL,
    A,
    B,
    decode_object,
    said,
    split_noun,
)
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE


class Grammar:
    """The words of a language. tables: such as english.py. words: the vocabulary whose indices its
    word ids are; if None, the words of the tables alone."""

    def __init__(self, tables, words=None):
        self.tables = tables
        self.words = words or words_of(tables)
        self.ids = {word: k for k, word in enumerate(self.words)}
        self.sizes, self.colours = (self.table(t) for t in (tables.SIZES, tables.COLOURS))
        self.places = self.table(tables.PLACES)
        self.singular = self.table(tables.SHAPES, tables.OBJECT)
        self.plural = self.table(tables.PLURALS, tables.OBJECTS)
        self.links = {kind: self.table(phrases) for kind, phrases in tables.LINKS.items()}
        self.values = {kind: self.table(phrases) for kind, phrases in tables.VALUES.items()}
        self.statements = self.compile(tables.STATEMENTS, KINDS)
        self.questions = self.compile(tables.QUESTIONS, KINDS + PROMPTS)
        self.held_out = self.compile(tables.HELD_OUT, KINDS + PROMPTS)
        self.start, self.end = (self.compile({"": [t]}, [""]) for t in (tables.START, tables.END))
        answers = {kind: [template] for kind, template in tables.ANSWERS.items()}
        self.answers = self.compile(answers, (*KINDS, "nothing", "none", "several"))

    def compile(self, lists, kinds):
        return Templates([lists[kind] for kind in kinds], self.ids, self.tables.MACROS)

    def table(self, phrases, nothing=""):
        """Value -> word ids, -1 at the ends: (ways, values + 1, words).

        0 stands for `nothing`. Way 0 is the plain one; a phrase with fewer ways repeats them.
        """
        ways = [ways_to_say(phrase) for phrase in (nothing, *phrases)]
        number, length = max(map(len, ways)), max(len(w.split()) for own in ways for w in own)
        table = np.full((number, len(ways), length), -1)
        for way in range(number):
            for value, own in enumerate(ways):
                words = own[way % len(own)].split()
                table[way, value, : len(words)] = [self.ids[word] for word in words]
        return table

    @cached_property
    def parser(self):
        return Parser(self.tables, self.words)

    # ------------------------------------------------------------ statements and questions

    def render_statement(self, rows, phrasing=0):
        """Statements (n, 10) as sentences, word ids (n, length). phrasing: see render_question."""
        phrasing = np.broadcast_to(phrasing, (len(rows), 2))
        filled = self.statements.draw(rows[:, KIND], phrasing[:, 0])
        return self.fill(filled, rows, phrasing[:, 1])

    def render_question(self, rows, phrasing=0, held_out=False):
        """The questions to statements (n, 10), word ids (n, length); LINK counts in relations only.

        phrasing: (n, 4) in [0, CHOICES), which template, which words, what stands before and behind
        it; 0 is plain. held_out: in words that training never has.
        """
        phrasing = np.broadcast_to(phrasing, (len(rows), 4))
        ways, zeros = self.held_out if held_out else self.questions, 0 * rows[:, KIND]
        start, end = self.start.draw(zeros, phrasing[:, 2]), self.end.draw(zeros, phrasing[:, 3])
        filled = np.concatenate([start, ways.draw(rows[:, KIND], phrasing[:, 0]), end], 1)
        return self.fill(filled, rows, phrasing[:, 1])

    def render_answer(self, rows, answers):
        """The answers (n,) that truth.answer gives, in words: word ids (n, length)."""
        rows, kind = rows.copy(), rows[:, KIND].copy()
        is_content = kind == CONTENT
        rows[is_content, A] = decode_object(np.clip(answers[is_content], 1, 128))
        for number, code in enumerate((NOTHING, NONE, SEVERAL), start=len(KINDS)):
            kind[answers == code] = number
        rows[:, LINK] = answers
        return self.fill(self.answers.draw(kind, 0 * kind), rows, 0 * kind)

    def fill(self, templates, rows, phrasing):
        """Templates (n, length), drawn for statements (n, 10), with the words in their slots.

        phrasing: (n,), which of several words for a thing. Returns word ids (n, length).
        """
        values = {
            "{a}": lambda rows, way: self.nouns(rows[:, A], way=way),
            "{b}": lambda rows, way: self.nouns(rows[:, B], way=way),
            "{as}": lambda rows, way: self.nouns(rows[:, A], self.plural, way),
            "{bs}": lambda rows, way: self.nouns(rows[:, B], self.plural, way),
            "{bare}": lambda rows, way: self.nouns(split_noun(rows[:, A], way)[0], way=way),
            "{bares}": lambda rows, way: self.nouns(
                split_noun(rows[:, A], way)[0], self.plural, way
            ),
            "{attribute}": lambda rows, way: self.attributes(split_noun(rows[:, A], way)[1], way),
            "{link}": lambda rows, way: by_kind(self.links, rows, way),
            "{answer}": lambda rows, way: by_kind(self.values, rows, 0 * way),
            "{place}": lambda rows, way: pick(self.places, rows[:, A][:, PLACE], way),
        }
        ids = np.full((*templates.shape, 6), -1)  # as many words may stand in one slot
        ids[..., 0] = np.where(templates < FIRST_SLOT, templates, -1)
        for k, slot in enumerate(SLOTS):
            n, position = np.nonzero(templates == FIRST_SLOT + k)
            if len(n):
                words = values[slot](rows[n], phrasing[n])
                ids[n, position, : words.shape[1]] = words
        return self.compact(ids.reshape(len(ids), -1))

    def nouns(self, noun_phrases, shapes=None, way=0):
        """(n, 4) -> word ids (n, k), -1 where a word is left out. shapes: self.plural, perhaps."""
        size, colour, shape = (noun_phrases[:, column] for column in (SIZE, COLOUR, SHAPE))
        shapes = self.singular if shapes is None else shapes
        words = [pick(self.sizes, size, way), pick(self.colours, colour, way)]
        other_way = np.asarray(way) // 7  # so that "big" does not always go with "thing"
        return np.concatenate([*words, pick(shapes, shape, other_way)], 1)

    def attributes(self, noun_phrases, way=0):
        """(n, 4), of each a size, a colour or nothing -> word ids (n, k)."""
        size, colour = (noun_phrases[:, column] for column in (SIZE, COLOUR))
        there = np.where(size + colour == 0, self.ids[self.tables.THERE], -1)[:, None]
        return np.concatenate(
            [pick(self.sizes, size, way), pick(self.colours, colour, way), there], 1
        )

    def compact(self, ids):
        """Move the -1 of each row to its end, let words agree, cut to the longest row."""
        there = ids >= 0
        row, column = np.nonzero(there)
        compacted = np.full((len(ids), max(there.sum(1).max(initial=1), 1)), -1)
        compacted[row, there.cumsum(1)[row, column] - 1] = ids[row, column]
        for word, becomes, offset, others in self.tables.AGREEMENT:
            beside = np.roll(compacted, -offset, axis=1)
            changes = (compacted == self.ids[word]) & np.isin(beside, [self.ids[w] for w in others])
            compacted[changes] = self.ids[becomes]
        return compacted

    # ------------------------------------------------------------ captions

    def render_caption(self, noun_phrases, as_list=False):
        """Noun phrases (n, m, 4), empty ones last -> "a ring , a star and ...", ids (n, length).

        as_list: (n,), where it is "ring , star and ...".
        """
        n, m, _ = noun_phrases.shape
        there, ids = said(noun_phrases), []
        last = there.sum(1) - 1
        as_list = np.broadcast_to(as_list, n)
        for k in range(m):
            phrase = noun_phrases[:, k]
            kind = np.where(as_list, 2, phrase[:, PLACE] > 0)
            rows = np.concatenate([0 * phrase[:, :1], phrase], 1)
            words = self.fill(self.captions.draw(kind, 0 * kind), rows, 0 * kind)
            between = [self.ids[self.tables.AND], self.ids[self.tables.COMMA]]
            joint = np.where(k == last, *between) if k else np.full(n, -1)
            ids.append(np.where(there[:, k, None], np.concatenate([joint[:, None], words], 1), -1))
        return self.compact(np.concatenate(ids, 1))

    @cached_property
    def captions(self):
        tables = self.tables
        kinds = (tables.CAPTION, tables.CAPTION_WITH_PLACE, tables.CAPTION_AS_LIST)
        return Templates([[kind] for kind in kinds], self.ids, tables.MACROS)

    # ------------------------------------------------------------ text

    def answer_texts(self, rows, answers):
        return self.texts(self.render_answer(rows, answers))

    def caption_texts(self, noun_phrases):
        return self.texts(self.render_caption(noun_phrases))

    def text(self, ids):
        """Word ids (length,) -> a string."""
        return join(self.words[i] for i in ids if i >= 0)

    def texts(self, ids):
        """Word ids (n, length) -> n strings."""
        return [self.text(row) for row in ids]


def pick(table, values, way):
    """Of a table (ways, values + 1, words) the words for values (n,), in one of the ways."""
    return table[way % len(table), values]


def by_kind(tables, rows, way):
    """What LINK says in statements (n, 10) by the table of each kind: word ids (n, k)."""
    words = np.full((len(rows), max(table.shape[2] for table in tables.values())), -1)
    for kind, table in tables.items():
        mask = rows[:, KIND] == KINDS.index(kind)
        words[mask, : table.shape[2]] = pick(table, rows[mask, LINK], way[mask])
    return words


def every_colour_and_shape():
    """The 64 captions "a COLOUR SHAPE", each of one noun phrase, (64, 1, 4), colour by colour."""
    noun_phrases = np.zeros((64, 1, 4), np.int64)
    noun_phrases[:, 0, COLOUR] = np.arange(64) // 8 + 1
    noun_phrases[:, 0, SHAPE] = np.arange(64) % 8 + 1
    return noun_phrases


def words_of(tables):
    """Every word of a language, sorted, so that templates may change without the ids of words.

    (A word more or less changes the size of a model, which says so.) Held-out questions are built
    from the same words.
    """
    asked = [t for lists in (tables.STATEMENTS, tables.QUESTIONS) for t in lists.values()]
    phrases = [phrases for lists in (tables.LINKS, tables.VALUES) for phrases in lists.values()]
    nouns = (tables.SIZES, tables.COLOURS, tables.SHAPES, tables.PLURALS, tables.PLACES)
    templates = [
        *itertools.chain(*asked, *phrases, *nouns, tables.ANSWERS.values()),
        tables.START, tables.END, tables.OBJECT, tables.OBJECTS,
        tables.CAPTION, tables.CAPTION_WITH_PLACE, tables.CAPTION_AS_LIST,
        tables.COMMA, tables.AND, getattr(tables, "THERE", ""),
        *(becomes for _, becomes, *_ in tables.AGREEMENT),
    ]  # fmt: skip
    written = " ".join(replace_macros(template, tables.MACROS) for template in templates)
    words = re.sub(r"[()|]", " ", re.sub(r"{\w+}", " ", written)).split()
    return tuple(sorted(set(words)))
