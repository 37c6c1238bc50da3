"""RESULTS.md, and README's one table, from experiments/results.json, which keeps what was measured.

    python experiments/write_results.py

A test compares both with the JSON, so that they say what was measured.
"""

import json
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tinyvlm.ablation.tables import over_seeds, table  # noqa: E402

FAMILIES = ("existence", "count", "colour", "shape", "size", "relation", "compare")
CHANCE = dict(
    existence=0.5, count=0.25, colour=0.125, shape=0.125, size=0.5, relation=0.5, compare=0.5
)  # fmt: skip
HARD = dict(count="count, two or more only", compare="compare, both things present")
MORE_ROWS = (
    ('"how many objects are there ?"', "how many in all"),
    ("false premises recognised", "recognised"),
    ("true premises denied", "denied"),
    ("captions word for word as asked: brief", "brief"),
    ("with places", "detailed"),
    ("a list", "list"),
)
CLIP_ROWS = (
    ("cosine of a picture and its caption", "matched_cosine", "> 0.8"),
    ("cosine of a picture and captions false of it", "mismatched_cosine", "< 0.3"),
    ("zero-shot, 64 captions", "zero_shot", "0.97"),
    ("zero-shot, templates never trained", "zero_shot_new_template", ""),
    ("R@1 among 256, both ways", "r_at_1", "0.97"),
    ("R@1, captions with places", "r_at_1_places", ""),
    ("own caption against the edited picture's", "pair_accuracy", "chance 0.5"),
    ("Winoground group, attributes", "group_attributes", "0.60"),
    ("Winoground group, one object more or less", "group_one_less", "0.60"),
    ("Winoground group, places, in the other picture's order", "group_relation", "chance 1/6"),
    ("cosine moved by the order of mention alone", "order_moves", "0.02"),
)
WHERE_ROWS = (
    ("CLIP: zero-shot, 64 captions", "zero_shot"),
    ("CLIP: R@1 among 256", "r_at_1"),
    ("fact F1 of captions", "fact_f1"),
    ("exact captions", "exact_caption"),
    ("mentioned objects that are not there as described", "misdescribed_i"),
    ("answers, seven questions a picture, unpaired", "vqa_unpaired"),
)
NAIVE_ROWS = (
    ("mentioned objects whose shape is not there (CHAIR_i)", "chair_i"),
    ("captions with such an object (CHAIR_s)", "chair_s"),
    ("mentioned objects that are not there as described", "misdescribed_i"),
    ("captions with such an object", "misdescribed_s"),
    ("facts that are told (recall)", "fact_recall"),
    ("shapes that are told (recall)", "objects_recall"),
    ("VQA, mean of families", "mean of families"),
)
PROJECTORS = dict(
    label="`label`: classify, then talk (label bottleneck)",
    linear="`linear`: one matrix (LLaVA)",
    mlp="`mlp`: two layers (LLaVA-1.5)",
    pixelshuffle="`pixelshuffle`: two layers, 49 tokens",
    qformer="`qformer`: 32 queries (BLIP-2)",
)

# ---------------------------------------------------------------- pieces of text


def scores(runs, key, digits=3):
    """One number, or the mean of several seeds and its range; "" where it was not measured."""
    return over_seeds([run[key] for run in runs if key in run], digits)


def mean_of(runs, key):
    """Over the seeds of which it was measured."""
    values = [run[key] for run in runs if key in run]
    return sum(values) / len(values)


def seeds_of(runs):
    return "seed 0" if len(runs) == 1 else f"mean of {len(runs)} seeds"


