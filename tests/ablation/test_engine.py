"""Cells and experiments: what is run, what is kept, what is shared, what becomes of failures."""

import dataclasses

import numpy as np
import pytest

import ablate
import train_clip
import train_vlm
from tinyvlm.ablation import planning, report, results, runner, same_code
from tinyvlm.ablation.cells import cell_of
from tinyvlm.ablation.experiment import LATE, Claim, Experiment, From, spelled
from tinyvlm.ablation.findings import answer_of, arms_of, complete_seeds, findings_of
from tinyvlm.ablation.report import page
from tinyvlm.evaluation.items import save_items
from tinyvlm.evaluation.statistics import proportion
from tinyvlm.training.checks import check_settings
from tinyvlm.training.config import Stopped, UserError, parse, validate_config, with_recipe
from tinyvlm.training.files import (
    FolderInUse,
    append_log,
    locked,
    make_folder,
    read_json,
    write_json,
)

pytestmark = pytest.mark.quick
REAL = {"train_clip": train_clip, "train_vlm": train_vlm}
LAB_STEPS = train_vlm.Config.RECIPES["lab"]["steps"]
CONNECTOR = Experiment(
    name="connector", question="Which one?", source="somebody: 1 -> 2", script="train_vlm",
    arms=dict(linear=dict(projector="linear"), mlp=dict(projector="mlp")),
    claims=(Claim("mlp", ">", "linear"),), metric="vqa", shown=("fact_f1",),
)  # fmt: skip
SCORES = ("vqa", "vqa_relation", "vqa_count", "fact_f1")
GOOD = {"linear": 0.80, "mlp": 0.90, "qformer": 0.85, "label": 0.85}


class Fake:
    """A training script that knows its score beforehand; `calls` are the configs that it ran."""

    def __init__(self, module, fail=(), busy=()):
        self.Config, self.fail, self.busy, self.calls = module.Config, set(fail), list(busy), []

    def main(self, config):
        if self.busy and self.busy.pop():
            raise FolderInUse("in use; wait")
        folder = make_folder(config.out)
        with locked(folder):
            self.calls.append(config)
            projector = getattr(config, "projector", "")
            if projector in self.fail:
                raise RuntimeError("it broke")
            if (folder / "metrics.json").exists() and not config.overwrite:
                return read_json(folder / "metrics.json")
            (folder / "last.pt").write_bytes(b"weights")
            right = np.arange(200) < 200 * GOOD.get(projector, 0.5) + 2 * config.seed
            scores = {name: proportion(right, np.arange(200)) for name in SCORES}
            scores["vqa_relation"] = proportion(right[::-1][:100], np.arange(100))  # lower
            save_items(folder / "items.json", scores)
            append_log(folder, 10, loss=1.0, val_vqa=0.5)
            numbers = {name: metric.value for name, metric in scores.items()}
            numbers["wall_seconds"] = 60.0
            write_json(folder / "config.json", dataclasses.asdict(config))
            write_json(folder / "metrics.json", numbers)
            return numbers


@pytest.fixture
def scripts():
    return {name: Fake(module) for name, module in REAL.items()}


def make_runner(scripts, tmp_path, **settings):
    return runner.Runner(scripts, tmp_path / "runs", tmp_path / "cells", **settings)


def cells(experiment, seeds=1):
    return [
        cell_of(experiment.script, experiment.settings(arm), seed, REAL)
        for seed in range(seeds)
        for arm in experiment.arms
    ]


def run(experiment, scripts, tmp_path, seeds=1, **settings):
    engine = make_runner(scripts, tmp_path, **settings)
    return engine.run(cells(experiment, seeds), {}, "vqa")


def page_of(experiments, tmp_path, registered):
    found = results.load_results(tmp_path / "cells")
    return page([answer_of(experiment, REAL, found) for experiment in experiments], registered)


def arms_in(experiment, tmp_path):
    return arms_of(experiment, REAL, results.load_results(tmp_path / "cells"))


def file_of(cell, tmp_path):
    """What is kept of a cell, made here."""
    return tmp_path / "cells" / f"{results.made_here(cell)}.json"


def other_code(monkeypatch, version="newer"):
    for module in (results, same_code):
        monkeypatch.setattr(module, "code_version", lambda: version)


# ---------------------------------------------------------------- cells


