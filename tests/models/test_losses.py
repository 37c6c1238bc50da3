"""Contrastive losses: the contract of LOSSES, and each against the simplest loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from tinyvlm.losses import LOSSES, clip_loss, initial_bias, masked_clip_loss, sigmoid_loss

pytestmark = pytest.mark.quick


def unit_vectors(b, k=1):
    """image (b, 8), text (k b, 8), with gradients."""
    torch.manual_seed(0)
    rows = F.normalize(torch.randn(b + k * b, 8, dtype=torch.double), dim=-1)
    return [vectors.clone().requires_grad_() for vectors in (rows[:b], rows[b:])]


def scale_of(value):
    return torch.tensor(value, dtype=torch.double, requires_grad=True)


def bias_of(name):
    """A bias for a loss that needs one, or None."""
    return scale_of(-2.0) if initial_bias(LOSSES[name], 6) is not None else None


def alone(b, k=1):
    """Every caption is true of its own picture and of no other: (b, k b)."""
    return torch.eye(b, dtype=torch.bool).repeat_interleave(k, 1)


def alone_but_the_last(b, k):
    """The same, but each picture's last caption is a hard negative, false of it: (b, k b)."""
    is_match = alone(b, k)
    is_match[:, k - 1 :: k] = False
    return is_match


def by_loops(image, text, scale, bias, is_match):
    """Each picture's own captions against all that are false of it, and the other way round."""
    logits, b = scale * image @ text.T, len(image)
    k, total = len(text) // b, 0.0
    true = [j for j in range(k * b) if is_match[j // k, j]]
    for j in true:
        i = j // k
        captions = [logits[i, x] for x in range(k * b) if x == j or not is_match[i, x]]
        pictures = [logits[x, j] for x in range(b) if x == i or not is_match[x, j]]
        for rivals in (captions, pictures):
            total = total - (logits[i, j] - torch.stack(rivals).logsumexp(0)) / (2 * len(true))
    return total


def pair_by_pair(image, text, scale, bias, is_match):
    """The probability that a pair belongs together, for its own captions and all false ones."""
    b, k, total, true = len(image), len(text) // len(image), 0.0, 0
    for i in range(b):
        for j in range(k * b):
            belongs = torch.sigmoid(scale * (image[i] @ text[j]) + bias)
            if j // k == i and is_match[i, j]:
                total, true = total - belongs.log(), true + 1
            elif not is_match[i, j]:
                total = total - (1 - belongs).log()
    return total / true


LOOPS = dict(clip=by_loops, masked_clip=by_loops, sigmoid=pair_by_pair)


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("knows_matches", [True, False])
def test_loss_contract(name, knows_matches):
    b, loss = 6, LOSSES[name]
    image, text = unit_vectors(b)
    scale, bias, is_match = scale_of(10.0), bias_of(name), alone(b) if knows_matches else None
    value = loss(image, text, scale, bias, is_match)
    value.backward()
    assert value.ndim == 0 and value.isfinite()
    learned = [x for x in (image, text, scale, bias) if x is not None]
    assert all(x.grad.isfinite().all() and x.grad.any() for x in learned)
    perfect = torch.eye(8, dtype=torch.double)[:b]
    assert loss(perfect, perfect, scale, bias, is_match) < value  # right pairs cost less
    assert torch.equal(loss(image, text, scale, bias, is_match), value)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_does_not_depend_on_the_order_of_the_pairs(name):
    image, text = unit_vectors(6)
    is_match = alone(6)
    is_match[2, 4] = is_match[0, 1] = True
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    one = LOSSES[name](image, text, scale_of(10.0), bias_of(name), is_match)
    mixed = is_match[order][:, order]
    other = LOSSES[name](image[order], text[order], scale_of(10.0), bias_of(name), mixed)
    assert math.isclose(one.item(), other.item(), rel_tol=1e-9)


def check_equal(name, image, text, is_match):
    """A loss and its gradients are those of the simplest loops."""
    scale, bias = scale_of(10.0), bias_of(name)
    learned = [x for x in (image, text, scale, bias) if x is not None]
    by_hand = LOOPS[name](image, text, scale, bias, is_match)
    wanted = torch.autograd.grad(by_hand, learned)
    value = LOSSES[name](image, text, scale, bias, is_match)
    assert math.isclose(value.item(), by_hand.item(), rel_tol=1e-9)
    for found, right in zip(torch.autograd.grad(value, learned), wanted, strict=True):
        assert torch.allclose(found, right)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_without_duplicates_a_loss_equals_the_simplest_loops_forward_and_backward(name, k):
    check_equal(name, *unit_vectors(5, k), alone(5, k))


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_with_hard_negatives_a_loss_equals_the_simplest_loops(name, k):
    check_equal(name, *unit_vectors(4, k), alone_but_the_last(4, k))


@pytest.mark.parametrize("name", LOSSES)
def test_a_hard_negative_pushes_its_picture_and_is_pulled_by_none(name):
    """The gradient of a false caption is a sum of pictures, each with a positive weight."""
    image, text = unit_vectors(3, 2)
    arguments = (scale_of(10.0), bias_of(name), alone_but_the_last(3, 2))
    LOSSES[name](image, text, *arguments).backward()
    weights = torch.linalg.lstsq(image.detach().T, text.grad[1::2].T).solution  # (pictures, texts)
    assert torch.allclose(image.detach().T @ weights, text.grad[1::2].T) and (weights > 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_hard_negative_that_is_true_is_one_caption_more(name):
    image, text = unit_vectors(4, 2)
    arguments = scale_of(10.0), bias_of(name)
    is_match = alone_but_the_last(4, 2)
    without = LOSSES[name](image, text, *arguments, is_match)
    is_match[0, 1] = True
    check_equal(name, image, text, is_match)
    assert LOSSES[name](image, text, *arguments, is_match) != without


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
@pytest.mark.parametrize("name", ["masked_clip", "sigmoid"])
def test_what_is_true_of_several_is_left_out_as_in_the_simplest_loops(name, k):
    """Caption 0 is true of pictures 0 and 2, caption 2 of its own alone."""
    image, text = unit_vectors(4, k)
    is_match = alone(4, k)
    is_match[2, 0] = True  # rows are pictures, columns are captions
    check_equal(name, image, text, is_match)
    arguments = (image, text, scale_of(10.0), bias_of(name))
    if k == 1:
        value = LOSSES[name](*arguments, is_match)
        assert not math.isclose(value.item(), LOOPS[name](*arguments, is_match.T).item())


def test_the_papers_loss_does_not_look_at_what_is_true_of_other_pictures():
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


# ---------------------------------------------------------------- the bias of the sigmoid loss


@pytest.mark.parametrize("b", [2, 8, 64])
def test_the_bias_starts_where_noise_costs_least(b):
    """Where all cosines are 0, the gradient of the bias is 0, too."""
    bias = scale_of(initial_bias(sigmoid_loss, b))
    nothing = torch.zeros(b, 8, dtype=torch.double)
    value = sigmoid_loss(nothing, nothing, scale_of(14.0), bias, alone(b))
    value.backward()
    assert abs(bias.grad) < 1e-9
    assert math.isclose(value.item(), math.log(b) + (b - 1) * math.log(b / (b - 1)))


def test_a_loss_without_a_bias_gets_none():
    assert initial_bias(clip_loss, 64) is None and initial_bias(masked_clip_loss, 64) is None
