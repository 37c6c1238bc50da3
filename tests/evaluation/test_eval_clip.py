"""Gates of CLIP's evaluation: who binds all gets all, bags get chance where binding is asked."""

import numpy as np
import pytest
import torch
from helpers import global_state, small_clip

from data.shapes.dataset import Shapes
from data.shapes.languages import grammars_of
from data.shapes.pictures import stack_phrases
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE, pair_table
from tinyvlm.evaluation import eval_clip

ENGLISH, KOREAN = (grammars_of(language)[language] for language in ("en", "ko"))
DATA, HELD_OUT = Shapes(), Shapes(held_out=2)
TEST = DATA.split("test")
NUMBER = {SIZE: 2, COLOUR: 8, SHAPE: 8, PLACE: 9}


# ---------------------------------------------------------------- embedders in the place of a CLIP


class FakeEmbedder:
    """Embeds the objects of pictures and the noun phrases of captions, (n, m, 4), by two rules."""

    def __init__(self, image_rule, text_rule=None, grammar=ENGLISH):
        self.image_rule, self.text_rule = image_rule, text_rule or image_rule
        self.grammar = grammar

    def embed_images(self, pictures):
        return self.image_rule(pictures.scenes.objects)

    def embed_texts(self, captions):
        parsed = [self.grammar.parser.parse_caption(caption) for caption in captions]
        return self.text_rule(stack_phrases(parsed))


def constant(noun_phrases):
    return np.ones((len(noun_phrases), 3))


def bag_of_attributes(noun_phrases):
    """What occurs how often, but not what belongs to what: integers, so that ties are exact."""
    counts = [
        (noun_phrases[..., column, None] == np.arange(1, number + 1)).sum(1)
        for column, number in NUMBER.items()
    ]
    return np.concatenate(counts, 1).astype(float)


def bound_attributes(noun_phrases):
    """How often each pair and triple of attributes occurs in one thing: integers."""
    counts = []
    for columns in ((COLOUR, SHAPE), (SIZE, COLOUR, SHAPE), (COLOUR, SHAPE, PLACE)):
        said = (noun_phrases[..., columns] > 0).all(-1)
        code = sum(noun_phrases[..., c] * 10**k for k, c in enumerate(columns)) * said
        counts.append((code[..., None] == np.arange(1, 1000)).sum(1))
    return np.concatenate(counts, 1).astype(float)


def far_and_near(features):
    """Rules whose dot product is minus half the squared distance of the features."""

    def of_image(noun_phrases):
        f = features(noun_phrases)
        square = (f * f).sum(1, keepdims=True)
        return np.concatenate([f, square, np.ones_like(square)], 1)

    def of_text(noun_phrases):
        f = features(noun_phrases)
        square = (f * f).sum(1, keepdims=True)
        return np.concatenate([f, -0.5 * np.ones_like(square), -0.5 * square], 1)

    return of_image, of_text


NOBODY, BAG = FakeEmbedder(constant), FakeEmbedder(bag_of_attributes)
ORACLE = FakeEmbedder(*far_and_near(bound_attributes))


# ---------------------------------------------------------------- who knows everything


def test_who_binds_everything_finds_everything():
    scores = eval_clip.evaluate_retrieval(ORACLE, TEST.pictures(100))
    for name in ("r_at_1", "r_at_1_to_caption", "r_at_1_to_picture", "r_at_10"):
        assert scores[name].value == 1.0, name
    assert scores["matched_cosine"].value > scores["mismatched_cosine"].value
    pairs = eval_clip.evaluate_pairs(ORACLE, TEST, 100)
    assert pairs.value == 1.0 and 100 < pairs.items < 200  # some captions fit both


def test_who_binds_everything_knows_every_class_in_every_template():
    scores = eval_clip.evaluate_zero_shot(ORACLE, TEST, items=60)
    assert {name: score.value for name, score in scores.items()} == dict(
        zero_shot=1.0, zero_shot_ensemble=1.0, zero_shot_new_template=1.0
    )


def test_who_binds_everything_passes_winoground_and_sugarcrepe():
    found = eval_clip.evaluate_winoground(ORACLE, TEST, 60)
    assert set(found) == {*TEST.contrasts, *TEST.yardsticks}
    by_order = found.pop("relation_by_order_alone")  # which it does not look at
    assert [s.value == pytest.approx(s.chance) for s in by_order.values()] == [True] * 3
    assert {s.value for scores in found.values() for s in scores.values()} == {1.0}
    found = eval_clip.evaluate_sugarcrepe(ORACLE, TEST, 60)
    assert set(found) == set(TEST.foil_kinds)
    for kind, (seeing, blind) in found.items():
        assert seeing.value == 1.0 and seeing.items == 60
        # What is added makes a caption longer, which is all that these vectors need to know.
        assert (blind.value < 1.0) == (not kind.startswith("add")), kind