def test_arms_of_a_seed_share_their_clip_and_their_language_stage():
    linear, mlp = cells(CONNECTOR)
    assert linear.key != mlp.key
    for need in ("clip", "decoder"):
        assert linear.needs[need].key == mlp.needs[need].key
    other = cell_of("train_vlm", CONNECTOR.settings("mlp"), 1, REAL)
    assert len({other.key, other.needs["clip"].key, other.needs["decoder"].key, mlp.key}) == 4
    assert mlp.needs["clip"].key != other.needs["clip"].key
    language = mlp.needs["decoder"]
    whole = with_recipe(train_vlm.Config, mlp.settings)
    assert language.settings["stages"] == "language" and not language.needs
    assert language.settings["steps"] == round(float(whole.shares.split(",")[0]) * whole.steps)


def test_a_need_is_what_the_settings_say():
    settings = dict(recipe="lab", encoder_init="random", stages="instruct", shares="1")
    assert cell_of("train_vlm", settings, 0, REAL).needs == {}
    korean = cell_of("train_vlm", dict(language="ko", decoder="gpt", dim=96), 0, REAL)
    assert korean.needs["clip"].settings == dict(language="ko", seed=0)
    assert korean.needs["decoder"].settings["dim"] == 96
    assert "decoder" not in korean.settings and "clip" not in korean.settings
    slow = cell_of("train_vlm", dict(recipe="lab", warmup_language=60), 0, REAL)
    assert slow.needs["decoder"].settings["warmup_language"] == 60
    assert "warmup_language" not in slow.settings
    assert slow.key != cell_of("train_vlm", dict(recipe="lab"), 0, REAL).key
    given = cell_of("train_vlm", dict(clip=From("train_clip", dict(encoder="vit"))), 3, REAL)
    assert given.needs["clip"].settings == dict(encoder="vit", seed=3)
    assert given.needs["clip"].key != cell_of("train_vlm", {}, 3, REAL).needs["clip"].key
    assert (
        cell_of("train_clip", dict(threads=1), 0, REAL).key
        != cell_of("train_clip", {}, 0, REAL).key
    )


def test_an_arm_that_spells_out_a_default_is_the_default():
    plain = cell_of("train_vlm", dict(recipe="lab"), 0, REAL)
    spelt = dict(recipe="lab", steps=LAB_STEPS, decoder="gpt", projector="qformer")
    assert cell_of("train_vlm", spelt, 0, REAL) == plain
    of_default_recipe = cell_of("train_vlm", dict(steps=LAB_STEPS), 0, REAL)
    assert of_default_recipe.settings == dict(steps=LAB_STEPS, seed=0)
    named = cell_of("train_vlm", dict(recipe="default"), 0, REAL)
    assert named == cell_of("train_vlm", {}, 0, REAL)


def test_settings_of_every_cell_of_the_catalogue_are_valid():
    for experiment in ablate.EXPERIMENTS:
        for cell in cells(experiment):
            for part in cell.with_needs():
                folders = {name: "runs/x" for name in part.needs}
                config = with_recipe(REAL[part.script].Config, part.settings | folders)
                (check_settings if part.script == "train_vlm" else validate_config)(config)
            assert part.key == cell.key


# ---------------------------------------------------------------- running


def test_what_is_finished_is_not_run_again_and_seeds_are_added(scripts, tmp_path):
    assert run(CONNECTOR, scripts, tmp_path) == {}
    vlm, clip = scripts["train_vlm"], scripts["train_clip"]
    assert [c.projector for c in vlm.calls if c.stages != "language"] == ["linear", "mlp"]
    assert len(vlm.calls) == 3 and len(clip.calls) == 1
    assert run(CONNECTOR, scripts, tmp_path) == {} and len(vlm.calls) == 3
    assert run(CONNECTOR, scripts, tmp_path, seeds=2) == {}
    assert len(vlm.calls) == 6 and len(clip.calls) == 2
    decoders = {c.decoder for c in vlm.calls if c.stages != "language"}
    assert len(decoders) == 2 and all(d.startswith(str(tmp_path)) for d in decoders)


def test_lost_weights_are_trained_again_where_they_are_needed(scripts, tmp_path):
    run(CONNECTOR, scripts, tmp_path)
    clip = cells(CONNECTOR)[0].needs["clip"]
    (tmp_path / "runs" / results.made_here(clip) / "metrics.json").unlink()
    engine = make_runner(scripts, tmp_path)
    assert engine.missing(cells(CONNECTOR)) == []  # nobody needs them
    label = cell_of("train_vlm", CONNECTOR.common | dict(projector="label"), 0, REAL)
    assert [cell.key for cell in engine.missing([label])] == [clip.key, label.key]


