"""Data sets: the contract of DATASETS, packed conversations, and what a batch says is true."""

import dataclasses

import numpy as np
import pytest
import torch

from data.batch import IGNORE, pack, to_tokens
from data.dataset import DATASETS, OLDER_NAMES
from data.shapes import hard_negatives, questions, questions_of_people, truth
from data.shapes.languages import CHOICES as LANGUAGES
from data.shapes.scene import sample
from data.tokenizer import BOS, EOS, FIRST_WORD, PAD

pytestmark = pytest.mark.quick

SHAPES = DATASETS["shapes"]
EMPTY = dict(labels=IGNORE, tokens=PAD, input_ids=PAD, segment_ids=0, blind=False)  # padding
parse_caption = SHAPES().grammar.parser.parse_caption
SETTINGS = dict(held_out=0, seed=3, image_size=28, device="cpu", num_questions=4, num_blind=1)


def make(name, **settings):
    return DATASETS[name](**SETTINGS | settings)


def batches(data, split, indices):
    return [data.caption_batch(split, indices), data.vqa_batch(split, indices)]


def columns(batch):
    """The fields of a batch but is_match, which is about the batch and not about a row."""
    names = [field.name for field in dataclasses.fields(batch)]
    return {name: getattr(batch, name) for name in names if name != "is_match"}


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize("name", DATASETS)
def test_dataset_contract(name):
    data = make(name)
    captions, talk = batches(data, "train", np.arange(5))
    assert captions.pixels.dtype == torch.uint8 and captions.pixels.shape == (5, 3, 28, 28)
    assert torch.equal(captions.pixels, talk.pixels)
    assert captions.is_match.shape == (5, 5) and captions.is_match.diagonal().all()
    assert torch.equal(data.is_match("train", np.arange(5)), captions.is_match)
    assert (captions.tokens[:, 0] == BOS).all() and ((captions.tokens == EOS).sum(1) == 1).all()
    b, t = talk.input_ids.shape
    assert b == 5 and talk.object_tokens.ndim == 3 and len(talk.object_tokens) == 5
    for field in ("segment_ids", "position_ids", "labels", "blind"):
        assert getattr(talk, field).shape == (b, t)
    for tokens in (captions.tokens, talk.input_ids, talk.object_tokens):
        assert tokens.dtype == torch.long and tokens.min() >= 0
        assert tokens.max() < data.tokenizer.size
    assert data.image_size == 28
    assert {"train", "val", "test"} <= set(data.splits)
    assert set(data.shifted_splits) <= set(data.splits) - {"train", "val", "test"}
    decode = data.tokenizer.decode
    assert all(data.tokenizer.encode(decode([i])) == [i] for i in data.label_token_ids)
    for text in (*data.generic_questions, *data.class_captions()):
        assert data.normalize_question(text) == text
    for split in data.splits:
        data.split(split)
    with pytest.raises(ValueError, match="tset"):
        data.split("tset")


@pytest.mark.parametrize("name", DATASETS)
def test_same_index_same_bits_whatever_the_batch(name):
    data, n = make(name), 24
    together = batches(data, "train", np.arange(n))
    other = batches(make(name), "train", np.arange(n)[::-1].copy())
    for i in (0, 1, 17, n - 1):
        alone = batches(data, "train", [i])
        for whole, backwards, one in zip(together, other, alone, strict=True):
            for field, row in columns(one).items():
                width = row.shape[1]
                found = [
                    columns(whole)[field][i : i + 1],
                    columns(backwards)[field][n - 1 - i :][:1],
                ]
                for rows in found:
                    assert torch.equal(rows[:, :width], row), field
                    assert field not in EMPTY or (rows[:, width:] == EMPTY[field]).all(), field


@pytest.mark.parametrize("name", DATASETS)
def test_no_picture_is_in_two_splits(name):
    data, seen = make(name), {}
    for split in ("train", "val", "test"):
        pixels = data.caption_batch(split, np.arange(200)).pixels
        seen[split] = {picture.numpy().tobytes() for picture in pixels}
        assert len(seen[split]) > 190
    assert not seen["train"] & (seen["val"] | seen["test"]) and not seen["val"] & seen["test"]


@pytest.mark.parametrize("name", DATASETS)
def test_the_seed_changes_training_and_no_other_split(name):
    for split in ("train", "val", "test"):
        one, other = (batches(make(name, seed=seed), split, [0, 1, 2]) for seed in (0, 1))
        same = all(torch.equal(a.pixels, b.pixels) for a, b in zip(one, other, strict=True))
        assert same == (split != "train")


@pytest.mark.parametrize("name", DATASETS)
def test_a_batch_without_pixels_is_the_same_otherwise(name):
    data = make(name)
    whole = columns(data.vqa_batch("train", [4, 5]))
    text = columns(data.vqa_batch("train", [4, 5], False))
    assert text.pop("pixels") is None and whole.pop("pixels") is not None
    assert all(torch.equal(value, whole[field]) for field, value in text.items())


