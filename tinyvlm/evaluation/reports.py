"""Tables of metrics: on the screen, as Markdown, as JSON; one model, or several side by side."""

import json
import math

from tinyvlm.evaluation.eval_vlm import vqa_mean
from tinyvlm.training.config import is_changed
from tinyvlm.training.files import write_atomically


def print_table(title, metrics):
    """{name: metric}, with intervals, items, and what each means."""
    print(f"\n{title}")
    print(f"  {'':36}{'value':>8}  {'95 % interval':>17}{'items':>8}")
    for name, metric in metrics.items():
        low, high = metric.interval()
        chance = "" if math.isnan(metric.chance) else f"chance {metric.chance:.3f}"
        meaning = ", ".join(part for part in (metric.meaning, chance) if part)
        numbers = f"{metric.value:8.3f}  {f'[{low:.3f}, {high:.3f}]':>17}{metric.items:>8}"
        print(f"  {name:36}{numbers}  {meaning}")
    print()


def as_numbers(metric):
    """A metric as plain numbers for JSON, rounded, so that one checkpoint gives the same bytes."""
    low, high = metric.interval()
    numbers = dict(value=metric.value, low=low, high=high, items=metric.items)
    if not math.isnan(metric.chance):
        numbers["chance"] = metric.chance
    return {name: round(value, 5) for name, value in numbers.items()}


def report_name(file, config):
    """A report's name, without its ending: "report" for last.pt as it is. What is asked otherwise
    is named, so that no report takes another's place; in a folder of one's own --drop alone."""
    named = ("drop",) if config.out else ("split", "items", "families", "language", "drop")
    asked = [f"{name}-{getattr(config, name)}" for name in named if is_changed(config, name)]
    of_file = [] if file.name == "last.pt" else [file.stem]
    return "-".join(["report", *of_file, *asked]).replace(" ", "")


def write_report(folder, name, about, sections, **settings):
    """name.json and name.md of {title: {name: metric}}; about: {what: value} of the model."""
    numbers = {
        title: {row: as_numbers(metric) for row, metric in metrics.items()}
        for title, metrics in sections.items()
    }
    content = dict(checkpoint=about, **settings, sections=numbers)
    write_text(folder / f"{name}.json", json.dumps(content, indent=1))
    head = ", ".join(f"{k} {v}" for k, v in about.items())
    text = [f"# {head}; split {settings['split']}", ""]
    for title, metrics in sections.items():
        text += [f"## {title}", ""]
        text += ["| | value | 95 % | items | chance | |", "| --- | --- | --- | --- | --- | --- |"]
        for row, metric in metrics.items():
            s = numbers[title][row]
            span = f"{s['low']:.3f} to {s['high']:.3f}"
            cells = [row, f"{s['value']:.3f}", span, f"{s['items']:g}", s.get("chance", "")]
            text.append(f"| {' | '.join(map(str, cells))} | {metric.meaning} |")
        text.append("")
    write_text(folder / f"{name}.md", "\n".join(text).rstrip("\n"))


def write_comparison(folder, names, reports, split):
    """compare.json, compare.md and the table on the screen.

    Each model's value, and its difference to the first one's, paired. names, reports: one a model.
    """
    text = [
        f"# {split} split: {names[0]} with 95 % intervals; the others with their difference to it"
        " and its paired 95 % interval",
        "",
    ]
    content = {}
    for title, metrics in reports[0].items():
        text += [f"## {title}", "", f"| | items | {' | '.join(names)} |"]
        text.append("| --- | --- |" + " --- |" * len(names))
        content[title] = {}
        for row, first in metrics.items():
            others = [report[title][row] for report in reports[1:]]
            cells, entries = compare_row(first, others)
            text.append(f"| {row} | {first.items:g} | {' | '.join(cells)} |")
            content[title][row] = dict(zip(names, entries, strict=True))
        text.append("")
    write_text(folder / "compare.md", "\n".join(text).rstrip("\n"))
    write_text(folder / "compare.json", json.dumps(content, indent=1))
    print("\n".join(text))
    print(f"{folder}/compare.md has these tables")


def compare_row(first, others):
    """One row of the comparison: its cells as text, and as numbers."""
    low, high = first.interval()
    cells, entries = [f"{first.value:.3f} [{low:.3f}, {high:.3f}]"], [as_numbers(first)]
    for other in others:
        difference, (low, high) = other.paired_difference(first)
        cells.append(f"{other.value:.3f} ({difference:+.3f}, {low:+.3f} to {high:+.3f})")
        numbers = dict(difference=difference, difference_low=low, difference_high=high)
        entries.append(as_numbers(other) | {k: round(v, 5) for k, v in numbers.items()})
    return cells, entries


def write_text(path, text):
    write_atomically(path, (text + "\n").encode())


# ---------------------------------------------------------------- sections of a VLM's report


def answer_sections(answers):
    """What evaluate_vqa gives -> sections of the report."""
    titles = dict(
        seeing="answers",
        blind="answers without picture",
        paraphrased="answers to other words, never trained on",
    )
    sections = {
        title: {family: scores[which] for family, scores in answers.items()}
        | {"mean of families": vqa_mean(answers, which)}
        for which, title in titles.items()
    }
    sections["answers"] |= {
        f"{family}, hard ones": scores["needs_counting"]
        for family, scores in answers.items()
        if scores["needs_counting"].items
    }
    return sections


def presence_sections(presence):
    """What evaluate_pope gives -> sections of the report."""
    sections = {f"presence, {kind} negatives": forms["words"] for kind, forms in presence.items()}
    sections["presence, from logits instead of words"] = {
        f"{kind} {name}": forms["logits"][name]
        for kind, forms in presence.items()
        for name in ("accuracy", "f1", "yes_rate")
    }
    return sections
