"""Vision encoders: the contract of VISION_ENCODERS, and that no pixel is left out."""

import inspect

import pytest
import torch
from helpers import begun, every_parameter_learns
from helpers import small_encoder as small

from tinyvlm.vision import GRID, REGISTERS, VISION_ENCODERS, ViT, normalize_pixels

pytestmark = pytest.mark.quick


def pictures(b, size):
    return torch.randint(0, 256, (b, 3, size, size), dtype=torch.uint8)


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
    encoder, added = small(name, depth=2), []
    assert len(encoder.blocks) == (
        2 if "depth" in inspect.signature(type(encoder)).parameters else 0
    )
    for block in encoder.blocks:
        block.register_forward_hook(lambda _, x, y: added.append((y - x[0]).abs().max().item()))
    x = pictures(2, 56)
    encoder(x)
    assert added == [0.0] * len(encoder.blocks)
    begun(encoder)(x)
    assert all(change > 1e-3 for change in added[len(encoder.blocks) :])


@pytest.mark.parametrize("name", VISION_ENCODERS)
def test_the_last_blocks_may_be_left_out(name):
    torch.manual_seed(0)
    encoder, x = begun(small(name, depth=2)), pictures(2, 56)
    if not len(encoder.blocks):
        return
    (whole, _), encoder.skipped = encoder(x), 1
    tokens, pooled = encoder(x)
    assert not torch.allclose(tokens, whole, atol=1e-3)
    (tokens.sum() + pooled.sum()).backward()
    idle = {n.split(".")[1] for n, p in encoder.named_parameters() if p.grad is None}
    assert idle == {"1"}  # of the blocks
    del encoder.blocks[1]
    encoder.skipped = 0
    assert torch.equal(encoder(x)[0], tokens)


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


@pytest.mark.parametrize("of, name", [("convvit", "convnext"), *(
    ("vit", name) for name, kind in VISION_ENCODERS.items() if issubclass(kind, ViT)
)])  # fmt: skip
def test_encoders_of_one_family_and_seed_begin_alike(of, name):
    """Whatever reads the patches, and whatever stands beside them."""
    weights = []
    for kind in (of, name):
        torch.manual_seed(0)
        weights.append(VISION_ENCODERS[kind](dim=16, depth=3).state_dict())
    one, other = weights
    both = [key for key in one if key in other and one[key].shape == other[key].shape]
    assert "blocks.0.mlp.up.weight" in both
    assert all(torch.equal(one[key], other[key]) for key in both if key != "pos_embed")


def test_bytes_become_floats_between_minus_one_and_one():
    assert normalize_pixels(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("name", VISION_ENCODERS)
def test_the_pooled_vector_is_the_maximum_of_the_tokens_or_a_class_tokens(name):
    encoder = small(name)
    tokens, pooled = encoder(pictures(2, 56))
    assert torch.equal(pooled, tokens.max(1).values) != encoder.has_class_token


# ---------------------------------------------------------------- arms


def test_registers_are_read_and_nobody_gets_them():
    encoder, x = begun(small("vit-registers")), pictures(2, 56)
    assert encoder.registers.shape == (REGISTERS, 16)
    before, _ = encoder(x)
    encoder.registers.data[0] += torch.linspace(-1, 1, 16)
    after, _ = encoder(x)
    assert before.shape == (2, 196, 16) and ((after - before).abs().amax(-1) > 1e-5).all()


@pytest.mark.parametrize("name", ["vit-registers", "vit-cls"])
def test_what_is_added_to_a_vit_leaves_its_tokens_as_they_begin(name):
    """And its weights: the same seed makes the same ones, so that arms start alike."""
    torch.manual_seed(0)
    plain = small("vit")
    torch.manual_seed(0)
    encoder, x = small(name), pictures(2, 56)
    own = encoder.state_dict()
    assert all(torch.equal(tensor, own[key]) for key, tensor in plain.state_dict().items())
    assert torch.allclose(encoder(x)[0], plain(x)[0], atol=1e-6)


def test_learned_positions_are_learned_and_begin_as_strong_as_fixed_ones():
    fixed, learned = small("vit").pos_embed, small("vit-learned").pos_embed
    assert isinstance(learned, torch.nn.Parameter) and learned.shape == fixed.shape
    assert abs(learned.square().mean() / fixed.square().mean() - 1) < 0.1


def test_a_class_token_reads_the_picture():
    encoder = begun(small("vit-cls"))
    _, pooled = encoder(pictures(2, 56))
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3


def test_without_an_encoder_a_token_knows_its_own_patch_alone():
    encoder, x = small("patches"), pictures(1, 56)
    before, _ = encoder(x)
    x[..., :4, 4:8] = 255 - x[..., :4, 4:8]  # the second patch of the first row
    after, _ = encoder(x)
    assert (after != before).any(-1)[0].nonzero().flatten().tolist() == [1]


def test_a_resnet_block_reads_the_neighbours_and_no_other_patch():
    block, x = begun(small("resnet").blocks[0]), torch.randn(1, 16, GRID, GRID)
    block.norm1 = block.norm2 = torch.nn.Identity()  # which look at all of the picture
    other = x.clone()
    other[..., 7, 7] += 1
    changed = (block(other) != block(x)).any(1)[0]
    assert changed[5:10, 5:10].all() and changed.sum() == 25


def test_blocks_may_be_trained_on_patches_that_are_not():
    """Without the copy in BasicBlock, this ends the process."""
    encoder = begun(small("resnet"))
    encoder.patch_embed.requires_grad_(False)
    encoder(pictures(2, 56))[0].square().sum().backward()
    assert encoder.blocks[0].norm1.weight.grad.any()