def test_a_cell_that_fails_is_told_and_the_others_go_on(tmp_path):
    scripts = {"train_clip": Fake(train_clip), "train_vlm": Fake(train_vlm, fail=["linear"])}
    engine = make_runner(scripts, tmp_path)
    names = {cell.key: cell.settings["projector"] for cell in cells(CONNECTOR)}
    failed = engine.run(cells(CONNECTOR), names, "vqa")
    assert set(failed) == {"linear"} and "it broke" in failed["linear"]
    assert [engine.is_finished(cell) for cell in cells(CONNECTOR)] == [False, True]


def test_what_needs_a_failed_cell_fails_without_being_run(tmp_path):
    clip = Fake(train_clip)
    clip.main = lambda config: 1 / 0
    scripts = {"train_clip": clip, "train_vlm": Fake(train_vlm)}
    failed = run(CONNECTOR, scripts, tmp_path)
    assert len(failed) == 3  # CLIP and both arms; the language stage needs none
    assert [c.stages for c in scripts["train_vlm"].calls] == ["language"]


def test_a_cell_that_another_process_has_is_looked_at_again(tmp_path, monkeypatch):
    naps = []
    monkeypatch.setattr(runner.time, "sleep", naps.append)
    scripts = {"train_clip": Fake(train_clip, busy=[True]), "train_vlm": Fake(train_vlm)}
    assert run(CONNECTOR, scripts, tmp_path) == {}
    assert len(scripts["train_clip"].calls) == 1 and len(naps) <= 1
    assert all(results.load_todays(tmp_path / "cells", cell) for cell in cells(CONNECTOR))


def test_a_stopped_cell_goes_on_but_not_with_other_code(scripts, tmp_path, monkeypatch):
    cell = cells(CONNECTOR)[0]
    run(CONNECTOR, scripts, tmp_path)
    begun = tmp_path / "runs" / results.made_here(cell)
    (begun / "metrics.json").unlink()
    file_of(cell, tmp_path).unlink()
    scripts["train_vlm"].calls.clear()
    run(CONNECTOR, scripts, tmp_path)
    [call] = scripts["train_vlm"].calls
    assert call.resume and call.out == str(begun)
    (begun / "metrics.json").unlink()
    file_of(cell, tmp_path).unlink()
    other_code(monkeypatch)
    scripts["train_vlm"].calls.clear()
    run(CONNECTOR, scripts, tmp_path)
    assert len(scripts["train_vlm"].calls) == 3  # what it needs, too
    assert not any(c.resume or c.out == str(begun) for c in scripts["train_vlm"].calls)


# ---------------------------------------------------------------- code versions


def test_the_version_follows_what_the_code_does_and_no_comment(tmp_path):
    def version(text):
        (tmp_path / "tinyvlm").mkdir(exist_ok=True)
        (tmp_path / "tinyvlm" / "a.py").write_text(text)
        return results.code_version.__wrapped__(tmp_path)

    plain = version("def f(x):\n    return x + 1\n")
    assert version('"""What."""\n\ndef f(x):  # why\n    """So."""\n    return x + 1\n') == plain
    assert version("def f(x):\n    return x + 2\n") != plain
    assert len(results.code_version()) == 8


@pytest.mark.parametrize("what", ["code_version", "hardware"])
def test_what_different_code_or_machines_made_is_not_paired(scripts, tmp_path, monkeypatch, what):
    only_mlp = dataclasses.replace(CONNECTOR, arms=dict(mlp=dict(projector="mlp")), claims=())
    run(CONNECTOR, scripts, tmp_path)
    monkeypatch.setattr(results, what, lambda: "another")
    run(only_mlp, scripts, tmp_path)
    kept = list((tmp_path / "cells").glob("*.json"))
    assert len(kept) == 4 + 3  # nothing that was there is lost
    [finding] = findings_of(CONNECTOR, arms_in(CONNECTOR, tmp_path))
    assert finding.seeds == [0]  # those that one maker made
    arms = arms_in(CONNECTOR, tmp_path)
    assert complete_seeds(arms) == {0}
    for cell in cells(CONNECTOR):  # and where nobody made both, it says so
        for path in (tmp_path / "cells").glob(f"{cell.key}-*.json"):
            if "another" not in path.read_text() and cell.settings["projector"] == "mlp":
                path.unlink()
    arms = arms_in(CONNECTOR, tmp_path)
    [finding] = findings_of(CONNECTOR, arms)
    assert finding.seeds == [] and finding.left_out == [0] and complete_seeds(arms) == set()


