"""Words back to statements and captions, by the same tables that grammar.py fills."""

import re

import numpy as np

from data.shapes.templates import join, replace_macros, to_pattern, ways_to_say
from data.shapes.truth import KIND, KINDS, LINK, PROMPTS, WIDTH, A, B
from data.shapes.world import PLACE, SHAPE
from data.tokenizer import Tokenizer, one_of

AS_LIST = 2  # of the ways to write a caption the one that says shapes alone
NOUNS = {"{a}": A, "{as}": A, "{bare}": A, "{bares}": A, "{b}": B, "{bs}": B}


class Parser:
    """Reads the language of tables such as english.py, in which `words` are known."""

    def __init__(self, tables, words):
        self.tables, self.tokenizer = tables, Tokenizer(words)
        self.places, self.links = values_of(tables.PLACES), {}
        self.noun_values = (
            values_of(tables.SIZES),
            values_of(tables.COLOURS),
            values_of(tables.SHAPES, tables.OBJECT) | values_of(tables.PLURALS, tables.OBJECTS),
        )
        sizes, colours, shapes = (f"({one_of(values)})" for values in self.noun_values)
        noun = f"(?:{sizes} )?(?:{colours} )?{shapes} "
        self.patterns = dict.fromkeys(NOUNS, noun) | {"{place}": f"({one_of(self.places)}) "}
        there = re.escape(getattr(tables, "THERE", ""))
        self.patterns["{attribute}"] = f"(?:{sizes}|{colours}|{there}) "
        for word, becomes, *_ in tables.AGREEMENT:
            self.patterns[word] = f"(?:{re.escape(word)}|{re.escape(becomes)}) "
        self.statements = self.compile_all(tables.STATEMENTS)
        asked = [self.compile_all(t, tables.END) for t in (tables.QUESTIONS, tables.HELD_OUT)]
        self.questions = asked[0] + asked[1]
        self.start = re.compile(self.to_pattern(tables.START, {}))
        captions = (tables.CAPTION_WITH_PLACE, tables.CAPTION, tables.CAPTION_AS_LIST)
        self.captions = [self.compile(caption, 0) for caption in captions]
        joints = [self.to_pattern(word, {}) for word in (tables.AND, tables.COMMA)]
        self.joint = re.compile(rf"(?<!\S)({'|'.join(joints)})")

    def compile_all(self, lists, end=""):
        """Templates by kind -> [(kind, slots, pattern), ...]."""
        numbers = {kind: number for number, kind in enumerate(KINDS + PROMPTS)}
        return [
            self.compile(template, numbers[kind], end)
            for kind, templates in lists.items()
            for template in templates
        ]

    def compile(self, template, kind, end=""):
        """A template as (kind, its slots in order, pattern)."""
        name = KINDS[kind] if kind < len(KINDS) else ""
        self.links[kind] = values_of(self.tables.LINKS.get(name, ()))
        pattern = self.to_pattern(template, self.links[kind]) + self.to_pattern(end, {})
        return kind, re.findall(r"{\w+}", template), re.compile(pattern)

    def to_pattern(self, template, links):
        template = replace_macros(template, self.tables.MACROS)
        return to_pattern(template, self.patterns | {"{link}": f"({one_of(links)}) "})

    def split(self, text):
        """Text -> its words with a space behind each; what is unknown turns into bytes."""
        tokens = self.tokenizer.encode(text)
        return "".join(self.tokenizer.name(token) + " " for token in tokens)

    # ------------------------------------------------------------ statements and questions

    def parse(self, sentence, question=False):
        """A sentence (or a question) -> its statement (10,). ValueError if it is none, or two."""
        text = self.split(sentence)
        texts, lines = [text], self.statements
        if question:
            texts, lines = self.without_start(text), self.questions
        readings = {
            self.to_statement(kind, slots, match.groups())
            for rest in texts
            for kind, slots, pattern in lines
            if (match := pattern.fullmatch(rest))
        } - {None}
        what = "question" if question else "statement"
        if not readings:
            raise ValueError(f"not a {what} of the grammar: {sentence!r}")
        if len(readings) > 1:
            raise ValueError(f"a {what} that can be read in {len(readings)} ways: {sentence!r}")
        return np.array(readings.pop())

    def without_start(self, text):
        """A question, and what is left of it without the words that may stand before it."""
        cuts = [match.end() for match in re.finditer(" ", text)]
        return [text] + [text[cut:] for cut in cuts if self.start.fullmatch(text[:cut])]

    def to_statement(self, kind, slots, groups):
        """What the groups of a matched template say: 10 numbers; None if it contradicts itself."""
        row, groups = np.zeros(WIDTH, np.int64), list(groups)
        row[KIND] = kind
        for slot in slots:
            if slot == "{link}":
                row[LINK] = self.links[kind][groups.pop(0)]
            elif slot == "{place}":
                row[A.start + PLACE] = self.places[groups.pop(0)]
            elif slot == "{attribute}":
                attribute = np.array(self.noun_of([groups.pop(0), groups.pop(0), None]))
                if (row[A][:PLACE] * attribute).any():  # "is the red circle blue"
                    return None
                row[A][:PLACE] += attribute
            else:
                row[NOUNS[slot]][:PLACE] = self.noun_of(groups[:3])
                groups = groups[3:]
        return tuple(row.tolist())

    def noun_of(self, words):
        """Size, colour and shape as words, None where not said -> their values."""
        return [values.get(word, 0) for values, word in zip(self.noun_values, words, strict=True)]

    # ------------------------------------------------------------ captions

    def split_caption(self, caption):
        """A caption -> its noun phrases and what joins them, in turn: [words, joint, words ...]."""
        return self.joint.split(self.split(caption))

    def parse_caption(self, caption):
        """A caption -> its noun phrases (m, 4). ValueError for any other text."""
        pieces = self.split_caption(caption)
        phrases = [self.phrase_of(words) for words in pieces[0::2]]
        commas, last = pieces[1:-2:2], pieces[-2:-1]
        joined = all(joint == f"{self.tables.COMMA} " for joint in commas)
        if not joined or last == [f"{self.tables.COMMA} "] or None in phrases:
            raise ValueError(f"not a caption of the grammar: {caption!r}")
        return np.array(phrases)

    def phrase_of(self, words):
        """The words of a noun phrase -> [size, colour, shape, place], or None."""
        for number, (_, slots, pattern) in enumerate(self.captions):
            if match := pattern.fullmatch(words):
                phrase = self.to_statement(0, slots, match.groups())[A]
                return None if number == AS_LIST and any(phrase[:SHAPE]) else list(phrase)
        return None

    def caption_pieces(self, caption):
        """A caption as people write it, in pieces: its noun phrases and what joins them, in turn.

        A comma and the end of a word stand close to what is before them.
        """
        pieces = [join(words.split()) for words in self.split_caption(caption)]
        for k in range(1, len(pieces), 2):
            is_close = pieces[k].startswith((",", "-"))
            pieces[k] = ("" if is_close else " ") + pieces[k].removeprefix("-") + " "
        return pieces


def values_of(phrases, nothing=None):
    """Each way to say one of the phrases, and its value from 1 on; 0 for `nothing`."""
    ways = {} if nothing is None else dict.fromkeys(ways_to_say(nothing), 0)
    return ways | {way: k for k, phrase in enumerate(phrases, 1) for way in ways_to_say(phrase)}
