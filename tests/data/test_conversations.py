"""Conversations: a caption, questions and answers in a packed row; what they say is true."""

from collections import Counter

import numpy as np
import pytest
import torch

from data.batch import IGNORE, pack, to_tokens
from data.dataset import DATASETS
from data.shapes import korean, questions, truth
from data.shapes.dataset import LONGEST_ROW
from data.shapes.grammar import words_of
from data.shapes.languages import CHOICES as LANGUAGES
from data.shapes.languages import TABLES
from data.shapes.questions_of_people import language_of
from data.shapes.scene import sample
from data.shapes.world import COLOUR, SHAPE, SIZE
from data.tokenizer import BOS, EOS, FIRST_WORD, PAD, TURN

pytestmark = pytest.mark.quick

SHAPES = DATASETS["shapes"]


def segments_of(batch, i):
    """Picture i's segments: {number: (prompt, answer)}, lists of tokens."""
    found = {}
    for number in sorted(set(batch.segment_ids[i].tolist()) - {0}):
        mine = batch.segment_ids[i] == number
        words, is_label = batch.input_ids[i][mine], batch.labels[i][mine] != IGNORE
        assert (is_label.int().diff() >= 0).all()  # the answer stands behind its question
        found[number] = words[~is_label].tolist(), words[is_label].tolist()
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_labels_decode_to_exactly_the_answers_and_their_ends(language):
    data, indices = SHAPES(language=language), np.arange(50)
    batch, decode = data.vqa_batch("train", indices), data.tokenizer.decode
    objects = sample(data.world, 0, "train", indices).objects
    rows, answers = questions.sample_questions(
        data.world, 0, "train", indices, objects, questions.TRAIN_FAMILIES, 9, teaches=True
    )
    checked = 0
    for i in range(50):
        segments = segments_of(batch, i)
        for q in range(9):
            if q + 2 not in segments:  # the row was full
                continue
            asked, answered = segments[q + 2]
            assert answered[-1] == EOS and answered.count(EOS) == 1
            row, answer = rows[i, q], answers[i, q]
            spoken = [g for g in data.grammars.values() if means(g, decode(asked), row)]
            assert len(spoken) == 1
            assert [decode(answered)] == spoken[0].answer_texts(row[None], answer[None])
            checked += 1
    assert checked > 380


def means(grammar, question, row):
    """Does a question of this grammar ask for what the statement (10,) says?"""
    try:
        return (grammar.parser.parse(question, question=True) == row).all()
    except ValueError:
        return False


WRITES = dict(brief=[SHAPE], normal=[SIZE, COLOUR, SHAPE], detailed=range(4), list=[SHAPE])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_caption_says_what_was_asked_for(language):
    data, indices = SHAPES(language=language), np.arange(400)
    batch, decode = data.vqa_batch("train", indices, False), data.tokenizer.decode
    objects, seen = sample(data.world, 0, "train", indices).objects, Counter()
    for i in indices:
        asked, answered = (decode(part) for part in segments_of(batch, i)[1])
        name = language_of(asked, data.grammars)
        grammar, level = data.grammars[name or data.languages[0]], "normal"
        if asked:
            row = grammar.parser.parse(asked, question=True)
            level = truth.PROMPTS[row[truth.KIND] - len(truth.KINDS)]
        told = grammar.parser.parse_caption(answered)
        wanted = np.zeros_like(told)
        wanted[:, WRITES[level]] = objects[i, objects[i, :, SHAPE] > 0][:, WRITES[level]]
        assert (told == wanted).all()
        is_list = answered in grammar.texts(grammar.render_caption(told[None], as_list=True))
        assert is_list == (level == "list") or grammar.tables is korean  # where no article is
        seen[name, level] += 1
    levels = {(name, level) for name in data.languages for level in truth.PROMPTS}
    assert set(seen) == levels | {(None, "normal")}
    unasked = sum(number for (name, _), number in seen.items() if name is None)
    assert abs(unasked / 400 - 1 / 2 / len(data.languages)) < 0.08


def languages_spoken(data, *texts):
    """The names of the languages that have words in these tokens."""
    words = {data.tokenizer.name(t) for tokens in texts for t in tokens.unique().tolist()}
    known = {name: set(words_of(TABLES[name])) for name in ("en", "ko")}
    only = dict(en=known["en"] - known["ko"], ko=known["ko"] - known["en"])
    return {name for name in only if words & only[name]}


