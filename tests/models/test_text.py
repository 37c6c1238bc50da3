"""Text encoders: the contract of TEXT_ENCODERS; padding, [EOS], and the order of words."""

import pytest
import torch
import torch.nn.functional as F
from helpers import every_parameter_learns

from data.tokenizer import BOS, EOS, PAD
from tinyvlm.text import TEXT_ENCODERS
from tinyvlm.training.config import kwargs_for

pytestmark = pytest.mark.quick

CAPTIONS = torch.tensor([[BOS, 300, 301, 302, EOS], [BOS, 303, EOS, PAD, PAD]])


def small(name):
    """The encoder with those of these sizes that it asks for."""
    torch.manual_seed(0)
    kind = TEXT_ENCODERS[name]
    return kind(**kwargs_for(kind, None, {}, vocab_size=320, dim=16, depth=2, heads=2))


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_text_contract(name):
    encoder = small(name)
    for tokens in (CAPTIONS[:1], CAPTIONS):
        out = encoder(tokens)
        assert out.shape == (len(tokens), encoder.dim) and encoder.dim == 16
    assert encoder(F.pad(CAPTIONS, (0, encoder.max_length - 5), value=PAD)).shape == (2, 16)
    assert every_parameter_learns(encoder, (out * torch.randn_like(out)).sum()) == []
    encoder.eval()
    assert torch.equal(encoder(CAPTIONS), encoder(CAPTIONS))
    padded = encoder(F.pad(CAPTIONS, (0, 9), value=PAD))
    assert torch.allclose(padded, encoder(CAPTIONS), atol=1e-6)
    assert torch.allclose(encoder(CAPTIONS[1:, :3]), encoder(CAPTIONS)[1:], atol=1e-6)


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_what_stands_behind_the_end_is_invisible_and_each_word_before_it_counts(name):
    encoder = small(name).eval()
    before = encoder(CAPTIONS)
    for row, column in ((0, 1), (0, 2), (0, 3), (1, 1), (1, 3), (1, 4)):
        other = CAPTIONS.clone()
        other[row, column] = 310
        is_padding = row == 1 and column > 2
        assert torch.allclose(encoder(other)[row], before[row], atol=1e-6) == is_padding
        assert torch.allclose(encoder(other)[1 - row], before[1 - row], atol=1e-6)


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_the_order_of_words_counts_but_in_a_bag(name):
    encoder = small(name).eval()
    swapped = CAPTIONS[:1, [0, 2, 1, 3, 4]]
    is_same = torch.allclose(encoder(swapped), encoder(CAPTIONS[:1]), atol=1e-4)
    assert is_same == (name == "bag")


@pytest.mark.parametrize("name", ["causal", "bidirectional"])
def test_who_reads_whom(name):
    encoder = small(name).eval()
    seen = []
    encoder.blocks[-1].register_forward_hook(lambda _, x, y: seen.append(y[0]))
    other = CAPTIONS[:1].clone()
    other[0, 3] = 310
    encoder(CAPTIONS[:1])
    encoder(other)
    changed = (seen[0] - seen[1]).abs().amax(-1) > 1e-5
    is_late = name == "causal"  # those before it do not see it
    assert changed.tolist() == [not is_late, not is_late, not is_late, True, True]


def test_a_bag_is_the_mean_of_its_words():
    encoder = small("bag").eval()
    words = encoder.tok_embed.weight[CAPTIONS[1, :3]]
    assert torch.allclose(encoder(CAPTIONS)[1], encoder.norm(words.mean(0)), atol=1e-6)


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_the_first_end_is_the_one_that_is_read(name):
    encoder = small(name).eval()
    twice = torch.tensor([[BOS, 303, EOS, 300, EOS]])
    assert torch.allclose(encoder(twice), encoder(CAPTIONS[1:, :3]), atol=1e-6)


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_a_caption_without_an_end_is_refused(name):
    with pytest.raises(ValueError, match=r"\[EOS\]"):
        small(name)(torch.tensor([[BOS, 300, EOS], [BOS, 300, 301]]))


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_a_caption_longer_than_the_limit_is_refused(name):
    encoder = small(name)
    row = F.pad(CAPTIONS, (0, encoder.max_length - 4), value=PAD)
    with pytest.raises(ValueError, match=f"longer than the limit, {encoder.max_length}"):
        encoder(row)


@pytest.mark.parametrize("name", ["causal", "bidirectional"])
def test_heads_that_do_not_divide_the_width_are_refused(name):
    with pytest.raises(ValueError, match="divisible"):
        TEXT_ENCODERS[name](vocab_size=320, dim=16, depth=1, heads=3)