def test_a_seed_is_finished_by_one_maker(scripts, tmp_path, monkeypatch):
    """Who adds an arm or a seed with newer code runs again what is compared with it."""
    monkeypatch.setattr(ablate, "SCRIPTS", scripts)
    run(CONNECTOR, scripts, tmp_path, seeds=2)
    other_code(monkeypatch)
    config = ablate.Config(seeds=3)

    def wanted(arms, **settings):
        experiment = dataclasses.replace(CONNECTOR, arms=CONNECTOR.arms | arms)
        found = results.load_results(tmp_path / "cells")
        cells = ablate.cells_of([experiment], dataclasses.replace(config, **settings), found)
        return [name.removeprefix("connector: ") for _, name in cells.values()]

    three = [f"{arm}, seed {seed}" for seed in range(3) for arm in ("linear", "mlp", "new")]
    old = [name for name in three if "new" not in name]
    assert wanted({}, seeds=2) == []  # older code has made them all
    assert wanted({}) == wanted({}, renew=True) == old
    assert wanted(dict(new=dict(projector="label"))) == three
    assert wanted({}, shard="0/2") == [name for name in old if "seed 1" not in name]
    assert wanted({}, shard="1/2") == [name for name in old if "seed 1" in name]


def test_a_plan_says_that_seeds_of_older_code_are_run_again(scripts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablate, "SCRIPTS", scripts)
    monkeypatch.setattr(ablate, "EXPERIMENTS", [CONNECTOR])
    run(CONNECTOR, scripts, tmp_path, seeds=2)
    folders = dict(runs=str(tmp_path / "runs"), cells=str(tmp_path / "cells"))
    config = ablate.Config(command="plan", name="connector", **folders)

    def planned(seeds):
        ablate.main(dataclasses.replace(config, seeds=seeds))
        return capsys.readouterr().out

    capsys.readouterr()
    assert "run again" not in planned(3)  # today's code has made them
    other_code(monkeypatch)
    assert "seeds 0, 1 are of older code" in planned(3) and "run again" not in planned(2)


def test_seeds_of_several_makers_are_not_pooled(scripts, tmp_path, monkeypatch):
    """Two seeds of older code and one of today's are two, not three; the third is left out."""
    run(CONNECTOR, scripts, tmp_path, seeds=2)
    other_code(monkeypatch)
    engine = make_runner(scripts, tmp_path)
    engine.run(cells(CONNECTOR, 3)[4:], {}, "vqa")
    arms = arms_in(CONNECTOR, tmp_path)
    [finding] = findings_of(CONNECTOR, arms)
    assert finding.seeds == [0, 1] and finding.left_out == [2] and complete_seeds(arms) == {0, 1}
    engine.run(cells(CONNECTOR, 2), {}, "vqa")
    [finding] = findings_of(CONNECTOR, arms_in(CONNECTOR, tmp_path))
    assert finding.seeds == [0, 1, 2] and finding.left_out == []


def test_code_that_gives_the_same_numbers_is_the_same(scripts, tmp_path, monkeypatch):
    run(CONNECTOR, scripts, tmp_path)
    folders = tmp_path / "runs", tmp_path / "cells"
    with pytest.raises(UserError, match="no cell of other code"):
        same_code.check_same_code(scripts, *folders)
    older = results.code_version()
    kept = file_of(cells(CONNECTOR)[1], tmp_path)
    other_code(monkeypatch)
    with monkeypatch.context() as other_recipe:
        other_recipe.setitem(train_vlm.Config.RECIPES["lab"], "steps", LAB_STEPS + 100)
        assert same_code.check_same_code(scripts, *folders) == {older: False}
    before = GOOD["linear"]
    monkeypatch.setitem(GOOD, "linear", before + 0.05)
    assert same_code.check_same_code(scripts, *folders) == {older: False}
    monkeypatch.setitem(GOOD, "linear", before)
    assert same_code.check_same_code(scripts, *folders) == {older: True}
    assert make_runner(scripts, tmp_path).missing(cells(CONNECTOR)) == []
    kept.write_text(kept.read_text().replace(f'"code": "{older}"', '"code": "newer"'))
    [finding] = findings_of(CONNECTOR, arms_in(CONNECTOR, tmp_path))
    assert finding.seeds == [0] and finding.left_out == []


