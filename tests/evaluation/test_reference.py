"""Reference runs: which finished cells count as runs with the same settings, and what is said."""

import dataclasses
import json

import pytest

import train_clip
import train_vlm
from tinyvlm.evaluation import plots, wrap_up
from tinyvlm.evaluation.reference import compare_with, find_references
from tinyvlm.evaluation.statistics import proportion

pytestmark = pytest.mark.quick
VLM = train_vlm.Config(projector="mlp", clip="runs/ablate/a", decoder="runs/ablate/b", seed=7)
NEEDS = dict(clip=dict(settings=dict(seed=7)), decoder=dict(settings=dict(seed=7, steps=1400)))


def cell(config=VLM, needs=NEEDS, vqa=0.9, script="train_vlm"):
    return dict(
        script=script, config=dataclasses.asdict(config), needs=needs,
        metrics=dict(vqa=vqa), log=[dict(step=10, loss=vqa), dict(step=20, loss=vqa / 2)],
    )  # fmt: skip


def found(tmp_path, cells, config, script="train_vlm", decoder="gpt"):
    for older in tmp_path.glob("*.json"):
        older.unlink()
    for number, content in enumerate(cells):
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    (tmp_path / "registered.json").write_text(json.dumps(dict(connector="12ab")))
    return find_references(config, script, decoder, tmp_path)


def test_another_seed_and_its_own_language_stage_make_no_difference(tmp_path):
    own = train_vlm.Config(projector="mlp", out="runs/mine", seed=1)
    assert len(found(tmp_path, [cell()], own)) == 1
    assert found(tmp_path, [cell()], dataclasses.replace(own, lr=0.5)) == []
    assert found(tmp_path, [cell()], dataclasses.replace(own, init="runs/other")) == []
    assert found(tmp_path, [cell()], dataclasses.replace(own, projector="linear")) == []
    assert found(tmp_path, [cell()], own, decoder="llama") == []
    assert found(tmp_path, [cell()], own, script="train_clip") == []


def test_another_clip_and_another_decoder_do(tmp_path):
    own = train_vlm.Config(projector="mlp")
    clip = NEEDS | dict(clip=dict(settings=dict(seed=7, encoder="vit")))
    llama = NEEDS | dict(decoder=dict(settings=dict(seed=7, decoder="llama")))
    assert found(tmp_path, [cell(needs=clip), cell(needs=llama)], own) == []
    assert len(found(tmp_path, [cell(needs=llama)], own, decoder="llama")) == 1


def test_a_setting_that_an_older_cell_does_not_know_has_its_default(tmp_path):
    content = cell(train_clip.Config(), needs={}, script="train_clip")
    del content["config"]["captions"]
    own = train_clip.Config()
    assert len(found(tmp_path, [content], own, "train_clip", "")) == 1
    assert found(tmp_path, [content], train_clip.Config(captions=1), "train_clip", "") == []


def test_a_setting_that_an_older_cell_calls_by_its_older_name_is_compared(tmp_path):
    content = cell(dataclasses.replace(VLM, image_tokens=4))
    content["config"]["num_queries"] = content["config"].pop("image_tokens")
    assert found(tmp_path, [content], VLM) == []
    assert len(found(tmp_path, [content], dataclasses.replace(VLM, image_tokens=4))) == 1


def test_the_lines_say_where_a_run_lies():
    references = [cell(vqa=0.90), cell(vqa=0.94), cell(vqa=0.95)]
    [line] = compare_with(references, dict(vqa=proportion([0.91], [0]), other=proportion([1], [0])))
    assert line == "vqa 0.910, reference 0.930 (0.900 to 0.950, 3 seeds): within"
    [line] = compare_with(references, dict(vqa=proportion([0.8], [0])))
    assert line.endswith("outside")
    assert compare_with([], dict(vqa=proportion([0.8], [0]))) == []


def test_curves_have_the_band_of_the_references_behind_them(tmp_path, monkeypatch):
    log, drawn = [dict(step=10, loss=1.0), dict(step=20, loss=0.5)], []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    plots.curves(log, tmp_path / "c.png")
    plots.curves(log, tmp_path / "c.png", [cell(vqa=0.9)["log"], cell(vqa=1.2)["log"]])
    alone, banded = (len(figure.axes[0].collections) for figure in drawn)
    assert (alone, banded) == (0, 1)


def test_the_end_of_a_run_says_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(wrap_up, "find_references", lambda *_: [cell(vqa=0.9), cell(vqa=0.7)])
    run = type("Run", (), dict(config=VLM, kind="vlm", folder=tmp_path))()
    run.finish = lambda scores, found: dict(ended=len(scores)) | found
    scores = dict(vqa=proportion([0.8], [0]), vqa_blind=proportion([0.8], [0]))
    numbers = wrap_up.wrap_up(run, {"VQA": scores["vqa"]}, scores, "gpt")
    out = capsys.readouterr().out
    assert numbers == dict(ended=2) and (tmp_path / "items.json").exists()
    assert "vqa 0.800, reference 0.800 (0.700 to 0.900, 2 seeds): within" in out
    assert "vqa_blind" not in out
