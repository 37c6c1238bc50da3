"""What the runs of experiments/all.sh measured -> experiments/results.json, whose texts stay.

python experiments/collect.py     # what was not run keeps its numbers
"""

import json

from write_results import FAMILIES, ROOT

PATH = ROOT / "experiments" / "results.json"
ITEMS = 500  # of evaluate.py, if nothing else is asked
CAPTION = (
    "fact_f1", "fact_recall", "fact_precision", "exact_caption", "chair_i", "chair_s",
    "misdescribed_i", "misdescribed_s", "objects_recall", "unparseable",
)  # fmt: skip
ANSWERS = {
    "": "answers",
    "blind_": "answers without picture",
    "other_": "answers to other words, never trained on",
}
SEEDS = ("", "-1", "-2")
FROM_REPORT = dict(
    zero_shot_new_template=("zero-shot (test, pictures of one object)", "zero_shot_new_template"),
    r_at_1_places=("longer captions, with places", "r_at_1"),
    group_attributes=("Winoground, attributes", "group"),
    group_one_less=("Winoground, one more or less", "group"),
    group_relation=("Winoground, relation in other order", "group"),
    order_moves=("pictures and captions (test)", "order changes the cosine by"),
)
LEVELS = ("brief", "normal", "detailed", "list")


def read(run, name):
    return json.loads((ROOT / "runs" / run / f"{name}.json").read_text())


def sections_of(run):
    """The tables of its report, which has to be that of the test split."""
    report = read(run, "report")
    if (report["split"], report["items"]) != ("test", ITEMS):
        raise SystemExit(f"{run}: the report is not that of python evaluate.py as it is")
    return report["sections"]


def with_bounds(name, score):
    return {name: score["value"], name + "_low": score["low"], name + "_high": score["high"]}


def three(score):
    return [score[k] for k in ("value", "low", "high")]


def clip(run):
    """A CLIP: its metrics and some numbers of its report."""
    numbers = {k: v for k, v in read(run, "metrics").items() if k != "images_per_second"}
    sections = sections_of(run)
    for name, (section, key) in FROM_REPORT.items():
        numbers[name] = sections[section][key]["value"]
    return numbers


def seconds_of(run):
    """Of its training steps, and of those of the run whose decoder it took: a language stage."""
    language = ROOT / read(run, "config")["decoder"] / "metrics.json"
    taken = json.loads(language.read_text())["seconds"] if language.exists() else 0
    return read(run, "metrics")["seconds"] + taken


def vlm(run, language=""):
    """A VLM: its time and the numbers of its report. language: of one that knows several."""
    sections = sections_of(run)
    if language:
        ending = f", {language}"
        own = {title: scores for title, scores in sections.items() if title.endswith(ending)}
        sections = {title.removesuffix(ending): scores for title, scores in own.items()}
    numbers = dict(seconds=seconds_of(run))
    for name in CAPTION:
        numbers |= with_bounds(name, sections["captions (test)"][name])
    for name in ("count, hard ones", "compare, hard ones", "how many in all"):
        numbers[name] = sections["answers"][name]["value"]
    for name in ("recognised", "denied"):
        numbers |= with_bounds(name, sections["what is not there"][name])
    for level in LEVELS:
        numbers[level] = sections[f"captions asked for, {level}"]["as asked"]["value"]
    for prefix, title in ANSWERS.items():
        for family in (*FAMILIES, "mean of families"):
            numbers[prefix + family] = sections[title][family]["value"]
        mean = sections[title]["mean of families"]
        numbers |= with_bounds(f"{prefix}mean of families", mean)
    return numbers | dict(more_fact_f1=sections["where from: more"]["fact_f1"]["value"])


def where_from(clip_run, vlm_run, splits=("control", "held_out")):
    """Pairs never trained on, and trained ones: {split: {name: [value, low, high]}}."""
    found = {split: {} for split in splits}
    vlm_names = ("fact_f1", "exact_caption", "misdescribed_i", "vqa_unpaired")
    for run, names in ((clip_run, ("zero_shot", "r_at_1")), (vlm_run, vlm_names)):
        sections = sections_of(run)
        for split in splits:
            scores = sections[f"where from: {split}"]
            found[split] |= {name: three(scores[name]) for name in names}
    return found


def presence(run):
    """POPE: {kind of negatives: {name: [value, low, high]}}."""
    sections = sections_of(run)
    return {
        kind: {
            name: three(sections[f"presence, {kind} negatives"][name])
            for name in ("accuracy", "yes_rate")
        }
        for kind in ("random", "popular", "adversarial")
    }


def both_worlds():
    runs = {"shapes": "vlm-qformer", "shapes-cooccurrence": "vlm-cooccurrence"}
    return {name: presence(run) for name, run in runs.items()}


VLMS = (  # name, run, language
    ("qformer", "vlm-qformer", ""),
    ("pixelshuffle", "vlm-pixelshuffle", ""),
    ("mlp", "vlm-mlp", ""),
    ("linear", "vlm-linear", ""),
    ("label", "vlm-label", ""),
    ("shapes-full", "vlm-full", ""),
    ("ko", "vlm-ko", ""),
    ("both: en", "vlm-both", "en"),
    ("both: ko", "vlm-both", "ko"),
)


def has(run):
    return (ROOT / "runs" / run / "report.json").exists()


def main():
    """Take the numbers of the runs that are there; those of others stay."""
    results = json.loads(PATH.read_text())
    if clips := [clip("clip" + seed) for seed in SEEDS if has("clip" + seed)]:
        results["clip"] = clips
    if has("clip-full"):
        results["clip_full"] = clip("clip-full")
    for name, run, language in VLMS:
        if found := [vlm(run + seed, language) for seed in SEEDS if has(run + seed)]:
            results["vlm"][name] = found
    if has("clip-held") and has("vlm-held"):
        results["where_from"] = where_from("clip-held", "vlm-held")
    if has("vlm-qformer") and has("vlm-cooccurrence"):
        results["presence"] = both_worlds()
    PATH.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