@pytest.mark.parametrize("trained", ["ko", "both"])
def test_who_binds_everything_in_korean_finds_everything(trained):
    split = Shapes(language=trained).speaking("ko").split("test")
    knows = FakeEmbedder(*far_and_near(bound_attributes), grammar=KOREAN)
    scores = eval_clip.evaluate_retrieval(knows, split.pictures(60))
    scores |= eval_clip.evaluate_zero_shot(knows, split, items=60)
    for name in ("r_at_1", "zero_shot", "zero_shot_ensemble", "zero_shot_new_template"):
        assert scores[name].value == 1.0, name
    assert eval_clip.evaluate_pairs(knows, split, 60).value == 1.0
    found = eval_clip.evaluate_winoground(knows, split, 40)
    for contrast in split.contrasts:
        assert {score.value for score in found[contrast].values()} == {1.0}
    for seeing, _ in eval_clip.evaluate_sugarcrepe(knows, split, 40).values():
        assert seeing.value == 1.0


def test_who_likes_some_captions_too_well_fails_at_text_and_not_at_image():
    of_image, of_text = far_and_near(bound_attributes)

    def biased(noun_phrases):
        vectors = of_text(noun_phrases)
        liking = (noun_phrases[:, 0] * [1, 1, 10, 100]).sum(1)  # whatever the first thing is
        vectors[:, -1] += 1000 * liking  # every picture has a one there
        return vectors

    found = eval_clip.evaluate_winoground(FakeEmbedder(of_image, biased), TEST, 60)["attributes"]
    assert found["image"].value == 1.0 and found["text"].value < 0.5
    assert found["group"].value == found["text"].value


# ---------------------------------------------------------------- who sees nothing


def test_a_clip_that_sees_nothing_finds_what_chance_does():
    scores = eval_clip.evaluate_retrieval(NOBODY, TEST.pictures(100))
    for k in (1, 5, 10):
        score = scores[f"r_at_{k}"]
        assert score.value == pytest.approx(score.chance) and 0 < score.chance < 1
        assert score.items == 200 and score.meaning == f"R@{k} of 100, both ways"
    assert eval_clip.evaluate_pairs(NOBODY, TEST, 100).value == 0.5
    assert eval_clip.evaluate_modality_gap(NOBODY, TEST.pictures(50)).value == pytest.approx(0)
    [(name, score)] = eval_clip.evaluate_large_retrieval(NOBODY, TEST).items()
    assert name == "r_at_1_of_2048" and score.value == pytest.approx(score.chance, rel=1e-3)
    assert 0 < score.chance < 0.02


def test_a_clip_that_sees_nothing_knows_one_class_of_64():
    for score in eval_clip.evaluate_zero_shot(NOBODY, TEST, items=50).values():
        assert score.value == pytest.approx(1 / 64) and score.chance == 1 / 64


def test_a_clip_that_sees_nothing_gets_chance_at_hard_negatives():
    found = eval_clip.evaluate_winoground(NOBODY, TEST, 50)
    assert len(found) == 5
    for scores in found.values():
        for name, chance in dict(text=1 / 4, image=1 / 4, group=1 / 6).items():
            assert scores[name].value == pytest.approx(chance) == scores[name].chance
    for seeing, blind in eval_clip.evaluate_sugarcrepe(NOBODY, TEST, 50).values():
        assert seeing.value == blind.value == seeing.chance == 0.5


# ---------------------------------------------------------------- who binds nothing


def test_a_clip_that_binds_nothing_gets_chance_where_binding_is_asked():
    scores = eval_clip.evaluate_winoground(BAG, TEST, 80)
    for contrast in ("attributes", "relation", "relation_in_other_order"):
        assert scores[contrast]["text"].value == pytest.approx(1 / 4)
        assert scores[contrast]["group"].value == pytest.approx(1 / 6)
    found = eval_clip.evaluate_sugarcrepe(BAG, TEST, 80)
    by_kind = {kind: seeing.value for kind, (seeing, _) in found.items()}
    assert by_kind["swap_object"] == by_kind["swap_attribute"] == 0.5
    assert by_kind["replace_object"] > 0.9 and by_kind["replace_relation"] > 0.9


def test_a_clip_that_binds_nothing_tells_no_swapped_attributes_of_minimal_pairs():
    pictures, tells = TEST.minimal_pairs(200)
    swapped = tells & (pictures.scenes.edit < 3)  # a colour, a shape or a size
    image, text = BAG.embed_images(pictures), BAG.embed_texts(pictures.captions())
    other = text[np.arange(400) ^ 1]
    assert swapped.sum() > 80
    assert ((image * text).sum(1) == (image * other).sum(1))[swapped].all()
    # It does know the pairs that differ in what is there.
    assert 0.5 < eval_clip.evaluate_pairs(BAG, TEST, 200).value < 0.9


