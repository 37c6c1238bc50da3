"""Decoders: the contract of DECODERS; the same logits with the cache and without."""

import pytest
import torch
import torch.nn.functional as F
from helpers import every_parameter_learns

from tinyvlm.decoders import DECODERS
from tinyvlm.vlm import previous_words

pytestmark = pytest.mark.quick


def small(name):
    torch.manual_seed(0)
    return DECODERS[name](vocab_size=40, dim=16, depth=2, heads=2)


def causal(t):
    return torch.ones(t, t, dtype=torch.bool).tril()[None, None]


def embedded(decoder, b=2, t=7):
    """Words, and their positions in a row without image tokens."""
    tokens = torch.arange(b * t).reshape(b, t) % 40
    count = torch.arange(t).expand(b, t)
    return decoder.embed(tokens, count, previous_words(tokens, count)), both(count)


def both(positions):
    """Rows and columns alike: (b, t) -> (b, t, 2)."""
    return positions[..., None].expand(-1, -1, 2)


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_contract(name):
    decoder = small(name)
    x, positions = embedded(decoder)
    assert x.shape == (2, 7, decoder.dim) and decoder.dim == 16
    assert decoder.tok_embed.weight.shape == (40, 16)
    hidden = decoder(x, positions, causal(7))
    logits = decoder.lm_head(hidden)
    assert hidden.shape == (2, 7, 16) and logits.shape == (2, 7, 40)
    assert every_parameter_learns(decoder, (logits * torch.randn_like(logits)).sum()) == []
    decoder.eval()
    again = decoder(x, positions, causal(7))
    assert torch.equal(again, decoder(x, positions, causal(7)))
    assert torch.allclose(decoder(x[:1], positions[:1], causal(7)), again[:1], atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_cached_logits_equal_the_full_forward(name):
    decoder = small(name).eval()
    with torch.no_grad():
        (x, positions), mask, cache = embedded(decoder, t=9), causal(9), decoder.init_kv_cache()
        full = decoder(x, positions, mask)
        parts = [decoder(x[:, :4], positions[:, :4], mask[:, :, :4, :4], cache)]
        assert all(tensor.shape[0] == 2 for kept in cache for tensor in kept.values())
        for k in range(4, 9):
            now, seen = slice(k, k + 1), slice(k + 1)
            parts.append(decoder(x[:, now], positions[:, now], mask[:, :, now, seen], cache))
    assert torch.allclose(decoder.lm_head(full), decoder.lm_head(torch.cat(parts, 1)), atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_positions_that_nobody_asks_for_leave_the_others_as_they_are(name):
    decoder = small(name).eval()
    (x, positions), mask = embedded(decoder), causal(7)
    whole, cache = decoder(x, positions, mask), decoder.init_kv_cache()
    keep = torch.tensor([[4, 6, 1], [0, 2, 5]])
    kept = decoder(x, positions, mask, keep=keep)
    assert torch.allclose(kept, whole[torch.arange(2)[:, None], keep], atol=1e-6)
    last = torch.full((2, 1), 5)
    before = decoder(x[:, :6], positions[:, :6], mask[:, :, :6, :6], cache, keep=last)
    assert torch.allclose(before, whole[:, 5:6], atol=1e-6)
    # All stand in the cache all the same.
    after = decoder(x[:, 6:], positions[:, 6:], mask[:, :, 6:], cache)
    assert torch.allclose(after, whole[:, 6:], atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_looks_where_the_mask_lets_it_and_nowhere_else(name):
    decoder = small(name).eval()
    (x, positions), mask = embedded(decoder), causal(7).clone()
    mask[..., 5:, 2] = False  # the last two rows must not look at the third
    before = decoder(x, positions, mask)
    other = x.clone()
    other[:, 2] = -3 * other[:, 2]
    change = (decoder(other, positions, mask) - before).abs().amax((0, 2))
    assert not change[:2].any() and (change[2:5] > 1e-4).all()


@pytest.mark.parametrize("name", DECODERS)
def test_the_word_before_counts(name):
    decoder = small(name)
    tokens, positions = torch.full((1, 2), 3), torch.zeros(1, 2, dtype=torch.long)
    one, other = decoder.embed(tokens, positions, torch.tensor([[4, 5]]))[0]
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("name", DECODERS)
def test_where_a_word_stands_counts(name):
    """The same words, of which none tells which one stood before it, in another order."""
    decoder = small(name).eval()

    def last(*words):
        count, row = torch.arange(len(words))[None], torch.tensor([words])
        x = decoder.embed(row, count, torch.zeros_like(row))
        return decoder(x, both(count), causal(len(words)))[:, -1]

    assert not torch.allclose(last(5, 6, 7, 8), last(6, 5, 7, 8), atol=1e-4)
    assert not torch.allclose(last(5, 6, 7, 8), last(5, 7, 6, 8), atol=1e-4)


@pytest.mark.parametrize("name", DECODERS)
def test_a_text_may_be_as_long_as_it_says(name):
    decoder = small(name)
    tokens = torch.full((1, decoder.max_length), 3)
    count = torch.arange(decoder.max_length)[None]
    hidden = decoder(decoder.embed(tokens, count, tokens), both(count), causal(len(count[0])))
    assert hidden.shape == (1, decoder.max_length, 16) and hidden.isfinite().all()


@pytest.mark.parametrize("name", DECODERS)
def test_sizes_that_do_not_go_together_are_refused(name):
    with pytest.raises(ValueError, match="divisible"):
        DECODERS[name](vocab_size=40, dim=16, depth=1, heads=3)


# ---------------------------------------------------------------- arms


@pytest.mark.parametrize("name", DECODERS)
def test_arms_of_one_seed_begin_alike(name):
    """Words, attention and head, whatever the blocks' MLPs and norms are."""
    gpt, decoder = small("gpt").state_dict(), small(name).state_dict()
    common = [key for key in decoder if key in gpt and decoder[key].shape == gpt[key].shape]
    assert {"tok_embed.weight", "lm_head.weight", "blocks.1.attention.query.weight"} <= {*common}
    assert all(torch.equal(gpt[key], decoder[key]) for key in common)
    swiglu, relu = small("llama").state_dict(), small("llama-relu2").state_dict()
    assert not torch.equal(swiglu["blocks.0.mlp.up.weight"], swiglu["blocks.1.mlp.up.weight"])
    assert torch.equal(relu["blocks.1.mlp.up.weight"], gpt["blocks.1.mlp.up.weight"])


def test_rotary_positions_are_relative():
    decoder = small("llama").eval()
    x, positions = embedded(decoder)
    here = decoder(x, positions, causal(7))
    assert torch.allclose(decoder(x, positions + 50, causal(7)), here, atol=1e-4)
    assert not torch.allclose(decoder(x, 2 * positions, causal(7)), here, atol=1e-3)


def test_a_gpt_brings_its_positions_along_and_reads_no_others():
    decoder = small("gpt").eval()
    x, positions = embedded(decoder)
    assert torch.equal(decoder(x, positions, causal(7)), decoder(x, 9 * positions, causal(7)))


def test_heads_too_narrow_for_rotary_positions_are_refused():
    with pytest.raises(ValueError, match="no multiple of 4"):
        DECODERS["llama"](vocab_size=40, dim=24, depth=1, heads=4)


def test_llama_has_no_biases_and_as_many_parameters_in_its_mlp():
    llama, gpt = (DECODERS[name](vocab_size=9, dim=96, depth=1) for name in ("llama", "gpt"))
    assert [name for name, _ in llama.named_parameters() if "bias" in name] == []
    sizes = [
        sum(p.numel() for p in decoder.blocks[0].mlp.parameters() if p.ndim == 2)
        for decoder in (llama, gpt)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    "name, image, text",
    [
        ("gpt", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)], 7),
        ("llama", [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6)], 7),
        ("llama-one", [(1, 1)] * 6, 2),
        ("llama-2d", [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)], 4),
    ],
)
def test_how_a_row_is_numbered(name, image, text):
    """Two segments, the second one blind: each as if it stood alone."""
    position_ids = torch.tensor([[0, 1, 2, 0, 1]])
    blind = torch.tensor([[False] * 3 + [True] * 2])
    row = small(name).number_row(6, None, position_ids, blind)[0].tolist()
    words = [text, text + 1, text + 2, 1, 2]
    assert row == [[0, 0], *map(list, image), *([word, word] for word in words)]


@pytest.mark.parametrize("name", DECODERS)
def test_image_tokens_that_are_not_there_take_no_position(name):
    decoder, words = small(name), torch.arange(3)[None]
    blind = torch.zeros(1, 3, dtype=torch.bool)
    is_there = torch.tensor([[False, True, True, False, True, True, False]])
    some = decoder.number_row(7, is_there, words, blind)
    left_out = decoder.number_row(4, None, words, blind)
    kept = F.pad(is_there, (1, 3), value=True)
    assert torch.equal(some[kept], left_out[0])
    none = decoder.number_row(7, is_there & False, words, blind)
    assert none[0, -3:].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert torch.equal(decoder.number_row(0, None, words, blind)[0], none[0, [0, 8, 9, 10]])
