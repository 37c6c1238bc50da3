"""README's numbers from experiments/results.json, which keeps what the runs measured: `python experiments/readme_numbers.py` writes the section anew.

A test compares the two, so that the README says what was measured.
"""

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
FAMILIES = ("existence", "count", "colour", "shape", "size", "relation", "compare")
CHANCE = dict(existence=0.5, count=0.25, colour=0.125, shape=0.125, size=0.5, relation=0.5, compare=0.5)


def over_seeds(runs, key, digits=3):
    """One number, or the mean of several seeds and its range."""
    values = [run[key] for run in runs]
    shown = f"{sum(values) / len(values):.{digits}f}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def with_interval(value, low, high):
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    return lines + [f"| {' | '.join(row)} |" for row in rows] + [""]


HARD = dict(count="count, two and three only", compare="compare, both things present")

CLIP_ROWS = (
    ("cosine of a picture and its caption", "matched_cosine", "> 0.8"),
    ("cosine of a picture and captions false of it", "mismatched_cosine", "< 0.3"),
    ("zero-shot, 64 captions", "zero_shot", "0.95"),
    ("R@1 among 256, both ways", "r_at_1", "0.90"),
    ("own caption against the edited picture's", "pair_accuracy", "chance 0.5"),
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


def section(results):
    """The text between "## Numbers" and the next heading of its level."""
    clip, vlm = results["clip"], results["vlm"]
    text = ["## Numbers", "", results["setting"], ""]
    full = [results["clip_full"]]
    rows = [["training time", f"{over_seeds(clip, 'seconds', 0)} s", "300 s", f"{over_seeds(full, 'seconds', 0)} s"]]
    rows += [[name, over_seeds(clip, key), wanted, over_seeds(full, key)] for name, key, wanted in CLIP_ROWS]
    text += table(["`python train_clip.py`", "3 seeds: mean (lowest to highest)", "wanted", "`--world full`"], rows)

    columns = vlm | {"qformer, full world": [results["vlm_full"]]}
    across = lambda key, digits=3: [over_seeds(runs, key, digits) for runs in columns.values()]
    rows = [["training time"] + [f"{seconds} s" for seconds in across("seconds", 0)] + ["", ""]]
    rows += [[name] + across(key) + ["", ""] for name, key in (("fact F1 of captions", "fact_f1"), ("exact captions", "exact_caption"))]
    blind = vlm["qformer"][0]
    for f in FAMILIES:
        rows.append([f"VQA {f}"] + across(f) + [f"{blind['blind_' + f]:.3f}", f"{CHANCE[f]:.3f}"])
        if f in HARD:
            rows.append([HARD[f]] + across(f"{f}, hard ones") + ["", ""])
    chance = f"{sum(CHANCE.values()) / len(CHANCE):.3f}"
    rows.append(["**VQA, mean of families**"] + across("mean of families") + [f"{blind['blind_mean of families']:.3f}", chance])
    rows.append(["the same in other words"] + across("other_mean of families") + ["", chance])
    rows.append(["fact F1, more objects than trained"] + across("more_fact_f1") + ["", ""])
    head = [f"{name}, {len(runs)} seeds" if len(runs) > 1 else name for name, runs in columns.items()]
    text += table(["`python train_vlm.py --projector P`", *head, "no picture", "chance"], rows)

    text += [results["notes"], "", "### How much the naive way invents", "", results["naive"], ""]
    rows = [[name] + [with_interval(*(runs[0][key + bound] for bound in ("", "_low", "_high"))) for runs in vlm.values()] for name, key in NAIVE_ROWS]
    text += table(["seed 0, 95 % intervals", *vlm], rows)

    text += ["### Pairs never seen together", "", results["held_out"], ""]
    rows = [[name] + [with_interval(*scores[key]) for scores in results["where_from"].values()] for name, key in WHERE_ROWS]
    text += table(["seed 0, Q-Former, 95 % intervals", "pairs of training", "pairs never trained on"], rows)
    text += ["### Habits", "", results["habits"], ""]
    worlds = results["presence"]
    rows = [[f"{kind} negatives"] + [with_interval(*worlds[w][kind][name]) for w in worlds for name in ("accuracy", "yes_rate")] for kind in worlds["default world"]]
    text += table(["is there a SHAPE? (Q-Former, seed 0)"] + [f"{w}: {name}" for w in worlds for name in ("accuracy", "share of yes")], rows)
    return "\n".join(text).rstrip() + "\n\n"


def main():
    path = ROOT / "README.md"
    text, results = path.read_text(), json.loads((ROOT / "experiments" / "results.json").read_text())
    start, end = text.index("## Numbers"), text.index("## The walk")
    path.write_text(text[:start] + section(results) + text[end:])


if __name__ == "__main__":
    main()
