"""Some pictures of the world, as evaluation knows them: pixels, words, and what is true of them."""

import numpy as np

from data.shapes import truth
from data.shapes.facts import judge_caption, mark_caption
from data.shapes.questions_of_people import language_of
from data.shapes.render import render
from data.shapes.scene import select
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE

COLUMNS = {"size": SIZE, "colour": COLOUR, "shape": SHAPE, "place": PLACE}


class Pictures:
    """Some pictures of a split and the truth about them; pictures[mask or indices] are fewer.

    indices: (n,) sample numbers, or just numbers where pictures were made for an item. cluster:
    (n,) the number of each one's minimal pair, which is what a bootstrap over scenes draws.
    """

    def __init__(self, data, scenes, indices):
        self.data, self.scenes, self.indices = data, scenes, np.asarray(indices)

    def __len__(self):
        return len(self.scenes.objects)

    def __getitem__(self, keep):
        scenes = select(self.scenes, keep)
        return Pictures(self.data, scenes, self.indices[keep])

    @property
    def cluster(self):
        return self.indices // 2

    def pixels(self):
        """uint8 (n, 3, H, W) on the data set's device."""
        return render(self.data.world, self.scenes, self.data.image_size, self.data.device)

    def of_several(self):
        """Those that show two things or more."""
        return self[self.scenes.count > 1]

    def captions(self, omit=("place",), backwards=False):
        """Full captions but for the attributes in `omit` (of COLUMNS): n strings.

        They name things in reading order, or backwards.
        """
        phrases = truth.without(self.scenes.objects, *(COLUMNS[name] for name in omit))
        phrases = truth.backwards(phrases) if backwards else phrases
        return self.data.grammar.caption_texts(phrases)

    def labels(self):
        """Which of the data set's labels (see label_token_ids) are there: bool (n, 18)."""
        return truth.labels_of(self.scenes.objects)

    def labels_said(self, captions):
        """Which of them captions (strings) name; one that is none of the grammar names nothing."""
        parser = self.data.grammar.parser
        return np.concatenate([truth.labels_of(phrases_of(parser, c)[None]) for c in captions])

    def is_match(self, captions):
        """Which captions (c strings of the grammar) are true of which pictures: bool (n, c)."""
        parts = np.array_split(np.arange(len(captions)), -(-len(captions) // 256))
        phrases = stack_phrases(
            [self.data.grammar.parser.parse_caption(caption) for caption in captions]
        )
        return np.concatenate(
            [truth.caption_truth(phrases[part], self.scenes.objects) for part in parts]
        ).T

    def is_true(self, caption):
        """Of which pictures one caption is true: n bools, or None where it is none of the
        grammar."""
        try:
            return self.is_match([caption])[:, 0].tolist()
        except ValueError:
            return [None] * len(self)

    def judge(self, captions, level="normal"):
        """Generated captions, one for each picture, fact by fact, for what was asked (a level of
        truth.PROMPTS): n JudgedCaption."""
        return [
            judge_caption(self.data.grammar.parser, caption, objects, level)
            for caption, objects in zip(captions, self.scenes.objects, strict=True)
        ]

    def mark(self, captions):
        """Captions as pieces of text for a page: n lists of (text, True, False or None)."""
        return [
            mark_caption(self.data.grammar.parser, caption, objects)
            for caption, objects in zip(captions, self.scenes.objects, strict=True)
        ]

    def read(self, question):
        """The grammar that knows a question, and what it asks (10,); None twice if none does."""
        grammar = self.data.grammars.get(language_of(question, self.data.grammars))
        return grammar, grammar and grammar.parser.parse(question, question=True)

    def mark_answers(self, question, answers):
        """Answers (n strings) to one question as pieces of text for a page: captions that it asks
        for phrase by phrase, others as a whole; None where the truth is not known."""
        _, row = self.read(question)
        if row is not None and row[truth.KIND] >= len(truth.KINDS):
            return self.mark(answers)
        return [
            [(said or "(nothing)", None if target is None else said == target)]
            for said, target in zip(answers, self.answers(question), strict=True)
        ]

    def answers(self, question):
        """The right answers to one question, in its language: n strings, None where there is none
        to know."""
        grammar, row = self.read(question)
        if grammar is None:
            return [None] * len(self)
        rows = np.tile(row, (len(self), 1))
        level = rows[:, truth.KIND] - len(truth.KINDS)
        if level[0] >= 0:
            said = truth.asked_caption(level, self.scenes.objects)
            as_list = level == truth.LIST
            return grammar.texts(grammar.render_caption(said, as_list))
        codes = truth.answer(rows, self.scenes.objects)
        words = grammar.answer_texts(rows, codes)
        return [
            None if code == truth.UNDECIDED else word
            for code, word in zip(codes, words, strict=True)
        ]


def phrases_of(parser, caption):
    """The noun phrases of a caption (a string): (m, 4), (0, 4) if it is none of the grammar."""
    try:
        return parser.parse_caption(caption)
    except ValueError:
        return np.zeros((0, 4), np.int64)


def stack_phrases(captions):
    """Lists of noun phrases (m_i, 4) -> (n, m, 4), empty rows last."""
    stacked = np.zeros((len(captions), max(map(len, captions)), 4), np.int64)
    for row, phrases in zip(stacked, captions, strict=True):
        row[: len(phrases)] = phrases
    return stacked
