"""What evaluations share: a model is examined and left as it was."""

import pytest
import torch
from torch import nn

from tinyvlm.evaluation.common import evaluation_mode

pytestmark = pytest.mark.quick


def test_a_model_is_examined_in_evaluation_mode_and_left_as_it_was():
    model, matmul = nn.Dropout(), torch.backends.cuda.matmul
    with pytest.raises(KeyError), evaluation_mode(model):
        assert not model.training and not torch.is_grad_enabled() and matmul.allow_tf32
        raise KeyError
    assert model.training and torch.is_grad_enabled() and not matmul.allow_tf32


def test_tf32_is_nothing_to_a_cpu():
    a = torch.randn(64, 64)
    with evaluation_mode(nn.Identity()):
        inside = a @ a
    assert torch.equal(inside, a @ a)
