"""Ways to ask: how many there are, of which words, and that what is held out is never trained."""

from types import SimpleNamespace

import numpy as np
import pytest

from data.batch import IGNORE
from data.dataset import DATASETS
from data.shapes import questions
from data.shapes.grammar import words_of
from data.shapes.languages import CHOICES as LANGUAGES
from data.shapes.languages import TABLES, grammars_of
from data.shapes.parser import Parser
from data.shapes.questions import FAMILIES
from data.shapes.questions_of_people import language_of
from data.shapes.scene import sample
from data.shapes.templates import CHOICES, expand, replace_macros
from data.shapes.truth import KIND, KINDS, LINK, PROMPTS, WIDTH, A, B
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE, WORLDS

pytestmark = pytest.mark.quick

# Words that people ask with; each is to occur in phrasings of several families.
WORDS_OF_PEOPLE = """
    a an the this that it there here in of at to and or any some is are do does can you me i see
    find show tell say count look picture image photo thing things object objects one which what
    how many much number colour size shape big large small kind have has more fewer than as same
    where left right above below up down please could
"""
ALL = KINDS + PROMPTS


def ways(tables, templates):
    """All expansions of templates: a set of tuples of words.

    (A Korean noun has no plural: there {as} is written like {a}.)
    """
    lines = [replace_macros(template, tables.MACROS) for template in templates]
    if tables.PLURALS == tables.SHAPES:
        lines = [line.replace("s}", "}") for line in lines]
    return {tuple(words) for line in lines for words, _ in expand(line)}


