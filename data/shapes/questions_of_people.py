"""Questions and pictures as people bring them: spelled anyhow, and from outside this world."""

import re
import unicodedata

from data.tokenizer import FIRST_WORD

QUOTES = "\"'`´‘’“”„«»「」『』"
STOPS = ".!;:…。！；：\u200b\ufeff"  # and zero-width spaces
SPELLINGS = {
    "color": "colour", "colors": "colours", "centre": "center", "anything": "any thing"
}  # fmt: skip


def normalize_question(question, grammars):
    """As people type it -> as the grammars spell it, see spell, with a question mark at the end.

    grammars: {name: Grammar}. What none of them knows is put in other words, see reworded; if they
    do not know that either, it stays as it was, without a question mark if it had none.
    """
    text = re.sub(r"( \?)+$", " ?", spell(question))
    others = [way for grammar in grammars.values() for way in reworded(text, grammar.tables)]
    ways = [way.removesuffix(" ?") + " ?" for way in (text, *others)]
    return next((way for way in ways if language_of(way, grammars)), text)


def reworded(text, tables):
    """A spelled question in other words, by more and more of a language's REWORDINGS: strings."""
    ways = [text]
    for pattern, instead in tables.REWORDINGS:
        for way in list(ways):
            new = " ".join(re.sub(pattern, instead, way).split())
            if new not in ways:
                ways.append(new)
    return ways[1:]


def spell(text):
    """Small letters, words apart ("what's", "top-left"), no quotes, full stops or exclamation
    marks, British spelling but for "center", "any thing"; Korean letters composed. "The ring's
    size" is the size of the ring."""
    text = unicodedata.normalize("NFC", text).lower().replace("？", "?").replace("，", ",")
    text = re.sub(r"\b(what|where|there|it|that)['’]s\b", r"\1 is", text)
    text = re.sub(r"\bthe ([a-z ]+)['’]s (colou?r|shape|size)\b", r"the \2 of the \1", text)
    text = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text)
    for sign in QUOTES + STOPS:
        text = text.replace(sign, " ")
    text = re.sub(r"([?,])", r" \1 ", text)
    return " ".join(SPELLINGS.get(word, word) for word in text.split())


def language_of(text, grammars):
    """The name of the grammar that knows this question; None if none does."""
    for name, grammar in grammars.items():
        try:
            grammar.parser.parse(text, question=True)
            return name
        except ValueError:
            pass
    return None


def explain_question(text, grammars):
    """A line on a (normalized) question that no grammar knows, "" if one does."""
    if language_of(text, grammars):
        return ""
    parser = next(iter(grammars.values())).parser
    unknown = [
        word
        for word in dict.fromkeys(text.split())
        if min(parser.tokenizer.encode(word)) < FIRST_WORD
    ]
    known = " ".join(word for word in text.split() if word not in (*unknown, "?"))
    why = "its words are known, not what they say together"
    if unknown:
        why = f"understood: {known or 'nothing'}; unknown: {', '.join(unknown)}"
    return f"not a question of this world: {text!r} ({why}); the answer below is a guess"


def describe_shift(pixels):
    """How far a picture (3, H, W) lies from this world's: a line, "" if it could be one of them.

    Pictures of this world have a median of 20 to 61 along their border, and a mean of 21 to 74
    (2,000 of the test split, of 255).
    """
    grey = pixels.float().mean(0)  # (H, W)
    sides = [grey[0], grey[-1], grey[:, 0], grey[:, -1]]
    border = max(side.median().item() for side in sides)
    if border > 90:
        return (
            f"bright background ({border:.0f} of 255): pictures of this world are dark (20 to 61)"
        )
    if grey.mean() > 100:
        return f"a bright picture ({grey.mean():.0f} of 255): those of this world have 21 to 74"
    return ""
