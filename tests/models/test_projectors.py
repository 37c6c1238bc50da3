"""Projectors: the contract of PROJECTORS, the Q-Former's queries, what a label lets through."""

from inspect import signature

import pytest
import torch
from helpers import every_parameter_learns, shapes, small_projector
from torch import nn

from data.tokenizer import FIRST_WORD, PAD
from tinyvlm.layers import patch_centers
from tinyvlm.projectors import PROJECTORS, r2_sequence

pytestmark = pytest.mark.quick


def small(name, num_patches=196):
    torch.manual_seed(0)
    return small_projector(name, 24, 32, num_patches, pooled_dim=20)


def inputs(b, num_patches=196):
    return torch.randn(b, num_patches, 24), torch.randn(b, 20)


@pytest.mark.parametrize("num_patches", [196, 50, 49])
@pytest.mark.parametrize("name", PROJECTORS)
def test_projector_contract(name, num_patches):
    projector = small(name, num_patches)
    for b in (1, 3):
        out = projector(*inputs(b, num_patches))
        vectors, words = (b, projector.num_tokens, 32), (b, projector.num_tokens)
        assert out.shape == (vectors if out.is_floating_point() else words)
    loss = (out * torch.randn_like(out)).sum() if out.is_floating_point() else 0.0
    if hasattr(projector, "aux_loss"):
        aux_loss = projector.aux_loss(torch.full((3, 1, 1), FIRST_WORD))
        assert aux_loss.ndim == 0
        loss = loss + aux_loss
    assert every_parameter_learns(projector, loss) == []
    projector.eval()
    tokens, pooled = inputs(3, num_patches)
    together = projector(tokens, pooled)
    assert torch.equal(together, projector(tokens, pooled))
    assert torch.allclose(together[1:2], projector(tokens[1:2], pooled[1:2]), atol=1e-5)


@pytest.mark.parametrize("name", PROJECTORS)
def test_the_same_seed_makes_the_same_weights(name):
    one, other = small(name).state_dict(), small(name).state_dict()
    assert one and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


# ---------------------------------------------------------------- pixel shuffle


def test_pixel_shuffle_puts_squares_of_neighbours_side_by_side():
    projector = PROJECTORS["pixelshuffle"](vision_dim=1, text_dim=8, num_patches=196)
    projector.project = nn.Identity()
    squares = projector(torch.arange(196.0)[None, :, None], None)[0]  # (49, 4)
    assert projector.num_tokens == 49 and squares[0].tolist() == [0, 1, 14, 15]
    assert squares[1].tolist() == [2, 3, 16, 17] and squares[48].tolist() == [180, 181, 194, 195]
    assert torch.equal(squares.flatten().sort().values, torch.arange(196.0))


# ---------------------------------------------------------------- grids


def test_an_average_pool_is_the_mean_of_each_cell():
    projector = PROJECTORS["avgpool"](vision_dim=1, text_dim=8, num_patches=196, image_tokens=49)
    projector.project = nn.Identity()
    means = projector(torch.arange(196.0)[None, :, None], None)[0, :, 0]
    assert torch.allclose(means[[0, 1, 48]], torch.tensor([7.5, 9.5, 187.5]))
    assert torch.isclose(means.mean(), torch.tensor(97.5))


@pytest.mark.parametrize("name", ["avgpool", "cabstractor"])
def test_image_tokens_of_a_grid_lie_where_their_patches_do(name):
    """A change in the top right corner reaches that corner far more than the bottom left one."""
    torch.manual_seed(0)
    projector = PROJECTORS[name](vision_dim=24, text_dim=32, num_patches=196, image_tokens=32)
    tokens, _ = inputs(1)
    other = tokens.clone()
    other[0, 12:14] += 3
    changed = (projector(other, None) - projector(tokens, None)).norm(dim=-1)[0]
    assert changed[7] > 2 * changed[24:28].max()  # of a grid of 4 x 8


