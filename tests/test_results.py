"""README, RESULTS.md and FINDINGS.md say what was measured, and README stays short."""

import importlib.util
import json

import pytest
from helpers import ROOT

import ablate
from tinyvlm.ablation import report
from tinyvlm.ablation.cells import cell_of
from tinyvlm.ablation.findings import answer_of
from tinyvlm.ablation.results import load_results, made_here
from tinyvlm.training import files

pytestmark = pytest.mark.quick


def script(name):
    """A script of experiments/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "experiments" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_numbers_are_those_that_were_measured():
    pages = script("write_results")
    results = json.loads((ROOT / "experiments" / "results.json").read_text())
    assert pages.results_page(results) == (ROOT / "RESULTS.md").read_text()
    readme = (ROOT / "README.md").read_text()
    assert pages.MARKS[0] + pages.readme_table(results) + pages.MARKS[1] in readme


def test_the_readme_takes_three_minutes():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 110
    assert sum(line.startswith("| ---") for line in lines) == 1  # one table


def test_the_findings_are_made_of_the_cells_to_the_byte():
    """Whoever clones the repository gets the same page from the committed cells."""
    cells = ROOT / "experiments" / "cells"
    registered = files.read_json(cells / ablate.REGISTERED)
    found = load_results(cells)
    answers = [answer_of(experiment, ablate.SCRIPTS, found) for experiment in ablate.EXPERIMENTS]
    findings = report.page(answers, registered)
    assert findings == (ROOT / "experiments" / "FINDINGS.md").read_text()
    pictures = {path.stem for path in (ROOT / "experiments" / report.PICTURES).glob("*.png")}
    assert pictures == {answer.experiment.name for answer in report.begun(answers)}
    verdicts = report.claims_list(answers, registered)
    first, last = report.MARKS
    assert first + verdicts + last in (ROOT / "README.md").read_text()


def test_the_runs_of_results_are_the_cells_of_an_experiment(tmp_path, monkeypatch):
    links, cells, runs = script("link_cells"), tmp_path / "cells", tmp_path / "runs"
    monkeypatch.setattr(links, "ROOT", tmp_path)
    finished = {
        name: cells / made_here(cell_of(name, {}, 1, ablate.SCRIPTS)) for name in ablate.SCRIPTS
    }
    for folder in finished.values():  # the default CLIP and VLM of seed 1
        folder.mkdir(parents=True)
        (folder / "metrics.json").touch()
    for _ in range(2):
        links.main(cells)
        assert {path.name: path.resolve() for path in runs.iterdir()} == {
            "clip-1": finished["train_clip"], "vlm-qformer-1": finished["train_vlm"],
        }  # fmt: skip
    (runs / "vlm-mlp-2").mkdir()
    with pytest.raises(SystemExit, match="vlm-mlp-2 is a run of its own; move it away"):
        links.main(cells)
