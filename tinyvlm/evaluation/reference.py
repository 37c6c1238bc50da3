"""What runs with the same settings have shown before: "what should my curve look like?"

The finished cells of ablate.py (experiments/cells) are the references: any of them whose settings
are those of a run, but for the seed.
"""

import dataclasses
from pathlib import Path

from tinyvlm.training.config import in_todays_names
from tinyvlm.training.files import read_json
from tinyvlm.training.loop import MAY_DIFFER

CELLS = Path(__file__).parents[2] / "experiments" / "cells"
# A run may have another seed, and its CLIP and its language stage from elsewhere or of its own.
NOT_COMPARED = {*MAY_DIFFER, "seed", "recipe", "decoder"}
OF_A_USUAL_CLIP = {"seed", "recipe", "dataset", "language", "held_out"}


def find_references(config, script, decoder="", folder=None):
    """The contents of finished cells that had these settings: [dict], see ablation/results.py.
    None for a run that begins with another's weights.

    script: train_clip or train_vlm. decoder: of a VLM, its kind.
    """
    if config.init:
        return []
    contents = (read_json(path) for path in sorted(Path(folder or CELLS).glob("*.json")))
    return [
        content
        for content in contents
        if content.get("script") == script and is_same_recipe(config, decoder, content)
    ]


def is_same_recipe(config, decoder, content):
    ours, needs = dataclasses.asdict(config), content["needs"]
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    theirs = defaults | in_todays_names(content["config"], type(config))
    if decoder:
        language = needs["decoder"]["settings"] if "decoder" in needs else theirs
        if language.get("decoder", defaults["decoder"]) != decoder:
            return False
    if not set(needs.get("clip", {}).get("settings", {})) <= OF_A_USUAL_CLIP:
        return False
    return all(ours[name] == theirs[name] for name in set(ours) - NOT_COMPARED)


def compare_with(references, scores):
    """Lines that say where a run's scores {name: metric} lie among those of others."""
    lines = []
    for name, metric in scores.items():
        values = [r["metrics"][name] for r in references if name in r["metrics"]]
        if values:
            low, high, mean = min(values), max(values), sum(values) / len(values)
            where = "within" if low <= metric.value <= high else "outside"
            lines.append(
                f"{name} {metric.value:.3f}, reference {mean:.3f}"
                f" ({low:.3f} to {high:.3f}, {len(values)} seeds): {where}"
            )
    return lines
