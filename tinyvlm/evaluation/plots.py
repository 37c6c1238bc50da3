"""Pictures: curves, similarity matrices, pages of pictures with words. The only room that knows matplotlib."""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only, no screen needed

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

from data.shapes import grammar
from tinyvlm.evaluation import metrics
from tinyvlm.training import checkpoint

TRUE, FALSE, PLAIN = "#1a7f37", "#cf222e", "#24292f"


def save(figure, path):
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, facecolor="white", format="png")
    plt.close(figure)
    checkpoint.write_atomically(Path(path), buffer.getvalue())


def curves(log, path):
    """One panel for each quantity of a log (a list of dicts with "step"); stages are shaded."""
    names = [n for n in dict.fromkeys(k for line in log for k in line) if n not in ("step", "stage")]
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3), squeeze=False, layout="constrained")
    stages = [(line["step"], line["stage"]) for line in log if "stage" in line]
    changes = [s for (_, before), (s, after) in zip(stages, stages[1:]) if before != after]
    for axis, name in zip(axes[0], names):
        points = [(line["step"], line[name]) for line in log if name in line]
        axis.plot(*zip(*points), color="#0969da", linewidth=1.2, marker="o" if len(points) < 30 else None, markersize=3)
        for step in changes:
            axis.axvline(step, color="#8c959f", linestyle=":", linewidth=1)
        axis.set_title(name.replace("_", " "), fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        if name == "loss":
            axis.set_yscale("log")
    save(figure, path)


def similarity(pixels, captions, cosines, is_match, path):
    """Pictures on top, captions at the side, cosines between: the matrix that contrastive training shapes. Green: true."""
    n = len(captions)
    captions = [c.replace(" and ", "\nand ").replace(" , ", ",\n") for c in captions]
    figure, axis = plt.subplots(figsize=(1.15 * n + 4.2, 1.0 * n + 1.6), layout="constrained")
    matrix = np.asarray(cosines).T  # rows: captions
    axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    for i in range(n):
        for j in range(n):
            colour = TRUE if is_match[j, i] else ("white" if matrix[i, j] > 0.6 else PLAIN)
            box = dict(facecolor="white", edgecolor=TRUE, pad=2) if is_match[j, i] else None
            axis.text(j, i, f"{matrix[i, j]:.2f}", ha="center", va="center", fontsize=9, color=colour, bbox=box)
    axis.set_yticks(range(n), captions, fontsize=8)
    axis.set_xticks([])
    axis.set_title("cosine of picture and caption; green: the caption is true of the picture", fontsize=9, pad=70)
    for j, picture in enumerate(pixels):
        inset = axis.inset_axes([(j + 0.06) / n, 1.01, 0.88 / n, 0.88 / n])
        inset.imshow(picture.permute(1, 2, 0).cpu().numpy())
        inset.axis("off")
    save(figure, path)


def mark_caption(caption, objects=None):
    """A caption as pieces [(text, True, False or None)]: which things are there exactly as said; None where the truth is unknown."""
    try:
        noun_phrases = grammar.parse_caption(caption)
    except ValueError:
        return [(caption or "(nothing)", None if objects is None else False)]
    fits = [None] * len(noun_phrases) if objects is None else metrics.match_objects(noun_phrases, objects).tolist()
    pieces = []
    phrases = [p for part in caption.split(" , ") for p in part.split(" and ")]
    for k, (phrase, truth) in enumerate(zip(phrases, fits)):
        joint = "" if k == 0 else (" and " if k == len(noun_phrases) - 1 else ", ")
        pieces += [(joint, None)] * bool(joint) + [(phrase, truth)]
    return pieces


def save_image_grid(pixels, lines, path, columns=4):
    """Pictures with lines of coloured words beneath. lines: for each picture a list of lines, each a list of (text, True / False / None)."""
    rows = -(-len(lines) // columns)
    columns = min(columns, len(lines))
    wrapped = [[piece for line in own for piece in wrap(line, 44)] for own in lines]
    deepest = max(len(w) for w in wrapped)
    text_height = 0.2 * deepest + 0.1
    figure, axes = plt.subplots(rows, columns, figsize=(3.3 * columns, rows * (2.6 + text_height)), squeeze=False)
    share = text_height / (2.6 + text_height)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.995, bottom=0, wspace=0.04, hspace=0)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, own in zip(axes.flat, pixels, wrapped):
        inset = axis.inset_axes([0.02, share + 0.02, 0.96, 1 - share - 0.03])
        inset.imshow(picture.permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
        inset.axis("off")
        for k, line in enumerate(own):
            words_in_a_row(axis, 0.02, share - (k + 0.6) * 0.2 / (2.6 + text_height), line)
    save(figure, path)


def overlay_saliency(picture, heat):
    """A picture (3, H, W) and, to the right of it, the same lit by a map (h, w) in [0, 1]: uint8 (3, H, 2 W + gap)."""
    size = picture.shape[-1]
    light = F.interpolate(heat[None, None].float().cpu(), (size, size), mode="bilinear")[0]
    gap = torch.full((3, size, max(size // 28, 1)), 255)
    return torch.cat([picture.cpu(), gap, picture.cpu() * (0.15 + 0.85 * light.sqrt())], 2).to(torch.uint8)


def wrap(line, width):
    """Break a line of pieces at spaces: a list of lines."""
    result, used = [[]], 0
    for text, truth in line:
        for word in text.split():
            if used + len(word) + 1 > width:
                result.append([])
                used = 0
            result[-1].append((word, truth))
            used += len(word) + 1
    return result


def words_in_a_row(axis, x, y, words):
    """Words in their colours from x on, in axes units."""
    for word, truth in words:
        colour = PLAIN if truth is None else TRUE if truth else FALSE
        word = "".join(c if c.isascii() and c.isprintable() else "?" for c in word)  # an untrained model says any byte
        weight = "normal" if truth is None else "bold"
        axis.text(x, y, word, transform=axis.transAxes, fontsize=8, color=colour, family="monospace", fontweight=weight, parse_math=False)
        x += 0.0205 * (len(word) + 1)
