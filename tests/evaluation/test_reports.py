"""Tables of metrics: on the screen, as Markdown and JSON; one model, and several side by side."""

import json

import numpy as np
import pytest

from tinyvlm.evaluation.reports import (
    as_numbers,
    compare_row,
    print_table,
    write_comparison,
    write_report,
)
from tinyvlm.evaluation.statistics import BootstrapMetric, RatioMetric, proportion

HALF = proportion([1, 0] * 20, np.arange(40), "right answers", 0.25)
MORE = proportion([1, 1, 1, 0] * 10, np.arange(40), "right answers", 0.25)
NOTHING = RatioMetric(np.zeros(4), np.zeros(4), np.arange(4), "nothing was counted")
GAP = BootstrapMetric(0.3, np.linspace(0.2, 0.4, 1001), 40, "a distance")
SECTIONS = {"answers": {"count": HALF, "colour": MORE}, "other things": {"gap": GAP}}
ABOUT = dict(kind="vlm", step=6, projector="mlp")


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


# ---------------------------------------------------------------- one model


def test_a_metric_as_numbers_is_rounded_and_has_a_chance_only_if_there_is_one():
    third = proportion([1, 0, 0], np.arange(3), chance=1 / 64)
    low, high = third.interval()
    assert as_numbers(third) == dict(
        value=0.33333, low=round(low, 5), high=round(high, 5), items=3, chance=0.01562
    )
    assert as_numbers(GAP) == dict(value=0.3, low=0.205, high=0.395, items=40)
    assert as_numbers(NOTHING) == dict(value=0.0, low=0.0, high=1.0, items=0)


def test_a_report_has_every_number_twice(tmp_path):
    write_report(tmp_path, "report", ABOUT, SECTIONS, split="test", items=40)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["checkpoint"] == ABOUT
    assert content["split"] == "test" and content["items"] == 40
    assert content["sections"] == {
        title: {row: as_numbers(metric) for row, metric in metrics.items()}
        for title, metrics in SECTIONS.items()
    }
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert lines[0] == "# kind vlm, step 6, projector mlp; split test"
    assert [line[3:] for line in lines if line.startswith("## ")] == list(SECTIONS)
    rows = {cells(line)[0]: cells(line)[1:] for line in lines if line.startswith("| ")}
    low, high = HALF.interval()
    assert rows["count"] == ["0.500", f"{low:.3f} to {high:.3f}", "40", "0.25", "right answers"]
    assert rows["gap"] == ["0.300", "0.205 to 0.395", "40", "", "a distance"]


def test_every_row_of_a_table_is_as_wide_as_its_head(tmp_path):
    write_report(tmp_path, "report", ABOUT, SECTIONS | {"empty": {"x": NOTHING}}, split="val")
    write_comparison(tmp_path, ["one", "two"], [SECTIONS, SECTIONS], "val")
    for name in ("report.md", "compare.md"):
        tables = (tmp_path / name).read_text().split("\n## ")[1:]
        for table in tables:
            widths = {line.count("|") for line in table.splitlines() if line.startswith("|")}
            assert len(widths) == 1, table


def test_the_same_metrics_give_the_same_bytes(tmp_path):
    contents = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        write_report(folder, "report", ABOUT, SECTIONS, split="test")
        write_comparison(folder, ["a", "b"], [SECTIONS, SECTIONS], "test")
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"report.json", "report.md", "compare.json", "compare.md"}
    for data in contents[0].values():
        assert data.endswith(b"\n") and not data.endswith(b"\n\n")


def test_a_printed_table_has_intervals_items_and_meanings(capsys):
    print_table("a title", {"count": HALF, "gap": GAP})
    title, head, count, gap = [line for line in capsys.readouterr().out.splitlines() if line]
    low, high = HALF.interval()
    assert title == "a title" and head.split() == ["value", "95", "%", "interval", "items"]
    assert count.split(None, 5) == [
        "count", "0.500", f"[{low:.3f},", f"{high:.3f}]", "40", "right answers, chance 0.250"
    ]  # fmt: skip
    assert gap.split(None, 5)[-1] == "a distance"
    assert count.index("right") == gap.index("a distance")


# ---------------------------------------------------------------- several models


def test_a_comparison_is_paired(tmp_path, capsys):
    first, second = {"answers": {"count": HALF}}, {"answers": {"count": MORE}}
    write_comparison(tmp_path, ["runs/a", "runs/b", "runs/c"], [first, second, first], "more")
    row = json.loads((tmp_path / "compare.json").read_text())["answers"]["count"]
    assert list(row) == ["runs/a", "runs/b", "runs/c"]
    assert row["runs/a"] == as_numbers(HALF)  # no difference to itself
    difference, (low, high) = MORE.paired_difference(HALF)
    assert difference == 0.25
    assert row["runs/b"] == as_numbers(MORE) | dict(
        difference=0.25, difference_low=round(low, 5), difference_high=round(high, 5)
    )
    assert row["runs/c"]["difference"] == row["runs/c"]["difference_high"] == 0.0
    text = (tmp_path / "compare.md").read_text()
    assert "more split: runs/a" in text.splitlines()[0]
    [line] = [line for line in text.splitlines() if line.startswith("| count")]
    assert cells(line)[1] == "40" and cells(line)[3].startswith("0.750 (+0.250, ")
    assert cells(line)[4] == "0.500 (+0.000, +0.000 to +0.000)"
    assert text.strip() in capsys.readouterr().out


def test_pairing_makes_a_small_difference_certain():
    right = np.random.default_rng(0).random(400) < 0.5
    better = right | (np.arange(400) % 20 == 0)  # a few more, and never one less
    _, [_, entry] = compare_row(
        proportion(right, np.arange(400)), [proportion(better, np.arange(400))]
    )
    assert 0 < entry["difference_low"] < entry["difference"] < entry["difference_high"]
    _, [_, entry] = compare_row(
        proportion(right, np.arange(400)), [proportion(better, np.arange(400, 800))]
    )
    assert entry["difference_low"] < 0  # on other scenes it may be luck


def test_rows_that_only_one_model_has_are_no_comparison(tmp_path):
    with pytest.raises(KeyError):
        write_comparison(tmp_path, ["a", "b"], [SECTIONS, {"answers": {}}], "test")
    assert not list(tmp_path.iterdir())
