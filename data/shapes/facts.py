"""What a caption claims of a scene, fact by fact, and which of its claims are true."""

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np

from data.shapes import truth
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE

FACT_KINDS = {
    "facts": "shapes, colours, sizes, and places where they are asked for",
    "objects": "facts of the kind: there is such a shape",
    "attributes": "colours, sizes and places, bound to a shape",
    "relations": "which shape stands before which in reading order",
    "counts": "how many things, and how many of each shape",
}


@dataclass
class JudgedCaption:
    """A caption against its scene.

    stated, there: {kind of FACT_KINDS: Counter of facts} of the caption and of the scene.
    mentioned: objects that the caption names; invented: those whose shape is nowhere in the
    picture; misdescribed: those for which no object that is as described is left.
    is_exact: every object in reading order with all its attributes. A caption that the grammar
    does not know (is_parseable) states and mentions nothing.
    """

    stated: dict
    there: dict
    mentioned: int = 0
    invented: int = 0
    misdescribed: int = 0
    is_exact: bool = False
    is_parseable: bool = True


def judge_caption(parser, caption, objects, level="normal"):
    """A caption (a string) against the objects (m, 4) of a scene: JudgedCaption.

    level: of truth.PROMPTS, what was asked for; what it does not ask for is not missed.
    """
    asked = np.array([truth.PROMPTS.index(level)])
    scene = truth.asked_caption(asked, objects[None, objects[:, SHAPE] > 0])[0]
    there = extract_facts(scene)
    try:
        phrases = parser.parse_caption(caption)
    except ValueError:
        return JudgedCaption({kind: Counter() for kind in FACT_KINDS}, there, is_parseable=False)
    names_shape = phrases[:, SHAPE] > 0
    return JudgedCaption(
        stated=extract_facts(phrases),
        there=there,
        mentioned=len(phrases),
        invented=int((names_shape & ~np.isin(phrases[:, SHAPE], scene[:, SHAPE])).sum()),
        misdescribed=int((~match_objects(phrases, objects)).sum()),
        is_exact=phrases.shape == scene.shape and bool((phrases == scene).all()),
    )


def extract_facts(noun_phrases):
    """The typed facts of noun phrases (m, 4) in reading order: {kind of FACT_KINDS: Counter}.

    A Counter, so that two red circles are two facts. What a phrase does not say is no fact.
    """
    bound, shapes = Counter(), []
    for phrase in np.asarray(noun_phrases):
        shape = int(phrase[SHAPE])
        if not shape:
            continue
        shapes.append(shape)
        bound["shape", shape] += 1
        for name, column in (("colour", COLOUR), ("size", SIZE), ("place", PLACE)):
            if phrase[column]:
                bound[name, shape, int(phrase[column])] += 1
    return dict(
        facts=bound,
        objects=Counter({fact: n for fact, n in bound.items() if fact[0] == "shape"}),
        attributes=Counter({fact: n for fact, n in bound.items() if fact[0] != "shape"}),
        relations=Counter(itertools.combinations(shapes, 2)),
        counts=Counter([("all", len(shapes)), *Counter(shapes).items()]),
    )


def match_objects(noun_phrases, objects):
    """Which phrases (m, 4) have an object (k, 4) of their own that they are true of: bool (m,).

    As many as can be at once: maximum bipartite matching by augmenting paths, Kuhn (1955).
    """
    fits = np.stack([truth.matches(phrase[None], objects[None])[0] for phrase in noun_phrases])
    owner = {}

    def find_object(phrase, tried):
        for k in np.flatnonzero(fits[phrase]):
            if k in tried:
                continue
            tried.add(k)
            if k not in owner or find_object(owner[k], tried):
                owner[k] = phrase
                return True
        return False

    for phrase in range(len(noun_phrases)):
        find_object(phrase, set())
    return np.isin(np.arange(len(noun_phrases)), list(owner.values()))


def mark_caption(parser, caption, objects):
    """A caption as pieces [(text, True, False or None)]: which phrases are true of an object."""
    try:
        phrases = parser.parse_caption(caption)
    except ValueError:
        return [(caption or "(nothing)", False)]
    texts = parser.caption_pieces(caption)
    truths = [None] * len(texts)
    truths[0::2] = match_objects(phrases, objects).tolist()
    return list(zip(texts, truths, strict=True))
