"""How the templates of a language are written, and what is made of them: word lists and patterns.

A template is words and slots with one space between them. "(x|y|)" is x, y or nothing, equally
often ("(||x)" is x once in three times), and may stand inside another one; a word in capitals
stands for its entry in the language's MACROS. Slots:

    {a} {b}     the nouns of a statement      {link}    the value in LINK
    {as} {bs}   their plurals                 {place}   where the noun {a} is
    {answer}    the value that is answered    {bare}    {a} without one attribute, plural {bares}
    {attribute} that attribute: "large" or "red" of a "large red ring", "there" of a "ring"

A word that begins with "-" (a Korean particle) is written without a space before it.
"""

import re

import numpy as np

SLOTS = (
    "{a}", "{b}", "{as}", "{bs}", "{link}", "{place}", "{answer}", "{bare}", "{bares}",
    "{attribute}",
)  # fmt: skip
MACRO = re.compile(r"\b[A-Z]+\b")
FIRST_SLOT = 10**6  # in compiled templates, what is at least this is a slot and no word
CHOICES = 2**31  # how finely it is drawn which of several ways is taken


def about(kind, templates):
    """Templates that ask for a colour, a shape or a size alike: KIND is what they ask for."""
    return tuple(template.replace("KIND", kind) for template in templates)


def replace_macros(template, macros):
    """Write out the words in capitals. KeyError if one is unknown."""
    while MACRO.search(template):
        template = MACRO.sub(lambda match: macros[match[0]], template)
    return template


def expand(template, share=1.0):
    """All that a template (without macros) can be: [(words, share)], the plain one first.

    Each choice gives its alternatives equal shares, so that a long list of them at one place does
    not crowd out the others.
    """
    start = template.find("(")
    if start < 0:
        return [(template.split(), share)]
    alternatives, end = read_choice(template, start)
    before, after = template[:start], template[end:]
    return [
        expansion
        for alternative in alternatives
        for expansion in expand(before + alternative + after, share / len(alternatives))
    ]


def read_choice(template, start):
    """The alternatives of the choice that opens at `start`, and where the template goes on."""
    alternatives, depth = [""], 0
    for end in range(start + 1, len(template)):
        sign = template[end]
        if sign == ")" and depth == 0:
            return alternatives, end + 1
        if sign == "|" and depth == 0:
            alternatives.append("")
            continue
        depth += (sign == "(") - (sign == ")")
        alternatives[-1] += sign
    raise ValueError(f"a bracket is never closed: {template!r}")


def to_pattern(template, patterns):
    """A template as a regular expression for text in which a space follows each word.

    patterns: what stands for slots, and for words that may be written in several ways.
    """
    signs = {"(": "(?:", "|": "|", ")": ")"}
    pieces = re.findall(r"[()|]|[^\s()|]+", template)
    return "".join(signs.get(p) or patterns.get(p) or re.escape(p) + " " for p in pieces)


def ways_to_say(phrase):
    """All ways to say a phrase, the plain one first: strings."""
    return [" ".join(words) for words, _ in expand(phrase)]


def join(words):
    """Words -> text."""
    return " ".join(words).replace(" -", "")


class Templates:
    """Several lists of templates, compiled: which ways there are to say each kind of thing.

    words: (e, length) word ids or slots, -1 at the ends. first, last: (kinds,) which of them belong
    to a kind. upto: (e,) the share of all ways of the kind up to and with this one.
    """

    def __init__(self, lists, ids, macros):
        slots = {slot: FIRST_SLOT + k for k, slot in enumerate(SLOTS)}
        lines, self.first, self.last, upto = [], [], [], []
        for templates in lists:
            ways = [
                way
                for template in templates
                for way in expand(replace_macros(template, macros), 1 / len(templates))
            ]
            self.first.append(len(lines))
            lines += [[slots.get(word) or ids[word] for word in words] for words, _ in ways]
            self.last.append(len(lines) - 1)
            upto.append(np.cumsum([share for _, share in ways]))
        self.first, self.last = np.array(self.first), np.array(self.last)
        self.upto = np.concatenate([k + part for k, part in enumerate(upto)])
        self.words = np.full((len(lines), max(map(len, lines)) or 1), -1)
        for row, line in zip(self.words, lines, strict=True):
            row[: len(line)] = line

    def draw(self, kind, phrasing):
        """A way for each `kind` (n,), `phrasing` (n,) in [0, CHOICES) says which: (n, length)."""
        way = np.searchsorted(self.upto, kind + phrasing / CHOICES, side="right")
        return self.words[np.clip(way, self.first[kind], self.last[kind])]
