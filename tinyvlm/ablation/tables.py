"""Tables in Markdown, and what stands in their cells. Shares are shown as points."""

import math

import numpy as np


def outcome(finding):
    return finding.verdict if finding.seeds else "not run"


def points(share):
    return "" if math.isnan(share) else f"{100 * share:+.1f}"


def interval(bounds):
    return "" if math.isnan(bounds[0]) else f"{100 * bounds[0]:+.1f} to {100 * bounds[1]:+.1f}"


def number(p):
    return "" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def over_seeds(values, digits=3):
    """Their mean, and their range where there are several; of those that are there."""
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return ""
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def median(seconds):
    """Of some runs, one of which may have paused; "" if there are none."""
    return f"{np.median(seconds):.0f}" if seconds else ""


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
    return lines + [f"| {' | '.join(row)} |" for row in rows] + [""]