def test_a_cell_that_is_older_than_a_metric_is_run_again_for_it(scripts, tmp_path):
    run(CONNECTOR, scripts, tmp_path)
    younger = dataclasses.replace(CONNECTOR, metrics=dict(mlp="what_is_new"))
    arms = arms_in(younger, tmp_path)
    assert (list(arms["linear"]), list(arms["mlp"])) == ([0], []) and not complete_seeds(arms)


# ---------------------------------------------------------------- findings


def test_a_finding_pairs_seeds(scripts, tmp_path):
    run(CONNECTOR, scripts, tmp_path, seeds=3)
    arms = arms_in(CONNECTOR, tmp_path)
    [finding] = findings_of(CONNECTOR, arms)
    assert finding.seeds == [0, 1, 2] and finding.difference == pytest.approx(0.1)
    assert finding.verdict == "REPRODUCED" and finding.p == 0.0 and finding.left_out == []
    assert finding.both[0] < 0.1 < finding.both[1]  # scenes scatter where seeds do not
    two = {arm: {seed: one[seed] for seed in (0, 1)} for arm, one in arms.items()}
    assert findings_of(CONNECTOR, two)[0].verdict == "INCONCLUSIVE"  # too few to decide
    other = dataclasses.replace(CONNECTOR, claims=(Claim("mlp", "<", "linear"),))
    assert findings_of(other, arms)[0].verdict == "REVERSED"
    same = dataclasses.replace(CONNECTOR, smallest=0.2)
    assert findings_of(same, arms)[0].verdict == "NULL"
    chance = dataclasses.replace(
        CONNECTOR, claims=(Claim("mlp", "=", 0.91), Claim("mlp", ">", 0.5))
    )
    at, above = findings_of(chance, arms)
    assert at.difference == pytest.approx(0.0, abs=1e-6) and above.difference == pytest.approx(0.41)
    assert above.verdict == "REPRODUCED" and above.both[0] < 0.41 < above.both[1]


def test_the_page_is_the_same_to_the_byte_and_says_what_changed(scripts, tmp_path):
    run(CONNECTOR, scripts, tmp_path, seeds=3)
    registered = {"connector": CONNECTOR.registration}
    one, other = (page_of([CONNECTOR], tmp_path, registered) for _ in range(2))
    assert one == other and "REPRODUCED" in one and "mlp > linear" in one
    assert "0.810 (0.800 to 0.820)" in one  # linear, over three seeds
    assert "Changed since" not in one and "Registered before its first cell ran" in one
    late = page_of([CONNECTOR], tmp_path, {"connector": LATE + CONNECTOR.registration})
    assert "Registered when cells that it shares with others had run" in late
    later = dataclasses.replace(CONNECTOR, smallest=0.05)
    assert "Changed since" in page_of([later], tmp_path, registered)
    assert dataclasses.replace(CONNECTOR, seeds=9).registration == CONNECTOR.registration
    assert "more than the" not in one
    fewer = dataclasses.replace(CONNECTOR, seeds=2)
    assert "more than the 2 seeds planned" in page_of([fewer], tmp_path, registered)


def test_who_registers_when_cells_have_run_is_registered_late(scripts, tmp_path, monkeypatch):
    later = dataclasses.replace(CONNECTOR, name="later")
    monkeypatch.setattr(ablate, "SCRIPTS", scripts)
    monkeypatch.setattr(ablate, "EXPERIMENTS", [CONNECTOR, later])
    config = ablate.Config(cells=str(tmp_path / "cells"))
    ablate.register(CONNECTOR, {}, config)
    run(CONNECTOR, scripts, tmp_path)
    found = results.load_results(tmp_path / "cells")
    ablate.register(CONNECTOR, found, config)  # it is registered, and stays so
    ablate.register(later, found, config)
    hashes = dict(connector=CONNECTOR.registration, later=LATE + later.registration)
    assert read_json(tmp_path / "cells" / ablate.REGISTERED) == hashes


def test_the_noise_floor_stands_beside_each_experiment(scripts, tmp_path):
    noise = dataclasses.replace(
        CONNECTOR,
        name="noise",
        arms=dict(one={}, another=dict(threads=1)),
        claims=(Claim("one", "=", "another"),),
    )
    run(CONNECTOR, scripts, tmp_path)
    run(noise, scripts, tmp_path, seeds=2)
    assert {cell.threads for cell in cells(noise)} == {0, 1}
    text = page_of([CONNECTOR, noise], tmp_path, {})
    assert text.count("moves `vqa` by 0.0 points (mean of 2 seeds)") == 2


