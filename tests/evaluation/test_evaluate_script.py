"""evaluate.py as its users meet it: reports, comparisons, and one line where it cannot be done."""

import importlib
import json
import shutil

import numpy as np
import pytest
import torch
from helpers import CLIP_ARGS, ROOT, VLM_ARGS, in_process

import evaluate
import train_clip
import train_vlm
from tinyvlm.dropping import DROPPING
from tinyvlm.training.config import UserError

REPORT = ("report.json", "report.md", "report.png")


def run(folder, out, **options):
    config = evaluate.Config(**dict(checkpoint=str(folder), items=20, out=str(out)) | options)
    return evaluate.main(config)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def reports(clip_folder, vlm_folder, tmp_path_factory):
    """{kind: (sections, folder of the report)}."""
    result = {}
    for kind, folder in (("clip", clip_folder), ("vlm", vlm_folder)):
        out = tmp_path_factory.mktemp("report") / kind
        result[kind] = run(folder, out), out
    return result


# ---------------------------------------------------------------- reports


@pytest.mark.parametrize("kind", ["clip", "vlm"])
def test_a_report_leaves_the_same_bytes_twice(kind, reports, request, tmp_path):
    sections, out = reports[kind]
    assert {path.name for path in out.iterdir()} == set(REPORT)
    run(request.getfixturevalue(f"{kind}_folder"), tmp_path)
    assert contents(tmp_path) == contents(out)


@pytest.mark.parametrize("kind", ["clip", "vlm"])
def test_a_report_names_its_model_and_has_intervals_everywhere(kind, reports):
    sections, out = reports[kind]
    content = json.loads((out / "report.json").read_text())
    about = content["checkpoint"]
    assert about["kind"] == kind and about["step"] == 6 and about["file"] == "last.pt"
    assert content["split"] == "test" and content["items"] == 20
    assert list(content["sections"]) == list(sections)
    text = (out / "report.md").read_text()
    for title, scores in content["sections"].items():
        assert f"## {title}\n" in text and scores
        for name, numbers in scores.items():
            assert {"value", "low", "high", "items"} <= set(numbers), name
            assert numbers["low"] - 1e-5 <= numbers["value"] <= numbers["high"] + 1e-5, name


def test_what_a_vlm_is_asked(reports):
    sections, _ = reports["vlm"]
    for title in ("captions (test)", "answers", "answers without picture"):
        assert title in sections
    families = ["existence", "count", "colour", "shape", "size", "relation", "compare"]
    rows = [*families, "mean of families"]
    more = ["count, hard ones", "compare, hard ones", "how many in all"]
    assert list(sections["answers"]) == rows + more
    assert set(sections["what is not there"]) == {"recognised", "denied"}
    for level in ("brief", "normal", "detailed", "list"):
        assert set(sections[f"captions asked for, {level}"]) == {
            "fact F1", "misdescribed_s", "as asked",
        }  # fmt: skip
    assert list(sections["answers to other words, never trained on"]) == rows
    assert {f"presence, {kind} negatives" for kind in ("random", "popular", "adversarial")} < set(
        sections
    )
    assert {"where from: test", "where from: more"} < set(sections)
    assert set(sections[evaluate.LABELS]) == {"encoder", "captions"}


def test_what_a_clip_is_asked(reports):
    sections, _ = reports["clip"]
    assert "pictures and captions (test)" in sections and "where from: more" in sections
    more = {"minimal pairs", "modality gap", "order changes the cosine by"}
    assert more < set(sections["pictures and captions (test)"])
    for contrast in (
        "attributes", "relation", "relation in other order", "relation by order alone",
        "one more or less",
    ):  # fmt: skip
        assert set(sections[f"Winoground, {contrast}"]) == {"text", "image", "group"}
    assert list(sections["SugarCrepe"]) == list(sections["SugarCrepe without picture"])
    assert len(sections["SugarCrepe"]) == 7
    before, after = sections["where binding is lost"].values()
    assert before.value == sections["SugarCrepe"]["swap_attribute"].value and after.items == 20
    assert set(sections[evaluate.LABELS]) == {"encoder"}


