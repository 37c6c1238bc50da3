"""CLIP: how it starts, its temperature, its towers."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import SMALL, begun, every_parameter_learns, flags, shapes, small_clip
from torch import nn

import train_clip
from data.tokenizer import BOS, EOS, PAD
from tinyvlm.clip import CLIP
from tinyvlm.losses import LOSSES
from tinyvlm.text import TEXT_ENCODERS
from tinyvlm.training.config import parse
from tinyvlm.training.optim import backward_and_step, configure_optimizers

pytestmark = pytest.mark.quick


def test_clip_starts_as_it_should():
    model, batch = small_clip(), shapes().caption_batch("train", np.arange(64))
    assert math.isclose(model.scale.item(), 1 / 0.07, rel_tol=1e-6)
    image, text, scale, bias = model(batch.pixels, batch.tokens)
    assert image.shape == text.shape == (64, 64)
    assert torch.allclose(image.norm(dim=1), torch.ones(64))
    assert torch.allclose(text.norm(dim=1), torch.ones(64))
    loss = LOSSES["clip"](image, text, scale, bias)
    assert abs(loss.item() - math.log(64)) < 1.0
    assert every_parameter_learns(model, loss) == []


def test_tokens_may_be_widened_before_their_maximum():
    small, batch = small_clip(), shapes().caption_batch("train", np.arange(8))
    model = CLIP(small.vision, small.text, embed_dim=12, pool_dim=40)
    image, text, scale, bias = model(batch.pixels, batch.tokens)
    assert image.shape == text.shape == (8, 12)
    assert every_parameter_learns(model, LOSSES["clip"](image, text, scale, bias)) == []
    tokens, pooled = model.vision(batch.pixels)
    wide = (tokens @ model.widen.weight.T + model.widen.bias).amax(1)
    by_hand = F.normalize(wide @ model.image_proj.weight.T, dim=-1)
    assert torch.allclose(model.embed_patches(tokens, pooled), by_hand, atol=1e-6)


def test_the_temperature_is_capped_and_its_gradient_lives_on():
    model = small_clip()
    model.logit_scale.data.fill_(9.0)
    model.clamp_logit_scale()
    assert math.isclose(model.scale.item(), 100, rel_tol=1e-5)
    model.scale.backward()
    assert model.logit_scale.grad > 0
    model.logit_scale.data.fill_(1.0)
    model.clamp_logit_scale()
    assert model.logit_scale.item() == 1.0  # below the cap it is left alone


def test_a_temperature_may_be_given_and_kept():
    words = ["--temperature", "0.2", "--no-learn-temperature"]
    config = parse(train_clip.Config, [*words, *flags(**SMALL)], "")
    model = train_clip.build_model(config, shapes().tokenizer)
    assert math.isclose(model.scale.item(), 5, rel_tol=1e-6)
    batch = shapes().caption_batch("train", np.arange(8))
    optimizers = configure_optimizers(model, 0.1, 0.1, 0.0)
    image, text, scale, bias = model(batch.pixels, batch.tokens)
    backward_and_step(optimizers, model, LOSSES["clip"](image, text, scale, bias), 0)
    assert math.isclose(model.scale.item(), 5, rel_tol=1e-6)
    model.logit_scale.requires_grad_(True)  # and else it does learn
    optimizers = configure_optimizers(model, 0.1, 0.1, 0.0)
    image, text, scale, bias = model(batch.pixels, batch.tokens)
    backward_and_step(optimizers, model, LOSSES["clip"](image, text, scale, bias), 0)
    assert not math.isclose(model.scale.item(), 5, rel_tol=1e-3)


def test_padding_does_not_change_a_caption():
    model, tokens = small_clip().eval(), torch.tensor([[BOS, 300, 301, EOS]])
    padded = model.encode_text(F.pad(tokens, (0, 9), value=PAD))
    assert torch.allclose(model.encode_text(tokens), padded, atol=1e-6)


def test_a_batch_of_one_works_and_equals_its_row():
    model, batch = small_clip().eval(), shapes().caption_batch("train", np.arange(3))
    image, text, *_ = model(batch.pixels, batch.tokens)
    assert torch.allclose(model.encode_image(batch.pixels[:1]), image[:1], atol=1e-5)
    assert torch.allclose(model.encode_text(batch.tokens[:1]), text[:1], atol=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 3, 8, 20])
def test_micro_batches_give_the_gradients_of_the_batch_in_one_piece(micro_batch):
    model, data = small_clip(), shapes(captions=2, hard_negatives=True)
    batch = data.caption_batch("train", np.arange(8))
    gradients, saved = [], []

    def keep(tensor):
        saved[-1] += tensor.numel()
        return tensor

    for size in (0, micro_batch):
        saved.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            image, text, scale, bias = model(batch.pixels, batch.tokens, size)
        loss = LOSSES["masked_clip"](image, text, scale, bias, batch.is_match)
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert saved[1] < 0.05 * saved[0]  # nothing of the towers is kept


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_finds_what_it_needs_in_the_model_and_nothing_else_is_there(name):
    data = shapes(captions=2, hard_negatives=True)
    config = train_clip.Config(loss=name, batch_size=4, **SMALL)
    model = begun(train_clip.build_model(config, data.tokenizer))
    batch = data.caption_batch("train", np.arange(4))
    loss = LOSSES[name](*model(batch.pixels, batch.tokens), batch.is_match)
    assert every_parameter_learns(model, loss) == []
    assert ("logit_bias" in model.state_dict()) == (name == "sigmoid")


class Wide(nn.Module):
    """An encoder whose pooled vector is wider than its tokens."""

    dim, pooled_dim, num_tokens = 8, 20, 5

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(3, 20)

    def forward(self, pixels):
        pooled = self.mix(pixels.float().mean((2, 3)))  # (b, 20)
        return pooled[:, None, :8].expand(-1, 5, -1), pooled


def test_the_pooled_vector_may_have_another_width_than_the_tokens():
    text = TEXT_ENCODERS["causal"](vocab_size=shapes().tokenizer.size, dim=16, depth=1, heads=1)
    model, batch = CLIP(Wide(), text, embed_dim=12), shapes().caption_batch("train", [0, 1])
    image, text, *_ = model(batch.pixels, batch.tokens)
    assert image.shape == text.shape == (2, 12)
