"""What an experiment would cost, what it could show, and which part of it is done here."""

import math
from pathlib import Path

from tinyvlm.ablation import statistics
from tinyvlm.ablation.findings import findings_of
from tinyvlm.ablation.results import hardware
from tinyvlm.training.config import UserError
from tinyvlm.training.files import read_json


def what_can_be_seen(experiment, arms, seeds):
    """The smallest difference that so many seeds show, if they scatter like those there are."""
    if not experiment.claims:
        return "nothing is claimed"
    scatter = [f.deviation for f in findings_of(experiment, arms) if not math.isnan(f.deviation)]
    deviation, source = (max(scatter), "those that are there") if scatter else (0.01, "one point")
    claims = len(experiment.claims)
    needed = statistics.seeds_needed(deviation, experiment.smallest, claims=claims)
    show = f"{number_of_seeds(needed)} show {100 * experiment.smallest:g}"
    if seeds < statistics.MIN_SEEDS:
        return f"{seeds} seeds decide nothing; if they scatter like {source}, {show} points"
    points = 100 * statistics.detectable(deviation, seeds, claims)
    return (
        f"{seeds} seeds show differences of {points:.1f} points of {experiment.metric}, if they"
        f" scatter like {source}; {show}"
    )


def number_of_seeds(needed):
    """In words, what statistics.seeds_needed says."""
    return f"{needed}" if needed < statistics.MAX_SEEDS else f"{needed} or more"


def kind_of(script, settings, needs):
    """What takes the same time whatever the seed. needs: {setting: the settings of that cell}."""

    def without_seed(settings):
        return sorted((name, value) for name, value in settings.items() if name != "seed")

    return script, repr(
        [without_seed(settings), sorted((n, without_seed(needs[n])) for n in needs)]
    )


def kind_of_cell(cell):
    needs = {name: need.settings for name, need in cell.needs.items()}
    return kind_of(cell.script, cell.settings, needs)


def times_here(folder):
    """Seconds in all of the kinds of cells that were finished on this hardware."""
    times = {}
    for path in sorted(Path(folder).glob("*.json")):
        content = read_json(path)
        if content.get("hardware") == hardware():
            needs = {name: need["settings"] for name, need in content["needs"].items()}
            kind = kind_of(content["script"], content["settings"], needs)
            times[kind] = content["metrics"]["wall_seconds"]
    return times


def shard_of(text):
    """ "i/n" -> the slice (i, None, n) of the seeds. UserError if it is neither that nor empty."""
    if not text:
        return 0, None, 1
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise UserError(f"--shard is {text!r}; give i/n such as 0/4, where i is less than n")
    return int(part), None, int(parts)