def test_older_names_are_names_of_today():
    assert set(OLDER_NAMES.values()) <= set(DATASETS) and not set(OLDER_NAMES) & set(DATASETS)


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="held-out"):
        make("shapes-cooccurrence", held_out=1)
    with pytest.raises(ValueError, match="held_out"):
        make("shapes", held_out=5)


def test_held_out_pairs_come_with_two_splits_more():
    assert set(make("shapes", held_out=1).splits) - set(make("shapes").splits) == {
        "held_out",
        "control",
    }
    with pytest.raises(ValueError, match="held_out"):
        make("shapes").split("held_out")


# ---------------------------------------------------------------- captions


def test_a_true_caption_is_marked_as_such():
    data = SHAPES()
    batch = data.caption_batch("train", np.arange(128))
    assert batch.is_match.diagonal().all() and batch.is_match.sum() > 128
    scenes = sample(data.world, 0, "train", np.arange(128)).objects
    decode = data.tokenizer.decode
    told = [parse_caption(decode(row)) for row in batch.tokens.tolist()]
    for i in range(0, 128, 5):  # row: picture, column: caption
        for j in range(128):
            assert batch.is_match[i, j] == hard_negatives.is_true(told[j], scenes[i])
    assert (batch.is_match != batch.is_match.T).any()


def test_captions_say_more_or_less_unless_full_detail_is_asked_for():
    for detail, said in (("mixed", {1, 2, 3, 4}), ("full", {3})):
        data = SHAPES(detail=detail)
        tokens = data.caption_batch("train", np.arange(100)).tokens.tolist()
        noun_phrases = [parse_caption(data.tokenizer.decode(row))[0] for row in tokens]
        assert {int((phrase > 0).sum()) for phrase in noun_phrases} == said


# ---------------------------------------------------------------- conversations


def segments_of(batch, i):
    """Picture i's segments: {number: (prompt, answer)}, lists of tokens."""
    found = {}
    for number in batch.segment_ids[i].unique().tolist():
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
        data.world, 0, "train", indices, objects, questions.TRAIN_FAMILIES, 9
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
    assert checked > 400


def means(grammar, question, row):
    """Does a question of this grammar ask for what the statement (10,) says?"""
    try:
        read = grammar.parser.parse(question, question=True)
    except ValueError:
        return False
    return read[truth.KIND] == row[truth.KIND] and (read[truth.A] == row[truth.A]).all()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_caption_says_what_was_asked_for(language):
    data, indices = SHAPES(language=language), np.arange(400)
    batch, decode = data.vqa_batch("train", indices, False), data.tokenizer.decode
    objects, seen = sample(data.world, 0, "train", indices).objects, set()
    for i in indices:
        asked, answered = (decode(part) for part in segments_of(batch, i)[1])
        name = questions_of_people.language_of(asked, data.grammars)
        grammar, level = data.grammars[name or data.languages[0]], truth.NORMAL
        if asked:
            level = grammar.parser.parse(asked, question=True)[truth.KIND] - len(truth.KINDS)
        said = truth.asked_caption([level], objects[i : i + 1])
        [right] = grammar.texts(grammar.render_caption(said, level == truth.LIST))
        assert answered == right
        seen.add((name, level))
    levels = {(name, level) for name in data.languages for level in range(4)}
    assert seen == levels | {(None, truth.NORMAL)}


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
        assert numbers == sorted(numbers) and len(numbers) >= 8 and set(numbers) <= {*range(1, 11)}
        for segment in numbers:
            positions = position_ids[segment_ids == segment].tolist()
            assert positions == list(range(len(positions)))


@pytest.mark.parametrize("num_blind", [0, 1, 3])
def test_the_first_questions_are_blind(num_blind):
    batch = SHAPES(num_questions=4, num_blind=num_blind).vqa_batch("train", np.arange(20))
    is_blind = (batch.segment_ids > 1) & (batch.segment_ids < 2 + num_blind)
    assert torch.equal(batch.blind, is_blind) and is_blind.any() == (num_blind > 0)


def test_object_tokens_are_the_words_of_each_object_in_any_order():
    data, indices = SHAPES(), np.arange(40)
    objects = sample(data.world, 0, "train", indices).objects
    orders = set()
    for row, scene in zip(data.vqa_batch("train", indices).object_tokens, objects, strict=True):
        said = [data.tokenizer.decode(words) for words in row.tolist() if words[0] != PAD]
        there = [o for o in scene if o[2]]
        phrases = data.grammar.caption_texts(np.array(there)[:, None])
        wanted = [phrase.replace("at the ", "").removeprefix("a ") for phrase in phrases]
        assert sorted(said) == sorted(wanted)
        orders.add(tuple(said) == tuple(wanted))
    assert orders == {True, False}


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


def test_questions_as_people_type_them():
    data = SHAPES()
    for typed in ("What color is the circle?", "what colour is the  circle ?"):
        assert data.normalize_question(typed) == "what colour is the circle ?"
    for question in data.generic_questions:
        assert data.normalize_question(question) == question
        data.grammar.parser.parse(question, question=True)
