"""The best and the worst cases of an evaluation, as pictures and lines for a page (plots.py)."""

import numpy as np
import torch

from tinyvlm.evaluation import eval_clip
from tinyvlm.evaluation.plots import overlay_saliency
from tinyvlm.evaluation.predictor import grad_x_input


def vlm_cases(model, split, pictures, captions, record, each=4):
    """The worst captions, wrong answers, right answers, the best captions: pixels and lines.

    record: [(sample number, question, target, prediction)]. Beside an answer: where it came from.
    """
    judged = pictures.judge(captions)
    errors = [
        sum(
            (
                (c.stated["facts"] - c.there["facts"]) + (c.there["facts"] - c.stated["facts"])
            ).values()
        )
        for c in judged
    ]
    facts = np.array([c.there["facts"].total() for c in judged])
    order = np.lexsort((-facts, np.array(errors)))
    wrong, right = (
        [item for item in record if (item[2] == item[3]) == is_right] for is_right in (False, True)
    )
    groups = (
        caption_cases("worst caption:", pictures, captions, judged, order[::-1][:each]),
        answer_cases("wrong", model, split, spread_out(wrong, each)),
        answer_cases("right", model, split, spread_out(right, each)),
        caption_cases("best caption:", pictures, captions, judged, order[:each]),
    )
    return [p for pixels, _ in groups for p in pixels], [row for _, rows in groups for row in rows]


def caption_cases(title, pictures, captions, judged, chosen):
    """Some captions, judged; beneath one that is not exact, the true one."""
    shown, lines = pictures[chosen], []
    marked = shown.mark([captions[k] for k in chosen])
    for k, pieces, truth in zip(chosen, marked, shown.captions(), strict=True):
        lines.append([[(title, None)], pieces])
        if not judged[k].is_exact:
            lines[-1].append([(f"true is {truth}", None)])
    return list(shown.pixels()), lines


def answer_cases(title, model, split, chosen):
    """Some answers, and where they came from."""
    if not chosen:
        return [], []
    indices, asked, targets, predictions = (list(c) for c in zip(*chosen, strict=True))
    pixels = split.take(np.array(indices)).pixels()
    tokenizer = split.data.tokenizer
    saliency = grad_x_input(model, tokenizer, pixels, asked, predictions)
    shown, lines = [], []
    rows = zip(pixels, saliency, asked, targets, predictions, strict=True)
    for picture, light, question, target, said in rows:
        is_traced = bool(light.any())  # hard labels leave no trace
        head = f"{title}, and where it came from:" if is_traced else f"{title}:"
        shown.append(overlay_saliency(picture, light) if is_traced else picture)
        answer = (said or "(nothing)", said == target)
        lines.append([[(head, None)], [(question, None), answer], [(f"true is {target}", None)]])
    return shown, lines


def spread_out(items, number):
    """So many of the items, evenly spaced."""
    return [items[k] for k in np.linspace(0, len(items) - 1, min(number, len(items))).astype(int)]


def clip_cases(embedder, split, each=6, candidates=256):
    """The pictures whose own caption ranks lowest, and highest, and where its cosine came from."""
    pictures = split.pictures(candidates)
    captions = pictures.captions()
    texts = embedder.embed_texts(captions)
    cosines = embedder.embed_images(pictures) @ texts.T
    is_match = pictures.is_match(captions)
    lead = cosines.diagonal() - np.where(is_match, -1, cosines).max(1)
    chosen = np.concatenate([lead.argsort()[:each], lead.argsort()[::-1][:each]])
    pixels = pictures[chosen].pixels()
    own = torch.from_numpy(texts[chosen]).to(pixels.device)
    lines = []
    for k, q in enumerate(chosen):
        ranked = dict.fromkeys([*cosines[q].argsort()[::-1][:2].tolist(), int(q)])
        pieces = [[(f"{cosines[q, i]:+.2f} {captions[i]}", bool(is_match[q, i]))] for i in ranked]
        lines.append([[("worst:" if k < each else "best:", None)], *pieces])
    return saliency_of_cosines(embedder.model, pixels, own), lines


def saliency_of_answers(model, tokenizer, pixels, asked, answers):
    """Each picture and, beside it, where its answers came from: b pictures.

    asked, answers: a list of b strings for each question.
    """
    maps = [
        grad_x_input(model, tokenizer, pixels, questions, said)
        for questions, said in zip(asked, answers, strict=True)
    ]
    return [overlay_saliency(picture, *own) for picture, *own in zip(pixels, *maps, strict=True)]


def saliency_of_cosines(model, pixels, text):
    """Each picture and, beside it, where its cosine with a caption (b, d) came from: b pictures."""
    saliency = eval_clip.grad_x_input(model, pixels, text)
    return [overlay_saliency(*pair) for pair in zip(pixels, saliency, strict=True)]
