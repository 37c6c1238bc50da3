"""The VLM: what predicts what, who sees whom, and that decoding agrees with training."""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import (
    drawn_mask,
    every_parameter_learns,
    losses_of,
    shapes,
    small_vlm,
    small_vqa_batch,
)
from torch import nn

from data.batch import IGNORE, VLMBatch
from data.tokenizer import EOS, PAD
from tinyvlm.decoders import DECODERS
from tinyvlm.projectors import PROJECTORS
from tinyvlm.training import optim
from tinyvlm.vlm import labelled_words, packed_attention_mask, sample_token

pytestmark = pytest.mark.quick

TEXT = ("input_ids", "segment_ids", "position_ids", "labels", "blind")
each_decoder = pytest.mark.parametrize("decoder", DECODERS)
EMPTY = dict(labels=IGNORE)  # what stands in a column of padding, 0 elsewhere


class Patches(nn.Module):
    """An encoder with another number of tokens, and a pooled vector wider than these."""

    dim, pooled_dim = 24, 40

    def __init__(self, num_tokens):
        super().__init__()
        self.num_tokens = num_tokens
        self.mix = nn.Linear(56 * 56 * 3, num_tokens * 24)
        self.pool = nn.Linear(24, 40)

    def forward(self, pixels):
        tokens = self.mix(pixels.float().flatten(1) / 255).view(-1, self.num_tokens, 24)
        return tokens, self.pool(tokens.mean(1))


def widened(batch, columns):
    """The batch with so many columns of padding more."""
    wide = {
        name: F.pad(getattr(batch, name), (0, columns), value=EMPTY.get(name, 0)) for name in TEXT
    }
    return VLMBatch(batch.pixels, batch.object_tokens, **wide)


def tokens(*rows):
    longest = max(map(len, rows))
    rows = [list(row) + [PAD] * (longest - len(row)) for row in rows]
    return torch.tensor(rows, dtype=torch.long).reshape(len(rows), longest)


def by_hand(model, image_embeds, image_mask, prompt, max_new_tokens):
    """Greedy words after one prompt, without a cache: a whole forward for each word."""
    text, said = list(prompt), []
    while len(said) < max_new_tokens and EOS not in said:
        row = tokens(text)
        x = model.build_inputs_embeds(image_embeds, row, torch.arange(len(text))[None])
        blind = torch.zeros_like(row, dtype=torch.bool)
        n = image_embeds.shape[1]
        mask = packed_attention_mask(n, image_mask, torch.ones_like(row), blind)
        positions = model.decoder.number_row(n, image_mask, torch.arange(len(text))[None], blind)
        hidden = model.decoder(x, positions, mask)[0, -1]
        said.append(model.decoder.lm_head(hidden).argmax().item())
        text.append(said[-1])
    return said


def until_end(row):
    row = row.tolist()
    return row[: row.index(EOS) + 1] if EOS in row else row


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("text_only", [False, True])
@pytest.mark.parametrize("projector", PROJECTORS)
def test_every_trainable_parameter_learns(projector, text_only):
    model, batch = small_vlm(projector), small_vqa_batch(4)
    losses, aux_loss = model(batch, text_only=text_only)
    assert losses.shape == batch.labels.shape and aux_loss.ndim == 0
    unused = [name for name, _ in model.named_parameters() if not name.startswith("decoder.")]
    left_out = every_parameter_learns(model, losses.sum() + aux_loss)
    assert left_out == (unused if text_only else [])


@each_decoder
def test_the_losses_are_cross_entropies_of_what_the_position_before_says(decoder):
    model, batch = small_vlm(decoder=decoder).eval(), small_vqa_batch(2)
    image_embeds, image_mask = model.encode_image(batch.pixels)
    x = model.build_inputs_embeds(image_embeds, batch.input_ids, batch.position_ids)
    mask = packed_attention_mask(6, image_mask, batch.segment_ids, batch.blind)
    positions = model.decoder.number_row(6, image_mask, batch.position_ids, batch.blind)
    log_p = model.decoder.lm_head(model.decoder(x, positions, mask)).log_softmax(-1)
    losses = losses_of(model, batch)
    for i, k in (batch.labels != IGNORE).nonzero().tolist():
        assert torch.isclose(losses[i, k], -log_p[i, 6 + k, batch.labels[i, k]], atol=1e-5)
    assert not losses[batch.labels == IGNORE].any()


