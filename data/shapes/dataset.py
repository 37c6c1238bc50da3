"""The generated world as a data set: batches for training, splits for evaluation."""

import copy
from dataclasses import replace

import numpy as np
import torch

from data.batch import CaptionBatch, VLMBatch, pack, to_tokens
from data.shapes import questions, questions_of_people, truth
from data.shapes.conversation import (
    PLAIN_OF,
    Speakers,
    bags_of_words,
    caption,
    in_pieces,
    prompt_rows,
    questions_and_answers,
    shuffled,
)
from data.shapes.false_captions import swapped_caption
from data.shapes.languages import grammars_of
from data.shapes.render import render
from data.shapes.rng import CounterRNG
from data.shapes.scene import sample
from data.shapes.split import Split, class_captions
from data.shapes.truth import NORMAL
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE, WORLDS
from data.tokenizer import BOS, FIRST_WORD, Tokenizer

VARIANTS = {
    "shapes" if name == "default" else f"shapes-{name}": world for name, world in WORLDS.items()
}

LONGEST_ROW = 128  # tokens of a caption, questions and answers about one picture


class Shapes:
    """Pictures of coloured shapes, captions, questions and answers; see README.md beside this file.

    variant: of VARIANTS. held_out: colour-shape pairs (of each colour) that training never shows.
    num_questions: questions about each picture in a conversation, the first num_blind of them asked
    without it; fewer where a row would have more than LONGEST_ROW tokens. detail: what training
    captions say, see caption_phrases. captions: of each picture in a batch for CLIP, at most 4;
    hard_negatives: one more, a false one, see false_captions.swapped_caption.
    language: of languages.CHOICES; with "both" each picture draws one, or is spoken of in
    picture_language, and text alone draws. ValueError where these do not go together.

    What a split says and asks is in one language, the first; speaking(language) gives the others.
    """

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
        captions=1,
        hard_negatives=False,
        language="en",
        picture_language="",
    ):
        self.world = replace(VARIANTS[variant], held_out=held_out)
        self.name, self.seed, self.image_size, self.device = variant, seed, image_size, device
        self.num_questions, self.num_blind = num_questions, num_blind
        self.detail, self.captions, self.hard_negatives = detail, captions, hard_negatives
        self.grammars = grammars_of(language)
        self.languages = tuple(self.grammars)
        self.language, self.grammar = next(iter(self.grammars.items()))
        if picture_language not in ("", *self.languages):
            raise ValueError(f"of pictures in {picture_language!r} nothing is said in {language!r}")
        self.picture_language = picture_language
        self.tokenizer = Tokenizer(self.grammar.words)

    def speaking(self, language):
        """The same data set, whose splits speak this one of its languages."""
        other = copy.copy(self)
        other.language, other.grammar = language, self.grammars[language]
        return other

    @property
    def splits(self):
        """The names of all splits that this data set has."""
        return ("train", "val", "test", "more") + ("held_out", "control") * bool(
            self.world.held_out
        )

    @property
    def label_token_ids(self):
        """The words of a classifier, in the first language: sizes, colours, shapes."""
        grammar = self.grammars[self.languages[0]]
        tables = (grammar.sizes, grammar.colours, grammar.singular)
        return [FIRST_WORD + int(i) for table in tables for i in table[0, 1:, 0]]

    @property
    def caption_prompt(self):
        """What asks for a usual caption: nothing, but in the second language, words."""
        if self.language == self.languages[0]:
            return ""
        return self.grammar.text(self.grammar.render_question(prompt_rows([NORMAL]))[0])

    @property
    def yes_no(self):
        """The two answers, in the language of the splits."""
        return self.grammar.tables.YES_NO

    @property
    def generic_questions(self):
        """Questions for any picture; training asks each of them."""
        rows = np.zeros((3, truth.WIDTH), np.int64)
        rows[:, truth.KIND] = truth.COUNT, truth.EXISTENCE, truth.CONTENT
        rows[1, truth.A.start + SHAPE], rows[2, truth.A.start + PLACE] = 1, 5
        return self.grammar.texts(self.grammar.render_question(rows))

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
    describe_shift = staticmethod(questions_of_people.describe_shift)

    def normalize_question(self, question):
        return questions_of_people.normalize_question(question, self.grammars)

    def explain_question(self, text):
        return questions_of_people.explain_question(text, self.grammars)

    def class_captions(self):
        return class_captions(self.grammar)

    def caption_batch(self, split, indices):
        """Pictures and captions, and which caption is true of which picture: CaptionBatch."""
        scenes, phrases = self.scenes_and_phrases(split, indices)
        rng = CounterRNG(self.seed, split, indices)
        speakers = Speakers(self.grammars, rng, self.picture_language)
        each = len(phrases) // len(scenes.objects)
        rendered = speakers.say(lambda grammar: grammar.render_caption(phrases), each)
        tokens = to_tokens(rendered, start=(BOS,))
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
        """The scenes of a batch, and what their captions say, picture by picture: Scenes,
        (b * captions, m, 4), with hard negatives (b * (captions + 1), m, 4).

        Each caption names the objects in an order of its own: in reading order it would tell their
        places without a word of them.
        """
        scenes = sample(self.world, self.seed, split, indices)
        rng = CounterRNG(self.seed, split, indices)
        phrases = self.caption_phrases(scenes, rng)
        if self.hard_negatives:
            false = swapped_caption(self.world, scenes.objects, rng)
            phrases = np.concatenate([phrases, false[:, None]], 1)
        phrases = shuffled(phrases, rng, "order of mention")
        return scenes, phrases.reshape(-1, *phrases.shape[2:])

    def caption_phrases(self, scenes, rng):
        """What the captions of each picture say of each object: noun phrases (b, captions, m, 4).

        detail "full" says size, colour and shape of all. "mixed" draws what is said: shapes alone,
        colours and shapes, all three, or these and the places, and of several captions each says
        something else. (Shapes are the slowest to learn; a caption that says nothing else makes
        them count.)
        """
        phrases = np.repeat(scenes.objects[:, None], self.captions, 1)
        if self.detail == "full":
            return truth.without(phrases, PLACE)
        level = rng.randint("detail", 8)
        first = (level[:, None] >= [3, 5, 7]).sum(1)  # 0 shapes alone .. 3 with the places
        rank = rng.randint("other levels", 2**31, (4,))
        rank[np.arange(len(rank)), first] = -1
        said = rank.argsort(1)[:, : self.captions]  # (b, captions)
        for least, column in ((1, COLOUR), (2, SIZE), (3, PLACE)):
            phrases[said < least, :, column] = 0
        return phrases

    def vqa_batch(self, split, indices, with_pixels=True, pieces=True):
        """A caption, num_questions questions and their answers a picture: VLMBatch.

        pieces: object_tokens show some objects more than once, see in_pieces.
        """
        scenes = sample(self.world, self.seed, split, indices)
        rng = CounterRNG(self.seed, split, indices)
        speakers = Speakers(self.grammars, rng, self.picture_language if with_pixels else "")
        rows, answers = questions.sample_questions(
            self.world, self.seed, split, indices, scenes.objects,
            questions.TRAIN_FAMILIES, self.num_questions, teaches=True,
        )  # fmt: skip
        plain_of = PLAIN_OF["pictures" if with_pixels else "words"]
        segments = [
            caption(speakers, scenes.objects, rng),
            *questions_and_answers(speakers, rows, answers, rng, plain_of),
        ]
        packed = pack(segments, blind=range(2, 2 + self.num_blind), longest=LONGEST_ROW)
        pixels = render(self.world, scenes, self.image_size, self.device) if with_pixels else None
        objects = in_pieces(scenes.objects, rng) if pieces else scenes.objects
        object_tokens = bags_of_words(speakers, shuffled(objects, rng, "order"))
        return VLMBatch(pixels, *[self.to_device(array) for array in (object_tokens, *packed)])

    def to_device(self, array):
        return torch.from_numpy(array).to(self.device)