def test_one_run_may_be_looked_at_in_two_ways(scripts, tmp_path):
    """A caption of many words and one of few are two metrics of one cell."""
    twice = dataclasses.replace(
        CONNECTOR,
        arms=dict(few={}, many={}),
        claims=(Claim("many", ">", "few"),),
        metrics=dict(many="vqa_relation"),
    )
    assert twice.registration != dataclasses.replace(twice, metrics={}).registration
    run(twice, scripts, tmp_path, seeds=3)
    assert len([c for c in scripts["train_vlm"].calls if c.stages != "language"]) == 3
    arms = arms_in(twice, tmp_path)
    [finding] = findings_of(twice, arms)
    few, many = (np.mean([r.number(m) for r in arms["few"].values()]) for m in SCORES[:2])
    assert few - many > 0.1
    assert finding.difference == pytest.approx(many - few)
    text = page_of([twice], tmp_path, {})
    assert f"| few |  | 3 | {few:.3f}" in text and f"| many |  | 3 | {many:.3f}" in text
    unknown = dataclasses.replace(twice, metrics=dict(many="what a younger version measures"))
    assert not arms_in(unknown, tmp_path)["many"]


def test_the_readme_lists_what_is_decided_and_names_what_is_open(scripts, tmp_path):
    run(CONNECTOR, scripts, tmp_path, seeds=3)
    both = dataclasses.replace(
        CONNECTOR, claims=(Claim("mlp", ">", "linear"), Claim("mlp", "=", 0.9101)), smallest=1e-3
    )
    more = dataclasses.replace(
        CONNECTOR,
        name="more",
        claims=(Claim("mlp", ">", 0.1), Claim("mlp", ">", 0.2), Claim("linear", ">", "mlp")),
    )
    found = results.load_results(tmp_path / "cells")
    listed = report.claims_list(
        [answer_of(both, REAL, found), answer_of(more, REAL, found)],
        {"connector": both.registration, "more": LATE + more.registration},
    )
    reproduced, reversed_, still_open = listed.replace("\n  ", " ").splitlines()
    start = (
        "- **REPRODUCED** connector (`vqa`) `mlp > linear` (+10.0); more* (`vqa`) `mlp > 0.1` (+"
    )
    assert reproduced.startswith(start) and reproduced.endswith(" and 1 more.")
    assert reversed_ == "- **REVERSED** more* (`vqa`) `linear > mlp` (-10.0)."
    assert still_open == "- **INCONCLUSIVE** connector 1."
    assert report.claims_list([], {}) == "\n"


def test_the_page_ends_with_how_seeds_scatter(scripts, tmp_path):
    experiments = [e for e in ablate.EXPERIMENTS if e.name in ("guessing", "negatives")]
    assert "## The lab recipe" not in page_of(experiments, tmp_path, {})
    for name, arm, metrics in report.PLAIN:  # arms that are the recipe as it is
        [experiment] = [e for e in experiments if e.name == name]
        assert experiment.settings(arm) == dict(recipe="lab") and metrics
    [guessing] = [e for e in experiments if e.name == "guessing"]
    run(guessing, scripts, tmp_path, seeds=3)
    known = {m: 0 for _, _, metrics in report.PLAIN for m in (*metrics, "vqa_blind")}
    for cell in cells(guessing, 3):
        path = file_of(cell, tmp_path)
        content = read_json(path)
        metrics = known | content["metrics"]
        if cell.settings["seed"] == 2:
            metrics["wall_seconds"] = 600  # a run that has paused
        items = {name: content["items"]["vqa"] for name in metrics}
        write_json(path, content | dict(metrics=metrics, items=items))
    text = page_of(experiments, tmp_path, {})
    # 0.85 and a hundredth more each seed
    assert "| train_vlm | vqa | 0.860 (0.850 to 0.870) | 1.0 | 3 | 60 |" in text


