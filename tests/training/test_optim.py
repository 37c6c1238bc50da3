"""What is trained and how fast: groups by kind of module, freezing, the schedule, a step, Muon."""

import copy
import re

import numpy as np
import pytest
import torch
from helpers import losses_of, small_clip, small_encoder, small_vlm, small_vqa_batch
from torch import nn

from data.batch import IGNORE
from tinyvlm.clip import CLIP
from tinyvlm.decoders import DECODERS
from tinyvlm.layers import Head
from tinyvlm.projectors import PROJECTORS
from tinyvlm.text import TEXT_ENCODERS
from tinyvlm.training import optim
from tinyvlm.training.config import UserError
from tinyvlm.vision import VISION_ENCODERS

pytestmark = pytest.mark.quick


class Zoo(nn.Module):
    """One of each kind that a reader may add; the names say the group, or mislead."""

    def __init__(self):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(5, 8))
        self.cls_token = nn.Parameter(torch.randn(1, 1, 8))
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.norm_like_matrix = nn.Linear(8, 8)
        self.stack = nn.Sequential(nn.Linear(8, 8, bias=False), nn.GELU(), nn.LayerNorm(8))
        self.conv, self.conv1d = nn.Conv2d(3, 8, 3), nn.Conv1d(8, 8, 3)
        self.depthwise = nn.Conv2d(8, 8, 5, groups=8)
        self.words = nn.Embedding(20, 8)
        self.batch_norm = nn.BatchNorm2d(8)
        self.out = Head(8, 20)


GROUPS = {
    "muon": ["norm_like_matrix.weight", "stack.0.weight", "conv.weight", "conv1d.weight"],
    "decay": ["depthwise.weight", "out.weight"],
    "no decay": [
        "latents", "cls_token", "weight", "temperature", "norm_like_matrix.bias",
        "stack.2.weight", "stack.2.bias", "conv.bias", "conv1d.bias", "depthwise.bias",
        "words.weight", "batch_norm.weight", "batch_norm.bias", "out.bias",
    ],
}  # fmt: skip


def names_of(model, parameters):
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for p in parameters]


def models():
    yield "zoo", Zoo()
    for name in VISION_ENCODERS:
        text = TEXT_ENCODERS["causal"](vocab_size=300, dim=16, depth=1, heads=1)
        yield name, CLIP(small_encoder(name), text, embed_dim=8)
    for name in PROJECTORS:
        yield name, small_vlm(name)
    for name in DECODERS:
        yield name, small_vlm(decoder=name)


MODELS = dict(models())


# ---------------------------------------------------------------- groups


