"""Data sets: the contract of DATASETS, packed conversations, and what a batch says is true."""

import dataclasses
from itertools import combinations

import numpy as np
import pytest
import torch

from data.batch import IGNORE
from data.dataset import DATASETS, OLDER_NAMES
from data.shapes import hard_negatives
from data.shapes.false_captions import swapped_caption
from data.shapes.rng import CounterRNG
from data.shapes.scene import sample
from data.shapes.truth import without
from data.shapes.world import diagonal_of
from data.tokenizer import BOS, EOS, PAD

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


def test_order_of_mention_tells_nothing_of_the_places():
    """Scenes list objects in reading order; a caption that kept it would tell who is above whom."""
    data = make("shapes", captions=2)
    scenes, phrases = data.scenes_and_phrases("train", np.arange(600))
    first = scenes.objects[:, 0].repeat(2, 0)  # (1200, 4), captions 0 and 1 of each picture
    fits = ((phrases[:, 0] == 0) | (phrases[:, 0] == first)).all(1)
    two = (scenes.objects[..., 3] > 0).sum(1) == 2
    assert 0.4 < fits[two.repeat(2)].mean() < 0.65  # half of them, and some that look alike
    assert (fits[two.repeat(2)][::2] != fits[two.repeat(2)][1::2]).any()  # each caption its own


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
        make("shapes", held_out=7)


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


@pytest.mark.parametrize("captions", [1, 2, 3, 4])
@pytest.mark.parametrize("name", DATASETS)
def test_several_captions_of_a_picture_say_different_things_all_of_them_true(name, captions):
    data, one = make(name, captions=captions), make(name)
    batch = data.caption_batch("train", np.arange(20))
    assert torch.equal(batch.is_match, data.is_match("train", np.arange(20)))
    assert batch.tokens.shape[0] == 20 * captions and batch.is_match.shape == (20, 20 * captions)
    own = torch.eye(20, dtype=torch.bool).repeat_interleave(captions, 1)
    assert batch.is_match[own].all() and not batch.is_match.all()
    told = [data.tokenizer.decode(row) for row in batch.tokens.tolist()]
    alone = one.caption_batch("train", np.arange(20))
    for k, text in enumerate(one.tokenizer.decode(row) for row in alone.tokens.tolist()):
        mine = told[k * captions : (k + 1) * captions]
        assert mine[0] == text and len(set(mine)) == captions


@pytest.mark.parametrize("name", ["shapes", "shapes-full"])
def test_a_hard_negative_says_the_same_words_bound_in_another_way(name):
    data, n = make(name, captions=2, hard_negatives=True), 120
    batch, usual = (d.caption_batch("train", np.arange(n)) for d in (data, make(name, captions=2)))
    assert torch.equal(batch.is_match, data.is_match("train", np.arange(n)))
    tokens, is_match = batch.tokens.unflatten(0, (n, 3)), batch.is_match.unflatten(1, (n, 3))
    width = usual.tokens.shape[1]
    assert torch.equal(tokens[:, :2, :width].flatten(0, 1), usual.tokens)  # all else as ever
    assert torch.equal(batch.pixels, usual.pixels)
    own = is_match[np.arange(n), np.arange(n)]  # (n, 3)
    assert own[:, :2].all() and 0.3 < own[:, 2].float().mean() < 0.7  # some have no room for one
    scenes = sample(data.world, 3, "train", np.arange(n)).objects
    for objects, row, is_true in zip(scenes, tokens[:, 2].tolist(), own[:, 2], strict=True):
        said = parse_caption(data.tokenizer.decode(row))
        there = objects[objects[:, 2] > 0][:, :3]
        for column in range(3):
            assert sorted(said[:, column]) == sorted(there[:, column])  # the same bag of words
        # Two things that differ in a colour or a size, and in something else, make room.
        room = [
            (one != other)[:2].any() and (one != other).sum() > 1
            for one, other in combinations(there, 2)
        ]
        assert is_true or any(room)


def test_each_exchange_that_makes_a_caption_false_is_drawn():
    data = make("shapes-full", captions=1, hard_negatives=True)
    world, drawn = data.world, set()
    objects = sample(world, 3, "train", np.arange(400)).objects
    [scene] = objects[(objects[..., 2] > 0).sum(1) == 3][:1]
    for seed in range(60):
        rng = CounterRNG(seed, "train", np.arange(1))
        drawn.add(swapped_caption(world, scene[None], rng).tobytes())
    said = without(scene[None], 3)[0]
    exchanges = {said[None].tobytes()}  # and none
    for i, j in combinations(range(3), 2):
        for column in (0, 1):
            false = said.copy()
            false[[i, j], column] = said[[j, i], column]
            if sorted(false.tolist()) != sorted(said.tolist()):
                exchanges.add(false[None].tobytes())
    assert drawn == exchanges and len(drawn) > 2


def test_no_hard_negative_names_a_pair_that_is_held_out():
    data = make("shapes", held_out=4, hard_negatives=True)
    batch = data.caption_batch("train", np.arange(300))
    for row in batch.tokens[1::2].tolist():
        said = parse_caption(data.tokenizer.decode(row))
        assert (diagonal_of(said[:, 1], said[:, 2]) >= 4).all()


def test_hard_negatives_of_training_change_nothing_that_evaluation_asks():
    one, other = (make("shapes", hard_negatives=h).split("test") for h in (False, True))
    assert one.sugarcrepe("swap_attribute", 20)[1:] == other.sugarcrepe("swap_attribute", 20)[1:]
    assert one.winoground("relation", 20)[1] == other.winoground("relation", 20)[1]


def test_of_three_captions_each_kind_is_as_frequent_as_it_should_be():
    data = SHAPES(captions=3)
    tokens = data.caption_batch("train", np.arange(800)).tokens.tolist()
    said = [int((parse_caption(data.tokenizer.decode(row))[0] > 0).sum()) for row in tokens]
    shares = np.bincount(said, minlength=5)[1:] / 800
    # The first is shapes alone in 3 of 8, colours, too, in 2, all but places in 2, places in 1.
    first = np.array([3, 2, 2, 1]) / 8
    assert np.abs(shares - (first + (1 - first) * 2 / 3)).max() < 0.05


def test_questions_as_people_type_them():
    data = SHAPES()
    for typed in ("What color is the circle?", "what colour is the  circle ?"):
        assert data.normalize_question(typed) == "what colour is the circle ?"
    for question in data.generic_questions:
        assert data.normalize_question(question) == question
        data.grammar.parser.parse(question, question=True)
