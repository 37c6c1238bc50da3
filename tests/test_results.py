"""README and RESULTS.md say what experiments/results.json has measured, and README stays short."""

import importlib.util
import json

import pytest
from helpers import ROOT

pytestmark = pytest.mark.quick


def generator():
    """experiments/write_results.py as a module."""
    path = ROOT / "experiments" / "write_results.py"
    spec = importlib.util.spec_from_file_location("write_results", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_numbers_are_those_that_were_measured():
    pages, results = generator(), json.loads((ROOT / "experiments" / "results.json").read_text())
    assert pages.results_page(results) == (ROOT / "RESULTS.md").read_text()
    readme = (ROOT / "README.md").read_text()
    assert pages.MARKS[0] + pages.readme_table(results) + pages.MARKS[1] in readme


def test_the_readme_takes_three_minutes():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 110
    assert sum(line.startswith("| ---") for line in lines) == 1  # one table
