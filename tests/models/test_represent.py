"""Stage represent: who sees whom under each mask, what each objective asks, what is learned."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from helpers import drawn_mask, every_parameter_learns, shapes, small_vlm
from torch import nn

from data.batch import CaptionBatch
from data.tokenizer import BOS, EOS, PAD
from tinyvlm.represent import (
    OBJECTIVES,
    Represent,
    TextSide,
    bidirectional_mask,
    causal_mask,
    uni_modal_mask,
)
from tinyvlm.training import optim

pytestmark = pytest.mark.quick

MASKS = (uni_modal_mask, bidirectional_mask, causal_mask)


class PixelPatches(nn.Module):
    """An encoder that shows each patch's pixels as they are, as much as a trained one would."""

    dim, pooled_dim, num_tokens = 48, 48, 196

    def forward(self, pixels):
        x = pixels.float() / 64 - 1
        tokens = rearrange(x, "b c (i p) (j q) -> b (i j) (p q c)", p=4, q=4)
        return tokens, tokens.amax(1)


def small(objectives=OBJECTIVES):
    vlm = small_vlm("qformer", vision=PixelPatches())
    text = TextSide(vocab_size=shapes().tokenizer.size, dim=32, depth=len(vlm.projector.blocks))
    return Represent(vlm, text, objectives)


def small_batch(n=4):
    return shapes().caption_batch("train", np.arange(n))


def read(model, batch, mask):
    """(queries, words) under a mask."""
    patches, _ = model.encode_patches(batch.pixels)
    return model.read(patches, batch.tokens, mask)


def changed(one, other):
    """Which positions (t,) differ anywhere in the batch: bools."""
    return (one - other).abs().amax((0, 2)) > 1e-6


# ---------------------------------------------------------------- who sees whom


@pytest.mark.parametrize("mask", MASKS)
def test_each_mask_equals_the_drawing_in_its_docstring_cell_by_cell(mask):
    is_word = torch.tensor([[True, True, True, False]] * 2)
    made = mask(2, is_word)
    assert made.dtype == torch.bool and made.shape == (2, 1, 6, 6)
    assert made[0, 0].tolist() == drawn_mask(mask, ["h1", "h2"])
    assert made.any(-1).all()  # no row is empty


@pytest.mark.parametrize("mask", MASKS)
def test_words_reach_the_queries_in_matching_alone(mask):
    model, batch = small().eval(), small_batch()
    before, _ = read(model, batch, mask)
    batch.tokens[:, 1] = shapes().tokenizer.size - 1
    after, _ = read(model, batch, mask)
    assert changed(before, after).any() == (mask is bidirectional_mask)


@pytest.mark.parametrize("mask", MASKS)
def test_the_picture_reaches_the_words_in_all_but_contrast(mask):
    model, batch = small().eval(), small_batch()
    _, before = read(model, batch, mask)
    batch.pixels = 255 - batch.pixels
    _, after = read(model, batch, mask)
    assert changed(before, after).any() == (mask is not uni_modal_mask)


@pytest.mark.parametrize("mask", MASKS)
def test_later_words_reach_earlier_ones_in_all_but_generation(mask):
    model, batch = small().eval(), small_batch()
    _, before = read(model, batch, mask)
    batch.tokens[:, 3] = shapes().tokenizer.size - 1
    _, after = read(model, batch, mask)
    is_changed = changed(before, after)
    assert is_changed[3:].all()
    assert is_changed[:3].any() == (mask is not causal_mask)


@pytest.mark.parametrize("mask", (uni_modal_mask, causal_mask))
def test_queries_that_see_no_word_are_those_of_the_later_stages(mask):
    model, batch = small().eval(), small_batch()
    queries, _ = read(model, batch, mask)
    alone = model.projector(*model.encode_patches(batch.pixels))
    assert torch.allclose(model.projector.out_proj(queries), alone, atol=1e-5)


def test_a_batch_gives_the_numbers_of_single_rows_whatever_the_padding():
    model, batch = small().eval(), small_batch()
    length = (batch.tokens != PAD).sum(1)
    assert len(set(length.tolist())) > 1
    patches, _ = model.encode_patches(batch.pixels)
    together = model.match(patches, batch.tokens), model.compare(patches, batch.tokens)
    for k in range(4):
        one, row = slice(k, k + 1), batch.tokens[k : k + 1, : length[k]]
        assert torch.allclose(model.match(patches[one], row), together[0][one], atol=1e-5)
        assert torch.allclose(model.compare(patches[one], row), together[1][one, one], atol=1e-5)
    wide = CaptionBatch(batch.pixels, F.pad(batch.tokens, (0, 5)), batch.is_match)
    for name, loss in model(wide).items():
        assert torch.allclose(loss, model(batch)[name], atol=1e-5), name


# ---------------------------------------------------------------- the three objectives


def test_at_first_the_losses_are_those_of_guessing():
    losses = small()(small_batch(8))
    assert losses["itc"].item() == pytest.approx(math.log(8), abs=0.5)
    assert losses["itm"].item() == pytest.approx(math.log(2), abs=0.4)
    assert losses["itg"].item() == pytest.approx(math.log(shapes().tokenizer.size), abs=0.7)


