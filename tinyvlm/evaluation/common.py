"""What evaluating CLIP and evaluating a VLM share."""

import contextlib

import torch
from einops import rearrange

from tinyvlm.layers import grid_shape


@contextlib.contextmanager
def evaluation_mode(model):
    """No dropout, no gradients, and NVIDIA's TF32, which leaves 10 of float32's 23 bits behind the
    point; afterwards all is as it was before."""
    was_training, matmul = model.training, torch.backends.cuda.matmul
    had_tf32, matmul.allow_tf32 = matmul.allow_tf32, True
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
        matmul.allow_tf32 = had_tf32


def in_each_language(evaluate_language, model, data, items):
    """evaluate_language(model, data, items) -> ({title: metric}, {name: metric}), in each language
    that the data set has: both in one. The names of a second language's end with it."""
    table, scores = {}, {}
    for language in data.languages:
        ending = "" if language == data.languages[0] else f" {language}"
        titled, named = evaluate_language(model, data.speaking(language), items)
        table |= {title + ending: metric for title, metric in titled.items()}
        scores |= {name + ending.replace(" ", "_"): metric for name, metric in named.items()}
    return table, scores


def saliency_of(score, tokens):
    """|gradient x token| of a scalar for each patch token (b, n, d): a map (b, rows, columns).

    All zero where the score does not depend on the tokens.
    """
    (gradient,) = torch.autograd.grad(score, tokens, allow_unused=True)
    return saliency_grid(tokens * (0 if gradient is None else gradient))


def saliency_grid(parts):
    """Each patch's parts (b, n, d) -> their absolute sums, a map (b, rows, columns), at most 1."""
    size = parts.detach().sum(-1).abs()
    size = size / size.amax(1, keepdim=True).clamp(min=1e-12)
    return rearrange(size, "b (i j) -> b i j", i=grid_shape(size.shape[1])[0])
