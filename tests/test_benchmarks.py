"""The benchmarks time steps that can be done."""

import sys

import pytest
import torch
from helpers import ROOT

from tinyvlm.projectors import PROJECTORS


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield __import__("speed")
    sys.modules.pop("speed")


def test_every_step_that_is_timed_can_be_done(speed, monkeypatch):
    done = []

    def work_once(name, work, images, data_seconds, best):
        work()
        done.append(name)

    monkeypatch.setattr(speed, "report", work_once)
    monkeypatch.setattr(speed, "seconds_of", lambda work, repeats=5: work() is None or 1.0)
    monkeypatch.setattr(speed, "peak", lambda device: 1.0)
    speed.main(speed.Config(device="cpu"))
    assert len(done) == 5 + len(PROJECTORS) and torch.is_grad_enabled()
