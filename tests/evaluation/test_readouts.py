"""Readouts: who has bound all is found out, who has not is not helped; nothing else is touched."""

import numpy as np
import pytest
import torch
from helpers import global_state, small_clip

from data.batch import NotEnoughItems
from data.shapes.dataset import Shapes
from data.shapes.languages import grammars_of
from data.shapes.pictures import stack_phrases
from data.shapes.split import Split
from data.shapes.world import COLOUR, SHAPE, SIZE
from tinyvlm.evaluation import readouts

DATA = Shapes()
TEST = DATA.split("test")
AS_THEY_ARE, WITH_A_MATRIX = "as the vectors are", "with one matrix on the text vectors"


# ---------------------------------------------------------------- is binding there?


def bound(noun_phrases):
    """How often each two of size, colour and shape come in one thing: (n, 96)."""
    size, colour, shape = (noun_phrases[..., c] for c in (SIZE, COLOUR, SHAPE))
    codes = (8 * size + shape, 16 + 8 * size + colour, 32 + 8 * colour + shape)  # from 9 on
    there = [(code * (shape > 0))[..., None] == np.arange(9, 105) for code in codes]
    return sum(one.sum(1) for one in there).astype(float)


def bag(noun_phrases):
    """How often each size, colour and shape occurs."""
    columns = [noun_phrases[..., c, None] == np.arange(1, 9) for c in (SIZE, COLOUR, SHAPE)]
    return np.concatenate([column.sum(1) for column in columns], 1).astype(float)


class TwoTowers:
    """Pictures by one rule, captions by another; `seen` collects the pictures."""

    def __init__(self, image_rule, text_rule):
        self.image_rule, self.text_rule, self.seen = image_rule, text_rule, []

    def embed_images(self, pictures):
        self.seen.append({row.tobytes() for row in pictures.scenes.style})
        return self.image_rule(pictures.scenes.objects)

    def embed_texts(self, captions):
        parser = grammars_of("en")["en"].parser
        return self.text_rule(stack_phrases([parser.parse_caption(c) for c in captions]))


def binding_of(image_rule, text_rule, split=TEST, items=100):
    found = readouts.evaluate_binding(TwoTowers(image_rule, text_rule), split, items)
    assert [metric.items for metric in found.values()] == [items, items]
    return found[AS_THEY_ARE].value, found[WITH_A_MATRIX].value


def test_what_both_towers_have_bound_in_ways_of_their_own_one_matrix_brings_back():
    before, after = binding_of(bound, bound)
    assert before == 1.0 and after > 0.95
    before, after = binding_of(bound, lambda phrases: bound(phrases)[:, ::-1])
    assert before < 0.7 and after > 0.95


@pytest.mark.parametrize("rules", [(bag, bag), (bound, lambda x: np.zeros((len(x), 96)))])
def test_no_matrix_brings_back_what_a_tower_does_not_know(rules):
    assert binding_of(*rules) == (0.5, 0.5)


def test_a_picture_that_shows_only_a_bag_stays_near_chance():
    before, after = binding_of(lambda x: np.pad(bag(x), ((0, 0), (0, 72))), bound)
    assert abs(before - 0.5) < 0.15 and abs(after - 0.5) < 0.15


def test_the_matrix_is_ridge_regression_on_all_products():
    rng = np.random.default_rng(0)
    image, difference = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    products = (image[:, :, None] * difference[:, None]).reshape(20, 9)
    strength = 0.1 * (products * products).sum(1).mean()
    normal = products.T @ products + strength * np.eye(9)
    wanted = np.linalg.solve(normal, products.sum(0)).reshape(3, 3)
    assert np.allclose(readouts.fit_text_matrix(image, difference), wanted)


def test_readouts_are_not_fitted_on_what_they_are_asked(monkeypatch):
    """Even where the split is that of training."""
    towers = TwoTowers(bound, bound)
    readouts.evaluate_binding(towers, DATA.split("train"), 30)
    asked, fitted = towers.seen
    assert len(asked) == 30 and len(fitted) == 240 and not asked & fitted

    monkeypatch.setattr(readouts, "tokens_of", lambda _, pictures: seen.append(pictures.indices))
    monkeypatch.setattr(readouts, "fit_probe", lambda *_: lambda _: torch.zeros(30, 18))
    seen = []
    readouts.evaluate_encoder_labels(None, DATA.split("train").pictures(30))
    assert sorted(map(len, seen)) == [30, 240] and not np.intersect1d(*seen).size


def test_a_split_without_such_captions_has_no_such_row(monkeypatch):
    def none(*_):
        raise NotEnoughItems("none")

    monkeypatch.setattr(Split, "sugarcrepe", none)
    assert readouts.evaluate_binding(TwoTowers(bag, bag), TEST, 20) == {}


# ---------------------------------------------------------------- which words are there?


def test_labels_are_those_words_that_a_full_caption_says():
    pictures = TEST.pictures(40)
    tokenizer = DATA.tokenizer
    said = [[i in tokenizer.encode(c) for i in DATA.label_token_ids] for c in pictures.captions()]
    assert (pictures.labels() == np.array(said)).all()


@pytest.mark.parametrize("language", ["en", "ko"])
def test_captions_are_scored_for_the_labels_that_they_name(language):
    pictures = Shapes(language=language).split("test").pictures(40)
    score = readouts.evaluate_caption_labels
    assert score(pictures, pictures.captions()).value == 1.0
    assert score(pictures, pictures.captions(backwards=True)).value == 1.0
    assert score(pictures, ["(nothing)"] * 40).value == 0.0
    shapes_alone = score(pictures, pictures.captions(omit=("size", "colour", "place"))).value
    assert shapes_alone == pytest.approx(8 / 18)


def test_a_probe_finds_what_one_patch_shows_and_nothing_where_all_are_alike():
    torch.manual_seed(0)
    there = torch.rand(320, 3) < 0.3
    tokens = torch.randn(320, 6, 5) * 0.1
    tokens[:, 4, :3] += there
    said = readouts.fit_probe(tokens[:160], there[:160])(tokens[160:]) > 0
    assert (said == there[160:]).float().mean() > 0.98
    alike = torch.ones(320, 6, 5)
    blind = readouts.fit_probe(alike[:160], there[:160])(alike[160:])
    assert blind.isfinite().all() and (blind == blind[0]).all()


@pytest.mark.parametrize("training", [True, False])
def test_a_probe_leaves_the_encoder_and_the_generators_as_they_were(training):
    vision = small_clip().vision.train(training)
    before, weights = global_state(), {n: w.clone() for n, w in vision.state_dict().items()}
    one, other = (readouts.evaluate_encoder_labels(vision, TEST.pictures(16)) for _ in range(2))
    assert one.value == other.value and one.interval() == other.interval() and one.items == 16
    assert global_state() == before and torch.is_grad_enabled() and vision.training == training
    assert all(p.grad is None and p.requires_grad for p in vision.parameters())
    assert all(torch.equal(w, weights[name]) for name, w in vision.state_dict().items())