def test_the_losses_are_the_textbooks():
    model, batch = small().eval(), small_batch()
    patches, _ = model.encode_patches(batch.pixels)
    losses = model(batch)
    cosines = torch.empty(4, 4)
    for i in range(4):  # each pair by itself
        for j in range(4):
            queries, words = model.read(patches[[i]], batch.tokens[[j]], uni_modal_mask)
            image, text = model.text.image_proj(queries[0]), model.text.text_proj(words[0, 0])
            cosines[i, j] = F.cosine_similarity(image, text[None], dim=1).max()
    logits = (cosines / 0.07).masked_fill(batch.is_match & ~torch.eye(4, dtype=torch.bool), -1e9)
    itc = sum(F.cross_entropy(rows, torch.arange(4)) for rows in (logits, logits.T)) / 2
    assert torch.allclose(losses["itc"], itc, atol=1e-4)
    _, words = read(model, batch, causal_mask)
    log_p, spent = model.text.lm_head(words).log_softmax(-1), []
    for k, row in enumerate(batch.tokens.tolist()):
        assert row[0] == BOS
        spent += [-log_p[k, i, word].item() for i, word in enumerate(row[1:]) if word != PAD]
    assert (batch.tokens == EOS).sum() == 4  # which are among the labels
    assert losses["itg"].item() == pytest.approx(np.mean(spent), abs=1e-4)


def test_every_parameter_learns_but_the_encoder_and_the_way_to_the_decoder():
    model = small()
    optim.freeze(model, ["projector.*", "text.*"])
    left_out = every_parameter_learns(model, sum(model(small_batch()).values()))
    assert left_out == ["projector.out_proj.weight", "projector.out_proj.bias"]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_objectives_can_be_switched_one_by_one(objective):
    torch.manual_seed(0)
    batch = small_batch()
    alone = small([objective]).eval()(batch)
    assert list(alone) == [objective] and alone[objective].requires_grad
    if objective != "itm":  # which draws its pairs by the contrast
        assert alone[objective] == small().eval()(batch)[objective]


def test_the_temperature_learns_and_stays_in_bounds():
    model, batch = small(["itc"]), small_batch()
    assert model.text.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    model(batch)["itc"].backward()
    assert model.text.logit_scale.grad != 0
    model.text.logit_scale.data.fill_(9.0)
    model(batch)
    assert model.text.logit_scale.exp().item() == pytest.approx(100)


# ---------------------------------------------------------------- hard negatives


def test_what_is_true_of_a_picture_is_never_drawn_against_it():
    model = small()
    is_match = torch.rand(8, 8, generator=torch.manual_seed(1)) < 0.6
    is_match = (is_match | torch.eye(8, dtype=torch.bool)) & ~torch.eye(8, dtype=torch.bool).roll(
        1, 0
    )  # at least one is false, along both axes
    for _ in range(20):
        images, texts = model.pairs_to_match(100 * is_match.float(), is_match)
        assert images.shape == texts.shape == (24,)
        assert is_match[images, texts].tolist() == [True] * 8 + [False] * 16
        assert images[:8].tolist() == texts[:8].tolist() == list(range(8))
        assert texts[8:16].tolist() == images[16:].tolist() == list(range(8))  # one partner is own


def test_false_partners_are_drawn_by_their_logits_and_in_evaluation_the_likeliest_is_taken():
    model, is_match = small(), torch.eye(4, dtype=torch.bool)
    logits = torch.zeros(4, 4)
    logits[0, 2] = math.log(8)  # weights 1 : 8 : 1
    texts = torch.cat([model.pairs_to_match(logits, is_match)[1][8:9] for _ in range(300)])
    assert 0.7 < (texts == 2).float().mean() < 0.9 and len(set(texts.tolist())) == 3
    state = torch.get_rng_state()
    images, texts = model.eval().pairs_to_match(logits, is_match)
    assert texts[8] == 2 and images[4 + 2] == 0
    assert torch.equal(state, torch.get_rng_state())  # an evaluation changes no later draw


def test_where_nothing_is_false_the_target_is_true():
    model, batch = small(), small_batch(2)
    batch.is_match = torch.ones(2, 2, dtype=torch.bool)
    model.text.match_head.bias.data.fill_(50.0)  # "true" to all
    losses = model(batch)
    assert losses["itm"] < 1e-6 and losses["itc"].item() == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------- learning


def test_one_batch_can_be_learned_by_heart_matching_too():
    torch.manual_seed(0)
    model, batch = small(), small_batch(4)
    optim.freeze(model, ["projector.*", "text.*"])
    optimizers = optim.configure_optimizers(model, 3e-3, 1e-2, 0.0)
    first = {name: loss.item() for name, loss in model(batch).items()}
    for step in range(180):
        optim.backward_and_step(optimizers, model, sum(model(batch).values()), step)
    last = {name: loss.item() for name, loss in model.eval()(batch).items()}
    assert all(last[name] < 0.3 * first[name] for name in OBJECTIVES), (first, last)
    patches, _ = model.encode_patches(batch.pixels)
    for i in range(4):
        says = model.match(patches[[i] * 4], batch.tokens) > 0
        assert says.tolist() == batch.is_match[i].tolist()