def test_where_nothing_is_claimed_the_numbers_stand_there_alone(scripts, tmp_path):
    numbers = dataclasses.replace(CONNECTOR, source="", claims=())
    answer = answer_of(numbers, REAL, results.load_results(tmp_path / "cells"))
    assert not answer.is_begun
    run(CONNECTOR, scripts, tmp_path)
    answer = answer_of(numbers, REAL, results.load_results(tmp_path / "cells"))
    assert answer.is_begun and not answer.findings
    text = report.page([answer], {})
    assert "Claimed: nothing" in text and "| mlp | `--projector mlp` | 1 |" in text
    assert "difference of interest" not in text and "verdict |\n| --- |" in text.split("##")[0]
    assert report.claims_list([answer], {}) == "\n"
    assert planning.what_can_be_seen(numbers, answer.arms, 3) == "nothing is claimed"


def test_processes_of_several_gpus_take_one_each_and_write_their_own_pages(monkeypatch, tmp_path):
    started = []

    class Process:
        def __init__(self, words):
            started.append(words)

        def wait(self):
            return 0

    monkeypatch.setattr(runner.subprocess, "Popen", Process)
    monkeypatch.setattr(runner.sys, "argv", ["ablate.py", "run", "--jobs", "2"])
    config = ablate.Config(command="run", jobs=2, runs=str(tmp_path))
    assert runner.run_on_gpus(ablate.__file__, config) == ""
    monkeypatch.setattr(Process, "wait", lambda _: 1)
    assert "a process failed" in runner.run_on_gpus(ablate.__file__, config)
    configs = [parse(ablate.Config, words[2:], "") for words in started[:2]]
    assert [c.device for c in configs] == ["cuda:0", "cuda:1"] and {c.jobs for c in configs} == {1}
    assert len({c.out for c in configs} | {config.out}) == 3
    assert len({c.readme for c in configs} | {config.readme}) == 3


def test_settings_are_shown_as_the_flags_that_one_types():
    clip = From("train_clip", dict(recipe="lab", hard_negatives=False))
    shown = spelled(dict(clip=clip, resume=True, image_tokens=9))
    assert shown == (
        "--clip (train_clip.py --recipe lab --no-hard-negatives) --resume --image-tokens 9"
    )
    settings = dict(hard_negatives=False, loss="sigmoid")
    words = spelled(settings).split()
    parsed = parse(train_clip.Config, words, "")
    assert {name: getattr(parsed, name) for name in settings} == settings


def test_claims_name_arms():
    with pytest.raises(ValueError, match="names no two arms"):
        dataclasses.replace(CONNECTOR, claims=(Claim("mlp", ">", "mpl"),))


# ---------------------------------------------------------------- the script


def test_ones_own_question(scripts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablate, "SCRIPTS", scripts)
    folders = dict(runs=str(tmp_path / "runs"), cells=str(tmp_path / "cells"))
    arms = ("plain: --projector linear", "two: --projector mlp --lr 0.002")
    found = ablate.main(ablate.Config(command="run", arm=arms, seeds=3, **folders))
    [[finding]] = found.values()
    assert str(finding.claim) == "two > plain" and finding.difference == pytest.approx(0.1)
    assert [c.lr for c in scripts["train_vlm"].calls if c.projector == "mlp"] == [0.002] * 3
    assert "REPRODUCED" in capsys.readouterr().out
    assert (tmp_path / "runs" / "own-question.png").stat().st_size > 5000


TWO = ("a: --projector linear", "b: --projector mlp")


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(command="run", name="conector"), "did you mean connector"),
        (dict(command="run", arm=("a: --projector mlp",)), "two or more"),
        (dict(command="run", arm=("a --projector mlp", "b:")), "names no arm"),
        (dict(command="run", arm=("a:", "b: --projektor mlp")), "--projektor"),
        (dict(command="run", arm=("a:", "b:"), name="connector"), "leave out"),
        (dict(command="run", name="connector", shard="3/3"), "--shard"),
        (dict(command="rnu"), "run"),
        (dict(command="run", arm=TWO, metric="vqu"), "not measured by train_vlm .*vqa"),
        (dict(command="report", arm=TWO, metric="wall_seconds"), "not measured by train_vlm"),
        (dict(command="plan", arm=("a: --projector qformer", "b:")), "'a' and 'b' are the same"),
        (dict(command="plan", arm=("a: --seed 5", "b:")), "--seed is the same for all arms"),
        (dict(command="plan", arm=("a: --projector zzz", "b:")), "--projector is 'zzz'"),
        (dict(command="plan", arm=("a: --lr -1", "b:")), "--lr is -1"),
        (dict(command="plan", arm=("a: --projector 'mlp", "b:")), "no closing quotation"),
        (dict(command="report", metric="fact_f1"), "--metric has no effect without --arm"),
        (dict(command="plna"), "^command is 'plna'.*did you mean plan"),
        (dict(command="plan", shard="²/3"), "--shard"),
    ],
)
def test_errors_are_for_people(settings, words, scripts, tmp_path):
    run(CONNECTOR, scripts, tmp_path)
    with pytest.raises(UserError, match=words):
        ablate.main(ablate.Config(**settings, cells=str(tmp_path / "cells")))