@pytest.mark.parametrize("projector", PROJECTORS)
def test_the_last_image_position_predicts_the_first_word(projector):
    model, batch = small_vlm(projector).eval(), small_vqa_batch(2)
    before = losses_of(model, batch)
    batch.labels[0, 0] = batch.labels[0, 0] + 1
    batch.input_ids[0, 0] = batch.labels[0, 0]
    after = losses_of(model, batch)
    assert before[0, 0] != after[0, 0] and before[0, 0] > 0
    # And no word sees itself: what a word is asked for does not depend on what it is.
    other = copy.deepcopy(batch)
    last = int((batch.labels[1] != IGNORE).nonzero()[-1])
    other.input_ids[1, last] = 200
    assert torch.allclose(losses_of(model, other)[1], after[1], atol=1e-6)


@each_decoder
def test_more_padding_leaves_the_loss(decoder):
    model, batch = small_vlm(decoder=decoder).eval(), small_vqa_batch(3)
    wide = losses_of(model, widened(batch, 7))
    assert torch.allclose(F.pad(losses_of(model, batch), (0, 7)), wide, atol=1e-5)


@each_decoder
def test_a_batch_of_rows_of_different_lengths_gives_the_losses_of_single_rows(decoder):
    model, batch = small_vlm(decoder=decoder).eval(), small_vqa_batch(3)
    assert len(set((batch.input_ids != PAD).sum(1).tolist())) > 1
    together = losses_of(model, batch)
    for i in range(3):
        length = int((batch.input_ids[i] != PAD).sum())
        text = {name: getattr(batch, name)[i : i + 1, :length] for name in TEXT}
        alone = VLMBatch(batch.pixels[i : i + 1], batch.object_tokens[i : i + 1], **text)
        assert torch.allclose(losses_of(model, alone)[0], together[i, :length], atol=1e-5)


# ---------------------------------------------------------------- who sees whom


def test_the_packed_mask_equals_the_drawing_in_its_docstring_cell_by_cell():
    drawn = drawn_mask(packed_attention_mask, ["BOS", "h1"])
    assert [len(row) for row in drawn] == [10] * 10
    segment_ids = torch.tensor([[1, 1, 2, 2, 3, 3]])
    image_mask = torch.tensor([[True, True, False]])
    mask = packed_attention_mask(3, image_mask, segment_ids, segment_ids == 3)
    assert mask.dtype == torch.bool and mask.shape == (1, 1, 10, 10)
    assert mask[0, 0].tolist() == drawn


def test_without_an_image_mask_all_image_tokens_are_there():
    segment_ids = torch.tensor([[1, 2, 0], [1, 1, 2]])
    blind = segment_ids == 2
    all_there = torch.ones(2, 4, dtype=torch.bool)
    with_mask = packed_attention_mask(4, all_there, segment_ids, blind)
    assert torch.equal(packed_attention_mask(4, None, segment_ids, blind), with_mask)


@each_decoder
def test_segments_do_not_leak_into_one_another(decoder):
    model, batch = small_vlm(decoder=decoder).eval(), small_vqa_batch(2)
    before = losses_of(model, batch)
    first = batch.segment_ids == 1
    largest = shapes().tokenizer.size - 1
    batch.input_ids = torch.where(first, (batch.input_ids + 7).clamp(max=largest), batch.input_ids)
    after = losses_of(model, batch)
    assert torch.allclose(before[~first], after[~first], atol=1e-6)
    assert not torch.allclose(before[first], after[first])


