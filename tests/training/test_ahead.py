"""Batches made in a thread: the same, sooner."""

import threading

import pytest
import torch

from tinyvlm.training.ahead import MadeAhead

pytestmark = pytest.mark.quick

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("device", [CPU, GPU])
def test_each_step_gets_its_own_batch_wherever_it_begins(device):
    batches = MadeAhead(lambda step: step * 10, end=6, device=device)
    assert [batches(step) for step in range(3, 6)] == [30, 40, 50]


def test_the_next_batch_is_made_while_this_one_is_used():
    made = {step: threading.Event() for step in range(3)}
    batches = MadeAhead(lambda step: made[step].set(), end=3, device=GPU)
    batches(0)
    assert made[1].wait(10) and not made[2].is_set()


def test_nothing_is_made_beyond_the_end():
    made = []
    batches = MadeAhead(made.append, end=2, device=GPU)
    batches(0), batches(1)
    batches.pool.shutdown(wait=True)
    assert made == [0, 1]


def test_what_goes_wrong_comes_at_its_own_step():
    def make(step):
        if step == 1:
            raise ValueError("no pictures left")
        return step

    batches = MadeAhead(make, end=3, device=GPU)
    assert batches(0) == 0
    with pytest.raises(ValueError, match="no pictures left"):
        batches(1)


def test_on_a_cpu_nothing_is_made_ahead():
    made, threads_before = [], threading.active_count()
    batches = MadeAhead(made.append, end=3, device=CPU)
    batches(0)
    assert made == [0] and threading.active_count() == threads_before
