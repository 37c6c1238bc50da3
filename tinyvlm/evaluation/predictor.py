"""A VLM asked: pictures and questions in, words out, and where an answer came from."""

import time

import numpy as np
import torch

from data.tokenizer import EOS, PAD
from tinyvlm.evaluation import metrics
from tinyvlm.evaluation.common import evaluation_mode, saliency_of
from tinyvlm.vlm import packed_attention_mask

ROWS = 256  # answers that are decoded together


@torch.no_grad()
def encode_images(model, pixels, chunk=128):
    """Pictures (b, 3, H, W) -> image_embeds (b, n, d), image_mask (b, n) or None; in chunks."""
    embeds, masks = zip(*[model.encode_image(part) for part in pixels.split(chunk)], strict=True)
    return torch.cat(embeds), None if masks[0] is None else torch.cat(masks)


def tokenize_prompts(tokenizer, texts, device):
    """Questions, "" for a caption -> tokens (n, longest), [PAD] at the ends."""
    rows = tokenizer.encode_prompts(texts)
    return torch.tensor(rows, dtype=torch.long, device=device).reshape(len(rows), -1)


def generate_text(model, tokenizer, images, texts, **options):
    """Answers to texts (b * q strings, "" for a caption), q about each picture: b * q strings.

    images: what encode_images returns. options: of VLM.generate; greedy if none are given.
    """
    image_embeds, image_mask = images
    prompts = tokenize_prompts(tokenizer, texts, image_embeds.device)
    each, words = len(texts) // len(image_embeds), []
    step = max(ROWS // each, 1)
    for k in range(0, len(image_embeds), step):
        mask = None if image_mask is None else image_mask[k : k + step]
        tokens = model.generate(
            image_embeds[k : k + step],
            prompts[k * each : (k + step) * each],
            image_mask=mask,
            **options,
        )
        words += [tokenizer.decode(row) for row in tokens.tolist()]
    return words


class VLMPredictor:
    """A VLM as the evaluation knows it: pictures and questions in, words out.

    Tests put blind, deaf and stubborn ones in its place. answers, seconds: how many so far.
    """

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.answers, self.seconds = 0, 0.0

    def iter_batches(self, pictures, each, blind=False):
        """As many pictures at a time as give ROWS answers: (slice, (image_embeds, image_mask)).

        blind: no image tokens, image_embeds is (c, 0, d).
        """
        step, device = max(ROWS // each, 1), next(self.model.parameters()).device
        for start in range(0, len(pictures), step):
            part = slice(start, start + step)
            if blind:
                count = len(range(*part.indices(len(pictures))))
                nothing = torch.zeros(count, 0, self.model.decoder.dim, device=device)
                yield part, (nothing, None)
            else:
                yield part, self.model.encode_image(pictures[part].pixels())

    def answer(self, pictures, asked, blind=False):
        """asked: for each of n pictures q questions ("" for a caption) -> n lists of q."""
        t0, each, words = time.time(), len(asked[0]), []
        with evaluation_mode(self.model):
            for part, images in self.iter_batches(pictures, each, blind):
                texts = [text for row in asked[part] for text in row]
                words += generate_text(self.model, self.tokenizer, images, texts)
        self.answers, self.seconds = self.answers + len(words), self.seconds + time.time() - t0
        return [words[k : k + each] for k in range(0, len(words), each)]

    def prefers_yes(self, pictures, asked):
        """Is "yes" likelier than "no" as the first word? (n, q), 1, 0, or 0.5 for a tie."""
        yes, no = (self.tokenizer.encode(word)[0] for word in pictures.data.yes_no)
        wins = []
        with evaluation_mode(self.model):
            for part, (image_embeds, image_mask) in self.iter_batches(pictures, len(asked[0])):
                texts = [text for row in asked[part] for text in row]
                prompts = tokenize_prompts(self.tokenizer, texts, image_embeds.device)
                last_hidden, *_ = self.model.prefill(image_embeds, prompts, image_mask)
                logits = self.model.decoder.lm_head(last_hidden).float().cpu().numpy()
                wins.append(metrics.win_rate(logits[:, yes], logits[:, no]))
        return np.concatenate(wins).reshape(len(asked), -1)


def grad_x_input(model, tokenizer, pixels, asked, predictions):
    """Where the first word of each answer came from: (b, rows, columns), at most 1.

    |gradient x token| of the word's log-probability for each patch token of the encoder: unlike
    attention maps it reads alike through every projector that reads these tokens. Shrikumar et
    al., "Not just a black box" (2016).
    """
    tokens, pooled = model.encode_patches(pixels)
    tokens = tokens.detach().requires_grad_()
    image_embeds, image_mask = model.project(tokens, pooled)
    prompts = tokenize_prompts(tokenizer, asked, pixels.device)
    is_word, n = prompts != PAD, image_embeds.shape[1]
    positions = torch.arange(prompts.shape[1], device=pixels.device).expand_as(prompts)
    x = model.build_inputs_embeds(image_embeds, prompts, positions)
    blind = torch.zeros_like(is_word)
    mask = packed_attention_mask(n, image_mask, is_word.long(), blind)
    positions = model.decoder.number_row(n, image_mask, positions, blind)
    last = n + is_word.sum(1, keepdim=True)  # (b, 1), each prompt's end
    hidden = model.decoder(x, positions, mask, keep=last)[:, 0]  # (b, d)
    log_probs = model.decoder.lm_head(hidden).log_softmax(-1)
    rows = torch.arange(len(prompts), device=pixels.device)
    first = [(tokenizer.encode(said) or [EOS])[0] for said in predictions]
    said = log_probs[rows, torch.tensor(first, device=pixels.device)].sum()
    return saliency_of(said, tokens)  # nothing comes through hard labels