def test_a_c_abstractor_reads_the_neighbours_of_a_patch():
    """Which an average of each cell does not: patches of two cells may change places in it."""
    torch.manual_seed(0)
    sizes = dict(vision_dim=24, text_dim=32, num_patches=196, image_tokens=49)
    (tokens, _), order = inputs(1), torch.arange(196)
    order[[0, 1]] = order[[1, 0]]  # both in the first cell of 2 x 2
    for name, is_same in (("avgpool", True), ("cabstractor", False)):
        projector = PROJECTORS[name](**sizes)
        one, other = projector(tokens, None), projector(tokens[:, order], None)
        assert torch.allclose(one, other, atol=1e-5) == is_same


# ---------------------------------------------------------------- a free number of image tokens

FREE = [name for name, kind in PROJECTORS.items() if "image_tokens" in signature(kind).parameters]


@pytest.mark.parametrize("name", FREE)
def test_image_tokens_are_as_many_as_asked_for_and_32_by_default(name):
    sizes = dict(vision_dim=24, text_dim=32, num_patches=196)
    assert PROJECTORS[name](**sizes).num_tokens == 32
    for n in (1, 6, 32, 49, 196):
        projector = PROJECTORS[name](**sizes, image_tokens=n)
        assert projector.num_tokens == n and projector(*inputs(1)).shape == (1, n, 32)
    assert set(FREE) == {"avgpool", "cabstractor", "resampler", "slots", "qformer"}


@pytest.mark.parametrize("name", ["avgpool", "cabstractor"])
@pytest.mark.parametrize("n", [7, 31, 33])
def test_image_tokens_of_a_grid_that_make_none_are_refused(name, n):
    with pytest.raises(ValueError, match=f"{n} image tokens make no grid"):
        PROJECTORS[name](vision_dim=24, text_dim=32, num_patches=196, image_tokens=n)


# ---------------------------------------------------------------- learned queries


@pytest.mark.parametrize("name", ["qformer", "resampler", "slots"])
def test_learned_queries_know_where_something_is(name):
    """Though they read all tokens alike, in no order: the same thing elsewhere is something else,
    and which token comes first is nothing to them but by its place."""
    torch.manual_seed(0)
    projector = PROJECTORS[name](vision_dim=24, text_dim=32, num_patches=196, image_tokens=8)
    tokens = torch.zeros(2, 196, 24)
    tokens[0, 20:60] = tokens[1, 130:170] = 3 * torch.randn(24)
    here, there = projector(tokens, None)
    assert (here - there).abs().max() > 1e-2
    projector.pos_embed.zero_()
    here, there = projector(tokens, None)
    assert (here - there).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["qformer", "resampler", "slots"])
def test_at_first_each_query_reads_around_its_own_point(name):
    """With nothing to see, the keys are the patches' positions, as the queries are their own."""
    torch.manual_seed(0)
    sizes = dict(vision_dim=24, text_dim=64, num_patches=196)
    projector = PROJECTORS[name](**sizes, image_tokens=16)
    attention = projector.reading(projector.blocks[0])
    q = attention.query(projector.query_tokens)
    k = attention.key_value(projector.pos_embed)[:, :64]
    nearest = patch_centers(196)[(q @ k.T).argmax(1)]
    distance = (nearest - r2_sequence(16)).norm(dim=1)
    assert distance.median() < 2 / 14


def test_a_resampler_reads_tokens_and_queries_in_one_attention():
    projector = small("resampler")
    block, (tokens, _) = projector.blocks[0], inputs(2)
    x, context = projector.query_tokens.expand(2, -1, -1), projector.in_proj(tokens)
    every = torch.cat([block.norm_attention(x), block.norm_attention(context)], 1)
    y = x + block.attention(block.norm_attention(x), every)
    y = y + block.mlp(block.norm_mlp(y))
    assert torch.allclose(projector.read(block, x, context), y, atol=1e-5)
    # Nobody but the queries is computed, and it has no cross-attention.
    assert y.shape == (2, projector.num_tokens, 32) and not hasattr(block, "cross")