@each_decoder
def test_blind_segments_do_not_see_the_picture_and_others_do(decoder):
    model, batch = small_vlm(decoder=decoder).eval(), small_vqa_batch(2)
    before = losses_of(model, batch)
    batch.pixels = 255 - batch.pixels
    after = losses_of(model, batch)
    assert batch.blind.any() and torch.allclose(before[batch.blind], after[batch.blind], atol=1e-6)
    seeing = (batch.labels != IGNORE) & ~batch.blind
    assert (before != after)[seeing].float().mean() > 0.9


@each_decoder
def test_a_packed_question_equals_the_question_alone(decoder):
    model, batch = small_vlm(decoder=decoder).eval(), small_vqa_batch(1)
    together = losses_of(model, batch)
    for segment in range(1, 6):
        mine = (batch.segment_ids == segment)[0]
        text = {name: getattr(batch, name)[:, mine] for name in TEXT}
        alone = losses_of(model, VLMBatch(batch.pixels, batch.object_tokens, **text))
        assert alone.any() and torch.allclose(alone[0], together[0, mine], atol=1e-5)


@each_decoder
def test_a_blind_question_is_read_as_if_there_were_no_picture(decoder):
    model, batch = small_vlm(decoder=decoder).eval(), small_vqa_batch(2)
    together = losses_of(model, batch)
    alone = model.token_losses(torch.zeros(2, 0, 32), None, batch)
    assert torch.allclose(alone[batch.blind], together[batch.blind], atol=1e-5)


@each_decoder
def test_only_words_with_a_label_are_predicted(decoder):
    none = IGNORE
    labels = torch.tensor([[none, 5, none, 6], [7, none, none, none], [none] * 4])
    found = labelled_words(labels)
    assert found.tolist() == [[1, 3], [0, 1], [0, 1]]  # filled up with words that have none
    assert labelled_words(labels[2:]).shape == (1, 1)
    model, batch = small_vlm(decoder=decoder).eval(), small_vqa_batch(2)
    losses, _ = model(batch)
    assert torch.equal(losses > 0, batch.labels != IGNORE)


@each_decoder
def test_fully_masked_rows_stay_finite(decoder):
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    segment_ids = torch.zeros(2, 4, dtype=torch.long)
    blind = torch.ones(2, 4, dtype=torch.bool)
    assert packed_attention_mask(3, nothing, segment_ids, blind).any(-1).all()
    model, batch = small_vlm(decoder=decoder), small_vqa_batch(2)
    batch.labels[0] = IGNORE
    image_embeds, image_mask = model.embed_object_words(torch.zeros(2, 3, 5, dtype=torch.long))
    assert not image_mask.any() and not image_embeds.any()
    loss = model.token_losses(image_embeds, image_mask, batch)
    loss.sum().backward()
    gradients = [p.grad for p in model.decoder.parameters() if p.grad is not None]
    assert loss.isfinite().all() and gradients and all(g.isfinite().all() for g in gradients)


# ---------------------------------------------------------------- image tokens that are not there


def some_labels(model, b):
    """A label VLM's image_embeds and image_mask for b pictures; some labels there, some not."""
    pixels = small_vqa_batch(b).pixels
    with torch.no_grad():
        image_embeds, image_mask = model.encode_image(pixels)
        # Which are there is chosen here: an untrained classifier says the same of all pictures.
        image_mask = torch.rand(image_mask.shape, generator=torch.manual_seed(1)) < 0.5
        image_mask[:, -1] = True
        words = model.projector.label_token_ids
        image_embeds = model.decoder.tok_embed.weight[words].expand_as(image_embeds)
    return image_embeds * image_mask[..., None], image_mask


def noise_like(x):
    """Of which, unlike of one number all over, a norm leaves something."""
    return 5 * torch.randn(x.shape, generator=torch.manual_seed(2))