@pytest.mark.parametrize("spoken", TABLES)
def test_pictures_may_be_spoken_of_in_one_language_where_text_has_both(spoken):
    data, indices = SHAPES(language="both", picture_language=spoken), np.arange(60)
    assert languages_spoken(data, data.vqa_batch("train", indices).input_ids) == {spoken}
    text = data.vqa_batch("train", indices, False)
    for tokens in (text.input_ids, text.object_tokens):
        assert languages_spoken(data, tokens) == {"en", "ko"}
    both = SHAPES(language="both")
    assert languages_spoken(data, both.vqa_batch("train", indices).input_ids) == {"en", "ko"}
    captions, in_both = (d.caption_batch("train", indices) for d in (data, both))
    assert languages_spoken(data, captions.tokens) == {spoken}
    assert languages_spoken(data, in_both.tokens) == {"en", "ko"}
    assert torch.equal(captions.pixels, in_both.pixels)
    with pytest.raises(ValueError, match="in 'ko' nothing is said in 'en'"):
        SHAPES(language="en", picture_language="ko")


@pytest.mark.parametrize("with_pixels, share", ((False, 1 / 2), (True, 1 / 8)))
def test_of_pictures_fewer_questions_are_put_plainly(with_pixels, share):
    data, is_plain = SHAPES(image_size=28), []
    batch = data.vqa_batch("train", np.arange(150), with_pixels)
    for i in range(150):
        asked = [data.tokenizer.decode(prompt) for prompt, _ in segments_of(batch, i).values()][1:]
        rows = np.stack([data.grammar.parser.parse(text, question=True) for text in asked])
        plain = data.grammar.texts(data.grammar.render_question(rows))
        is_plain += [text == other for text, other in zip(asked, plain, strict=True)]
    # A drawn way is seldom the plain one; of a row that is too long the longest way is left out.
    assert abs(np.mean(is_plain) - share) < 0.05


@pytest.mark.parametrize("language", LANGUAGES)
def test_as_many_questions_are_asked_as_fit_into_a_row(language):
    data, indices = SHAPES(language=language), np.arange(200)
    batch = data.vqa_batch("train", indices, False)
    numbers = [list(segments_of(batch, i)) for i in indices]
    assert all(own[0] == 1 and own[-1] <= 10 and len(own) >= 6 for own in numbers)
    assert np.mean([len(own) for own in numbers]) > 9.4
    assert batch.input_ids.shape[1] <= LONGEST_ROW


@pytest.mark.parametrize("language", LANGUAGES)
def test_whatever_is_asked_ends_with_the_models_turn_and_as_the_tokenizer_writes_it(language):
    data, indices = SHAPES(language=language), np.arange(100)
    batch, tokenizer = data.vqa_batch("train", indices, False), data.tokenizer
    pieces = [piece for i in indices for piece in segments_of(batch, i).values()]
    asked = [prompt for prompt, _ in pieces if prompt]
    assert len(asked) > 850
    for prompt in asked:
        text = tokenizer.decode(prompt)
        assert text.endswith(TURN) and tokenizer.encode_prompts([text]) == [prompt]


def test_a_label_stands_where_its_word_stands_and_never_on_padding():
    batch = SHAPES().vqa_batch("train", np.arange(50))
    is_label = batch.labels != IGNORE
    assert torch.equal(batch.labels[is_label], batch.input_ids[is_label])
    is_pad = batch.input_ids == PAD
    assert is_pad.any() and not is_label[is_pad].any() and not is_pad[:, 0].any()
    assert (is_pad[:, 1:] >= is_pad[:, :-1]).all()  # at the ends alone
    assert torch.equal(batch.segment_ids == 0, is_pad)


def test_positions_count_from_the_start_of_each_segment():
    batch = SHAPES().vqa_batch("train", np.arange(20))
    for segment_ids, position_ids in zip(batch.segment_ids, batch.position_ids, strict=True):
        numbers = segment_ids[segment_ids > 0].unique_consecutive().tolist()
        assert numbers == sorted(numbers) and len(numbers) >= 7 and set(numbers) <= {*range(1, 11)}
        for segment in numbers:
            positions = position_ids[segment_ids == segment].tolist()
            assert positions == list(range(len(positions)))


def test_a_caption_alone_may_be_asked_for():
    alone = SHAPES(num_questions=0, num_blind=0).vqa_batch("train", np.arange(20))
    beside = SHAPES(num_questions=4).vqa_batch("train", np.arange(20))
    n = alone.input_ids.shape[1]
    is_caption = beside.segment_ids[:, :n] == 1
    assert alone.segment_ids.max() == 1 and not alone.blind.any()
    assert torch.equal(alone.input_ids[is_caption], beside.input_ids[:, :n][is_caption])


