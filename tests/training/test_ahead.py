"""Batches made in a thread: the same, sooner."""

import threading

import pytest

from tinyvlm.training.ahead import MadeAhead

pytestmark = pytest.mark.quick


def test_each_step_gets_its_own_batch_wherever_it_begins():
    batches = MadeAhead(lambda step: step * 10, end=6)
    assert [batches(step) for step in range(3, 6)] == [30, 40, 50]


def test_the_next_batch_is_made_while_this_one_is_used():
    made = {step: threading.Event() for step in range(3)}
    batches = MadeAhead(lambda step: made[step].set(), end=3)
    batches(0)
    assert made[1].wait(10) and not made[2].is_set()


def test_nothing_is_made_beyond_the_end():
    made = []
    batches = MadeAhead(made.append, end=2)
    batches(0), batches(1)
    batches.pool.shutdown(wait=True)
    assert made == [0, 1]


def test_what_goes_wrong_comes_at_its_own_step():
    def make(step):
        if step == 1:
            raise ValueError("no pictures left")
        return step

    batches = MadeAhead(make, end=3)
    assert batches(0) == 0
    with pytest.raises(ValueError, match="no pictures left"):
        batches(1)