def test_the_pages_of_results_are_collected_from_reports(
    reports, clip_folder, vlm_folder, tmp_path, monkeypatch
):
    """A section that is renamed would show after hours of experiments/all.sh alone."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    collect, pages = (importlib.import_module(name) for name in ("collect", "write_results"))
    results = json.loads((ROOT / "experiments" / "results.json").read_text())
    monkeypatch.setattr(collect, "ROOT", tmp_path)
    monkeypatch.setattr(collect, "PATH", tmp_path / "results.json")
    monkeypatch.setattr(collect, "ITEMS", 20)
    for name in ("clip", "clip-1", "clip-full", "vlm-qformer", "vlm-qformer-1", "vlm-cooccurrence"):
        kind = name.split("-")[0]
        source = dict(clip=clip_folder, vlm=vlm_folder)[kind]
        shutil.copytree(source, tmp_path / "runs" / name)
        shutil.copy(reports[kind][1] / "report.json", tmp_path / "runs" / name)
    collect.PATH.write_text(json.dumps(results))
    collect.main()
    found = json.loads(collect.PATH.read_text())
    assert found["vlm"]["mlp"] == results["vlm"]["mlp"]  # which was not run
    assert len(found["clip"]) == len(found["vlm"]["qformer"]) == 2
    sections = json.loads((reports["vlm"][1] / "report.json").read_text())["sections"]
    numbers = found["vlm"]["qformer"][1]
    assert numbers["seconds"] == json.loads((vlm_folder / "metrics.json").read_text())["seconds"]
    answers = sections["answers"]
    assert numbers["relation"] == answers["relation"]["value"]
    assert numbers["fact_f1_high"] == sections["captions (test)"]["fact_f1"]["high"] > 0
    assert found["presence"]["shapes"] == found["presence"]["shapes-cooccurrence"]
    page = pages.results_page(found)
    shown = f"{answers['mean of families']['value']:.3f}"
    assert f"{shown} ({shown} to {shown})" in page  # two seeds
    assert set(found) == set(results) and found["setting"] == results["setting"]
    report = tmp_path / "runs" / "clip" / "report.json"
    report.write_text(report.read_text().replace('"split": "test"', '"split": "val"'))
    with pytest.raises(SystemExit, match="clip: the report is not that of"):
        collect.main()


def test_the_screen_says_the_tables_and_the_speed(vlm_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["evaluate.py", vlm_folder, "--items", "20", "--families", "size", "--out", tmp_path]
    code, stdout, stderr = in_process(*words)
    assert (code, stderr) == (0, "")
    assert "answers/s" in stdout and "mean of families" in stdout
    assert f"{tmp_path}/report.md has these tables" in stdout


def test_another_split_and_some_families(vlm_folder, tmp_path):
    sections = run(vlm_folder, tmp_path, split="more", families="count, compare")
    assert list(sections["answers"]) == [
        "count", "compare", "mean of families", "count, hard ones", "compare, hard ones",
        "how many in all",
    ]  # fmt: skip
    assert "captions (more)" in sections
    assert json.loads((tmp_path / "report.json").read_text())["split"] == "more"


def test_a_report_lies_beside_its_checkpoint_and_bears_its_name(vlm_folder, tmp_path):
    before = contents(vlm_folder)
    shutil.copy(vlm_folder / "last.pt", tmp_path / "mine.pt")
    run(tmp_path / "mine.pt", "", families="size")
    run(tmp_path / "mine.pt", "", families="size, count", split="more")
    assert {path.name for path in tmp_path.iterdir()} == {"mine.pt"} | {
        name.replace("report", other)
        for name in REPORT
        for other in (
            "report-mine-items-20-families-size",
            "report-mine-split-more-items-20-families-size,count",
        )
    }  # so that the run's own numbers stay where they are
    assert contents(vlm_folder) == before


@pytest.fixture(scope="module")
def held_out_clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held_out")
    train_clip.main(train_clip.Config(out=str(folder), held_out=1, **CLIP_ARGS | dict(steps=1)))
    return folder


def test_held_out_splits_of_a_model_that_has_them(held_out_clip, tmp_path):
    sections = run(held_out_clip, tmp_path, split="held_out")
    assert {"where from: held_out", "where from: control"} < set(sections)
    assert "pictures and captions (held_out)" in sections
    assert json.loads((tmp_path / "report.json").read_text())["checkpoint"]["held_out"] == 1


# ---------------------------------------------------------------- comparisons


@pytest.fixture(scope="module")
def other_clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other")
    train_clip.main(train_clip.Config(out=str(folder), **CLIP_ARGS | dict(steps=1, seed=1)))
    return folder


def test_a_comparison_is_paired(clip_folder, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(clip_folder, again)
    both = (str(clip_folder), str(again))
    first, other = run("", tmp_path / "out", compare=both)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.json", "compare.md"}
    assert str(clip_folder) in (tmp_path / "out" / "compare.md").read_text()
    numbers = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert list(numbers) == list(first) == list(other)
    for scores in numbers.values():
        for row in scores.values():
            assert list(row) == list(both)
            assert row[both[1]]["difference"] == 0.0
            low, high = row[both[1]]["difference_low"], row[both[1]]["difference_high"]
            assert low <= 0 <= high


def test_two_models_differ_by_what_their_values_say(clip_folder, other_clip, tmp_path):
    both = (str(clip_folder), str(other_clip))
    run("", tmp_path / "out", compare=both)
    numbers = json.loads((tmp_path / "out" / "compare.json").read_text())
    differing = 0
    for scores in numbers.values():
        for row in scores.values():
            one, two = row[both[0]], row[both[1]]
            assert np.isclose(two["difference"], two["value"] - one["value"], atol=2e-5)
            low, high = two["difference_low"] - 1e-5, two["difference_high"] + 1e-5
            assert low <= two["difference"] <= high
            differing += two["difference"] != 0
    assert differing > 10


def refused(named, **options):
    with pytest.raises(UserError, match=named):
        evaluate.main(evaluate.Config(**dict(items=20) | options))


def test_only_like_is_compared_with_like(
    clip_folder, vlm_folder, held_out_clip, other_clip, tmp_path
):
    out = dict(out=str(tmp_path / "out"))
    refused("like with like", compare=(str(vlm_folder), str(clip_folder)), **out)
    refused("like with like", compare=(str(clip_folder), str(held_out_clip)), **out)
    both = (str(clip_folder), str(other_clip))
    refused("other training pictures", compare=both, split="train", **out)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- what cannot be done


@pytest.mark.parametrize(
    "words, named",
    [
        (["nowhere"], "nowhere"),
        (["README.md"], "README.md"),
        (["x" * 300], "no checkpoint"),
        (["--items", "2"], "--items"),
        (["--item", "30"], "did you mean --items"),
        (["one", "two"], "two"),
        (["--compare", "one"], "--compare takes two or more"),
        (["--compare", "one", "one"], "--compare takes two or more"),
        (["one", "--compare", "two", "three"], "--compare takes two or more"),
        (["--compare", "one", "two"], "no checkpoint one"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_bad_words_get_one_line(words, named, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, stdout, stderr = in_process("evaluate.py", *words)
    assert code == 2 and stdout == "" and named in stderr
    assert stderr.startswith("error: ") and stderr.count("\n") == 1


@pytest.mark.parametrize(
    "options, named",
    [
        (dict(split="tset"), r"--split tset .* \(did you mean test\?\).*choose one of train, val"),
        (dict(split="nonsense"), r"--split nonsense .*choose one of train, val, test, more"),
        (dict(split="held_out"), "--held-out 1 or more"),
        (dict(split="control"), "--held-out 1 or more"),
        (dict(families="colour,shap"), "--families names 'shap'; choose from existence, count"),
        (dict(families="place"), "--families names 'place'"),
    ],
)
def test_what_a_vlm_cannot_be_asked(vlm_folder, tmp_path, options, named):
    before = contents(vlm_folder)
    refused(named, checkpoint=str(vlm_folder), out=str(tmp_path / "out"), **options)
    assert contents(vlm_folder) == before


def test_what_a_clip_cannot_be_asked(clip_folder):
    refused("--families", checkpoint=str(clip_folder), families="colour")
    refused("--drop", checkpoint=str(clip_folder), drop="attention")
    refused(r"did you mean more\?", checkpoint=str(clip_folder), split="mor")


def test_image_tokens_may_be_dropped_whatever_a_run_did(tmp_path):
    sizes = dict(encoder_dim=16, encoder_depth=1, encoder_heads=1, encoder_init="random")
    settings = VLM_ARGS | sizes | dict(steps=1, stages="instruct", shares="1", drop="random")
    train_vlm.main(train_vlm.Config(out=str(tmp_path), **settings | dict(depth=3)))
    for asked, kind in (("", "random"), ("none", "none"), ("attention", "attention")):
        loaded = evaluate.open_model(
            str(tmp_path), torch.device("cpu"), evaluate.Config(drop=asked)
        )
        assert type(loaded.model) is DROPPING[kind] and loaded.about["drop"] == kind
    evaluate.main(evaluate.Config(str(tmp_path), items=20, families="size", drop="attention"))
    written = {path.name for path in tmp_path.glob("report*")}  # beside the run's own report
    asked = "items-20-families-size-drop-attention"
    assert written == {f"report-{asked}.{kind}" for kind in ("json", "md", "png")}
    with pytest.raises(UserError, match="after block 2, and there is no more; change the sizes"):
        train_vlm.main(train_vlm.Config(out=str(tmp_path / "shallow"), **settings))


def test_a_split_without_the_questions_says_what_to_change(tmp_path):
    sizes = dict(encoder_dim=16, encoder_depth=1, encoder_heads=1, encoder_init="random")
    settings = VLM_ARGS | sizes | dict(steps=1, stages="instruct", shares="1", held_out=1)
    train_vlm.main(train_vlm.Config(out=str(tmp_path), **settings))
    named = "--split held_out cannot be used here: .*'colour'.*; choose another --split, other"
    refused(named, checkpoint=str(tmp_path), split="held_out", families="colour")
    assert not (tmp_path / "report.json").exists()


def test_a_report_that_cannot_be_written_changes_nothing(clip_folder):
    before = contents(clip_folder)
    refused("is a file", checkpoint=str(clip_folder), out=str(ROOT / "README.md"))
    assert contents(clip_folder) == before
