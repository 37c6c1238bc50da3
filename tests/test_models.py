"""The models: one contract test for each dictionary, and the traps of code of this kind."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data.shapes import grammar
from data.dataset import VQADataset, CaptionDataset, VLMBatch, tokenizer
from data.shapes.scene import WORLDS
from data.tokenizer import BOS, EOS, FIRST_WORD, PAD
from tinyvlm.evaluation import metrics
from tinyvlm.training import loop, optim
from tinyvlm.clip import CLIP
from tinyvlm.decoders import GPT
from tinyvlm.layers import Attention, Block
from tinyvlm.losses import LOSSES
from tinyvlm.projectors import PROJECTORS
from tinyvlm.vision import VISION_ENCODERS
from tinyvlm.vlm import VLM, sample_token, packed_attention_mask

WORLD = WORLDS["default"]


def small_vlm(projector="qformer", seed=0):
    torch.manual_seed(seed)
    vision = VISION_ENCODERS["stem"](dim=32, depth=1, heads=1)
    own = {"num_queries": 6} if projector == "qformer" else {}
    project = PROJECTORS[projector](vision_dim=32, text_dim=32, num_patches=196, **own)
    return VLM(vision, project, GPT(vocab_size=tokenizer.size, dim=32, depth=2, heads=2))


def batch_of(number, **options):
    return VQADataset(WORLD, num_questions=4, **options).batch("train", np.arange(number))


def every_parameter_learns(module, loss):
    loss.backward()
    omit = [n for n, p in module.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.isfinite().all() or not p.grad.any())]
    return omit


# ---------------------------------------------------------------- contracts


@pytest.mark.parametrize("size", [56, 112])
@pytest.mark.parametrize("name", VISION_ENCODERS)
def test_vision_contract(name, size):
    encoder = VISION_ENCODERS[name](image_size=size, dim=32, depth=2, heads=2)
    for b in (1, 3):
        tokens, pooled = encoder(torch.randint(0, 256, (b, 3, size, size), dtype=torch.uint8))
        assert tokens.shape == (b, encoder.num_tokens, encoder.dim) == (b, 196, 32) and pooled.shape == (b, 32)
    assert every_parameter_learns(encoder, (tokens * torch.randn_like(tokens)).sum() + pooled.square().sum()) == []
    encoder.eval()
    picture = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    assert torch.equal(encoder(picture)[0], encoder(picture)[0])


@pytest.mark.parametrize("size", [28, 56, 84, 112, 224])
@pytest.mark.parametrize("name", VISION_ENCODERS)
def test_no_pixel_is_left_out(name, size):
    encoder, seen = VISION_ENCODERS[name](image_size=size, dim=16, depth=1, heads=1), []
    encoder.patch_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].requires_grad_()))
    tokens, _ = encoder(torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8))
    (tokens * torch.randn_like(tokens)).sum().backward()
    assert tokens.shape == (1, 196, 16) and (seen[0].grad != 0).all()


@pytest.mark.parametrize("name", PROJECTORS)
def test_projector_contract(name):
    projector = PROJECTORS[name](vision_dim=24, text_dim=32, num_patches=196)
    for b in (1, 3):
        out = projector(torch.randn(b, 196, 24))
        assert out.shape == ((b, projector.num_tokens, 32) if out.is_floating_point() else (b, projector.num_tokens))  # vectors or words
    aux_loss = projector.aux_loss(torch.full((3, 1, 1), FIRST_WORD + grammar.ID["red"])) if hasattr(projector, "aux_loss") else 0.0
    seen = (out * torch.randn_like(out)).sum() if out.is_floating_point() else 0.0
    assert every_parameter_learns(projector, seen + aux_loss) == []
    x = torch.randn(1, 196, 24)
    assert torch.equal(projector.eval()(x), projector(x))


def test_qformer_with_one_query_and_the_default():
    assert PROJECTORS["qformer"](vision_dim=24, text_dim=32, num_patches=196).num_tokens == 32
    assert PROJECTORS["qformer"](vision_dim=24, text_dim=32, num_patches=196, num_queries=1)(torch.randn(1, 196, 24)).shape == (1, 1, 32)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_contract(name):
    b, loss = 6, LOSSES[name]
    image, text = (F.normalize(torch.randn(b, 8, dtype=torch.double), dim=-1).requires_grad_() for _ in range(2))
    alone = torch.eye(b, dtype=torch.bool)
    scale = torch.tensor(10.0, dtype=torch.double, requires_grad=True)
    value = loss(image, text, scale, alone)
    value.backward()
    assert value.ndim == 0 and all(x.grad.isfinite().all() and x.grad.any() for x in (image, text, scale))
    same = F.normalize(torch.ones(b, 8), dim=-1)
    assert math.isclose(loss(same, same, torch.tensor(14.0), alone).item(), math.log(b), rel_tol=1e-6)
    # The simplest version, by loops.
    logits = (scale * image @ text.T).detach()
    by_hand = sum(-(row - row.logsumexp(0))[i] for m in (logits, logits.T) for i, row in enumerate(m)) / (2 * b)
    assert math.isclose(value.item(), by_hand.item(), rel_tol=1e-9)


def test_the_multi_positive_loss_by_loops():
    """Caption 0 is true of pictures 0 and 2, caption 2 of picture 2 alone: rows are pictures, columns captions."""
    b = 4
    image, text = (F.normalize(torch.randn(b, 8, dtype=torch.double), dim=-1) for _ in range(2))
    is_match = torch.eye(b, dtype=torch.bool)
    is_match[2, 0] = True
    logits, loss = 10 * image @ text.T, 0.0
    for matrix, true in ((logits, is_match), (logits.T, is_match.T)):
        for i in range(b):
            rivals = [matrix[i, j] for j in range(b) if j == i or not true[i, j]]  # other true ones do not count against its own
            loss += -(matrix[i, i] - torch.stack(rivals).logsumexp(0)) / (2 * b)
    assert math.isclose(LOSSES["multi_positive"](image, text, torch.tensor(10.0), is_match).item(), loss.item(), rel_tol=1e-6)


def test_a_duplicated_pair_costs_nothing_under_the_multi_positive_loss():
    image, text = (F.normalize(torch.randn(5, 8), dim=-1) for _ in range(2))
    once = LOSSES["multi_positive"](image, text, torch.tensor(10.0), torch.eye(5, dtype=torch.bool))
    twice = torch.cat([image, image[:1]]), torch.cat([text, text[:1]])
    is_match = torch.eye(6, dtype=torch.bool)
    is_match[0, 5] = is_match[5, 0] = True
    per_item = LOSSES["multi_positive"](*twice, torch.tensor(10.0), is_match)
    assert LOSSES["plain"](*twice, torch.tensor(10.0)) > per_item
    perfect = torch.eye(8)[:3]
    doubled = torch.cat([perfect, perfect[:1]])
    is_match = doubled @ doubled.T > 0.5
    assert LOSSES["multi_positive"](doubled, doubled, torch.tensor(100.0), is_match) < 1e-6 < LOSSES["plain"](doubled, doubled, torch.tensor(100.0))
    assert once.isfinite()


# ---------------------------------------------------------------- layers


def test_attention_equals_torchs_own():
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight.data = torch.cat([ours.query.weight, ours.key_value.weight]).data
    theirs.in_proj_bias.data = torch.cat([ours.query.bias, ours.key_value.bias]).data
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(2, 5, 16)
    assert torch.allclose(ours(x), theirs(x, x, x, need_weights=False)[0], atol=1e-6)


def test_a_block_of_zeros_is_the_identity():
    block = Block(16, 2, context_dim=8)
    for layer in (block.attention.out, block.cross.out, block.mlp.down):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    x = torch.randn(2, 3, 16)
    assert torch.equal(block(x, torch.randn(2, 4, 8)), x)


def test_width_must_be_divisible_by_heads():
    with pytest.raises(ValueError, match="divisible"):
        Attention(10, 3)


# ---------------------------------------------------------------- CLIP


def small_clip():
    torch.manual_seed(0)
    return CLIP(encoder="stem", image_size=56, dim=32, depth=1, heads=1, text_dim=32, text_depth=1, text_heads=1, vocab_size=tokenizer.size, embed_dim=64)


def test_clip_starts_as_it_should():
    model, batch = small_clip(), CaptionDataset(WORLD).batch("train", np.arange(64))
    assert math.isclose(model.scale.item(), 1 / 0.07, rel_tol=1e-6)
    image, text = model.encode_image(batch.pixels), model.encode_text(batch.tokens)
    assert torch.allclose(image.norm(dim=1), torch.ones(64)) and torch.allclose(text.norm(dim=1), torch.ones(64))
    loss = LOSSES["plain"](image, text, model.scale)
    assert abs(loss.item() - math.log(64)) < 1.0
    assert every_parameter_learns(model, loss) == []
    model.logit_scale.data.fill_(9.0)
    model.clamp_logit_scale()
    assert math.isclose(model.scale.item(), 100, rel_tol=1e-5)
    model.scale.backward()
    assert model.logit_scale.grad > 0


def test_padding_does_not_change_a_caption():
    model, tokens = small_clip().eval(), torch.tensor([[BOS, 300, 301, EOS]])
    assert torch.allclose(model.encode_text(tokens), model.encode_text(F.pad(tokens, (0, 9), value=PAD)), atol=1e-6)


# ---------------------------------------------------------------- VLM


def losses_of(model, batch):
    return model.token_losses(model.encode_image(batch.pixels), None, batch)


@pytest.mark.parametrize("projector", PROJECTORS)
def test_vlm_every_trainable_parameter_learns(projector):
    model, batch = small_vlm(projector), batch_of(4)
    assert every_parameter_learns(model, losses_of(model, batch)[batch.loss_mask].mean() + model.aux_loss(batch)) == []


def test_the_last_image_position_predicts_the_first_word():
    model, batch = small_vlm().eval(), batch_of(2)
    before = losses_of(model, batch)
    batch.input_ids[0, 0] = batch.input_ids[0, 0] + 1
    after = losses_of(model, batch)
    assert before[0, 0] != after[0, 0] and batch.loss_mask[0, 0]
    # and no word sees itself: what a token is asked for does not depend on what it is
    other = copy.deepcopy(batch)
    last = int(other.loss_mask[1].nonzero()[-1])
    other.input_ids[1, last] = 200
    assert torch.allclose(losses_of(model, other)[1, :last], after[1, :last], atol=1e-6)


def test_more_padding_leaves_the_loss():
    model, batch = small_vlm().eval(), batch_of(3)
    wide = VLMBatch(batch.pixels, batch.object_tokens, *(F.pad(getattr(batch, k), (0, 7)) for k in ("input_ids", "segment_ids", "position_ids", "loss_mask", "blind")))
    assert torch.allclose(F.pad(losses_of(model, batch), (0, 7)), losses_of(model, wide), atol=1e-5)


def test_segments_do_not_leak_into_one_another():
    model, batch = small_vlm().eval(), batch_of(2)
    before = losses_of(model, batch)
    first = batch.segment_ids == 1
    batch.input_ids = torch.where(first, (batch.input_ids + 7).clamp(max=tokenizer.size - 1), batch.input_ids)
    after = losses_of(model, batch)
    assert torch.allclose(before[~first], after[~first], atol=1e-6) and not torch.allclose(before[first], after[first])


def test_blind_segments_do_not_see_the_picture_and_others_do():
    model, batch = small_vlm().eval(), batch_of(2)
    before = losses_of(model, batch)
    batch.pixels = 255 - batch.pixels
    after = losses_of(model, batch)
    assert torch.allclose(before[batch.blind], after[batch.blind], atol=1e-6)
    seeing = batch.loss_mask & ~batch.blind
    assert (before != after)[seeing].float().mean() > 0.9


def test_a_packed_question_equals_the_question_alone():
    model, batch = small_vlm().eval(), batch_of(1)
    together = losses_of(model, batch)
    for segment in range(1, 5):
        mine = (batch.segment_ids == segment)[0]
        alone = VLMBatch(batch.pixels, None, *(getattr(batch, k)[:, mine] for k in ("input_ids", "segment_ids", "position_ids", "loss_mask", "blind")))
        if segment > 1:  # the caption's first word is predicted by the picture, a question's first word by nothing
            alone.loss_mask[:, 0] = False
        assert torch.allclose(losses_of(model, alone)[alone.loss_mask], together[0, mine][alone.loss_mask[0]], atol=1e-5)


def test_fully_masked_rows_stay_finite():
    mask = packed_attention_mask(3, torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool))
    assert mask.any(-1).all()
    model, batch = small_vlm(), batch_of(2)
    batch.loss_mask[0] = False
    image_embeds, there = model.embed_object_words(torch.zeros(2, 3, 5, dtype=torch.long))
    loss = model.token_losses(image_embeds, there, batch)
    loss.sum().backward()
    assert loss.isfinite().all() and all(p.grad.isfinite().all() for p in model.decoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("projector", PROJECTORS)
def test_generate_agrees_with_forward_and_with_single_runs(projector):
    model = small_vlm(projector).eval()
    pixels = batch_of(4).pixels
    prompts = [[], [300, 301], [310], [320, 321, 322]]
    with torch.no_grad():
        image_embeds = model.encode_image(pixels)
        padded = torch.tensor([p + [PAD] * (3 - len(p)) for p in prompts])
        together = model.generate(image_embeds, padded, max_new_tokens=6)
        for i, prompt in enumerate(prompts):
            alone = model.generate(image_embeds[i : i + 1], torch.tensor([prompt], dtype=torch.long), max_new_tokens=6)[0].tolist()
            assert together[i].tolist()[: len(alone)] == alone
            text = list(prompt)
            for expected in alone:  # without a cache, one forward for each word
                row = torch.tensor([text], dtype=torch.long)
                hidden = model.decoder(
                    model.build_inputs_embeds(image_embeds[i : i + 1], row, torch.arange(len(text))[None]),
                    packed_attention_mask(image_embeds.shape[1], None, torch.ones_like(row), torch.zeros_like(row, dtype=torch.bool)),
                )
                word = model.decoder.lm_head(hidden[0, -1]).argmax().item()
                assert word == expected
                text.append(word)
                if word == EOS:
                    break


def test_several_questions_about_a_picture_are_answered_as_one_by_one():
    model = small_vlm("mlp").eval()
    with torch.no_grad():
        image_embeds = model.encode_image(batch_of(3).pixels)
        prompts = torch.tensor([[300, 301], [310, PAD], [PAD, PAD], [320, 321], [300, PAD], [322, 323]])  # two a picture
        together = model.generate(image_embeds, prompts, max_new_tokens=5)
        alone = model.generate(image_embeds.repeat_interleave(2, 0), prompts, max_new_tokens=5)
        assert torch.equal(together, alone)
        deaf = model.generate(image_embeds[:, :0], prompts, max_new_tokens=5)
        assert torch.equal(deaf, model.generate(image_embeds.flip(0)[:, :0], prompts, max_new_tokens=5)) and not torch.equal(deaf, together)


def test_the_label_projector_says_what_is_there_and_nothing_else():
    projector = PROJECTORS["label"](vision_dim=24, text_dim=32, num_patches=196)
    tokens = 3 * torch.randn(2, 196, 24)
    projector.classify.down.bias.data[::2] = -20.0  # these are not there
    out = projector(tokens)
    assert all(said in (word, PAD) for picture in out.tolist() for said, word in zip(picture, projector.label_token_ids.tolist())) and (out == PAD).any() and (out != PAD).any()
    model = small_vlm("label")
    with torch.no_grad():
        heard, said = model.encode_image(batch_of(2).pixels), model.projector(model.encode_patches(batch_of(2).pixels))
    assert torch.equal(heard, torch.where((said != PAD)[..., None], model.decoder.tok_embed.weight[said], 0.0))  # the decoder's own words
    assert torch.equal(out, projector(tokens[:, torch.randperm(196)]))  # where something is does not come through
    labels = torch.tensor([[*tokenizer.encode("small red circle"), PAD, PAD], [*tokenizer.encode("large blue ring"), *tokenizer.encode("top left")]])
    named = [{projector.LABELS[k] for k in row.nonzero()[:, 0]} for row in (labels[:, None, :, None] == projector.label_token_ids).any(2).any(1)]
    assert named == [{"small", "red", "circle"}, {"large", "blue", "ring"}]
    projector.classify.down.bias.data.zero_()
    projector(tokens)
    before = projector.aux_loss(labels[:, None])
    optimizer = torch.optim.Adam(projector.parameters(), 1e-2)
    for _ in range(60):
        projector(tokens)
        optimizer.zero_grad()
        projector.aux_loss(labels[:, None]).backward()
        optimizer.step()
    assert projector.aux_loss(labels[:, None]) < 0.2 * before


def test_cached_logits_equal_the_full_forward():
    model = small_vlm().eval()
    with torch.no_grad():
        x = torch.randn(2, 9, 32)
        causal = torch.ones(9, 9, dtype=torch.bool).tril()
        full, caches = model.decoder(x, causal), model.decoder.init_kv_cache()
        parts = [model.decoder(x[:, :4], causal[:4, :4], caches)]
        parts += [model.decoder(x[:, k : k + 1], causal[k : k + 1, : k + 1], caches) for k in range(4, 9)]
        assert torch.allclose(full, torch.cat(parts, 1), atol=1e-5)


def test_sampling():
    logits = torch.tensor([[0.0, 3.0, 2.0, -1.0]]).repeat(500, 1)
    generator = torch.Generator().manual_seed(0)
    assert (sample_token(logits, 0.0, 0, None) == 1).all()
    assert set(sample_token(logits, 1.0, 2, generator).tolist()) == {1, 2}
    assert len(set(sample_token(logits, 5.0, 0, generator).tolist())) == 4


def test_one_batch_can_be_learned_by_heart_and_the_picture_matters():
    torch.manual_seed(0)
    model, batch = small_vlm("mlp"), batch_of(4)
    optimizers = optim.configure_optimizers(model, 3e-3, 1e-2, 0.0)
    for step in range(150):
        loss = losses_of(model, batch)[batch.loss_mask].mean()
        optim.backward_and_step(optimizers, list(model.parameters()), loss, step)
    model.eval()
    with torch.no_grad():
        said = model.generate(model.encode_image(batch.pixels), torch.zeros(4, 0, dtype=torch.long), max_new_tokens=40)
        for i in range(4):
            caption = batch.input_ids[i][(batch.segment_ids[i] == 1)].tolist()
            assert [t for t in said[i].tolist() if t != PAD] == caption
        right = losses_of(model, batch)[batch.loss_mask & ~batch.blind].mean()
        batch.pixels = batch.pixels.roll(2, 0)
        assert losses_of(model, batch)[batch.loss_mask & ~batch.blind].mean() > right + 1.0


# ---------------------------------------------------------------- freezing, optimizers, metrics


def test_frozen_parts_do_not_move_and_unknown_patterns_are_errors():
    model, batch = small_vlm(), batch_of(4)
    optim.freeze(model, ["projector.*"])
    before = copy.deepcopy(model.state_dict())
    optim.backward_and_step(optim.configure_optimizers(model, 1e-2, 1e-2, 0.1), list(model.parameters()), losses_of(model, batch)[batch.loss_mask].mean(), 0)
    moved = {n.split(".")[0] for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {"projector"}
    with pytest.raises(loop.UserError, match="projektor"):
        optim.freeze(model, ["projektor.*"])


@pytest.mark.parametrize("projector", PROJECTORS)
def test_all_projectors_have_the_same_optimizer(projector):
    for name, p in small_vlm(projector).projector.named_parameters():
        if p.ndim == 2 and name not in ("query_tokens", "tok_embed.weight"):
            assert optim.param_group("projector." + name, p) == "muon"


def test_norms_biases_embeddings_and_temperature_do_not_decay():
    for model in (small_clip(), small_vlm()):
        decayed = [n for n, p in model.named_parameters() if optim.param_group(n, p) == "decayed"]
        assert decayed and not [n for n in decayed if any(k in n for k in ("norm", "bias", "tok_embed.", "pos_embed", "logit_scale")) or n.endswith("query_tokens")]
        of_names = {id(p): n for n, p in model.named_parameters()}
        groups = optim.configure_optimizers(model, 1e-3, 1e-2, 0.1)[-1].param_groups
        assert {of_names[id(p)] for g in groups if g["weight_decay"] for p in g["params"]} == set(decayed)


def test_a_step_that_is_not_finite_changes_nothing():
    model = small_clip()
    optimizers, before = optim.configure_optimizers(model, 1e-3, 1e-2, 0.0), copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="step 7"):
        optim.backward_and_step(optimizers, list(model.parameters()), model.logit_scale * float("nan"), 7)
    with pytest.raises(RuntimeError, match="step 8"):  # the loss is finite, its gradient is not
        optim.backward_and_step(optimizers, list(model.parameters()), (model.logit_scale - model.logit_scale.detach()).abs().sqrt(), 8)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_orthogonal_updates():
    for shape in ((3, 8, 20), (2, 20, 8)):
        values = torch.linalg.svdvals(optim.zeropower_via_newtonschulz(torch.randn(shape)))
        assert 0.5 < values.min() and values.max() < 1.3


def test_rate_rises_stays_and_falls():
    shares = [optim.lr_schedule(s, 100, 10) for s in range(100)]
    assert shares[0] == 0.1 and shares[9] == shares[50] == 1.0 and 0.05 <= shares[-1] < 0.1 and np.all(np.diff(shares[50:]) <= 0)


def test_metrics_by_hand():
    truth = np.eye(4, dtype=bool)
    assert metrics.recall_at_k(1, np.eye(4), truth) == 1.0
    assert metrics.recall_at_k(1, np.zeros((4, 4)), truth) == 0.25  # ties give chance
    assert math.isclose(metrics.recall_at_k(2, np.zeros((4, 4)), truth), 0.5)
    assert metrics.accuracy([[1, 1, 0], [0, 1, 0]], [0, 1]) == 0.75
    assert metrics.max_accuracy_with_duplicates(torch.tensor([[1, 2], [1, 2], [3, 4]])) == 2 / 3
    scene = np.array([[1, 1, 1, 1], [2, 6, 2, 5], [0, 0, 0, 0]])  # a small red circle, a large blue square
    assert metrics.score_caption("a small red circle and a large blue square", scene) == (6, 6, 6, True, False)
    assert metrics.score_caption("a large red circle", scene) == (2, 3, 6, False, False)
    assert metrics.score_caption("a small blue circle and a large red square", scene) == (4, 6, 6, False, False)
    assert metrics.score_caption("a small red circle and a small red circle", scene) == (3, 6, 6, False, False)
    assert metrics.score_caption("red circle", scene) == (0, 0, 6, False, True)
    assert metrics.exact_match(["yes", "", "no no", "red"], ["yes", "no", "no", "red"]).tolist() == [1, 0, 0, 1]
    low, high = metrics.wilson_interval(90, 100)
    assert math.isclose(low, 0.8256, abs_tol=1e-3) and math.isclose(high, 0.9448, abs_tol=1e-3)