def test_label_image_tokens_are_the_decoders_own_words_and_zero_where_there_is_none():
    model = small_vlm("label")
    pixels = small_vqa_batch(2).pixels
    with torch.no_grad():
        words = model.projector(*model.encode_patches(pixels))
        image_embeds, image_mask = model.encode_image(pixels)
        wanted = model.decoder.tok_embed.weight[words] * (words != PAD)[..., None]
    assert torch.equal(image_embeds, wanted) and torch.equal(image_mask, words != PAD)


@each_decoder
def test_absent_labels_change_no_loss(decoder):
    model, batch = small_vlm("label", decoder=decoder).eval(), small_vqa_batch(2)
    image_embeds, image_mask = some_labels(model, 2)
    before = model.token_losses(image_embeds, image_mask, batch)
    garbage = torch.where(image_mask[..., None], image_embeds, noise_like(image_embeds))
    after = model.token_losses(garbage, image_mask, batch)
    assert torch.allclose(before, after, atol=1e-6)
    assert not torch.allclose(before, model.token_losses(garbage, None, batch), atol=1e-3)
    for i in range(2):  # as if they had been left out
        text = {name: getattr(batch, name)[i : i + 1] for name in TEXT}
        row = VLMBatch(batch.pixels[i : i + 1], batch.object_tokens[i : i + 1], **text)
        kept = image_embeds[i : i + 1, image_mask[i]]
        assert torch.allclose(model.token_losses(kept, None, row)[0], before[i], atol=1e-5)


@each_decoder
def test_absent_labels_change_no_word_and_one_by_one_equals_batched(decoder):
    model = small_vlm("label", decoder=decoder).eval()
    image_embeds, image_mask = some_labels(model, 3)
    garbage = torch.where(image_mask[..., None], image_embeds, noise_like(image_embeds))
    prompts = tokens([300, 301], [310], [])
    said = model.generate(image_embeds, prompts, image_mask=image_mask, max_new_tokens=6)
    other = model.generate(garbage, prompts, image_mask=image_mask, max_new_tokens=6)
    assert torch.equal(said, other)
    for i, prompt in enumerate(([300, 301], [310], [])):
        kept = image_embeds[i : i + 1, image_mask[i]]
        masked = image_mask[i : i + 1]
        alone = model.generate(
            image_embeds[i : i + 1], tokens(prompt), image_mask=masked, max_new_tokens=6
        )
        left_out = model.generate(kept, tokens(prompt), max_new_tokens=6)
        assert until_end(said[i]) == until_end(alone[0]) == until_end(left_out[0])
        assert until_end(said[i]) == by_hand(model, image_embeds[i : i + 1], masked, prompt, 6)


# ---------------------------------------------------------------- decoding