def test_slots_share_each_patch_out_among_them_patch_by_patch():
    projector = small("slots")
    block, (tokens, _) = projector.blocks[0], inputs(1)
    context, x = projector.begin(tokens)
    y = x[0]
    keys, values = block.key_value(block.norm_context(context[0])).split(32, dim=1)
    for _ in range(3):
        queries = block.query(block.norm_slots(y))
        taken, seen = torch.zeros(len(y)), torch.zeros_like(y)
        for key, value in zip(keys, values, strict=True):
            share = (queries @ key / 32**0.5).softmax(0)  # of this patch, one for each slot
            taken, seen = taken + share, seen + share[:, None] * value
        assert torch.isclose(taken.sum(), torch.tensor(196.0))  # nothing is had twice
        y = y + block.out(seen / taken[:, None])
        y = y + block.mlp(block.norm_mlp(y))
    assert torch.allclose(projector.read(block, x, context)[0], y, atol=1e-4)


def test_the_points_of_the_queries_cover_the_picture():
    points = r2_sequence(64)
    assert points.shape == (64, 2) and points.min() >= 0 and points.max() < 1
    cells = (points * 4).long()
    assert len({tuple(cell) for cell in cells.tolist()}) == 16  # each of 4 x 4 cells has a point
    assert torch.cdist(points, points).fill_diagonal_(9).min() > 0.5 / 8


# ---------------------------------------------------------------- label bottleneck


def test_the_labels_say_what_is_there_and_nothing_else():
    projector = small("label")
    tokens, pooled = inputs(2)
    projector.classify.down.bias.data[::2] = -20.0  # these are not there
    out = projector(3 * tokens, pooled)
    words = torch.tensor(shapes().label_token_ids)
    assert ((out == words) | (out == PAD)).all() and (out != PAD).any()
    assert (out[:, ::2] == PAD).all()
    # Where something is does not come through.
    assert torch.equal(out, projector(3 * tokens[:, torch.randperm(196)], pooled))


def test_a_label_that_one_patch_alone_shows_is_there():
    projector = small("label")
    logits = torch.full((2, 196, projector.num_tokens), -9.0)
    logits[1, 50, 3] = 0.5
    projector.classify.forward = lambda tokens: logits
    said = torch.full((2, projector.num_tokens), PAD)
    said[1, 3] = shapes().label_token_ids[3]
    assert torch.equal(projector(*inputs(2)), said)


def test_the_labels_of_objects_are_their_sizes_colours_and_shapes():
    projector, data = small("label"), shapes()
    encode = data.tokenizer.encode
    objects = torch.tensor([
        [*encode("small red circle"), PAD, PAD],
        [*encode("large blue ring"), *encode("top left")],
    ])  # fmt: skip
    named = [("small", "red", "circle"), ("large", "blue", "ring")]
    for row, wanted in zip(objects, named, strict=True):
        is_wanted = torch.tensor([data.tokenizer.name(i) in wanted for i in data.label_token_ids])
        projector.logits = torch.where(is_wanted, 20.0, -20.0)[None]
        assert projector.aux_loss(row[None, None]) < 1e-6
        projector.logits = -projector.logits
        assert projector.aux_loss(row[None, None]) > 19


def test_the_labels_of_a_picture_can_be_learned():
    projector, encode = small("label"), shapes().tokenizer.encode
    tokens, pooled = inputs(2)
    words = [encode("small red circle"), encode("large blue ring")]
    object_tokens = torch.tensor(words)[:, None]
    optimizer, losses = torch.optim.Adam(projector.parameters(), 1e-2), []
    for _ in range(60):
        out = projector(tokens, pooled)
        loss = projector.aux_loss(object_tokens)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    assert [set(row) - {PAD} for row in out.tolist()] == [set(row) for row in words]
