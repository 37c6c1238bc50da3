"""The benchmarks time steps that can be done."""

import sys
from functools import partial

import pytest
import torch
from helpers import ROOT

import train_clip
import train_vlm
from tinyvlm.decoders import DECODERS
from tinyvlm.losses import LOSSES
from tinyvlm.projectors import PROJECTORS
from tinyvlm.text import TEXT_ENCODERS
from tinyvlm.vision import VISION_ENCODERS

BOXES = (VISION_ENCODERS, TEXT_ENCODERS, LOSSES, PROJECTORS, DECODERS)


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield __import__("speed")
    sys.modules.pop("speed")


@pytest.fixture
def brief(speed, monkeypatch):
    """The benchmark, every step done once and not timed."""
    monkeypatch.setattr(speed, "seconds_of", lambda work, repeats=5: work() is None or 1.0)
    monkeypatch.setattr(speed, "seconds_in_turn", lambda *works: [work() or 1.0 for work in works])
    monkeypatch.setattr(speed, "peak", lambda device: 1.0)
    return speed


def test_every_step_that_is_timed_can_be_done(brief, monkeypatch):
    done = []

    def work_once(name, step, best):
        step.work()
        done.append(name)

    monkeypatch.setattr(brief, "report", work_once)
    brief.main(brief.Config(device="cpu"))
    assert len(done) == 5 + len(PROJECTORS) and torch.is_grad_enabled()


def test_each_arm_of_each_dictionary_has_a_line_with_its_costs(brief, monkeypatch, capsys):
    for script in (train_clip, train_vlm):
        monkeypatch.setattr(script, "Config", partial(script.Config, batch_size=2))
    brief.main(brief.Config(device="cpu", arms=True))
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[4:]]
    arms = [name for box in BOXES for name in box]
    assert [row[1] for row in rows] == arms
    assert all(float(row[4]) > 0 and float(row[5]) > 0 for row in rows)
    costs = {(row[0], row[1]): row[2:4] for row in rows}
    assert costs["projector", "qformer"][0] == "32" and costs["vision encoder", "vit"][0] == "196"
    bag, causal = (int(costs["text encoder", n][1].replace(",", "")) for n in ("bag", "causal"))
    assert bag < causal


def test_two_steps_in_turn_have_the_least_time_of_each(speed, monkeypatch):
    times = iter([3.0, 5.0, 2.0, 9.0, 4.0, 4.0, 7.0, 8.0])
    monkeypatch.setattr(speed, "seconds_of", lambda work, repeats: next(times))
    assert speed.seconds_in_turn("one", "other").tolist() == [2.0, 4.0]


@pytest.mark.quick
def test_the_table_of_costs_has_every_arm():
    rows = (ROOT / "benchmarks" / "arms.md").read_text().splitlines()
    named = [row.split(" | ")[1] for row in rows if row.startswith("| ")][2:]
    assert named == [name for box in BOXES for name in box]
