"""Pictures: curves, similarity matrices, pages of pictures with words.

The only room that knows matplotlib, and only while it draws: figures are made without pyplot, so
that nothing of the caller's settings changes.
"""

import io
import itertools
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tinyvlm.evaluation.hangul import KOREAN_FONTS, is_syllable, romanise
from tinyvlm.training.files import write_atomically

TRUE, FALSE, PLAIN = "#1a7f37", "#cf222e", "#24292f"


def new_figure(width, height, **options):
    """An empty figure, inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), **options)


def save(figure, path):
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, facecolor="white", format="png")
    write_atomically(Path(path), buffer.getvalue())


@lru_cache
def korean_font():
    """The name of a font with Korean letters, or None."""
    from matplotlib.font_manager import get_font_names

    known = set(get_font_names())
    return next((name for name in KOREAN_FONTS if name in known), None)


def font_families():
    """What matplotlib is to look for letters in, in this order."""
    return [name for name in ("DejaVu Sans", korean_font()) if name]


def drawable(text):
    """The text, romanised where no font could draw its Korean letters."""
    if not any(is_syllable(letter) for letter in text) or korean_font():
        return text
    return "".join(map(romanise, text))


def curves(log, path, references=()):
    """One panel for each quantity of a log (a list of dicts with "step"); stages are marked.

    The validation loss stands in the panel of the training loss. references: the logs of other runs
    with these settings, whose band stands behind the line.
    """
    names = dict.fromkeys(key for line in log for key in line)
    names = [name for name in names if name not in ("step", "stage", "val_loss")]
    if not names:
        return
    figure = new_figure(4 * len(names), 3, layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    stages = [(line["step"], line["stage"]) for line in log if "stage" in line]
    pairs = zip(stages, stages[1:], strict=False)
    changes = [step for (_, before), (step, after) in pairs if before != after]
    for axis, name in zip(axes, names, strict=True):
        draw_band(axis, references, name, "#8c959f", label=f"{len(references)} seeds")
        draw_curve(axis, log, name, "#0969da", name)
        if name == "loss":
            draw_curve(axis, log, "val_loss", "#bc4c00", "validation")
            axis.set_yscale("log")
            axis.legend(fontsize=8)
        for step in changes:
            axis.axvline(step, color="#8c959f", linestyle=":", linewidth=1)
        axis.set_title(name.replace("_", " "), fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
    save(figure, path)


def draw_curve(axis, log, name, colour, label):
    points = [(line["step"], line[name]) for line in log if name in line]
    if points:
        marker = "o" if len(points) < 30 else None
        axis.plot(
            *zip(*points, strict=True),
            color=colour, label=label, linewidth=1.2, marker=marker, markersize=3,
        )  # fmt: skip


def draw_band(axis, logs, name, colour, **style):
    """From the lowest to the highest of several logs, at the steps that all of them have."""
    values = [{line["step"]: line[name] for line in log if name in line} for log in logs]
    steps = sorted(set.intersection(*map(set, values))) if values else []
    if steps:
        at = np.array([[one[step] for step in steps] for one in values])  # (logs, steps)
        axis.fill_between(
            steps, at.min(0), at.max(0), color=colour, alpha=0.25, linewidth=0, **style
        )


def similarity(pixels, captions, cosines, is_match, path):
    """Pictures on top, captions at the side, cosines between: what contrastive training shapes.

    pixels (n, 3, H, W), cosines and is_match (n pictures, n captions). Green: true.
    """
    n = len(captions)
    captions = [drawable(c).replace(" and ", "\nand ").replace(" , ", ",\n") for c in captions]
    figure = new_figure(1.15 * n + 4.2, 1.0 * n + 1.6, layout="constrained")
    axis = figure.subplots()
    matrix = np.asarray(cosines).T  # rows: captions
    axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(n, n):
        is_true = bool(is_match[j, i])
        colour = TRUE if is_true else "white" if matrix[i, j] > 0.6 else PLAIN
        box = dict(facecolor="white", edgecolor=TRUE, pad=2) if is_true else None
        style = dict(ha="center", va="center", fontsize=9, color=colour, bbox=box)
        axis.text(j, i, f"{matrix[i, j]:.2f}", **style)
    axis.set_yticks(range(n), captions, fontsize=8, family=font_families())
    axis.set_xticks([])
    title = "cosine of picture and caption; green: the caption is true of the picture"
    axis.set_title(title, fontsize=9, pad=70)
    for j, picture in enumerate(pixels):
        show_picture(axis, [(j + 0.06) / n, 1.01, 0.88 / n, 0.88 / n], picture)
    save(figure, path)


def show_picture(axis, box, picture, **options):
    """A picture (3, H, W) in a box [x, y, width, height] of an axis."""
    inset = axis.inset_axes(box)
    inset.imshow(picture.permute(1, 2, 0).cpu().numpy(), **options)
    inset.axis("off")


def save_image_grid(pixels, lines, path, columns=4):
    """Pictures with lines of coloured words beneath.

    lines: for each picture a list of lines, each a list of (text, True / False / None).
    """
    rows, columns = -(-len(lines) // columns), min(columns, len(lines))
    wrapped = [[piece for line in own for piece in wrap(line, 44)] for own in lines]
    text_height = 0.2 * max(len(own) for own in wrapped) + 0.1  # inches
    height = 2.6 + text_height
    figure = new_figure(3.3 * columns, rows * height)
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.995, bottom=0, wspace=0.04, hspace=0)
    share = text_height / height
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, own in zip(axes.flat, pixels, wrapped, strict=False):
        box = [0.02, share + 0.02, 0.96, 1 - share - 0.03]
        show_picture(axis, box, picture, interpolation="nearest")
        for k, line in enumerate(own):
            words_in_a_row(axis, 0.02, share - (k + 0.6) * 0.2 / height, line)
    save(figure, path)


def overlay_saliency(picture, *saliency):
    """A picture (3, H, W) and, to the right of it, the same lit by each map (h, w) in [0, 1].

    uint8 (3, H, (1 + maps) W + gaps).
    """
    picture, size = picture.cpu(), picture.shape[-2:]
    gap = torch.full((3, size[0], max(size[1] // 28, 1)), 255)
    parts = [picture]
    for one in saliency:
        light = F.interpolate(one[None, None].float().cpu(), size, mode="bilinear")[0]
        parts += [gap, picture * (0.15 + 0.85 * light.sqrt())]
    return torch.cat(parts, 2).to(torch.uint8)


def wrap(line, width):
    """Break a line of pieces at spaces, and words that fit in no line: a list of lines."""
    result, used = [[]], 0
    for text, truth in line:
        for word in itertools.chain(*(cut(whole, width - 1) for whole in drawable(text).split())):
            if used + columns_of(word) + 1 > width and result[-1]:
                result.append([])
                used = 0
            result[-1].append((word, truth))
            used += columns_of(word) + 1
    return result


def cut(word, most):
    """A word in pieces of at most so many columns."""
    size = most // 2 if any(map(is_syllable, word)) else most
    return [word[k : k + size] for k in range(0, len(word), size)]


def columns_of(word):
    """How many letters wide a word is; a Korean syllable takes two."""
    return len(word) + sum(map(is_syllable, word))


def words_in_a_row(axis, x, y, words):
    """Words in their colours from x on, in axes units."""
    for word, truth in words:
        colour = PLAIN if truth is None else TRUE if truth else FALSE
        # An untrained model says any byte.
        known = [c.isascii() and c.isprintable() or is_syllable(c) for c in word]
        shown = "".join(c if k else "?" for c, k in zip(word, known, strict=True))
        weight, family = "normal" if truth is None else "bold", ["monospace", *font_families()]
        style = dict(fontsize=8, color=colour, family=family, fontweight=weight)
        axis.text(x, y, shown, transform=axis.transAxes, parse_math=False, **style)
        x += 0.0205 * (columns_of(word) + 1)
