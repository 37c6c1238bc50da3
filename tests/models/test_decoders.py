"""Decoders: the contract of DECODERS; the same logits with the cache and without."""

import pytest
import torch
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
    tokens = torch.arange(b * t).reshape(b, t) % 40
    positions = torch.arange(t).expand(b, t)
    return decoder.embed(tokens, positions, previous_words(tokens, positions))


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_contract(name):
    decoder = small(name)
    x = embedded(decoder)
    assert x.shape == (2, 7, decoder.dim) and decoder.dim == 16
    assert decoder.tok_embed.weight.shape == (40, 16)
    hidden = decoder(x, causal(7))
    logits = decoder.lm_head(hidden)
    assert hidden.shape == (2, 7, 16) and logits.shape == (2, 7, 40)
    assert every_parameter_learns(decoder, (logits * torch.randn_like(logits)).sum()) == []
    decoder.eval()
    assert torch.equal(decoder(x, causal(7)), decoder(x, causal(7)))
    assert torch.allclose(decoder(x[:1], causal(7)), decoder(x, causal(7))[:1], atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_cached_logits_equal_the_full_forward(name):
    decoder = small(name).eval()
    with torch.no_grad():
        x, mask, cache = embedded(decoder, t=9), causal(9), decoder.init_kv_cache()
        full = decoder(x, mask)
        parts = [decoder(x[:, :4], mask[:, :, :4, :4], cache)]
        assert all(tensor.shape[0] == 2 for kept in cache for tensor in kept.values())
        for k in range(4, 9):
            parts.append(decoder(x[:, k : k + 1], mask[:, :, k : k + 1, : k + 1], cache))
    assert torch.allclose(decoder.lm_head(full), decoder.lm_head(torch.cat(parts, 1)), atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_positions_that_nobody_asks_for_leave_the_others_as_they_are(name):
    decoder = small(name).eval()
    x, mask = embedded(decoder), causal(7)
    whole, cache = decoder(x, mask), decoder.init_kv_cache()
    keep = torch.tensor([[4, 6, 1], [0, 2, 5]])
    kept = decoder(x, mask, keep=keep)
    assert torch.allclose(kept, whole[torch.arange(2)[:, None], keep], atol=1e-6)
    last = torch.full((2, 1), 5)
    before = decoder(x[:, :6], mask[:, :, :6, :6], cache, keep=last)
    assert torch.allclose(before, whole[:, 5:6], atol=1e-6)
    after = decoder(x[:, 6:], mask[:, :, 6:], cache)  # all stand in the cache all the same
    assert torch.allclose(after, whole[:, 6:], atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_looks_where_the_mask_lets_it_and_nowhere_else(name):
    decoder = small(name).eval()
    x, mask = embedded(decoder), causal(7).clone()
    mask[..., 5:, 2] = False  # the last two rows must not look at the third
    before = decoder(x, mask)
    other = x.clone()
    other[:, 2] = -3 * other[:, 2]
    change = (decoder(other, mask) - before).abs().amax((0, 2))
    assert not change[:2].any() and (change[2:5] > 1e-4).all()


@pytest.mark.parametrize("name", DECODERS)
def test_the_word_before_counts(name):
    decoder = small(name)
    tokens, positions = torch.full((1, 2), 3), torch.zeros(1, 2, dtype=torch.long)
    one, other = decoder.embed(tokens, positions, torch.tensor([[4, 5]]))[0]
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("name", DECODERS)
def test_positions_count(name):
    decoder = small(name)
    tokens = torch.full((1, decoder.max_length), 3)
    x = decoder.embed(tokens, torch.arange(decoder.max_length)[None], tokens)[0]
    assert torch.cdist(x, x).fill_diagonal_(99).min() > 1e-2


@pytest.mark.parametrize("name", DECODERS)
def test_sizes_that_do_not_go_together_are_refused(name):
    with pytest.raises(ValueError, match="divisible"):
        DECODERS[name](vocab_size=40, dim=16, depth=1, heads=3)
