"""Layers: attention against torch's own, the block's residuals and shortcuts, positions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tinyvlm.layers import (
    MLP,
    Attention,
    Block,
    Head,
    SquaredReLU,
    SwiGLU,
    grid_shape,
    init_weights,
    patch_centers,
    rotary_angles,
    rotate,
    sincos_2d,
)

pytestmark = pytest.mark.quick


def causal(n):
    return torch.ones(n, n, dtype=torch.bool).tril()


# ---------------------------------------------------------------- attention


def test_attention_equals_torchs_own_forward_and_backward():
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight.data = torch.cat([ours.query.weight, ours.key_value.weight]).data
    theirs.in_proj_bias.data = torch.cat([ours.query.bias, ours.key_value.bias]).data
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(2, 5, 16)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    mine = ours(one, mask=causal(5))
    reference = theirs(other, other, other, need_weights=False, attn_mask=~causal(5))[0]
    assert torch.allclose(mine, reference, atol=1e-6)
    mine.square().sum().backward()
    reference.square().sum().backward()
    assert torch.allclose(one.grad, other.grad, atol=1e-5)
    assert torch.allclose(ours.out.weight.grad, theirs.out_proj.weight.grad, atol=1e-5)


def test_attention_equals_one_loop_over_heads_and_queries():
    """Scaled by the width of a head, and not by that of the model."""
    torch.manual_seed(0)
    layer, x, context = Attention(12, 3, context_dim=8), torch.randn(1, 4, 12), torch.randn(1, 5, 8)
    q, (k, v) = layer.query(x), layer.key_value(context).chunk(2, -1)
    y = torch.zeros(1, 4, 12)
    for head in range(3):
        own = slice(4 * head, 4 * head + 4)
        for i in range(4):
            weights = (k[0, :, own] @ q[0, i, own] / 4**0.5).softmax(0)
            y[0, i, own] = weights @ v[0, :, own]
    assert torch.allclose(layer(x, context), layer.out(y), atol=1e-6)


def test_the_width_must_be_divisible_by_the_heads():
    with pytest.raises(ValueError, match="divisible"):
        Attention(10, 3)


def test_attention_with_a_cache_equals_attention_without():
    torch.manual_seed(0)
    layer, x, cache = Attention(16, 2), torch.randn(2, 6, 16), {}
    whole = layer(x, mask=causal(6))
    parts = [layer(x[:, :3], mask=causal(6)[:3, :3], cache=cache)]
    for k in range(3, 6):
        parts.append(layer(x[:, k : k + 1], mask=causal(6)[k : k + 1, : k + 1], cache=cache))
    assert torch.allclose(whole, torch.cat(parts, 1), atol=1e-6)
    assert cache["k"].shape == cache["v"].shape == (2, 2, 6, 8)


# ---------------------------------------------------------------- block


def test_a_block_of_zeros_is_the_identity():
    block = Block(16, 2, context_dim=8)
    for layer in (block.attention.out, block.cross.out, block.mlp.down):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x = torch.randn(2, 3, 16)
    assert torch.equal(block(x, torch.randn(2, 4, 8)), x)


def test_a_block_is_two_residuals_around_normed_layers():
    torch.manual_seed(0)
    block, x = Block(16, 2), torch.randn(2, 3, 16)
    y = x + block.attention(F.layer_norm(x, (16,)))
    y = y + block.mlp.down(F.gelu(block.mlp.up(F.layer_norm(y, (16,)))))
    assert torch.allclose(block(x), y, atol=1e-6)


def test_what_is_not_kept_is_read_and_not_computed():
    torch.manual_seed(0)
    block, x, rows = Block(16, 2), torch.randn(2, 6, 16), torch.arange(2)[:, None]
    mask, keep = causal(6)[None, None], torch.tensor([[5, 2], [3, 4]])
    whole, kept = block(x, mask=mask), block(x, mask=mask, keep=keep)
    assert kept.shape == (2, 2, 16) and torch.allclose(whole[rows, keep], kept, atol=1e-6)
    assert torch.allclose(block(x)[rows, keep], block(x, keep=keep), atol=1e-6)
    changed = torch.cat([x[:, :2] + 1, x[:, 2:]], 1) * torch.linspace(0.5, 2, 16)
    assert not torch.allclose(block(changed, mask=mask, keep=keep), kept, atol=1e-2)


def test_a_context_is_read():
    torch.manual_seed(0)
    block, x, context = Block(16, 2, context_dim=8), torch.randn(1, 3, 16), torch.randn(1, 4, 8)
    assert not torch.allclose(block(x, context), block(x, -context), atol=1e-3)


def test_an_mlp_widens_by_four_unless_told():
    assert MLP(8).up.out_features == 32 and MLP(8)(torch.zeros(2, 3, 8)).shape == (2, 3, 8)
    assert MLP(8, hidden=5, out=7)(torch.zeros(2, 8)).shape == (2, 7)


@pytest.mark.parametrize("kind", [SquaredReLU, SwiGLU])
def test_other_mlps_by_their_formulas(kind):
    torch.manual_seed(0)
    mlp, x = kind(12), torch.randn(2, 3, 12)
    up = mlp.up(x)
    y = up.clamp(min=0) ** 2 if kind is SquaredReLU else up * mlp.gate(x) * mlp.gate(x).sigmoid()
    assert torch.allclose(mlp(x), mlp.down(y), atol=1e-6)
    matrices = [p.numel() for p in mlp.parameters() if p.ndim == 2]
    assert sum(matrices) == sum(p.numel() for p in MLP(12).parameters() if p.ndim == 2)
    without = kind(12, bias=False)
    assert without(x).shape == x.shape and all(p.ndim == 2 for p in without.parameters())


def test_normed_queries_and_keys_make_logits_of_angles_alone():
    """However long queries and keys are, attention is the same."""
    torch.manual_seed(0)
    layer, x = Attention(16, 2, bias=False, qk_norm=True), torch.randn(1, 5, 16)
    plain = Attention(16, 2, bias=False)
    plain.load_state_dict(layer.state_dict(), strict=False)
    before, plain_before = layer(x), plain(x)
    for attention in (layer, plain):
        attention.query.weight.data *= 50
        attention.key_value.weight.data[:16] *= 50
    assert torch.allclose(layer(x), before, atol=1e-5)
    assert not torch.allclose(plain(x), plain_before, atol=1e-2)


# ---------------------------------------------------------------- rotary positions


def test_a_rotation_keeps_lengths_and_products_know_distances_alone():
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def product(i, j):
        at = [rotary_angles(torch.tensor([[place]]), 8) for place in (i, j)]
        return (rotate(q, at[0]) * rotate(k, at[1])).sum().item()

    turned = rotate(q, rotary_angles(torch.tensor([[[7, 3]]]), 8))
    assert torch.allclose(turned.norm(), q.norm()) and not torch.allclose(turned, q)
    assert product([5, 5], [2, 2]) == pytest.approx(product([105, 105], [102, 102]), abs=1e-4)
    assert product([5, 9], [2, 2]) == pytest.approx(product([15, 19], [12, 12]), abs=1e-4)
    assert product([5, 5], [2, 2]) != pytest.approx(product([5, 5], [3, 3]), abs=1e-2)
    assert product([5, 5], [2, 2]) != pytest.approx(product([5, 5], [2, 3]), abs=1e-2)


def test_of_words_rotary_positions_are_those_of_roformer():
    angles = rotary_angles(torch.tensor([[[3, 3], [4, 9]]]), 8)[0]
    frequency = torch.tensor([1, 0.1, 0.01, 0.001])
    assert torch.allclose(angles[0], 3 * frequency)
    assert torch.allclose(angles[1], torch.tensor([4, 9, 4, 9]) * frequency)


# ---------------------------------------------------------------- positions


def test_every_patch_has_a_position_of_its_own_with_amplitude_one():
    code = sincos_2d(patch_centers(196), 32)
    assert code.shape == (196, 32) and code.abs().max() <= 1
    distances = torch.cdist(code, code) + 99 * torch.eye(196)
    assert distances.min() > 0.1
    # Sine and cosine of one angle: each pair of columns lies on the unit circle.
    sine, cosine = code.reshape(196, 2, 2, 8).unbind(2)
    assert torch.allclose(sine**2 + cosine**2, torch.ones(196, 2, 8), atol=1e-5)


def test_codes_are_the_same_to_the_last_bit_whatever_library_has_the_sine():
    points, frequency = patch_centers(196), np.pi * 14 / 4 ** (np.arange(8) / 4)
    angle = points.double().numpy()[:, :, None] * frequency
    by_hand = np.stack([np.sin(angle), np.cos(angle)]).transpose(1, 2, 0, 3).reshape(196, 32)
    code = sincos_2d(points, 32)
    assert code.dtype == torch.float32 and np.array_equal(code.numpy(), by_hand.astype(np.float32))


def test_x_and_y_are_coded_apart():
    code = sincos_2d(torch.tensor([[0.2, 0.7], [0.2, 0.1], [0.9, 0.7]]), 16)
    assert torch.equal(code[0, :8], code[1, :8]) and not torch.allclose(code[0, 8:], code[1, 8:])
    assert torch.equal(code[0, 8:], code[2, 8:]) and not torch.allclose(code[0, :8], code[2, :8])


def test_wavelengths_run_from_a_seventh_of_the_picture_to_twice_its_side():
    def code(x):  # the sines of x, by rising wavelength
        return sincos_2d(torch.tensor([[x, 0.0]], dtype=torch.double), 256)[0, :64]

    assert torch.allclose(code(0.3)[0], code(0.3 + 1 / 7)[0])
    wavelength = 2 * torch.pi * 1e-6 / code(1e-6)
    assert (wavelength.diff() > 0).all() and abs(wavelength[0] - 1 / 7) < 1e-6
    assert 1.8 < wavelength[-1] < 2.4


def test_positions_need_a_multiple_of_four():
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_2d(patch_centers(4), 10)


@pytest.mark.parametrize("n, shape", [(196, (14, 14)), (49, (7, 7)), (50, (5, 10)), (7, (1, 7))])
def test_a_grid_is_as_square_as_its_number_allows(n, shape):
    assert grid_shape(n) == shape
    centers = patch_centers(n)
    assert centers.shape == (n, 2) and len({tuple(c) for c in centers.tolist()}) == n
    assert centers.min() > 0 and centers.max() < 1
    rows, columns = shape
    assert torch.allclose(centers[0], torch.tensor([0.5 / columns, 0.5 / rows]))
    assert torch.equal(centers[:columns, 1], centers[:1, 1].expand(columns))  # row by row


# ---------------------------------------------------------------- weights


def test_weights_start_with_the_spread_of_their_docstring():
    torch.manual_seed(0)
    for layer in (torch.nn.Linear(64, 512), Head(64, 512)):
        init_weights(layer)
        assert abs(layer.weight.std() - 0.5 / 8) < 0.002 and not layer.bias.any()
    embedding = torch.nn.Embedding(512, 64)
    init_weights(embedding)
    assert abs(embedding.weight.std() - 0.5) < 0.01
    init_weights(Head(4, 4, bias=False))  # one without a bias is no error


@pytest.mark.parametrize("qk_norm", (False, True))
@pytest.mark.parametrize("turned", (False, True))
def test_the_weights_of_attention_are_those_that_it_uses(qk_norm, turned):
    """The values, weighted by them, are what attention gives: with a mask, a padded row, angles."""
    torch.manual_seed(0)
    attention, x = Attention(16, 2, qk_norm=qk_norm), torch.randn(2, 5, 16)
    mask = torch.ones(5, 5, dtype=torch.bool).tril().repeat(2, 1, 1, 1)
    mask[1, :, :, 1] = False
    places = torch.arange(5).expand(2, -1)[..., None].expand(-1, -1, 2)
    angles = rotary_angles(places, 8) if turned else None
    weights = attention.weights(x, mask=mask, angles=angles)  # (2, 2, 5, 5)
    values = attention.key_value(x)[..., 16:].reshape(2, 5, 2, 8).transpose(1, 2)
    said = attention.out((weights @ values).transpose(1, 2).reshape(2, 5, 16))
    both = None if angles is None else (angles, angles)
    assert torch.allclose(said, attention(x, mask=mask, angles=both), atol=1e-5)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 5)) and not weights[1, :, 2:, 1].any()
