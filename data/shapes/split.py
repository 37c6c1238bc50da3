"""A split of the world, as evaluation knows it: pictures, words, and the truth about them.

Whoever examines a model asks a `Split` for `Pictures` and for items about them (questions, hard
negatives, class captions), gets pixels and plain strings, and asks back what is true. No array of
the world leaves this file and pictures.py.
"""

from dataclasses import dataclass, replace

import numpy as np

from data.shapes import grammar, hard_negatives, questions, truth
from data.shapes.english import PARAPHRASES
from data.shapes.pictures import Pictures, captions_of
from data.shapes.scene import sample
from data.shapes.world import ATTRIBUTES, COLOUR, PLACE, SHAPE, SIZE


@dataclass
class Questions:
    """Questions about pictures, flat: each picture's stand side by side.

    pictures: n. asked, targets: n * q strings. cluster: (n * q,).
    """

    pictures: Pictures
    asked: list
    targets: list

    @property
    def cluster(self):
        return self.pictures.cluster.repeat(len(self.asked) // len(self.pictures))


@dataclass
class QuestionPairs(Questions):
    """One question of one family about both pictures of each minimal pair.

    paraphrases: the same questions in words that training never has. needs_counting: bool (n,).
    chance: what a guess is right in.
    """

    paraphrases: list
    needs_counting: np.ndarray
    chance: float


@dataclass
class Presence:
    """POPE: "is there a SHAPE ?", two a picture. asked: n lists of 2 texts. is_there: bool (n, 2).

    cluster: (2 n,) four answers that hang together, see hard_negatives.sample_pope.
    """

    pictures: Pictures
    asked: list
    is_there: np.ndarray
    cluster: np.ndarray


@dataclass
class ZeroShot:
    """Pictures of one object, their class (n,), and the class captions in several templates.

    templates: {name: [64 captions]}, "plain" and others; `unseen` names those that training never
    shows. chance: the share that the most frequent class has.
    """

    pictures: Pictures
    label: np.ndarray
    templates: dict
    unseen: tuple
    chance: float


@dataclass(frozen=True)
class Split:
    """One split of a data set (`data`, see dataset.py) by its name."""

    data: object
    name: str
    families = questions.FAMILIES
    contrasts = tuple(hard_negatives.CONTRASTS)
    foil_kinds = hard_negatives.KINDS
    negatives = hard_negatives.NEGATIVES

    @property
    def key(self):
        """What a sample is a function of, besides its number."""
        return self.data.world, self.data.seed, self.name

    @property
    def has_single_objects(self):
        """Pictures of one object belong to it, so that zero-shot classes mean something."""
        return self.name != "more"

    def take(self, indices):
        """The pictures of these sample numbers."""
        return Pictures(self.data, sample(*self.key, indices), indices)

    def pictures(self, items, start=0):
        """So many pictures, no two of one minimal pair."""
        return self.take(2 * np.arange(start, start + items))

    def minimal_pairs(self, pairs):
        """Both pictures of so many minimal pairs, side by side; and which pairs their captions tell
        apart: Pictures (2 * pairs), bool (2 * pairs,)."""
        pictures = self.take(np.arange(2 * pairs))
        objects = pictures.scenes.objects
        phrases = truth.without(objects, PLACE)
        other = pictures.indices ^ 1
        tells = [
            not hard_negatives.is_true(phrases[o], scene)
            for o, scene in zip(other, objects, strict=True)
        ]
        return pictures, np.array(tells)

    def questions(self, pictures, each):
        """`each` unpaired questions about each picture, yes and no balanced where they can be."""
        world, seed, name = self.key
        # A held-out pair may be asked for where it is what the split is about.
        world = replace(world, held_out=0) if name == "held_out" else world
        rows, answers = questions.sample_questions(
            world, seed, name, pictures.indices, pictures.scenes.objects, self.families, each
        )
        flat = rows.reshape(-1, rows.shape[-1])
        asked = grammar.texts(grammar.render_question(flat))
        targets = grammar.texts(grammar.render_answer(flat, answers.reshape(-1)))
        return Questions(pictures, asked, targets)

    def question_pairs(self, family, pairs):
        """So many minimal pairs of one question family. NotEnoughScenes if the split has fewer."""
        found = questions.sample_minimal_pairs(*self.key, family, pairs)
        rows = found.rows.repeat(2, 0)
        return QuestionPairs(
            pictures=self.take((found.indices[:, None] + [0, 1]).reshape(-1)),
            asked=grammar.texts(grammar.render_question(rows)),
            targets=grammar.texts(grammar.render_answer(rows, found.answers.reshape(-1))),
            paraphrases=grammar.texts(grammar.render_question(rows, PARAPHRASES)),
            needs_counting=found.needs_counting.repeat(2),
            chance=questions.chance(self.data.world, family, found.answers),
        )

    def presence(self, kind, squares):
        """POPE, four answers a square. NotEnoughScenes if the split has fewer."""
        scenes, shapes, is_there = hard_negatives.sample_pope(*self.key, kind, squares)
        rows = hard_negatives.existence_statements(shapes.reshape(-1))
        asked = grammar.texts(grammar.render_question(rows))
        return Presence(
            pictures=Pictures(self.data, scenes, np.arange(len(shapes))),
            asked=[asked[k : k + 2] for k in range(0, len(asked), 2)],
            is_there=is_there,
            cluster=(np.arange(len(shapes)) // 2).repeat(2),
        )

    def winoground(self, contrast, items):
        """Two pictures and two captions an item: (Pictures, Pictures), (n strings, n strings)."""
        one, two, *phrases = hard_negatives.sample_winoground(*self.key, contrast, items)
        pictures = [Pictures(self.data, scenes, np.arange(items)) for scenes in (one, two)]
        return pictures, [captions_of(p) for p in phrases]

    def sugarcrepe(self, kind, items):
        """Pictures, a true caption of each, and a false one that differs in one thing."""
        found = hard_negatives.sample_sugarcrepe(*self.key, kind, items)
        pictures = Pictures(self.data, found.scenes, np.arange(items))
        return pictures, captions_of(found.true), captions_of(found.false)

    def zero_shot(self, items):
        """Pictures of one object against "a COLOUR SHAPE" and longer templates: ZeroShot."""
        world, seed, name = self.key
        lonely = replace(world, min_objects=1, max_objects=1)
        indices = 2 * np.arange(items)
        scenes = sample(lonely, seed, name, indices)
        first = scenes.objects[:, 0]
        label = (first[:, COLOUR] - 1) * 8 + first[:, SHAPE] - 1
        is_even = world.prior == "uniform" and not world.held_out
        templates = {"plain": class_captions()} | {
            phrase: class_captions(column, value)
            for column in (SIZE, PLACE)
            for value, phrase in enumerate(ATTRIBUTES[column], start=1)
        }
        return ZeroShot(
            pictures=Pictures(self.data, scenes, indices),
            label=label,
            templates=templates,
            unseen=ATTRIBUTES[PLACE],
            chance=1 / 64 if is_even else float(np.bincount(label).max() / items),
        )

    def longest_caption(self, items):
        """How many tokens the longest full caption of so many pictures has, [BOS] and [EOS] too."""
        captions = self.pictures(items).captions(omit=())
        return max(len(self.data.tokenizer.encode(caption)) for caption in captions) + 2


def class_captions(column=None, value=0):
    """The 64 captions "a COLOUR SHAPE", colour by colour, perhaps with one more attribute."""
    phrases = grammar.every_colour_and_shape()
    if column is not None:
        phrases[..., column] = value
    return captions_of(phrases)
