"""Hard negatives: false where they must be, true where they must be; no word gives them away."""

import zlib

import numpy as np
import pytest

from data.shapes import hard_negatives, winoground
from data.shapes.facts import match_objects
from data.shapes.hard_negatives import is_true, shapes_there
from data.shapes.languages import grammars_of
from data.shapes.scene import sample
from data.shapes.truth import without
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE, WORLDS, checksum

GRAMMAR = grammars_of("en")["en"]

WORLD = WORLDS["default"]
# In which attributes, each taken as a bag, the two captions of a kind may differ.
DIFFERENCES = {
    "replace_object": [{SHAPE}],
    "replace_attribute": [{COLOUR}, {SIZE}],
    "replace_relation": [{PLACE}],
    "swap_object": [set()],
    "swap_attribute": [set()],
    "add_object": [{SIZE, COLOUR, SHAPE, PLACE}],
    "add_attribute": [{SIZE}],
}


def bag(noun_phrases, column):
    values = noun_phrases[:, column]
    return sorted(values[values > 0])


@pytest.mark.parametrize("name", ["default", "full", "zipf"])
@pytest.mark.parametrize("kind", hard_negatives.KINDS)
def test_false_captions_are_false_and_differ_in_what_they_say(name, kind):
    found = hard_negatives.sample_sugarcrepe(WORLDS[name], 0, "test", kind, 150)
    scenes = found.scenes.objects
    assert len(found.true) == len(found.false) == len(scenes) == 150
    for true, false, objects in zip(found.true, found.false, scenes, strict=True):
        assert match_objects(true[true[:, SHAPE] > 0], objects).all()
        phrases = false[false[:, SHAPE] > 0]
        assert not match_objects(phrases, objects).all()
        caption = GRAMMAR.caption_texts(false[None])[0]
        assert (GRAMMAR.parser.parse_caption(caption) == phrases).all()  # fluent
        difference = {c for c in range(4) if bag(true, c) != bag(phrases, c)}
        assert difference in DIFFERENCES[kind], (kind, difference)


def is_complete_and_true(caption, scene):
    """True if it is read as complete: it names as many objects as there are."""
    return is_true(caption, scene) and (caption > 0).any(1).sum() == (scene > 0).any(1).sum()


def bag_of_words(caption):
    plain = caption.replace(" , ", " ").replace(" and ", " ").replace("an ", "a ")
    return sorted(plain.split())


@pytest.mark.parametrize("contrast", winoground.CONTRASTS)
def test_winoground_captions_are_true_of_their_own_picture_only(contrast):
    found = winoground.sample_winoground(WORLD, 0, "test", contrast, 120)
    one, two, first, second = found
    for here, there, a, b in zip(one.objects, two.objects, first, second, strict=True):
        assert is_complete_and_true(a, here) and is_complete_and_true(b, there)
        assert not is_complete_and_true(a, there) and not is_complete_and_true(b, here)
    captions = (GRAMMAR.caption_texts(noun_phrases) for noun_phrases in (first, second))
    for a, b in zip(*captions, strict=True):  # the same words in another order
        assert (bag_of_words(a) == bag_of_words(b)) == (contrast != "one_more_or_less")
    for scenes in (one, two):
        assert set(checksum(scenes.objects) % 4) == {3}  # still of the test split


WINOGROUND_OF_THE_TEST_SPLIT = dict(
    attributes=2174736452, relation=3403098982, one_more_or_less=3272317464
)


@pytest.mark.parametrize("contrast", WINOGROUND_OF_THE_TEST_SPLIT)
def test_the_test_split_contrasts_what_it_has_always_contrasted(contrast):
    """Else no number could be compared with an older one."""
    one, two, *captions = winoground.sample_winoground(WORLD, 0, "test", contrast, 250)
    arrays = (one.objects, two.objects, *captions)
    content = b"".join(np.ascontiguousarray(a, "<i8").tobytes() for a in arrays)
    assert zlib.crc32(content) == WINOGROUND_OF_THE_TEST_SPLIT[contrast]


@pytest.mark.parametrize("name", ["default", "full"])
def test_places_are_asked_in_the_order_of_either_picture(name):
    found = [
        winoground.sample_winoground(WORLDS[name], 0, "test", contrast, 60)
        for contrast in ("relation", "relation_in_other_order", "relation_by_order_alone")
    ]
    for one, two, *_ in found:  # the same pictures
        assert (one.objects == found[0][0].objects).all()
        assert (two.objects == found[0][1].objects).all()
    own, other, bare = (captions for _, _, *captions in found)
    for side in (0, 1):
        assert (without(own[side], PLACE) == bare[side]).all()
        assert (without(other[side], PLACE) == bare[1 - side]).all()
        for a, b in zip(own[side], other[side], strict=True):  # they say the same
            assert sorted(a.tolist()) == sorted(b.tolist()) and (a != b).any()


@pytest.mark.parametrize("kind", hard_negatives.NEGATIVES)
@pytest.mark.parametrize("name", WORLDS)
def test_pope_tells_nothing_by_words_alone_or_pictures_alone(name, kind):
    scenes, shapes, there = hard_negatives.sample_pope(WORLDS[name], 0, "test", kind, 150)
    present = shapes_there(scenes.objects)
    assert shapes.shape == there.shape == (300, 2)
    assert (np.take_along_axis(present, shapes - 1, 1) == there).all()
    assert (there.sum(1) == 1).all()  # a picture alone: one question is right, one is wrong
    square_shapes, square_there = shapes.reshape(150, 2, 2), there.reshape(150, 2, 2)
    assert (square_shapes[:, 0] == square_shapes[:, 1]).all()  # neither do words, in each square
    assert (square_there.sum(1) == 1).all()
    assert len(np.unique(scenes.style, axis=0)) == 300  # no picture twice
    assert len(set(shapes[~there].tolist())) > (6 if kind == "random" else 1)


@pytest.mark.parametrize("kind", ["popular", "adversarial"])
@pytest.mark.parametrize("name", WORLDS)
def test_pope_asks_for_the_negative_that_its_kind_names(name, kind):
    train = shapes_there(sample(WORLDS[name], 0, "train", np.arange(0, 8192, 2)).objects)
    scenes, shapes, there = hard_negatives.sample_pope(WORLDS[name], 0, "test", kind, 150)
    present, asked = shapes_there(scenes.objects), shapes[~there]
    for shown, shape in zip(present, asked, strict=True):
        absent = np.flatnonzero(~shown) + 1
        beside = [
            sum((train[:, s - 1] & train[:, k]).sum() for k in np.flatnonzero(shown))
            for s in absent
        ]
        score = train.sum(0)[absent - 1] if kind == "popular" else beside
        assert shape == absent[int(np.argmax(score))]
    if name == "cooccurrence" and kind == "adversarial":  # what comes together is asked for
        alone = present.sum(1) == 1
        assert (((asked[alone] - 1) ^ 1) == present[alone].argmax(1)).mean() > 0.9


def test_a_picture_with_every_shape_is_not_asked_what_it_lacks():
    scenes, shapes, is_there = hard_negatives.sample_pope(
        WORLDS["full"], 0, "more", "adversarial", 300
    )
    present = hard_negatives.shapes_there(scenes.objects)
    assert (np.take_along_axis(present, shapes - 1, 1) == is_there).all()
    assert (is_there.sum(1) == 1).all()