def test_nothing_is_reported_from_nothing(scripts, tmp_path):
    page, readme = tmp_path / "FINDINGS.md", tmp_path / "README.md"
    page.write_text("what was found")
    config = ablate.Config(
        command="report", cells=str(tmp_path / "none"), out=str(page), readme=str(readme)
    )
    with pytest.raises(UserError, match="has no finished cell"):
        ablate.main(config)
    assert page.read_text() == "what was found" and not readme.exists()
    run(CONNECTOR, scripts, tmp_path)
    (tmp_path / "cells" / "a-b-c.json").write_text("[]")
    with pytest.raises(UserError, match="a-b-c.json is no finished cell; move it away"):
        ablate.main(dataclasses.replace(config, cells=str(tmp_path / "cells")))


def test_a_decoder_that_an_arm_names_is_no_language_stage_to_run(tmp_path):
    [own] = cell_of("train_vlm", dict(decoder="runs/mine"), 0, REAL).needs.values()
    assert own.script == "train_clip"


def test_who_stops_an_experiment_is_told_to_type_it_again(tmp_path, monkeypatch):
    def stopped(*_):
        raise Stopped("stopped after step 3; go on with --resume", 130)

    monkeypatch.setattr(ablate, "run", stopped)
    with pytest.raises(Stopped) as stop:
        ablate.main(ablate.Config(command="run", name="connector", cells=str(tmp_path)))
    assert stop.value.args == ("stopped; the same command goes on", 130)


def test_what_failed_is_told_after_the_others_are_reported(tmp_path, monkeypatch, capsys):
    failing = {"train_clip": Fake(train_clip), "train_vlm": Fake(train_vlm, fail=["label"])}
    monkeypatch.setattr(ablate, "SCRIPTS", failing)
    folders = dict(runs=str(tmp_path / "runs"), cells=str(tmp_path / "cells"))
    arms = ("a: --projector linear", "b: --projector mlp", "c: --projector label")
    with pytest.raises(RuntimeError, match="3 cells failed: own-question: c, seed 0: .*it broke"):
        ablate.main(ablate.Config(command="run", arm=arms, seeds=3, **folders))
    assert "| b > a | +10.0 |" in capsys.readouterr().out


def test_shards_share_the_work(scripts, tmp_path, monkeypatch):
    monkeypatch.setattr(ablate, "SCRIPTS", scripts)
    folders = dict(runs=str(tmp_path / "runs"), cells=str(tmp_path / "cells"))
    out = str(tmp_path / "page" / "FINDINGS.md")
    run = dict(command="run", name="connector", seeds=2, out=out, **folders)
    ran = []
    for shard in ("0/2", "1/2"):
        scripts["train_vlm"].calls.clear()
        ablate.main(ablate.Config(**run, shard=shard))
        ran.append(
            [(c.projector, c.seed) for c in scripts["train_vlm"].calls if c.stages != "language"]
        )
    assert ran == [[("linear", 0), ("mlp", 0)], [("linear", 1), ("mlp", 1)]]  # a seed is whole


def test_a_plan_tells_kinds_of_cells_apart_by_what_they_need(scripts, tmp_path):
    run(CONNECTOR, scripts, tmp_path)
    times = planning.times_here(tmp_path / "cells")
    assert set(times.values()) == {60.0}
    other_seed, other_decoder = (
        cell_of("train_vlm", CONNECTOR.settings("mlp") | settings, 1, REAL)
        for settings in ({}, dict(decoder="llama"))
    )
    assert planning.kind_of_cell(other_seed) in times
    assert planning.kind_of_cell(other_decoder) not in times


def test_the_catalogue_and_the_plan_run_from_nothing(tmp_path, capsys):
    for command in ("list", "plan"):
        ablate.main(ablate.Config(command=command, cells=str(tmp_path / "none")))
    out = capsys.readouterr().out
    assert all(experiment.name in out for experiment in ablate.EXPERIMENTS)
    assert "never timed" in out
