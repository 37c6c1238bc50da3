"""The picture of an experiment: arms with their seeds and intervals, and their learning curves."""

import numpy as np

from tinyvlm.ablation.statistics import paired_interval
from tinyvlm.evaluation.plots import draw_band, new_figure, save

COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#cf222e", "#57606a", "#9a6700", "#0a7ea4")
COLUMNS = 6  # panels side by side, at most


def draw(experiment, arms, path):
    """arms: {arm: {seed: Result}}. A dot a seed, the mean and its 95 % interval, for each metric;
    then the validation score by step, the band of the seeds around their mean. Arms that are one
    run have one colour and one curve; a number that is claimed is a dashed line."""
    metrics = [experiment.metric, *experiment.shown]
    arms = {arm: list(results.values()) for arm, results in arms.items() if results}
    runs = []
    for arm in arms:
        if experiment.arms[arm] not in runs:
            runs.append(experiment.arms[arm])
    colours = {arm: COLOURS[runs.index(experiment.arms[arm]) % len(COLOURS)] for arm in arms}
    panels = len(metrics) + 1
    columns = min(panels, COLUMNS)
    rows = -(-panels // columns)
    width, height = 3.2 * (columns - 1) + 4.5, max(0.45 * len(arms) + 1.6, 3)
    figure = new_figure(width, height * rows, layout="constrained")
    ratios = [3.2] * (columns - 1) + [4.5 if rows == 1 else 3.2]
    axes = figure.subplots(rows, columns, width_ratios=ratios, squeeze=False).reshape(-1)
    for number, (axis, metric) in enumerate(zip(axes, metrics, strict=False)):
        for row, (arm, results) in enumerate(arms.items()):
            name = experiment.metric_of(arm) if number == 0 else metric
            draw_arm(axis, row, [r.number(name) for r in results], colours[arm])
        if number == 0:
            draw_bounds(axis, experiment.claims)
        names = list(arms) if number % columns == 0 else [""] * len(arms)
        axis.set_yticks(range(len(arms)), names)
        axis.set_ylim(len(arms) - 0.5, -0.5)
        axis.set_title(metric.replace("_", " "), fontsize=10)
        axis.locator_params(axis="x", nbins=4)
        axis.grid(alpha=0.25, axis="x")
    for axis in axes[panels:]:
        axis.axis("off")
    draw_curves(axes[len(metrics)], experiment.metric, arms, colours)
    figure.suptitle(experiment.question, fontsize=11)
    save(figure, path)


def draw_bounds(axis, claims):
    """The numbers that arms are claimed to lie above or below."""
    for claim in claims:
        if not isinstance(claim.second, str):
            axis.axvline(claim.second, color="#57606a", linestyle="--", linewidth=1)


def draw_arm(axis, row, values, colour):
    values = [value for value in values if not np.isnan(value)]  # a cell may be older than a metric
    if not values:
        return
    mean = float(np.mean(values))
    axis.scatter(values, [row] * len(values), s=14, color=colour, alpha=0.5)
    axis.scatter([mean], [row], s=60, color=colour, marker="|", linewidth=2.5)
    if len(values) > 1:
        axis.plot(paired_interval(values), [row, row], color=colour, linewidth=1.5)


def draw_curves(axis, metric, arms, colours):
    """The validation score that is nearest to the metric, by step, in the colours of the arms."""
    known = {key for results in arms.values() for r in results for line in r.log for key in line}
    score = next(
        (name for name in (f"val_{metric}", "val_vqa", "val_r_at_1") if name in known), "loss"
    )
    for arm, results in arms.items():
        colour, logs = colours[arm], [result.log for result in results]
        draw_band(axis, logs, score, colour)
        steps = sorted({line["step"] for log in logs for line in log if score in line})
        mean = [np.mean([v for log in logs for v in at_step(log, step, score)]) for step in steps]
        axis.plot(steps, mean, color=colour, marker=".", linewidth=1.3)
    axis.set_title(f"{score.replace('_', ' ')} by step, in the arms' colours", fontsize=10)
    axis.set_xlabel("step of the whole run; band: the seeds", fontsize=9)
    axis.grid(alpha=0.25)


def at_step(log, step, score):
    return [line[score] for line in log if line["step"] == step and score in line]
