"""The way of one picture and one question through the model, step by step, with shapes.

picture -> patch tokens -> image tokens -> one row with the words -> the likeliest next words
"""

import inspect
from pathlib import Path

import torch
import torch.nn.functional as F

from data.tokenizer import PAD
from tinyvlm.evaluation.common import evaluation_mode
from tinyvlm.evaluation.predictor import tokenize_prompts

ROOT = Path(__file__).parent.parent.parent


def trace(model, tokenizer, pixels, question, likeliest=4, words=12):
    """Lines of text about pixels (1, 3, H, W) and a question ("" for a caption)."""
    with evaluation_mode(model):
        tokens, pooled = model.encode_patches(pixels)
        image_embeds, image_mask = model.project(tokens, pooled)
        prompt = tokenize_prompts(tokenizer, [question], pixels.device)
        positions = torch.arange(prompt.shape[1], device=pixels.device)[None]
        row = model.build_inputs_embeds(image_embeds, prompt, positions)
        said = next_words(model, tokenizer, image_embeds, image_mask, prompt, likeliest, words)
    n = image_embeds.shape[1]
    asked = f" {question}" if question else ""
    return [
        step("picture", pixels, "bytes, red green blue", None),
        step("patch tokens", tokens, f"pooled {shape(pooled)}", model.vision),
        step("image tokens", image_embeds, absent(image_mask), model.projector),
        step("one row", row, f"[BOS] h_1 .. h_{n}{asked}", model, "build_inputs_embeds"),
        *said,
    ]


def step(name, tensor, what, module, function="forward"):
    where = place(module, function) if module is not None else "data/folder.py or data/shapes"
    return f"  {name:14}{shape(tensor):18}{what:43} {where}"


def shape(tensor):
    return str(tuple(tensor.shape))


def absent(image_mask):
    """How many image tokens are not there, if any may be absent."""
    if image_mask is None:
        return "stand among words"
    return f"of which {int(image_mask.sum())} are there"


def place(module, function):
    """File, class and function of a module's code, where it is written."""
    code = getattr(type(module), function)
    return f"{Path(inspect.getsourcefile(code)).relative_to(ROOT)}: {code.__qualname__}"


def next_words(model, tokenizer, image_embeds, image_mask, prompt, likeliest, words):
    """A line for each next word, greedy, with the probabilities of the likeliest ones."""
    lines, previous = [], F.pad(prompt, (1, 0), value=PAD)[:, -1:]
    last_hidden, kv_cache, attention_mask, start = model.prefill(image_embeds, prompt, image_mask)
    for number in range(words):
        probability = model.decoder.lm_head(last_hidden).float().softmax(-1)[0]  # (v,)
        top = probability.topk(likeliest)
        names = [
            f"{tokenizer.name(i)} {p:.2f}"
            for p, i in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]
        lines.append(step(f"word {number + 1}", last_hidden, ", ".join(names), model.decoder))
        token = top.indices[:1]
        if tokenizer.name(token.item()) == "[EOS]":
            break
        attention_mask = F.pad(attention_mask, (0, 1), value=True)
        position = torch.full((1, 1), prompt.shape[1] + number, device=prompt.device)
        x = model.decoder.embed(token[:, None], position, previous)
        previous = token[:, None]
        positions, mask = start + position[..., None], attention_mask[..., None, None, :]
        last_hidden = model.decoder(x, positions, mask, kv_cache)[:, 0]
    return lines