@pytest.mark.parametrize("num_blind", [0, 1, 3])
def test_the_first_questions_are_blind(num_blind):
    batch = SHAPES(num_questions=4, num_blind=num_blind).vqa_batch("train", np.arange(20))
    is_blind = (batch.segment_ids > 1) & (batch.segment_ids < 2 + num_blind)
    assert torch.equal(batch.blind, is_blind) and is_blind.any() == (num_blind > 0)


@pytest.mark.parametrize("pieces", [False, True])
def test_object_tokens_are_the_words_of_each_object_in_any_order(pieces):
    """Each once; in pieces one to four times, and in half of the pictures once."""
    data, indices = SHAPES(), np.arange(40)
    objects = sample(data.world, 0, "train", indices).objects
    object_tokens = data.vqa_batch("train", indices, pieces=pieces).object_tokens
    orders, times = set(), []
    for row, scene in zip(object_tokens, objects, strict=True):
        said = [data.tokenizer.decode(words) for words in row.tolist() if words[0] != PAD]
        there = [o for o in scene if o[2]]
        phrases = data.grammar.caption_texts(np.array(there)[:, None])
        wanted = [phrase.replace("at the ", "").removeprefix("a ") for phrase in phrases]
        times += [said.count(phrase) for phrase in wanted]
        assert set(said) == set(wanted)  # an object's place tells it from all others
        assert pieces or sorted(said) == sorted(wanted)
        orders.add(said == sorted(said, key=wanted.index))
    assert orders == {True, False}
    assert set(times) == ({1, 2, 3, 4} if pieces else {1})
    assert not pieces or 0.5 < np.mean(np.array(times) == 1) < 0.75  # a half, and by chance


def test_to_tokens_pads_at_the_ends():
    ids = np.array([[0, 1, -1], [2, -1, -1], [-1, -1, -1]])
    a, b, c = FIRST_WORD, FIRST_WORD + 1, FIRST_WORD + 2
    assert to_tokens(ids, start=(BOS,)).tolist() == [
        [BOS, a, b, EOS, PAD],
        [BOS, c, EOS, PAD, PAD],
        [BOS, EOS, PAD, PAD, PAD],
    ]
    assert to_tokens(ids, end=()).tolist() == [[a, b, PAD], [c, PAD, PAD], [PAD, PAD, PAD]]


def test_pack_as_drawn_at_the_top_of_batch_py():
    caption = np.array([[0, 1], [2, -1]])
    asked, answered = np.array([[3, 4], [5, -1]]), np.array([[6], [7]])
    packed = pack([(caption[:, :0], caption), (asked, answered), (asked, answered)], blind=[3])
    input_ids, segment_ids, position_ids, labels, blind = (column.tolist() for column in packed)
    w = [FIRST_WORD + k for k in range(8)]
    dot = IGNORE
    assert input_ids == [
        [w[0], w[1], EOS, w[3], w[4], w[6], EOS, w[3], w[4], w[6], EOS],
        [w[2], EOS, w[5], w[7], EOS, w[5], w[7], EOS, PAD, PAD, PAD],
    ]
    assert segment_ids == [[1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3], [1, 1, 2, 2, 2, 3, 3, 3, 0, 0, 0]]
    assert position_ids[0] == [0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3]
    assert position_ids[1][:8] == [0, 1, 0, 1, 2, 0, 1, 2]
    assert labels == [
        [w[0], w[1], EOS, dot, dot, w[6], EOS, dot, dot, w[6], EOS],
        [w[2], EOS, dot, w[7], EOS, dot, w[7], EOS, dot, dot, dot],
    ]
    assert blind == [[number == 3 for number in row] for row in segment_ids]


def test_pack_leaves_out_what_would_make_a_row_too_long():
    asked, answered = np.array([[0], [0]]), np.array([[1, 1], [1, -1]])  # 4 tokens, 3 tokens
    packed = pack([(asked, answered)] * 2 + [(asked[:, :0], answered[:, 1:])], longest=6)
    assert packed[1].tolist() == [[1, 1, 1, 1, 3, 3], [1, 1, 1, 2, 2, 2]]
    assert [int(is_word) for is_word in (packed[0] != PAD).sum(1)] == [6, 6]
