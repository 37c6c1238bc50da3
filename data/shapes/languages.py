"""The languages of the world by name, and the grammars of those that a training speaks."""

from functools import lru_cache

from data.shapes import english, korean
from data.shapes.grammar import Grammar, words_of

TABLES = {"en": english, "ko": korean}
CHOICES = (*TABLES, "both")


@lru_cache
def grammars_of(language):
    """`language` of CHOICES -> {name: Grammar}, which share one vocabulary, that of all of them."""
    names = tuple(TABLES) if language == "both" else (language,)
    words = [word for name in names for word in words_of(TABLES[name])]
    vocabulary = tuple(dict.fromkeys(words))
    return {name: Grammar(TABLES[name], vocabulary) for name in names}