# ---------------------------------------------------------------- who goes by the order of mention


def in_turn(noun_phrases):
    """The first three things without their places, each in a part of its own: so it takes what is
    named first for what stands first in reading order."""
    codes = np.zeros((len(noun_phrases), 3), np.int64)
    codes[:, : noun_phrases.shape[1]] = noun_phrases[..., [SIZE, COLOUR, SHAPE]] @ [81, 9, 1]
    parts = codes[..., None] == np.arange(1, 243)  # (n, 3, 242)
    return parts.reshape(len(parts), -1).astype(float)


BY_ORDER = FakeEmbedder(*far_and_near(in_turn))


def test_who_goes_by_the_order_of_mention_is_found_out_in_the_other_order():
    found = eval_clip.evaluate_winoground(BY_ORDER, TEST, 60)
    assert {score.value for score in found["relation"].values()} == {1.0}
    assert {score.value for score in found["relation_by_order_alone"].values()} == {1.0}
    assert {score.value for score in found["relation_in_other_order"].values()} == {0.0}


def test_how_much_the_order_of_mention_moves_the_cosine():
    pictures = TEST.pictures(40)
    several = (pictures.scenes.count > 1).sum()
    for embedder in (ORACLE, BAG):
        change = eval_clip.evaluate_order(embedder, pictures)
        assert change.value == 0 and change.items == several < 40
    cosine = [
        (BY_ORDER.embed_images(pictures) * BY_ORDER.embed_texts(texts)).sum(1)
        for texts in (pictures.captions(), pictures.captions(backwards=True))
    ]
    by_hand = np.abs(cosine[0] - cosine[1]).sum() / several  # of one thing it is 0
    assert eval_clip.evaluate_order(BY_ORDER, pictures).value == pytest.approx(by_hand) and by_hand


# ---------------------------------------------------------------- other splits, definitions


@pytest.mark.parametrize("name", ["held_out", "control"])
def test_held_out_splits_can_be_examined(name):
    split = HELD_OUT.split(name)
    nobody = eval_clip.evaluate_zero_shot(NOBODY, split, items=20)
    assert nobody["zero_shot"].value == 1 / 64 and nobody["zero_shot"].chance > 1 / 64
    assert eval_clip.evaluate_zero_shot(ORACLE, split, items=20)["zero_shot"].value == 1.0
    assert eval_clip.evaluate_retrieval(ORACLE, split.pictures(40))["r_at_1"].value == 1.0


def test_a_training_that_holds_pairs_out_is_asked_for_them(monkeypatch):
    """By one who takes all that was held out for one class, and knows the rest."""
    held_out = {tuple(row) for row in pair_table(HELD_OUT.world, "held_out")}

    def knows_pairs(noun_phrases):
        vectors = np.zeros((len(noun_phrases), 65))
        for vector, phrase in zip(vectors, noun_phrases[:, 0], strict=True):
            is_new = (phrase[COLOUR], phrase[SHAPE]) in held_out
            vector[64 if is_new else 8 * (phrase[COLOUR] - 1) + phrase[SHAPE] - 1] = 1
        return vectors

    monkeypatch.setattr(eval_clip, "CLIPEmbedder", lambda *_: FakeEmbedder(knows_pairs))
    _, scores = eval_clip.evaluate_test(None, HELD_OUT, items=32)
    assert scores["zero_shot_control"].value == 1.0
    assert {"r_at_1_of_2048", "modality_gap"} < set(scores)
    assert scores["zero_shot_held_out"].value == pytest.approx(1 / len(held_out))
    assert not {"zero_shot_control", "zero_shot_held_out"} & set(
        eval_clip.evaluate_test(None, DATA, items=32)[1]
    )


def test_contrasts_that_a_split_does_not_have_are_left_out():
    found = eval_clip.evaluate_winoground(NOBODY, HELD_OUT.split("held_out"), 20)
    assert "attributes" not in found and set(found) < {*TEST.contrasts, *TEST.yardsticks}


def test_recalls_by_hand():
    similarity, is_match = np.zeros((12, 12)), np.eye(12, dtype=bool)
    np.fill_diagonal(similarity, 1.0)
    similarity[0] = np.arange(12)  # picture 0 likes eleven other captions better
    scores = eval_clip.recalls(similarity, is_match, np.arange(12))
    assert scores["r_at_1_to_caption"].value == pytest.approx(11 / 12)
    assert scores["r_at_10_to_caption"].value == pytest.approx(11 / 12)
    # Captions 2 .. 11 like picture 0 best; caption 1 is torn between two; caption 0 likes all but
    # its own as much as its own: twelve tie.
    to_picture = (1 / 2 + 1 / 12) / 12
    assert scores["r_at_1_to_picture"].value == pytest.approx(to_picture)
    assert scores["r_at_1"].value == pytest.approx((11 / 12 + to_picture) / 2)
    assert scores["r_at_5"].chance == pytest.approx(5 / 12)