def test_the_group_is_that_of_the_kind_of_module_whatever_the_name():
    model = Zoo()
    groups = {name: names_of(model, group) for name, group in optim.param_groups(model).items()}
    assert {name: sorted(group) for name, group in groups.items()} == {
        name: sorted(group) for name, group in GROUPS.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_every_trained_parameter_is_in_exactly_one_group_of_the_optimizers(name):
    model = copy.deepcopy(MODELS[name])
    next(model.parameters()).requires_grad_(False)
    optimizers = optim.configure_optimizers(model, 1e-3, 1e-2, 0.1)
    grouped = [p for o in optimizers for group in o.param_groups for p in group["params"]]
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert sorted(names_of(model, grouped)) == sorted(trained)


@pytest.mark.parametrize("name", MODELS)
def test_norms_biases_embeddings_tokens_and_temperature_do_not_decay(name):
    model = MODELS[name]
    norms = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
    free = [p for m in model.modules() if isinstance(m, norms) for p in m.parameters()]
    free += [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    free += [p for n, p in model.named_parameters() if n.endswith("bias")]
    bare = ("logit_scale", "query_tokens", "registers", "class_token", "vision.pos_embed")
    free += [p for n, p in model.named_parameters() if n.endswith(bare)]
    optimizers = optim.configure_optimizers(model, 1e-3, 1e-2, 0.1)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert free and decayed and not decayed & {id(p) for p in free}
    matrices = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    assert decayed >= {id(p) for p in matrices}


def test_a_parameter_that_two_modules_share_is_in_one_group():
    model = small_vlm()
    model.decoder.lm_head.weight = model.decoder.tok_embed.weight
    groups = optim.param_groups(model)
    homes = [
        name for name, group in groups.items() for p in group if p is model.decoder.tok_embed.weight
    ]
    assert homes == ["no decay"]


def test_heads_learn_with_adamw_and_what_lies_inside_with_muon():
    model = small_clip()
    muon, adamw = optim.configure_optimizers(model, 1e-3, 1e-2, 0.1)
    assert isinstance(muon, optim.Muon) and isinstance(adamw, torch.optim.AdamW)
    heads = ["text_proj.weight", "image_proj.weight"]
    assert names_of(model, adamw.param_groups[0]["params"]) == heads
    assert not set(heads) & set(names_of(model, muon.param_groups[0]["params"]))
    assert {group["lr"] for group in muon.param_groups} == {1e-2}
    assert {group["lr"] for group in adamw.param_groups} == {1e-3}


@pytest.mark.parametrize("name", PROJECTORS)
def test_all_projectors_have_the_same_optimizer(name):
    projector = small_vlm(name).projector
    muon = optim.param_groups(projector)["muon"]
    kinds = (nn.Linear, nn.Conv2d)
    matrices = [m for m in projector.modules() if isinstance(m, kinds)]
    inner = [m.weight for m in matrices if not isinstance(m, Head)]  # a classifier has one
    assert {id(p) for p in muon} == {id(p) for p in inner}
    assert len(matrices) - len(inner) == (name == "label")


def test_an_optimizer_with_nothing_to_train_is_left_out():
    model = Zoo()
    optim.freeze(model, ["latents"])
    [adamw] = optim.configure_optimizers(model, 1e-3, 1e-2, 0.1)
    assert isinstance(adamw, torch.optim.AdamW)
    optim.freeze(model, ["conv.weight"])
    [muon] = optim.configure_optimizers(model, 1e-3, 1e-2, 0.1)
    assert isinstance(muon, optim.Muon)
    model.requires_grad_(False)
    assert optim.configure_optimizers(model, 1e-3, 1e-2, 0.1) == []


def test_the_description_has_a_line_for_each_group_and_counts_everything():
    model = Zoo()
    lines = optim.describe_optimizers(optim.configure_optimizers(model, 1e-3, 2e-2, 0.1))
    pattern = r" +(\w+) +(.*?) +(\d+) tensors +([\d,]+) numbers +rate (\S+), weight decay (\S+)"
    whats, rows = [], []
    for line in lines:
        kind, what, *numbers = re.fullmatch(pattern, line).groups()
        whats.append(what)
        rows.append((kind, *numbers))
    assert len(set(whats)) == 3 and all(whats)
    kinds = [(kind, rate, decay) for kind, _, _, rate, decay in rows]
    assert kinds == [("Muon", "0.02", "0.1"), ("AdamW", "0.001", "0.1"), ("AdamW", "0.001", "0")]
    assert [int(row[1]) for row in rows] == [len(group) for group in GROUPS.values()]
    assert sum(int(row[2].replace(",", "")) for row in rows) == sum(
        p.numel() for p in model.parameters()
    )
    optim.freeze(model, ["latents"])
    [line] = optim.describe_optimizers(optim.configure_optimizers(model, 1e-3, 2e-2, 0.1))
    assert "1 tensors" in line and " 40 numbers" in line


# ---------------------------------------------------------------- freezing


def test_frozen_parts_do_not_move():
    model, batch = small_vlm(), small_vqa_batch(4)
    optim.freeze(model, ["projector.*"])
    before = copy.deepcopy(model.state_dict())
    optimizers = optim.configure_optimizers(model, 1e-2, 1e-2, 0.1)
    loss = losses_of(model, batch).sum() / (batch.labels != IGNORE).sum()
    optim.backward_and_step(optimizers, model, loss, 0)
    moved = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {n for n in before if n.startswith("projector.")}


def test_patterns_are_names_with_stars_and_free_again_what_was_frozen():
    model = Zoo()
    optim.freeze(model, ["conv*", "out.bias"])
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained == ["conv.weight", "conv.bias", "conv1d.weight", "conv1d.bias", "out.bias"]
    optim.freeze(model, ["*"])
    assert all(p.requires_grad for p in model.parameters())


def test_a_pattern_that_matches_nothing_is_an_error_that_names_the_parts():
    with pytest.raises(UserError, match=r"'projektor\.\*'.* decoder\.\*, projector\.\*, vision"):
        optim.freeze(small_vlm(), ["projector.*", "projektor.*"])


# ---------------------------------------------------------------- schedule


def test_the_rate_rises_stays_and_falls():
    shares = [optim.lr_schedule(step, 100, 10) for step in range(100)]
    assert shares[0] == 0.1 and shares[9] == shares[50] == 1.0
    assert np.all(np.diff(shares[:10]) > 0) and np.all(np.diff(shares[50:]) < 0)
    assert 0.05 <= shares[-1] < 0.1
    assert optim.lr_schedule(0, 100, 0) == 1.0


def test_the_share_is_one_of_the_full_rate():
    optimizers = optim.configure_optimizers(Zoo(), 1e-3, 1e-2, 0.1)
    for share in (0.5, 0.25, 1.0):
        optim.set_lr(optimizers, share)
        rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
        assert rates == [1e-2 * share, 1e-3 * share, 1e-3 * share]


# ---------------------------------------------------------------- a step


def test_a_step_that_is_not_finite_changes_nothing():
    model = small_clip()
    optimizers = optim.configure_optimizers(model, 1e-3, 1e-2, 0.0)
    before, scale = copy.deepcopy(model.state_dict()), model.logit_scale
    with pytest.raises(RuntimeError, match="step 8"):
        optim.backward_and_step(optimizers, model, scale * float("nan"), 7)  # counted from 0
    with pytest.raises(RuntimeError, match="step 9"):  # the loss is finite, its gradient is not
        optim.backward_and_step(optimizers, model, (scale - scale.detach()).abs().sqrt(), 8)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_the_norm_of_the_gradient_is_at_most_one():
    model = nn.Linear(4, 4)
    x = torch.randn(8, 4)
    for factor in (1e4, 1e-4):
        optim.backward_and_step([], model, factor * model(x).square().sum(), 0)
        norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        assert torch.isclose(norm, torch.tensor(1.0), atol=1e-3) if factor > 1 else norm < 0.5
        model.zero_grad()


def test_gradients_of_the_step_before_are_forgotten():
    model = nn.Linear(4, 1)
    optimizers, x = optim.configure_optimizers(model, 0.0, 0.0, 0.0), 0.01 * torch.ones(1, 4)
    optim.backward_and_step(optimizers, model, model(x).sum(), 0)
    once = model.weight.grad.clone()
    optim.backward_and_step(optimizers, model, model(x).sum(), 1)
    assert torch.equal(model.weight.grad, once)


def test_a_loss_that_depends_on_nothing_trained_is_an_error():
    model = nn.Linear(4, 4).requires_grad_(False)
    with pytest.raises(UserError, match="depends on nothing"):
        optim.backward_and_step([], model, model(torch.ones(1, 4)).sum(), 0)


# ---------------------------------------------------------------- Muon


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 8, 8)])
def test_an_update_is_nearly_orthogonal(shape, dtype):
    """In bfloat16, too, as on a GPU."""
    torch.manual_seed(0)
    g = torch.randn(shape)
    update = optim.zeropower_via_newtonschulz(g.to(dtype))
    assert update.dtype == dtype
    update = update.float()
    values = torch.linalg.svdvals(update)
    assert update.shape == shape and values.max() < 1.3
    if shape[1] != shape[2]:  # a random square matrix has a singular value near nothing
        assert values.min() > 0.5
        u, _, v = torch.linalg.svd(g, full_matrices=False)
        assert (update * (u @ v)).sum() / (update.norm() * (u @ v).norm()) > 0.97