@each_decoder
def test_what_prefill_reads_equals_the_full_forward(decoder):
    """Two prompts a picture, some labels absent: not the words alone, which hardly differ before
    training, but each number that the first word is predicted from."""
    model = small_vlm("label", decoder=decoder).eval()
    image_embeds, image_mask = some_labels(model, 3)
    prompts = [[300, 301], [310], [], [320, 321], [300], [322, 323]]
    last_hidden, kv_cache, attention_mask, start = model.prefill(
        image_embeds, tokens(*prompts), image_mask
    )
    garbage = torch.where(image_mask[..., None], image_embeds, noise_like(image_embeds))
    read_garbage, *_ = model.prefill(garbage, tokens(*prompts), image_mask)
    assert torch.allclose(read_garbage, last_hidden, atol=1e-5)
    n = image_embeds.shape[1]
    for k, prompt in enumerate(prompts):
        picture, row = slice(k // 2, k // 2 + 1), tokens(prompt)
        count = torch.arange(len(prompt))[None]
        x = model.build_inputs_embeds(image_embeds[picture], row, count)
        blind = torch.zeros_like(row, dtype=torch.bool)
        mask = packed_attention_mask(n, image_mask[picture], torch.ones_like(row), blind)
        positions = model.decoder.number_row(n, image_mask[picture], count, blind)
        assert torch.equal(positions[0, 1 + n :], start[k] + count[0, :, None])
        assert torch.allclose(model.decoder(x, positions, mask)[0, -1], last_hidden[k], atol=1e-5)
        seen = [True, *image_mask[k // 2].tolist(), *(c < len(prompt) for c in range(2))]
        assert attention_mask[k].tolist() == seen
    assert not torch.allclose(last_hidden[0], last_hidden[4], atol=1e-3)
    assert all(cache["k"].shape[2] == 1 + n + 2 for cache in kv_cache)


@pytest.mark.parametrize("projector", PROJECTORS)
def test_generate_agrees_with_forward_and_with_single_runs(projector):
    model = small_vlm(projector).eval()
    prompts = [[], [300, 301], [310], [320, 321, 322]]
    with torch.no_grad():
        image_embeds, image_mask = model.encode_image(small_vqa_batch(4).pixels)
        together = model.generate(
            image_embeds, tokens(*prompts), image_mask=image_mask, max_new_tokens=6
        )
        for i, prompt in enumerate(prompts):
            mask = None if image_mask is None else image_mask[i : i + 1]
            mine = dict(image_mask=mask, max_new_tokens=6)
            alone = model.generate(image_embeds[i : i + 1], tokens(prompt), **mine)[0]
            assert until_end(together[i]) == until_end(alone)
            said = by_hand(model, image_embeds[i : i + 1], mask, prompt, 6)
            assert until_end(together[i]) == said


@each_decoder
def test_several_questions_about_a_picture_are_answered_as_one_by_one(decoder):
    model = small_vlm("mlp", decoder=decoder).eval()
    prompts = tokens([300, 301], [310], [], [320, 321], [300], [322, 323])  # two a picture
    with torch.no_grad():
        image_embeds, _ = model.encode_image(small_vqa_batch(3).pixels)
        together = model.generate(image_embeds, prompts, max_new_tokens=5)
        each = image_embeds.repeat_interleave(2, 0)
        assert torch.equal(together, model.generate(each, prompts, max_new_tokens=5))
        blind = model.generate(image_embeds[:, :0], prompts, max_new_tokens=5)
        flipped = model.generate(image_embeds.flip(0)[:, :0], prompts, max_new_tokens=5)
        assert torch.equal(blind, flipped) and not torch.equal(blind, together)


def test_after_the_end_comes_padding():
    model = small_vlm("mlp").eval()
    with torch.no_grad():
        image_embeds, _ = model.encode_image(small_vqa_batch(2).pixels)
        model.decoder.lm_head.bias.data[EOS] = 1e4
        said = model.generate(image_embeds, tokens([300], []), max_new_tokens=5)
    assert said.tolist() == [[EOS], [EOS]]
    calls = []

    def end_of_the_first_row(module, inputs, logits):
        calls.append(len(logits))
        logits = logits.clone()
        logits[0, EOS] = 1e4
        logits[1, EOS] = -1e4
        return logits

    model.decoder.lm_head.bias.data[EOS] = 0.0
    model.decoder.lm_head.register_forward_hook(end_of_the_first_row)
    said = model.generate(image_embeds, tokens([300], []), max_new_tokens=4)
    assert said[0].tolist() == [EOS, PAD, PAD, PAD] and EOS not in said[1].tolist()
    assert calls == [2] * 4


def test_no_text_becomes_longer_than_the_decoder_allows():
    """Rows end alone as they do in a batch, where another one may be shorter."""
    model = small_vlm("mlp").eval()
    longest = model.decoder.max_length
    model.decoder.lm_head.bias.data[[EOS, PAD]] = -1e4  # nobody ends by itself
    prompts = [[300] * (longest - 3), [301] * 5, []]
    with torch.no_grad():
        image_embeds, _ = model.encode_image(small_vqa_batch(3).pixels)
        together = model.generate(image_embeds, tokens(*prompts))
        assert together.shape == (3, longest)
        for i, prompt in enumerate(prompts):
            alone = model.generate(image_embeds[i : i + 1], tokens(prompt))[0]
            said = [token for token in together[i].tolist() if token != PAD]
            assert len(said) == longest - len(prompt) and said == alone.tolist()


def test_sampling_a_token():
    logits = torch.tensor([[0.0, 3.0, 2.0, -1.0]]).repeat(500, 1)
    generator = torch.Generator().manual_seed(0)
    assert (sample_token(logits, 0.0, 0, None) == 1).all()
    assert set(sample_token(logits, 1.0, 2, generator).tolist()) == {1, 2}
    assert set(sample_token(logits, 1.0, 99, generator).tolist()) >= {0, 1, 2}
    assert len(set(sample_token(logits, 5.0, 0, generator).tolist())) == 4
    share = (sample_token(logits[:, 1:3].repeat(9, 1), 1.0, 0, generator) == 0).float().mean()
    assert abs(share - torch.tensor(1.0).sigmoid()) < 0.03


def test_one_batch_can_be_learned_by_heart_and_the_picture_matters():
    model, batch = small_vlm("mlp"), small_vqa_batch(4)
    optimizers = optim.configure_optimizers(model, 3e-3, 1e-2, 0.0)
    has_label = batch.labels != IGNORE
    for step in range(150):
        loss = losses_of(model, batch).sum() / has_label.sum()
        optim.backward_and_step(optimizers, model, loss, step)
    model.eval()
    with torch.no_grad():
        image_embeds, _ = model.encode_image(batch.pixels)
        said = model.generate(image_embeds, torch.zeros(4, 0, dtype=torch.long), max_new_tokens=40)
        for i in range(4):
            caption = batch.input_ids[i][batch.segment_ids[i] == 1].tolist()
            assert [token for token in said[i].tolist() if token != PAD] == caption
        seeing = has_label & ~batch.blind
        right = losses_of(model, batch)[seeing].mean()
        batch.pixels = batch.pixels.roll(2, 0)
        assert losses_of(model, batch)[seeing].mean() > right + 0.7


# ---------------------------------------------------------------- other encoders and projectors


@pytest.mark.parametrize("num_tokens", [50, 49])
@pytest.mark.parametrize("projector", PROJECTORS)
def test_an_encoder_with_another_number_of_tokens_and_a_wider_pooled_vector(projector, num_tokens):
    model = small_vlm(projector, vision=Patches(num_tokens))
    batch = small_vqa_batch(2)
    losses, aux_loss = model(batch)
    assert losses.shape == batch.labels.shape
    silent = every_parameter_learns(model, losses.sum() + aux_loss)
    uses_pooled = projector == "pooled"
    assert silent == [] if uses_pooled else silent == ["vision.pool.weight", "vision.pool.bias"]
    with torch.no_grad():
        image_embeds, image_mask = model.eval().encode_image(batch.pixels)
        assert image_embeds.shape == (2, model.projector.num_tokens, 32)
        prompts = tokens([300, 301], [])
        said = model.generate(image_embeds, prompts, image_mask=image_mask, max_new_tokens=4)
        mask = None if image_mask is None else image_mask[:1]
        assert until_end(said[0]) == by_hand(model, image_embeds[:1], mask, [300, 301], 4)


def test_a_projector_may_use_the_pooled_vector_alone():
    model, batch = small_vlm("pooled", vision=Patches(49)).eval(), small_vqa_batch(2)
    before = losses_of(model, batch)
    model.vision.pool.bias.data += 1
    seeing = (batch.labels != IGNORE) & ~batch.blind
    assert (losses_of(model, batch) != before)[seeing].all()


def test_each_patch_brings_its_place_along():
    """Tokens that changed places are not what they were with their places."""
    model, x = small_vlm("mlp").eval(), torch.randn(1, 196, 32)
    model.vision.forward = lambda pixels: (x if pixels is None else x.flip(1), x.amax(1))
    here, _ = model.encode_patches(None)
    elsewhere, _ = model.encode_patches("flipped")
    assert ((here - elsewhere.flip(1)).abs().amax(-1) > 0.1).all()
    assert len(model.pos_embed.unique(dim=0)) == 196
