"""The generated world as a data set: batches for training, splits for evaluation."""

from dataclasses import replace

import numpy as np
import torch

from data.batch import CaptionBatch, VLMBatch, pack, to_tokens
from data.shapes import english, grammar, questions, questions_of_people, truth
from data.shapes.render import render
from data.shapes.rng import CounterRNG
from data.shapes.scene import sample
from data.shapes.split import Split, class_captions
from data.shapes.world import COLOUR, COLOURS, PLACE, SHAPE, SHAPES, SIZE, SIZES, WORLDS
from data.tokenizer import BOS, FIRST_WORD, PAD, Tokenizer

VARIANTS = {
    "shapes" if name == "default" else f"shapes-{name}": world for name, world in WORLDS.items()
}


class Shapes:
    """Pictures of coloured shapes, captions, questions and answers; see README.md beside this file.

    variant: of VARIANTS. held_out: colour-shape pairs (of each colour) that training never shows.
    num_questions: questions about each picture in a conversation, the last num_blind of them asked
    without it. detail: what training captions say, see caption_phrases. ValueError where these do
    not go together.
    """

    tokenizer = Tokenizer(english.WORDS)
    labels = SIZES + COLOURS + SHAPES  # the words of a classifier
    generic_questions = ("is there a circle ?", "what is at the center ?")  # training asks them

    def __init__(
        self,
        variant="shapes",
        *,
        held_out=0,
        seed=0,
        image_size=56,
        device="cpu",
        num_questions=9,
        num_blind=1,
        detail="mixed",
    ):
        self.world = replace(VARIANTS[variant], held_out=held_out)
        self.name, self.seed, self.image_size, self.device = variant, seed, image_size, device
        self.num_questions, self.num_blind, self.detail = num_questions, num_blind, detail

    @property
    def splits(self):
        """The names of all splits that this data set has."""
        return ("train", "val", "test", "more") + ("held_out", "control") * bool(
            self.world.held_out
        )

    @property
    def label_token_ids(self):
        return [self.tokenizer.ids[label] for label in self.labels]

    @property
    def shifted_splits(self):
        """Those whose pictures differ from training's in more than the draw."""
        return self.splits[3:]

    def split(self, name):
        """What evaluation asks: Split. ValueError if there is none of that name."""
        if name in ("held_out", "control") and not self.world.held_out:
            raise ValueError(f"split {name} takes a training with --held-out 1 or more")
        if name not in self.splits:
            raise ValueError(f"there is no split {name!r}; choose one of {', '.join(self.splits)}")
        return Split(self, name)

    normalize_caption = staticmethod(questions_of_people.spell)
    normalize_question = staticmethod(questions_of_people.normalize_question)
    explain_question = staticmethod(questions_of_people.explain_question)
    describe_shift = staticmethod(questions_of_people.describe_shift)
    class_captions = staticmethod(class_captions)

    def caption_batch(self, split, indices):
        """Pictures and captions, and which caption is true of which picture: CaptionBatch."""
        scenes, phrases = self.scenes_and_phrases(split, indices)
        tokens = to_tokens(grammar.render_caption(phrases), start=(BOS,))
        return CaptionBatch(
            pixels=render(self.world, scenes, self.image_size, self.device),
            tokens=self.to_device(tokens),
            is_match=self.to_device(truth.caption_truth(phrases, scenes.objects).T),
        )

    def is_match(self, split, indices):
        """A batch's is_match without its pictures, for a process that holds a part of them only."""
        scenes, phrases = self.scenes_and_phrases(split, indices)
        return self.to_device(truth.caption_truth(phrases, scenes.objects).T)

    def scenes_and_phrases(self, split, indices):
        """The scenes of a batch, and what their captions say: Scenes, (b, m, 4)."""
        scenes = sample(self.world, self.seed, split, indices)
        return scenes, self.caption_phrases(scenes, CounterRNG(self.seed, split, indices))

    def caption_phrases(self, scenes, rng):
        """What the caption of each picture says of each object: noun phrases (b, m, 4).

        detail "full" says size, colour and shape of all. "mixed" draws what is said: shapes alone,
        colours and shapes, all three, or these and the places. (Shapes are the slowest to learn; a
        caption that says nothing else makes them count.)
        """
        if self.detail == "full":
            return truth.without(scenes.objects, PLACE)
        phrases = scenes.objects.copy()
        level = rng.randint("detail", 8)
        phrases[level < 3, :, COLOUR] = 0
        phrases[level < 5, :, SIZE] = 0
        phrases[level < 7, :, PLACE] = 0
        return phrases

    def vqa_batch(self, split, indices, with_pixels=True):
        """A full caption and num_questions questions with answers a picture: VLMBatch."""
        scenes = sample(self.world, self.seed, split, indices)
        rng = CounterRNG(self.seed, split, indices)
        captions = grammar.render_caption(truth.without(scenes.objects, PLACE))
        rows, answers = questions.sample_questions(
            self.world, self.seed, split, indices, scenes.objects,
            questions.TRAIN_FAMILIES, self.num_questions,
        )  # fmt: skip
        flat, b = rows.reshape(-1, rows.shape[-1]), len(captions)
        asked = by_question(grammar.render_question(flat), b)
        answered = by_question(grammar.render_answer(flat, answers.reshape(-1)), b)
        packed = pack(
            [(captions[:, :0], captions), *zip(asked, answered, strict=True)],
            blind_from=1 + self.num_questions - self.num_blind,
        )
        pixels = render(self.world, scenes, self.image_size, self.device) if with_pixels else None
        object_tokens = bags_of_words(shuffled(scenes.objects, rng))
        return VLMBatch(pixels, *[self.to_device(array) for array in (object_tokens, *packed)])

    def to_device(self, array):
        return torch.from_numpy(array).to(self.device)


def by_question(word_ids, b):
    """(b * q, length) -> a list of q arrays (b, length)."""
    return list(word_ids.reshape(b, -1, word_ids.shape[1]).transpose(1, 0, 2))


def shuffled(objects, rng):
    """The objects (b, m, 4) in random order, empty rows last."""
    random_rank = rng.randint("order", 2**31, (objects.shape[1],))
    order = (random_rank + (objects[..., SHAPE] == 0) * 2**32).argsort(1)
    return np.take_along_axis(objects, order[..., None], 1)


def bags_of_words(objects):
    """Objects (b, m, 4) -> the words of each, tokens (b, m, 5): size, colour, shape, place (2).

    The language stage reads these in the place of a picture.
    """
    b, m, _ = objects.shape
    flat = objects.reshape(b * m, 4)
    ids = np.concatenate([grammar.nouns(flat), grammar.PLACE_WORDS[flat[:, PLACE]]], 1)
    ids[flat[:, SHAPE] == 0] = -1
    return np.where(ids >= 0, ids + FIRST_WORD, PAD).reshape(b, m, 5)