def drawn(n, seed=0):
    """n random statements, kind by kind in turn, and how they are put: (n, 10), (n, 4)."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, WIDTH), np.int64)
    rows[:, KIND], rows[:, LINK] = np.arange(n) % len(ALL), rng.integers(1, 5, n)
    for noun in (A, B):
        rows[:, noun] = np.stack([rng.integers(0, k, n) for k in (3, 9, 9, 1)], 1)
    rows[:, A.start + PLACE] = rng.integers(1, 10, n)
    return rows, rng.integers(0, CHOICES, (n, 4))


# ---------------------------------------------------------------- how many, and which are held out


@pytest.mark.parametrize("name", TABLES)
def test_every_family_has_ten_ways_to_ask_and_four_that_are_held_out(name):
    tables = TABLES[name]
    for family in FAMILIES:
        assert len(set(tables.QUESTIONS[family])) >= 10, family
        assert len(set(tables.HELD_OUT[family])) >= 4, family
    for kind in ALL:
        assert len(set(tables.QUESTIONS[kind])) >= 6 and len(set(tables.HELD_OUT[kind])) >= 2


@pytest.mark.parametrize("name", TABLES)
def test_no_held_out_template_is_a_trained_one(name):
    """Nor what is left of one without words that may stand before a question."""
    tables = TABLES[name]
    starts = ways(tables, [tables.START])
    # What one START has beyond another one, too.
    rests = {s[k:] for s in starts for k in range(len(s) + 1) if s[:k] in starts}
    assert starts <= rests
    for kind in ALL:
        lists = [ways(tables, lists[kind]) for lists in (tables.QUESTIONS, tables.HELD_OUT)]
        for some, others in (lists, lists[::-1]):
            for words in some:
                left = {words[k:] for k in range(len(words)) if words[:k] in rests}
                assert others.isdisjoint(left), " ".join(words)


@pytest.mark.parametrize("name", TABLES)
def test_who_knows_the_trained_templates_alone_cannot_read_the_held_out_ones(name):
    grammar, (rows, phrasing) = grammars_of(name)[name], drawn(2600)
    trained = Parser(SimpleNamespace(**vars(TABLES[name]) | dict(HELD_OUT={})), grammar.words)
    for row, text in zip(rows, grammar.texts(grammar.render_question(rows, phrasing)), strict=True):
        assert trained.parse(text, question=True)[KIND] == row[KIND]
    for text in grammar.texts(grammar.render_question(rows, phrasing, held_out=True)):
        with pytest.raises(ValueError, match="not a question"):
            trained.parse(text, question=True)


# ---------------------------------------------------------------- words


def test_the_words_of_people_occur_in_several_families():
    grammar, (rows, phrasing) = grammars_of("en")["en"], drawn(80000)
    ids, families = (
        grammar.render_question(rows, phrasing),
        dict.fromkeys(WORDS_OF_PEOPLE.split(), 0),
    )
    for kind in map(KINDS.index, FAMILIES):
        own = np.unique(ids[rows[:, KIND] == kind])
        for word in {grammar.words[i] for i in own if i >= 0} & families.keys():
            families[word] += 1
    assert {word for word, number in families.items() if number < 2} == set()


@pytest.mark.parametrize("name", TABLES)
def test_what_is_asked_for_is_not_named(name):
    grammar, indices, world = grammars_of(name)[name], np.arange(1000), WORLDS["default"]
    objects, families = sample(world, 0, "train", indices).objects, questions.TRAIN_FAMILIES
    rows, _ = questions.sample_questions(world, 0, "train", indices, objects, families, 9)
    rows = rows.reshape(-1, WIDTH)
    phrasing = np.random.default_rng(0).integers(0, CHOICES, (len(rows), 4))
    # "Is it small or large ?" names both sizes, and "look left and right" places.
    tables = dict(colour=grammar.colours, shape=grammar.singular)
    for kind, column in dict(colour=COLOUR, shape=SHAPE, size=SIZE, place=PLACE).items():
        mask = rows[:, KIND] == KINDS.index(kind)
        assert mask.sum() > 100 and not rows[mask, A.start + column].any()
        if kind in tables:
            values = tables[kind][:, 1:, 0]
            assert not np.isin(grammar.render_question(rows[mask], phrasing[mask]), values).any()


@pytest.mark.parametrize("language", LANGUAGES)
def test_half_of_the_training_questions_are_put_plainly(language):
    data = DATASETS["shapes"](language=language, num_questions=4)
    batch, is_plain = data.vqa_batch("train", np.arange(300), with_pixels=False), []
    for ids, labels, segments in zip(batch.input_ids, batch.labels, batch.segment_ids, strict=True):
        for segment in range(2, 6):
            asked = ids[(segments == segment) & (labels == IGNORE)].tolist()
            text = data.tokenizer.decode(asked)
            grammar = data.grammars[language_of(text, data.grammars)]
            row = grammar.parser.parse(text, question=True)[None]
            is_plain.append(text == grammar.text(grammar.render_question(row)[0]))
    assert len(is_plain) == 1200 and 0.45 < np.mean(is_plain) < 0.6


def test_plain_questions_are_plain():
    rows = np.zeros((7, WIDTH), np.int64)
    rows[:, KIND], rows[:, A.start + SHAPE], rows[:, LINK] = np.arange(7), 1, 1
    rows[:, B.start + COLOUR] = 1
    grammar = grammars_of("en")["en"]
    assert grammar.texts(grammar.render_question(rows)) == [
        "is there a circle ?",
        "how many circles are there ?",
        "what colour is the circle ?",
        "what shape is the circle ?",
        "what size is the circle ?",
        "is the circle left of the red object ?",
        "are there more circles than red objects ?",
    ]


def test_an_article_agrees_with_what_follows():
    grammar, (rows, phrasing) = grammars_of("en")["en"], drawn(13000)
    phrases = np.array([[[0, 2, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0]]])
    assert grammar.caption_texts(phrases) == ["an orange circle , a red circle and a small object"]
    followers = {"a": set(), "an": set()}
    for words in map(str.split, grammar.texts(grammar.render_question(rows, phrasing))):
        for article, word in zip(words, words[1:], strict=False):
            followers.get(article, set()).add(word)
    assert followers["an"] == {"orange", "object", "image"}
    assert {word for word in followers["a"] if word[0] in "aeiou"} <= {"one"}


@pytest.mark.parametrize(
    "table", ["CAPTION", "CAPTION_WITH_PLACE", "CAPTION_AS_LIST", "AND", "END"]
)
def test_the_vocabulary_has_the_words_of_every_table(table):
    other = SimpleNamespace(**vars(TABLES["en"]) | {table: "word {a}"})
    found = set(words_of(other))
    assert found - {"word"} <= set(words_of(TABLES["en"])) and "word" in found


@pytest.mark.parametrize("name", TABLES)
def test_the_ids_of_words_do_not_depend_on_the_order_of_templates(name):
    tables = TABLES[name]
    turned = {kind: lines[::-1] for kind, lines in reversed(tables.QUESTIONS.items())}
    other = SimpleNamespace(**vars(tables) | dict(QUESTIONS=turned))
    assert words_of(other) == words_of(tables)