def with_interval(value, low, high):
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def prose(text):
    """Paragraphs of at most 110 columns."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return [line for p in paragraphs for line in [*textwrap.wrap(p, 110), ""]]


# ---------------------------------------------------------------- RESULTS.md


def results_page(results):
    measured = results["vlm"]
    projectors = {name: measured[name] for name in PROJECTORS}
    others = {name: runs for name, runs in measured.items() if name not in PROJECTORS}
    text = ["# What was measured", "", *prose(results["setting"]), *clip_table(results)]
    text += [*prose(results["projectors"]), *vlm_table(projectors)]
    text += ["## Other worlds, other languages", "", *prose(results["others"]), *vlm_table(others)]
    text += ["## What the label bottleneck invents", "", *prose(results["naive"])]
    intervals = lambda run, key: with_interval(*(run[key + b] for b in ("", "_low", "_high")))  # noqa: E731
    rows = [
        [name] + [intervals(runs[0], key) for runs in projectors.values()]
        for name, key in NAIVE_ROWS
    ]
    text += table(["seed 0, 95 % intervals", *projectors], rows)
    text += ["## Pairs never seen together", "", *prose(results["held_out"])]
    rows = [
        [name] + [with_interval(*scores[key]) for scores in results["where_from"].values()]
        for name, key in WHERE_ROWS
    ]
    head = ["seed 0, Q-Former, 95 % intervals", "pairs of training", "pairs never trained on"]
    text += table(head, rows)
    text += ["## Co-occurrence", "", *prose(results["habits"]), *presence_table(results)]
    return "\n".join(text).rstrip() + "\n"


def clip_table(results):
    clip, full = results["clip"], [results["clip_full"]]
    seconds = [scores(runs, "wall_seconds", 0) + " s" for runs in (clip, full)]
    rows = [["time in all", seconds[0], "100 s", seconds[1]]]
    rows += [
        [name, scores(clip, key), target, scores(full, key)] for name, key, target in CLIP_ROWS
    ]
    seeds = seeds_of(clip) + (": mean (lowest to highest)" if len(clip) > 1 else "")
    return table(["`python train_clip.py`", seeds, "target", "`--dataset shapes-full`"], rows)


def vlm_table(columns):
    """columns: {name: [numbers of a run, for each seed]}."""
    blind = columns.get("qformer", next(iter(columns.values())))[0]
    chance = f"{sum(CHANCE.values()) / len(CHANCE):.3f}"

    def row(name, key, no_picture="", by_chance="", digits=3, unit=""):
        cells = [scores(runs, key, digits) + unit for runs in columns.values()]
        return [name, *cells, no_picture, by_chance]

    rows = [
        row("training time", "seconds", digits=0, unit=" s"),
        row("fact F1 of captions", "fact_f1"),
        row("exact captions", "exact_caption"),
    ]
    for f in FAMILIES:
        rows.append(row(f"VQA {f}", f, f"{blind['blind_' + f]:.3f}", f"{CHANCE[f]:.3f}"))
        if f in HARD:
            rows.append(row(HARD[f], f"{f}, hard ones"))
    mean = f"{blind['blind_mean of families']:.3f}"
    rows += [
        row("**VQA, mean of families**", "mean of families", mean, chance),
        row("the same in words never trained", "other_mean of families", "", chance),
        *[row(name, key) for name, key in MORE_ROWS],
        row("fact F1, more objects than trained", "more_fact_f1"),
    ]
    head = [f"{name}, {len(r)} seeds" if len(r) > 1 else name for name, r in columns.items()]
    measured = [cells for cells in rows if any(cells[1:-2])]
    return table(["`python train_vlm.py --projector P`", *head, "no picture", "chance"], measured)


def presence_table(results):
    worlds, names = results["presence"], ("accuracy", "yes_rate")
    rows = [
        [f"{kind} negatives"] + [with_interval(*worlds[w][kind][n]) for w in worlds for n in names]
        for kind in next(iter(worlds.values()))
    ]
    head = [f"{world}: {name}" for world in worlds for name in ("accuracy", "share of yes")]
    return table(["is there a SHAPE? (Q-Former, seed 0)", *head], rows)


# ---------------------------------------------------------------- README's table


def readme_table(results):
    """The text between README's two marks."""
    rows = []
    for name, title in PROJECTORS.items():
        runs = results["vlm"][name]
        seconds, f1, misdescribed, vqa = (
            mean_of(runs, key)
            for key in ("seconds", "fact_f1", "misdescribed_i", "mean of families")
        )
        cells = [f"{seconds / 60:.0f} min", f"{f1:.3f}", f"{misdescribed:.1%}", f"{vqa:.3f}"]
        rows.append([title, *cells])
    head = ["`--projector`", "time", "facts right (F1)", "objects misdescribed", "questions right"]
    clip = results["clip"]
    seconds = mean_of(clip, "wall_seconds")
    mean = {key: mean_of(clip, key) for _, key, _ in CLIP_ROWS}
    text = (
        f"CLIP, {seconds:.0f} seconds, {seeds_of(clip)}: cosine"
        f" {mean['matched_cosine']:.2f} for a picture and its caption,"
        f" {mean['mismatched_cosine']:.2f} for a false one; zero-shot"
        f" {mean['zero_shot']:.3f} of 64 classes; R@1 of 256 {mean['r_at_1']:.3f}. Then the VLM:"
    )
    text = text.replace("-0.00 ", "0.00 ")
    return "\n".join([*textwrap.wrap(text, 110), "", *table(head, rows)])


MARKS = "<!-- written by experiments/write_results.py -->\n", "<!-- end -->"


def main():
    results = json.loads((ROOT / "experiments" / "results.json").read_text())
    (ROOT / "RESULTS.md").write_text(results_page(results))
    path = ROOT / "README.md"
    head, rest = path.read_text().split(MARKS[0])
    path.write_text(head + MARKS[0] + readme_table(results) + MARKS[1] + rest.split(MARKS[1])[1])


if __name__ == "__main__":
    main()
