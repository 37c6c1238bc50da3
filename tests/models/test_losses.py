"""Contrastive losses: the contract of LOSSES, and each against the simplest loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from tinyvlm.losses import LOSSES, clip_loss, masked_clip_loss

pytestmark = pytest.mark.quick


def unit_vectors(b, k=1):
    """image (b, 8), text (k b, 8), with gradients."""
    torch.manual_seed(0)
    rows = F.normalize(torch.randn(b + k * b, 8, dtype=torch.double), dim=-1)
    return [vectors.clone().requires_grad_() for vectors in (rows[:b], rows[b:])]


def scale_of(value):
    return torch.tensor(value, dtype=torch.double, requires_grad=True)


def alone(b, k=1):
    """Every caption is true of its own picture and of no other: (b, k b)."""
    return torch.eye(b, dtype=torch.bool).repeat_interleave(k, 1)


def by_loops(image, text, scale, is_match):
    """Each picture's own captions against all that are false of it, and the other way round."""
    logits, b = scale * image @ text.T, len(image)
    k, total = len(text) // b, 0.0
    for j in range(k * b):
        i = j // k
        captions = [logits[i, x] for x in range(k * b) if x == j or not is_match[i, x]]
        pictures = [logits[x, j] for x in range(b) if x == i or not is_match[x, j]]
        for rivals in (captions, pictures):
            total = total - (logits[i, j] - torch.stack(rivals).logsumexp(0)) / (2 * k * b)
    return total


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("knows_matches", [True, False])
def test_loss_contract(name, knows_matches):
    b, loss = 6, LOSSES[name]
    image, text = unit_vectors(b)
    scale, is_match = scale_of(10.0), alone(b) if knows_matches else None
    value = loss(image, text, scale, None, is_match)
    value.backward()
    assert value.ndim == 0 and value.isfinite()
    assert all(x.grad.isfinite().all() and x.grad.any() for x in (image, text, scale))
    assert loss(text, text, scale, None, is_match) < value  # right pairs cost less
    assert torch.equal(loss(image, text, scale, None, is_match), value)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_does_not_depend_on_the_order_of_the_pairs(name):
    image, text = unit_vectors(6)
    is_match = alone(6)
    is_match[2, 4] = is_match[0, 1] = True
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    one = LOSSES[name](image, text, scale_of(10.0), None, is_match)
    mixed = is_match[order][:, order]
    other = LOSSES[name](image[order], text[order], scale_of(10.0), None, mixed)
    assert math.isclose(one.item(), other.item(), rel_tol=1e-9)


# ---------------------------------------------------------------- each loss


@pytest.mark.parametrize("name", ["clip", "masked_clip"])
def test_equal_vectors_cost_the_logarithm_of_the_batch(name):
    same = F.normalize(torch.ones(6, 8), dim=-1)
    value = LOSSES[name](same, same, torch.tensor(14.0), None, alone(6))
    assert math.isclose(value.item(), math.log(6), rel_tol=1e-6)


def test_one_caption_a_picture_is_the_cross_entropy_of_the_paper():
    image, text = unit_vectors(5)
    logits, label = 10 * image @ text.T, torch.arange(5)
    wanted = (F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2
    assert math.isclose(clip_loss(image, text, 10.0).item(), wanted.item(), rel_tol=1e-9)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", ["clip", "masked_clip"])
def test_without_duplicates_a_loss_equals_the_simplest_loops_forward_and_backward(name, k):
    image, text = unit_vectors(5, k)
    scale = scale_of(10.0)
    by_hand = by_loops(image, text, scale, alone(5, k))
    wanted = torch.autograd.grad(by_hand, (image, text, scale))
    value = LOSSES[name](image, text, scale, None, alone(5, k))
    assert math.isclose(value.item(), by_hand.item(), rel_tol=1e-9)
    for found, right in zip(torch.autograd.grad(value, (image, text, scale)), wanted, strict=True):
        assert torch.allclose(found, right)


@pytest.mark.parametrize("k", [1, 3])
def test_the_masked_loss_equals_the_simplest_loops_where_captions_are_true_of_several(k):
    """Caption 0 is true of pictures 0 and 2, caption 2 of its own alone."""
    image, text = unit_vectors(4, k)
    is_match, scale = alone(4, k), scale_of(10.0)
    is_match[2, 0] = True  # rows are pictures, columns are captions
    by_hand = by_loops(image, text, scale, is_match)
    value = masked_clip_loss(image, text, scale, None, is_match)
    assert math.isclose(value.item(), by_hand.item(), rel_tol=1e-9)
    wanted = torch.autograd.grad(by_hand, (image, text, scale))
    for found, right in zip(torch.autograd.grad(value, (image, text, scale)), wanted, strict=True):
        assert torch.allclose(found, right)
    if k == 1:
        assert not math.isclose(value.item(), by_loops(image, text, scale, is_match.T).item())


def test_the_papers_loss_does_not_look_at_what_is_true():
    image, text = unit_vectors(4)
    everything = torch.ones(4, 4, dtype=torch.bool)
    values = [clip_loss(image, text, scale_of(10.0), None, m) for m in (None, alone(4), everything)]
    assert values[0] == values[1] == values[2]


def test_a_duplicated_pair_costs_nothing_under_the_masked_loss():
    image, text = unit_vectors(5)
    twice = torch.cat([image, image[:1]]), torch.cat([text, text[:1]])
    is_match = alone(6)
    is_match[0, 5] = is_match[5, 0] = True
    scale = scale_of(10.0)
    assert clip_loss(*twice, scale) > masked_clip_loss(*twice, scale, None, is_match)
    perfect = torch.eye(8)[:3]
    doubled = torch.cat([perfect, perfect[:1]])
    is_match, sharp = doubled @ doubled.T > 0.5, torch.tensor(100.0)
    assert masked_clip_loss(doubled, doubled, sharp, None, is_match) < 1e-6
    assert clip_loss(doubled, doubled, sharp) > 0.3


def test_a_batch_where_everything_is_true_of_everything_costs_nothing_and_stays_finite():
    image, text = unit_vectors(4)
    everything = torch.ones(4, 4, dtype=torch.bool)
    value = masked_clip_loss(image, text, scale_of(10.0), None, everything)
    value.backward()
    assert value == 0 and not image.grad.any() and image.grad.isfinite().all()
