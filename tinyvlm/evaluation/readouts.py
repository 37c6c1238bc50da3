"""Linear readouts: what frozen vectors and tokens know, whatever the model makes of it.

They are fitted on pictures of `train` (other ones than a split "train" is asked about) and measured
on the split. Nothing here draws from a generator: the same model gives the same numbers.
"""

import numpy as np
import torch
import torch.nn.functional as F

from data.batch import NotEnoughItems
from tinyvlm.evaluation import metrics
from tinyvlm.evaluation.common import evaluation_mode
from tinyvlm.evaluation.statistics import proportion

CHUNK = 128  # pictures that are encoded together
EPOCHS, BATCH, RATE = 12, 64, 0.03  # of the probe


def number_to_fit(items):
    """From how many pictures a readout is fitted that is measured on so many."""
    return min(8 * items, 4000)


# ---------------------------------------------------------------- is binding there?


def evaluate_binding(embedder, split, items):
    """The true caption against that with two attributes exchanged, by the vectors as they are and
    with one matrix on the frozen text vectors: {name: metric}, {} if the split has too few.

    What both towers have bound, but not in a common way, the matrix brings back: Koishigarina et
    al., "CLIP behaves like a bag-of-words model cross-modally but not uni-modally" (2025,
    arXiv 2502.03566), report .58 -> .95 on CLEVR.
    """
    try:
        image, difference = swapped_pairs(embedder, split, items)
    except NotEnoughItems:
        return {}
    train = split.data.split("train")
    matrix = fit_text_matrix(*swapped_pairs(embedder, train, number_to_fit(items), skip=items))
    result = {}
    for name, vectors in (
        ("as the vectors are", image),
        ("with one matrix on the text vectors", image @ matrix),
    ):
        right = metrics.win_rate((vectors * difference).sum(1), 0)
        result[name] = proportion(right, np.arange(items), "true against swapped attributes", 0.5)
    return result


def swapped_pairs(embedder, split, number, skip=0):
    """Picture vectors (number, d), and how the text vectors of a true caption and of one with two
    attributes exchanged differ, (number, d); the first `skip` pictures are left out."""
    pictures, *captions = split.sugarcrepe("swap_attribute", skip + number)
    true, false = (embedder.embed_texts(texts[skip:]) for texts in captions)
    return embedder.embed_images(pictures[skip:]), true - false


def fit_text_matrix(image, difference, ridge=0.1):
    """The matrix W (d, d) that makes image W difference 1 for each of n pairs (n, d), (n, d).

    Ridge regression on the d x d products of a pair, whose kernel is the product of two: so it
    takes n equations and not d x d.
    """
    kernel = (image @ image.T).astype(float) * (difference @ difference.T)  # (n, n)
    strength = ridge * kernel.diagonal().mean() + 1e-12
    weights = np.linalg.solve(kernel + strength * np.eye(len(kernel)), np.ones(len(kernel)))
    return image.T @ (weights[:, None] * difference)


# ---------------------------------------------------------------- which words are there?


def evaluate_encoder_labels(vision, pictures):
    """Which sizes, colours and shapes are in the pictures, by a linear probe on an encoder's frozen
    tokens: macro F1. (Fu et al., "Hidden in plain sight: VLMs overlook their visual
    representations", 2025, arXiv 2506.08008, found VLMs below readouts of their own encoders.)
    """
    n = len(pictures)
    train = pictures.data.split("train").pictures(number_to_fit(n), start=n)
    probe = fit_probe(tokens_of(vision, train), torch.from_numpy(train.labels()))
    said = (probe(tokens_of(vision, pictures)) > 0).numpy()
    return metrics.macro_f1(said, pictures.labels(), "a linear probe on the encoder's tokens")


def evaluate_caption_labels(pictures, captions):
    """The same, for those that captions of the pictures name: the model beside its own encoder."""
    said = pictures.labels_said(captions)
    return metrics.macro_f1(said, pictures.labels(), "those that its captions name")


def tokens_of(vision, pictures):
    """The tokens of pictures, frozen: (n, p, d)."""
    with evaluation_mode(vision):
        tokens = [
            vision(pictures[k : k + CHUNK].pixels())[0].float().cpu()
            for k in range(0, len(pictures), CHUNK)
        ]
    return torch.cat(tokens)


def fit_probe(tokens, there):
    """A probe, tokens (n, p, d) -> logits (n, labels), fitted to which labels are there.

    One linear layer on each token, then the maximum over all patches, as the label bottleneck has
    it: what is anywhere is in the picture. It begins with zeros.
    """
    mean, std = tokens.mean((0, 1)), tokens.std((0, 1)).clamp(min=1e-6)
    weight = torch.zeros(tokens.shape[2], there.shape[1], requires_grad=True)
    bias = torch.zeros(there.shape[1], requires_grad=True)

    def probe(tokens):
        return ((tokens - mean) / std @ weight + bias).amax(1)  # (n, p, labels) -> (n, labels)

    batches = list(zip(tokens.split(BATCH), there.float().split(BATCH), strict=True)) * EPOCHS
    optimizer = torch.optim.AdamW([weight, bias], lr=RATE, weight_decay=0.0)
    for step, (some, labels) in enumerate(batches):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / len(batches))
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(probe(some), labels).backward()
        optimizer.step()
    return probe
