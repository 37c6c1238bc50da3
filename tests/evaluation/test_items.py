"""items.json: the arrays of metrics come back as they were."""

import json
import math

import numpy as np
import pytest

from tinyvlm.evaluation.items import load_items, save_items
from tinyvlm.evaluation.statistics import RatioMetric, macro_mean, proportion

pytestmark = pytest.mark.quick


def test_items_come_back(tmp_path):
    rng = np.random.default_rng(0)
    right, cluster = rng.integers(0, 2, 500), np.arange(500) // 2
    scores = dict(
        vqa_colour=proportion(right, cluster, "exact", 0.125),
        fact_f1=RatioMetric(rng.integers(0, 9, 500), 9 + rng.integers(0, 3, 500), cluster),
        cosine=proportion(rng.random(500), cluster),
    )
    scores["vqa"] = macro_mean([scores["vqa_colour"], proportion(right[:99], cluster[:99])])
    save_items(tmp_path / "items.json", scores)
    found = load_items(tmp_path / "items.json")
    assert list(found) == list(scores)
    for name, metric in scores.items():
        other = found[name]
        assert other.value == pytest.approx(metric.value, abs=1e-6)
        assert other.interval() == pytest.approx(metric.interval(), abs=1e-6)
        assert other.items == metric.items and np.array_equal(other.cluster, metric.cluster)
    assert found["vqa_colour"].chance == 0.125 and math.isnan(found["cosine"].chance)
    assert len(json.dumps(json.loads((tmp_path / "items.json").read_text())["vqa_colour"])) < 600