def test_muon_equals_the_simplest_version():
    """Several matrices of one shape and a convolution, for three steps, one by one and by hand."""
    torch.manual_seed(0)
    shapes = [(6, 4), (6, 4), (4, 6), (8, 3, 2, 2)]
    params = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    wanted = [p.detach().clone() for p in params]
    velocity = [torch.zeros_like(p) for p in wanted]
    muon = optim.Muon(params, lr=0.1, momentum=0.9, weight_decay=0.2)
    for _ in range(3):
        for k, p in enumerate(params):
            p.grad = torch.randn_like(p)
            velocity[k] = 0.9 * velocity[k] + 0.1 * p.grad
            g = (0.1 * p.grad + 0.9 * velocity[k]).flatten(1)
            direction = optim.zeropower_via_newtonschulz(g[None])[0].view_as(p)
            rows, columns = g.shape
            wanted[k] = (1 - 0.1 * 0.2) * wanted[k] - 0.1 * max(
                1, rows / columns
            ) ** 0.5 * direction
        muon.step()
    for p, right in zip(params, wanted, strict=True):
        assert torch.allclose(p, right, atol=1e-5)


def test_muon_leaves_out_what_has_no_gradient():
    one, other = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
    one.grad = torch.eye(3)
    optim.Muon([one, other], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(other, torch.ones(3, 3)) and not torch.equal(one, torch.ones(3, 3))


def test_muon_comes_back_from_its_state():
    torch.manual_seed(0)
    one = nn.Parameter(torch.randn(4, 4))
    muon = optim.Muon([one], lr=0.1)
    one.grad = torch.randn(4, 4)
    muon.step()
    other = nn.Parameter(one.detach().clone())
    again = optim.Muon([other], lr=0.5)
    again.load_state_dict(copy.deepcopy(muon.state_dict()))
    one.grad = other.grad = torch.randn(4, 4)
    muon.step()
    again.step()
    assert torch.equal(one, other)
