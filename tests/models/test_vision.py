"""Vision encoders: the contract of VISION_ENCODERS, and that no pixel is left out."""

import pytest
import torch
from helpers import begun, every_parameter_learns

from tinyvlm.training.config import kwargs_for
from tinyvlm.vision import VISION_ENCODERS, ViT, normalize_pixels

pytestmark = pytest.mark.quick


def pictures(b, size):
    return torch.randint(0, 256, (b, 3, size, size), dtype=torch.uint8)


def small(name, **sizes):
    """The encoder with those of these sizes that it asks for."""
    kind = VISION_ENCODERS[name]
    return kind(**kwargs_for(kind, None, {}, **dict(dim=16, depth=1, heads=1) | sizes))


@pytest.mark.parametrize("size", [56, 112])
@pytest.mark.parametrize("name", VISION_ENCODERS)
def test_vision_contract(name, size):
    torch.manual_seed(0)
    encoder = begun(VISION_ENCODERS[name](image_size=size, dim=32))
    for b in (1, 3):
        tokens, pooled = encoder(pictures(b, size))
        assert tokens.shape == (b, encoder.num_tokens, encoder.dim) and encoder.dim == 32
        assert pooled.shape == (b, encoder.pooled_dim)
    loss = (tokens * torch.randn_like(tokens)).sum() + (pooled * torch.randn_like(pooled)).sum()
    assert every_parameter_learns(encoder, loss) == []
    encoder.eval()
    x = pictures(3, size)
    (tokens, pooled), (again, pooled_again) = encoder(x), encoder(x)
    assert torch.equal(tokens, again) and torch.equal(pooled, pooled_again)
    alone, pooled_alone = encoder(x[1:2])
    assert torch.allclose(alone, tokens[1:2], atol=1e-4)
    assert torch.allclose(pooled_alone, pooled[1:2], atol=1e-4)


@pytest.mark.parametrize("name", VISION_ENCODERS)
def test_blocks_add_nothing_at_first(name):
    encoder, x = small(name, depth=2), torch.randn(2, 196, 16)
    assert len(encoder.blocks) == 2
    for block in encoder.blocks:
        assert torch.equal(block(x), x)
        assert not torch.equal(begun(block)(x), x)


@pytest.mark.parametrize("size", [28, 56, 84, 112, 224])
@pytest.mark.parametrize("name", VISION_ENCODERS)
def test_no_pixel_is_left_out(name, size):
    torch.manual_seed(0)
    encoder, seen = begun(small(name, image_size=size)), []
    encoder.patch_embed.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].requires_grad_())
    )
    tokens, _ = encoder(pictures(1, size))
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert tokens.shape == (1, encoder.num_tokens, 16) and (seen[0].grad != 0).all()


@pytest.mark.parametrize("name", VISION_ENCODERS)
@pytest.mark.parametrize("sizes", [dict(image_size=42), dict(image_size=60), dict(dim=10)])
def test_sizes_that_do_not_fit_are_refused(name, sizes):
    with pytest.raises(ValueError, match="multiple"):
        small(name, **sizes)


@pytest.mark.parametrize("name", VISION_ENCODERS)
def test_a_token_knows_its_place(name):
    """Of a picture of one colour, the tokens differ by their positions alone."""
    tokens, _ = small(name)(torch.full((1, 3, 56, 56), 255, dtype=torch.uint8))
    assert torch.cdist(tokens[0], tokens[0]).fill_diagonal_(99).min() > 1e-3


@pytest.mark.parametrize("name", VISION_ENCODERS)
def test_tokens_stand_row_by_row(name):
    """A change in the top right corner reaches the last tokens of the first rows most of all."""
    torch.manual_seed(0)
    encoder = small(name).eval()
    black = torch.zeros(1, 3, 56, 56, dtype=torch.uint8)
    lit = black.clone()
    lit[..., :2, -2:] = 255
    changed = (encoder(lit)[0] - encoder(black)[0]).norm(dim=-1)[0]
    assert changed.argmax() in (12, 13, 26, 27)


def test_bytes_become_floats_between_minus_one_and_one():
    assert normalize_pixels(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


def test_the_pooled_vector_of_vit_is_the_maximum_of_its_tokens():
    tokens, pooled = ViT(dim=16, depth=1, heads=1)(pictures(2, 56))
    assert torch.equal(pooled, tokens.max(1).values)
