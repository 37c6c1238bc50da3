"""A split of the world, as evaluation knows it: pictures, words, and the truth about them.

Whoever examines a model asks a `Split` for `Pictures` and for items about them (questions, hard
negatives, class captions), gets pixels and plain strings, and asks back what is true. No array of
the world leaves this file and pictures.py.
"""

from dataclasses import dataclass, replace

import numpy as np

from data.shapes import hard_negatives, minimal_pairs, questions, truth, winoground
from data.shapes.conversation import prompt_rows
from data.shapes.grammar import every_colour_and_shape
from data.shapes.items import Presence, QuestionPairs, Questions, ZeroShot
from data.shapes.pictures import Pictures
from data.shapes.rng import CounterRNG
from data.shapes.scene import sample
from data.shapes.templates import CHOICES
from data.shapes.world import ATTRIBUTES, COLOUR, PLACE, SHAPE, SIZE


@dataclass(frozen=True)
class Split:
    """One split of a data set (`data`, see dataset.py) by its name."""

    data: object
    name: str
    families = questions.FAMILIES
    contrasts = tuple(winoground.CONTRASTS)
    yardsticks = tuple(winoground.YARDSTICKS)
    foil_kinds = hard_negatives.KINDS
    negatives = hard_negatives.NEGATIVES
    levels = truth.PROMPTS

    @property
    def grammar(self):
        return self.data.grammar

    @property
    def denials(self):
        """The answers to what presupposes a thing that is not there, or not alone: two texts."""
        rows = np.zeros((2, truth.WIDTH), np.int64)
        return self.grammar.answer_texts(rows, np.array([truth.NONE, truth.SEVERAL]))

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
        turn = np.tile(np.arange(each), len(pictures))
        asked = self.ask(flat, pictures.indices.repeat(each), turn)
        return Questions(pictures, asked, self.grammar.answer_texts(flat, answers.reshape(-1)))

    def question_pairs(self, family, pairs):
        """So many minimal pairs of one question family. NotEnoughScenes if the split has fewer."""
        found = minimal_pairs.sample_minimal_pairs(*self.key, family, pairs)
        return self.both_of(found, minimal_pairs.chance(self.data.world, family, found.answers))

    def premise_pairs(self, pairs):
        """So many minimal pairs, of all families that presuppose a thing, in one picture of which
        it is not there, or not alone. NotEnoughScenes if the split has fewer."""
        return self.both_of(minimal_pairs.sample_premise_pairs(*self.key, pairs), 1 / 2)

    def both_of(self, found, chance):
        """minimal_pairs.Pairs, put into words: QuestionPairs."""
        asked, paraphrases = (
            self.ask(found.rows, found.indices, held_out=h) for h in (False, True)
        )
        return QuestionPairs(
            pictures=self.take((found.indices[:, None] + [0, 1]).reshape(-1)),
            asked=twice(asked),
            targets=self.grammar.answer_texts(found.rows.repeat(2, 0), found.answers.reshape(-1)),
            paraphrases=twice(paraphrases),
            needs_counting=found.needs_counting.repeat(2),
            is_denied=found.answers.reshape(-1) >= truth.NONE,
            chance=chance,
        )

    def count_everything(self, items):
        """How many things are there, in all, in so many pictures: Questions."""
        pictures = self.pictures(items)
        rows = np.zeros((items, truth.WIDTH), np.int64)
        rows[:, truth.KIND] = truth.COUNT
        answers = truth.answer(rows, pictures.scenes.objects)
        asked = self.ask(rows, pictures.indices)
        return Questions(pictures, asked, self.grammar.answer_texts(rows, answers))

    def caption_prompts(self, level, items):
        """Captions asked for as `level` of truth.PROMPTS: Questions, of which the targets are
        captions that say what was asked for."""
        pictures = self.pictures(items)
        level = np.full(items, self.levels.index(level))
        said = truth.asked_caption(level, pictures.scenes.objects)
        captions = self.grammar.render_caption(said, as_list=level == truth.LIST)
        asked = self.ask(prompt_rows(level), pictures.indices)
        return Questions(pictures, asked, self.grammar.texts(captions))

    def ask(self, rows, indices, turn=0, held_out=False):
        """Statements (n, 10) about these samples (n,) as questions, each in one of the phrasings of
        training, or in one that training never has: n strings. turn: (n,), numbers the questions
        about a picture, so that not all are put alike."""
        rng = CounterRNG(0, self.name, indices)
        phrasing = rng.randint("asked", CHOICES, (64, 4))[np.arange(len(rows)), turn]
        return self.grammar.texts(self.grammar.render_question(rows, phrasing, held_out))

    def presence(self, kind, squares):
        """POPE, four answers a square. NotEnoughScenes if the split has fewer."""
        scenes, shapes, is_there = hard_negatives.sample_pope(*self.key, kind, squares)
        # Both pictures of a square are asked the same, in the same words.
        rows = hard_negatives.existence_statements(shapes[::2].reshape(-1))
        asked = self.ask(rows, np.arange(squares).repeat(2), np.arange(len(rows)) % 2)
        return Presence(
            pictures=Pictures(self.data, scenes, np.arange(len(shapes))),
            asked=twice([asked[k : k + 2] for k in range(0, len(asked), 2)]),
            is_there=is_there,
            cluster=(np.arange(len(shapes)) // 2).repeat(2),
        )

    def winoground(self, contrast, items):
        """Two pictures and two captions an item: (Pictures, Pictures), (n strings, n strings).

        contrast: one of contrasts or yardsticks, see winoground.sample_winoground.
        """
        one, two, *phrases = winoground.sample_winoground(*self.key, contrast, items)
        pictures = [Pictures(self.data, scenes, np.arange(items)) for scenes in (one, two)]
        return pictures, [self.grammar.caption_texts(p) for p in phrases]

    def sugarcrepe(self, kind, items):
        """Pictures, a true caption of each, and a false one that differs in one thing."""
        found = hard_negatives.sample_sugarcrepe(*self.key, kind, items)
        pictures = Pictures(self.data, found.scenes, np.arange(items))
        both = [self.grammar.caption_texts(phrases) for phrases in (found.true, found.false)]
        return pictures, *both

    def zero_shot(self, items):
        """Pictures of one object against "a COLOUR SHAPE" and longer templates: ZeroShot."""
        world, seed, name = self.key
        lonely = replace(world, min_objects=1, max_objects=1)
        indices = 2 * np.arange(items)
        scenes = sample(lonely, seed, name, indices)
        first = scenes.objects[:, 0]
        label = (first[:, COLOUR] - 1) * 8 + first[:, SHAPE] - 1
        is_even = world.prior == "uniform" and not world.held_out
        templates = {"plain": class_captions(self.grammar)} | {
            phrase: class_captions(self.grammar, column, value)
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


def twice(texts):
    """Each text twice in a row, once for each picture of a pair."""
    return [text for text in texts for _ in range(2)]


def class_captions(grammar, column=None, value=0):
    """The 64 captions "a COLOUR SHAPE", colour by colour, perhaps with one more attribute."""
    phrases = every_colour_and_shape()
    if column is not None:
        phrases[..., column] = value
    return grammar.caption_texts(phrases)
