"""What is said about a picture in training: captions, questions and answers, as word ids.

A piece of it is (prompt, answer), two arrays of word ids (b, length), -1 at the ends.
"""

import numpy as np

from data.shapes import truth
from data.shapes.templates import CHOICES
from data.shapes.truth import LIST, NORMAL, PROMPTS
from data.shapes.world import PLACE, SHAPE
from data.tokenizer import FIRST_WORD, PAD

PIECES = 4  # so many tokens at most stand for an object where there is no picture
# One question in so many is put in the plain way, which is the shortest. Where there is no picture,
# what is asked for is learned from these; later the many other ways are what is not known well.
PLAIN_OF = dict(words=2, pictures=8)


class Speakers:
    """Who talks about the pictures of a batch: each picture draws one of the languages, or all have
    the one that is given."""

    def __init__(self, grammars, rng, language=""):
        """grammars: {name: Grammar}, which share a vocabulary. language: "" or a name of these."""
        self.grammars = list(grammars.values())
        self.language = rng.randint("language", len(self.grammars))  # (b,)
        if language:
            self.language[:] = list(grammars).index(language)

    def say(self, render, each=1):
        """render(grammar) -> word ids (b * each, length), of each picture in its language."""
        parts = [render(grammar) for grammar in self.grammars]
        language = self.language.repeat(each)
        ids = np.full((len(language), max(part.shape[1] for part in parts)), -1)
        for number, part in enumerate(parts):
            ids[language == number, : part.shape[1]] = part[language == number]
        return ids


def caption(speakers, objects, rng):
    """A caption of objects (b, m, 4) and what asks for it.

    In one of two pictures the usual one, for which nothing asks (but in a second language a plain
    prompt); otherwise one of any kind, asked for in some of the words.
    """
    is_usual = rng.randint("usual", 2) == 0
    level = np.where(is_usual, NORMAL, rng.randint("prompt", len(PROMPTS)))
    phrasing = draw_phrasing(rng, "prompt")[:, 0] * ~is_usual[:, None]
    rows, said = prompt_rows(level), truth.asked_caption(level, objects)
    asked = speakers.say(lambda grammar: grammar.render_question(rows, phrasing))
    asked[is_usual & (speakers.language == 0)] = -1
    return asked, speakers.say(lambda g: g.render_caption(said, as_list=level == LIST))


def prompt_rows(level):
    """Rows that ask for captions as level (b,) of PROMPTS, in the layout of statements: (b, 10)."""
    rows = np.zeros((len(level), truth.WIDTH), np.int64)
    rows[:, truth.KIND] = len(truth.KINDS) + np.asarray(level)
    return rows


def draw_phrasing(rng, tag, number=1):
    """How each of `number` prompts is put, see Grammar.render_question: (b, number, 4).

    Each ends with a question mark, as the tokenizer sees to it in tests.
    """
    return rng.randint(f"{tag} phrasing", CHOICES, (number, 4)) * [1, 1, 1, 0]


def questions_and_answers(speakers, rows, answers, rng, plain_of):
    """Statements (b, q, 10) as questions in some of the words, and answers (b, q): q pieces.

    plain_of: one in so many is put in the plain way, see PLAIN_OF.
    """
    b, q, _ = rows.shape
    if q == 0:
        return []
    phrasing = draw_phrasing(rng, "question", q).reshape(b * q, 4)
    phrasing[rng.randint("plain", plain_of, (q,)).reshape(-1) == 0] = 0
    rows, answers = rows.reshape(b * q, -1), answers.reshape(-1)
    asked = speakers.say(lambda grammar: grammar.render_question(rows, phrasing), each=q)
    answered = speakers.say(lambda grammar: grammar.render_answer(rows, answers), each=q)
    return [(asked[k::q], answered[k::q]) for k in range(q)]


# ---------------------------------------------------------------- in the place of a picture


def in_pieces(objects, rng):
    """Each object of (b, m, 4) one to PIECES times, in half of the pictures once: (b, PIECES m, 4).

    So do image tokens show it. Two of them are one thing if they are at one place: who learns to
    count from a token for each object has to learn it again from pictures.
    """
    b, m, _ = objects.shape
    is_whole = rng.randint("whole", 2) == 0
    pieces = np.where(is_whole[:, None], 0, rng.randint("pieces", PIECES, (m,))) + 1
    shown = np.arange(PIECES) < pieces[..., None]  # (b, m, PIECES)
    return (objects[:, :, None] * shown[..., None]).reshape(b, m * PIECES, 4)


def shuffled(objects, rng, tag):
    """The objects (b, ..., m, 4) in random order, empty rows last."""
    random_rank = rng.randint(tag, 2**31, objects.shape[1:-1])
    order = (random_rank + (objects[..., SHAPE] == 0) * 2**32).argsort(-1)
    return np.take_along_axis(objects, order[..., None], -2)


def bags_of_words(speakers, objects):
    """Objects (b, m, 4) -> the words of each: tokens (b, m, k) of size, colour, shape and place.

    The language stage reads these in the place of a picture.
    """
    b, m, _ = objects.shape
    flat = objects.reshape(b * m, 4)

    def words(grammar):
        return np.concatenate([grammar.nouns(flat), grammar.places[0, flat[:, PLACE]]], 1)

    ids = speakers.say(words, each=m)
    ids[flat[:, SHAPE] == 0] = -1
    return np.where(ids >= 0, ids + FIRST_WORD, PAD).reshape(b, m, -1)
