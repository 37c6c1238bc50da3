"""What the runs of experiments/all.sh measured -> experiments/results.json: `python experiments/collect.py`. Its texts stay as they are."""

import json

from readme_numbers import FAMILIES, ROOT

PATH = ROOT / "experiments" / "results.json"
CAPTION = "fact_f1 fact_recall fact_precision exact_caption chair_i chair_s misdescribed_i misdescribed_s objects_recall unparseable".split()


def read(run, name):
    return json.loads((ROOT / "runs" / run / f"{name}.json").read_text())


def with_bounds(name, score):
    return {name: score["value"], name + "_low": score["low"], name + "_high": score["high"]}


def three(score):
    return [score[k] for k in ("value", "low", "high")]


def clip(run):
    """A CLIP: its metrics."""
    return {name: value for name, value in read(run, "metrics").items() if name != "images_per_second"}


def vlm(run):
    """A VLM: its time and the numbers of its report."""
    sections = read(run, "report")["sections"]
    numbers = dict(seconds=read(run, "metrics")["seconds"])
    for name in CAPTION:
        numbers |= with_bounds(name, sections["captions (test)"][name])
    titles = {"": "answers", "blind_": "answers without picture", "other_": "answers to other words, never trained on"}
    numbers |= {name: sections["answers"][name]["value"] for name in ("count, hard ones", "compare, hard ones")}
    for image_embeds, title in titles.items():
        numbers |= {image_embeds + family: sections[title][family]["value"] for family in (*FAMILIES, "mean of families")}
        numbers |= with_bounds(f"{image_embeds}mean of families", sections[title]["mean of families"])
    return numbers | dict(more_fact_f1=sections["where from: more"]["fact_f1"]["value"])


def where_from(clip_run, vlm_run, splits=("control", "held_out")):
    """Pairs never trained on and pairs of equal difficulty that were: {split: {name: [value, low, high]}}."""
    found = {split: {} for split in splits}
    for run, names in ((clip_run, ("zero_shot", "r_at_1")), (vlm_run, ("fact_f1", "exact_caption", "misdescribed_i", "vqa_unpaired"))):
        sections = read(run, "report")["sections"]
        for split in splits:
            scores = sections[f"where from: {split}"]
            found[split] |= {name: three(scores[name]) for name in names}
    return found


def presence(run):
    """POPE: {kind of negatives: {name: [value, low, high]}}."""
    sections = read(run, "report")["sections"]
    return {kind: {name: three(sections[f"presence, {kind} negatives"][name]) for name in ("accuracy", "yes_rate")} for kind in ("random", "popular", "adversarial")}


def main():
    texts = {name: text for name, text in json.loads(PATH.read_text()).items() if isinstance(text, str)}
    seeds = ("", "-1", "-2")
    results = texts | dict(clip=[clip("clip" + seed) for seed in seeds], clip_full=clip("clip-full"))
    results["vlm"] = {p: [vlm("vlm-" + p)] for p in ("label", "linear", "qformer")} | dict(mlp=[vlm("vlm-mlp" + seed) for seed in seeds])
    results |= dict(vlm_full=vlm("vlm-full"), where_from=where_from("clip-held", "vlm-held"))
    results["presence"] = {name: presence(run) for name, run in (("default world", "vlm-qformer"), ("world of friends", "vlm-friends"))}
    PATH.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
