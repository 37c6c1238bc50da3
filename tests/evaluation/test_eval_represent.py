"""How well captions match: scores that know everything, nothing, and the easy half."""

import numpy as np
import pytest
import torch
from helpers import shapes, small_vlm
from torch import nn

from tinyvlm.evaluation.eval_represent import evaluate_matching, validate_matching
from tinyvlm.represent import OBJECTIVES, Represent, TextSide

pytestmark = pytest.mark.quick


class Judge(nn.Module):
    """In the place of a model: patches are the pictures' sums, and `truth` says what matches."""

    def __init__(self, says, data, items):
        super().__init__()
        batch = data.caption_batch("test", np.arange(items))
        self.pictures, self.captions = self.keys(batch.pixels), batch.tokens.tolist()
        self.is_match, self.says = batch.is_match, says

    def keys(self, pixels):
        return pixels.double().flatten(1).std(1).tolist()

    def encode_patches(self, pixels):
        return torch.tensor(self.keys(pixels), dtype=torch.double), None

    def compare(self, patches, tokens):
        cosines = torch.zeros(len(patches), len(tokens))
        cosines[torch.arange(len(patches)) ^ 1, torch.arange(len(tokens))] = 1
        return cosines  # the other picture of a minimal pair is the most similar one

    def match(self, patches, tokens):
        rows = [self.pictures.index(key) for key in patches.tolist()]
        width = tokens.shape[1]
        columns = [[row[:width] for row in self.captions].index(row) for row in tokens.tolist()]
        return self.says(torch.tensor(rows), torch.tensor(columns), self.is_match)


def known(pictures, captions, is_match):
    return is_match[pictures, captions].float() - 0.5


def blind_to_edits(pictures, captions, is_match):
    return is_match[pictures, captions].float() + (pictures // 2 == captions // 2) - 0.5


@pytest.mark.parametrize(
    "says, matching, hard",
    [
        (known, 1.0, 1.0),
        (lambda pictures, *_: torch.ones(len(pictures)), 0.5, 0.5),
        (lambda pictures, *_: -torch.ones(len(pictures)), 0.5, 0.5),
        (lambda pictures, *_: torch.zeros(len(pictures)), 0.5, 0.5),
        (blind_to_edits, None, None),
    ],
)
def test_a_judge_that_knows_the_truth_has_one_and_a_stubborn_one_a_half(says, matching, hard):
    data = shapes()
    found = evaluate_matching(Judge(says, data, 64), data, "test", 64)
    value, hardest = (found[name].value for name in ("matching", "matching_hard"))
    assert all(metric.items == 128 and metric.chance == 0.5 for metric in found.values())
    if matching is None:  # what it cannot tell apart is seldom asked about, but for the hard ones
        assert value > 0.95 and 0.5 < hardest < 0.85
    else:
        assert (value, hardest) == (matching, hard)


def test_validation_has_the_losses_and_the_matching_and_is_deterministic():
    data, vlm = shapes(), small_vlm("qformer")
    model = Represent(vlm, TextSide(vocab_size=data.tokenizer.size, dim=32, depth=2))
    state = torch.get_rng_state()
    scores = validate_matching(model, data, items=8)
    assert torch.equal(state, torch.get_rng_state()) and model.training
    assert scores == validate_matching(model, data, items=8)
    assert scores["val_loss"] == pytest.approx(sum(scores[f"val_{name}"] for name in OBJECTIVES))
    assert 0 <= scores["val_matching"] <= 1 and 0 <= scores["val_matching_hard"] <= 1