def test_mismatched_cosines_are_of_captions_that_are_false():
    pictures = TEST.pictures(30)
    scores = eval_clip.evaluate_retrieval(BAG, pictures, omit=("size", "colour", "place"))
    captions = pictures.captions(("size", "colour", "place"))
    cosines = BAG.embed_images(pictures) @ BAG.embed_texts(captions).T
    is_match = pictures.is_match(captions)
    assert is_match.sum() > 30  # short captions are true of other pictures, too
    by_hand = np.mean([row[~match].mean() for row, match in zip(cosines, is_match, strict=True)])
    assert scores["mismatched_cosine"].value == pytest.approx(by_hand)
    assert scores["matched_cosine"].value == pytest.approx(cosines.diagonal().mean())


# ---------------------------------------------------------------- CLIP as an embedder


@pytest.fixture(scope="module")
def model():
    return small_clip().eval()


def test_vectors_are_of_length_one_and_do_not_depend_on_their_neighbours(model, monkeypatch):
    embedder, pictures = eval_clip.CLIPEmbedder(model, DATA.tokenizer), TEST.pictures(7)
    captions = ["a circle", *pictures.captions()[1:]]
    image, text = embedder.embed_images(pictures), embedder.embed_texts(captions)
    assert image.shape == text.shape == (7, 64)
    for vectors in (image, text):
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert np.ptp(vectors, axis=0).max() > 0.002
    monkeypatch.setattr(eval_clip, "CHUNK", 3)
    assert np.allclose(embedder.embed_images(pictures), image, atol=1e-5)
    assert np.allclose(embedder.embed_texts(captions), text, atol=1e-5)
    assert np.allclose(embedder.embed_texts(captions[:1]), text[:1], atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_validation_leaves_the_model_and_the_generators_as_they_were(training):
    model = small_clip().train(training)
    model.vision.register_forward_hook(lambda module, *_: modes.append(module.training))
    before, modes = global_state(), []
    weights = {name: w.clone() for name, w in model.state_dict().items()}
    scores = eval_clip.validate(model, DATA, pictures=16)
    assert modes and not any(modes)  # it ran, and not in training mode
    assert all(module.training == training for module in model.modules())
    assert torch.is_grad_enabled() and global_state() == before
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(w, weights[name]) for name, w in model.state_dict().items())
    assert set(scores) == {"val_r_at_1", "val_matched", "val_mismatched"}


def test_the_mode_is_put_back_after_an_error_too():
    model = small_clip().train()
    with pytest.raises(AttributeError):
        eval_clip.CLIPEmbedder(model, DATA.tokenizer).embed_images([None])
    assert model.training and torch.is_grad_enabled()


def test_two_evaluations_give_equal_bits():
    model = small_clip()  # in training mode, as in the middle of a training
    one, other = (eval_clip.evaluate_test(model, DATA, items=32) for _ in range(2))
    assert set(one[1]) == set(other[1]) and set(one[0]) == set(other[0])
    for name, metric in one[1].items():
        assert metric.value == other[1][name].value
        assert metric.interval() == other[1][name].interval()
    assert {"matched_cosine", "mismatched_cosine", "zero_shot", "r_at_1"} < set(one[1])


# ---------------------------------------------------------------- where a cosine came from


def test_saliency_is_a_map_and_follows_the_caption(model):
    pixels = TEST.pictures(3).pixels()
    embedder = eval_clip.CLIPEmbedder(model, DATA.tokenizer)
    texts = ["a red circle", "a large star and a heart", "a green ring"]
    text = torch.from_numpy(embedder.embed_texts(texts))
    saliency = eval_clip.grad_x_input(model, pixels, text)
    assert saliency.shape == (3, 14, 14) and saliency.min() >= 0
    assert saliency.amax((1, 2)).tolist() == [1.0] * 3
    assert all(p.grad is None for p in model.parameters())
    alone = eval_clip.grad_x_input(model, pixels[1:2], text[1:2])
    assert torch.allclose(alone, saliency[1:2], atol=1e-4)
    another = eval_clip.grad_x_input(model, pixels[1:2], torch.randn(1, 64))
    assert not torch.allclose(alone, another, atol=1e-2)
    assert not eval_clip.grad_x_input(model, pixels, torch.zeros(3, 64)).any()
