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


def with_interval(run, key):
    return f"{run[key]:.3f} [{run[key + '_low']:.3f}, {run[key + '_high']:.3f}]"


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    return lines + [f"| {' | '.join(row)} |" for row in rows] + [""]


def section(results):
    """The text between "## Numbers" and the next heading of its level."""
    clip, full_clip, vlm = results["clip"], results["clip-full"], results["vlm"]
    full = results["vlm-full"]
    text = ["## Numbers", "", results["setting"], ""]
    rows = [["time", f"{over_seeds(clip, 'seconds', 0)} s", "300 s", f"{over_seeds(full_clip, 'seconds', 0)} s"]]
    for name, key, wanted in (
        ("cosine of a picture and its caption", "matched_cosine", "> 0.8"),
        ("cosine of a picture and captions false of it", "mismatched_cosine", "< 0.3"),
        ("zero-shot, 64 captions", "zero_shot", "0.95"),
        ("R@1 among 256, both ways", "r_at_1", "0.90"),
        ("own caption against the edited picture's", "pair_accuracy", "chance 0.5"),
    ):
        rows.append([name, over_seeds(clip, key), wanted, over_seeds(full_clip, key)])
    text += table(["`python train_clip.py`", "3 seeds: mean (lowest to highest)", "wanted", "`--world full`, seed 0"], rows)
    names = list(vlm)
    rows = [["time"] + [f"{over_seeds(vlm[n], 'seconds', 0)} s" for n in names] + [f"{over_seeds(full, 'seconds', 0)} s", "", ""]]
    speed = "images_per_second"
    rows.append(["images/s once pictures are seen"] + [over_seeds(vlm[n], speed, 0) for n in names] + [over_seeds(full, speed, 0), "", ""])
    for name, key in (("fact F1 of captions", "fact_f1"), ("exact captions", "exact_caption")):
        rows.append([name] + [over_seeds(vlm[n], key) for n in names] + [over_seeds(full, key), "", ""])
    for family in FAMILIES:
        blind = f"{vlm['qformer'][0]['blind_' + family]:.3f}"
        rows.append([f"VQA {family}"] + [over_seeds(vlm[n], family) for n in names] + [over_seeds(full, family), blind, f"{CHANCE[family]:.3f}"])
    blind, chance = f"{vlm['qformer'][0]['blind_mean of families']:.3f}", f"{sum(CHANCE.values()) / 7:.3f}"
    rows.append(["**VQA, mean of families**"] + [over_seeds(vlm[n], "mean of families") for n in names] + [over_seeds(full, "mean of families"), blind, chance])
    rows.append(["the same in other words"] + [over_seeds(vlm[n], "other_mean of families") for n in names] + [over_seeds(full, "other_mean of families"), "", chance])
    rows.append(["fact F1, more objects than trained"] + [over_seeds(vlm[n], "more_fact_f1") for n in names] + [over_seeds(full, "more_fact_f1"), "", ""])
    head = [f"{n}, {len(vlm[n])} seeds" if len(vlm[n]) > 1 else n for n in names]
    text += table(["`python train_vlm.py --projector P`", *head, "qformer, `--world full`", "no picture", "chance"], rows)
    text += [results["notes"], "", "### How much the naive way invents", "", results["naive"], ""]
    rows = []
    for name, key in (
        ("mentioned objects that are not there (CHAIR_i)", "chair_i"),
        ("captions that mention one (CHAIR_s)", "chair_s"),
        ("facts that are told (recall)", "fact_recall"),
        ("shapes that are told (recall)", "objects_recall"),
        ("VQA, mean of families", "mean of families"),
    ):
        rows.append([name] + [with_interval(vlm[n][0], key) for n in names])
    text += table(["seed 0, 95 % intervals", *names], rows)
    return "\n".join(text).rstrip() + "\n\n"


def main():
    path = ROOT / "README.md"
    text, results = path.read_text(), json.loads((ROOT / "experiments" / "results.json").read_text())
    start, end = text.index("## Numbers"), text.index("## The walk")
    path.write_text(text[:start] + section(results) + text[end:])


if __name__ == "__main__":
    main()
