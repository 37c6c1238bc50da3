"""Image tokens dropped after block 2: what is left out is as if it were not there."""

import pytest
import torch
from helpers import shapes, small_vlm

from data.tokenizer import PAD
from tinyvlm import dropping
from tinyvlm.decoders import DECODERS
from tinyvlm.dropping import DROPPING, keep_best

pytestmark = pytest.mark.quick

each_way = pytest.mark.parametrize("by", ("attention", "random"))
each_block = pytest.mark.parametrize("decoder", ("gpt", "llama", "llama-2d", "gpt-qknorm"))
PROMPTS = torch.tensor([[300, 301, 302], [310, PAD, PAD], [PAD] * 3, [320, 321, PAD]])
N = 7


def small(by, decoder="gpt", depth=4):
    base = small_vlm()
    decoder = DECODERS[decoder](
        vocab_size=shapes().tokenizer.size, dim=32, depth=depth, heads=2
    )  # fmt: skip
    return DROPPING[by](base.vision, base.projector, decoder).eval()


def two_pictures():
    """Image tokens of two pictures, of the second of which two are not there."""
    image_embeds = torch.randn(2, N, 32, generator=torch.manual_seed(3))
    image_mask = torch.ones(2, N, dtype=torch.bool)
    image_mask[1, [1, 4]] = False
    return image_embeds, image_mask


def prefilled(model, prompts=PROMPTS):
    image_embeds, image_mask = two_pictures()
    return model.prefill(image_embeds, prompts, image_mask)


@each_way
@each_block
def test_where_all_is_kept_it_is_the_vlm(by, decoder, monkeypatch):
    monkeypatch.setattr(dropping, "KEPT", 1.0)
    hidden, cache, attention_mask, start = prefilled(small(by, decoder))
    other, others, seen, begin = prefilled(small("none", decoder))
    assert torch.allclose(hidden, other, atol=1e-5) and torch.equal(start, begin)
    assert torch.equal(attention_mask, seen.expand(4, -1, -1))
    for layer, its in zip(cache, others, strict=True):
        keys, theirs = (c["k"].masked_fill(~seen[:, None, :, None], 0.0) for c in (layer, its))
        assert torch.allclose(keys, theirs, atol=1e-5)


@each_way
@each_block
def test_it_equals_rows_from_which_tokens_are_taken_out(by, decoder):
    """Row by row, and block by block: after the second one the dropped tokens are deleted."""
    model = small(by, decoder)
    hidden, _, attention_mask, _ = prefilled(model)
    image_embeds, image_mask = two_pictures()
    for k, prompt in enumerate(PROMPTS):
        words = prompt[prompt != PAD][None]
        is_there = image_mask[k // 2]
        count = torch.arange(words.shape[1])[None]
        x = model.build_inputs_embeds(image_embeds[k // 2 : k // 2 + 1], words, count)
        blind = torch.zeros_like(words, dtype=torch.bool)
        positions = model.decoder.number_row(N, is_there[None], count, blind)
        stays = torch.cat([torch.tensor([True]), is_there, torch.ones(words.shape[1]).bool()])
        kept = attention_mask[3, k, : len(stays)]
        assert attention_mask[1, k, : len(stays)].tolist() == stays.tolist()
        assert kept[1 : 1 + N].sum() == (4 if k < 2 else 3) and not (kept & ~stays).any()
        for number, block in enumerate(model.decoder.blocks):
            left = stays if number < 2 else kept
            if number in (0, 2):
                chosen = left if number == 0 else kept[stays]
                x, positions = x[:, chosen], positions[:, chosen]
            causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()[None, None]
            x = block(x, mask=causal, angles=model.decoder.angles(positions))
        last = model.decoder.norm(x)[0, -1]
        assert torch.allclose(last, hidden[k], atol=1e-4)
        full, *_ = prefilled(small("none", decoder))
        assert not torch.allclose(last, full[k], atol=1e-3)


def test_what_is_looked_at_most_is_kept():
    """Against the attention of block 2 worked out head by head for the prompt's end."""
    model = small("attention")
    _, _, attention_mask, _ = prefilled(model)
    image_embeds, _ = two_pictures()
    words, count = PROMPTS[:1], torch.arange(3)[None]
    x = model.build_inputs_embeds(image_embeds[:1], words, count)
    causal = torch.ones(11, 11, dtype=torch.bool).tril()[None, None]
    block = model.decoder.blocks[1]
    x = block.norm_attention(model.decoder.blocks[0](x, mask=causal))[0]  # (11, 32)
    attention = block.attention
    keys = attention.key_value(x)[:, :32]
    looks = torch.zeros(11)
    for head in (slice(0, 16), slice(16, 32)):
        logits = keys[:, head] @ attention.query(x[-1])[head] / 4
        looks += logits.softmax(0) / 2
    best = looks[1 : 1 + N].topk(4).indices
    assert attention_mask[2, 0, 1 : 1 + N].nonzero()[:, 0].tolist() == sorted(best.tolist())


@each_way
def test_a_row_says_the_same_alone_and_in_a_batch(by):
    model = small(by)
    image_embeds, image_mask = two_pictures()
    together = model.generate(image_embeds, PROMPTS, image_mask=image_mask, max_new_tokens=6)
    for k in range(4):
        picture = slice(k // 2, k // 2 + 1)
        prompt = PROMPTS[k : k + 1, : (PROMPTS[k] != PAD).sum()]
        alone = model.generate(
            image_embeds[picture], prompt, image_mask=image_mask[picture], max_new_tokens=6
        )
        assert alone[0].tolist() == together[k, : alone.shape[1]].tolist()


def test_later_words_do_without_the_dropped_half_too():
    """The same half is drawn for each prompt, so a longer one reads what its words were."""
    model = small("random")
    image_embeds, _ = two_pictures()
    prompt = torch.tensor([[300, 301]])
    said = model.generate(image_embeds[:1], prompt, max_new_tokens=3)[0]
    for number, word in enumerate(said.tolist()):
        hidden, *_ = model.prefill(image_embeds[:1], prompt)
        assert model.decoder.lm_head(hidden).argmax(-1).item() == word, number
        prompt = torch.cat([prompt, torch.tensor([[word]])], dim=1)


@each_way
def test_without_a_picture_nothing_is_dropped(by):
    nothing, prompt = torch.zeros(1, 0, 32), PROMPTS[:1]
    hidden, *_ = small(by).prefill(nothing, prompt)
    same, *_ = small("none").prefill(nothing, prompt)
    assert torch.allclose(hidden, same, atol=1e-5)


def test_the_better_half_of_what_is_there_is_kept_rounded_up():
    rank = torch.tensor([[0.1, 0.9, 0.5, 0.7, 0.3], [0.1, 0.9, 0.5, 0.7, 0.3]])
    image_mask = torch.tensor([[True] * 5, [True, False, True, True, False]])
    kept = keep_best(rank, image_mask)
    assert kept.nonzero().tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3]]


def test_a_decoder_of_two_blocks_has_nothing_to_drop_from():
    with pytest.raises(ValueError, match="after block 2, and there is no more"):
        small("attention", depth=2)


def test_each_seed_draws_a_half_of_its_own_and_the_same_for_all_pictures():
    base, drawn = small("random"), []
    for seed in (0, 0, 1):
        model = DROPPING["random"](base.vision, base.projector, base.decoder, seed=seed)
        ranks = model.rank(torch.zeros(2, 1), None, None, None, 196)
        assert torch.equal(ranks[0], ranks[1])
        drawn.append(keep_best(ranks, torch.ones(2, 196, dtype=torch.bool))[0])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
