"""Examining a VLM: captions, answers, presence, for a whole test. What its words are worth is decided in metrics.py."""

import time
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange

from data.shapes import grammar, hard_negatives, questions
from data.dataset import tokenizer
from data.shapes.grammar import PARAPHRASES, QUESTIONS
from data.shapes.render import render
from data.shapes.scene import NotEnoughScenes, sample
from data.tokenizer import EOS, PAD
from tinyvlm.evaluation import metrics
from tinyvlm.decoders import MAX_TEXT_TOKENS
from tinyvlm.vision import GRID
from tinyvlm.vlm import packed_attention_mask

ROWS = 256  # answers that are decoded together


@torch.no_grad()
def encode_images(model, pixels, chunk=128):
    """Pictures (b, 3, H, W) -> image tokens (b, n, d), a chunk at a time."""
    return torch.cat([model.encode_image(p) for p in pixels.split(chunk)])


def tokenize_prompts(texts, device):
    """Strings -> tokens (n, longest), [PAD] at the ends."""
    rows = [tokenizer.encode(text) for text in texts]
    width = max(len(row) for row in rows)
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows], dtype=torch.long, device=device).reshape(len(rows), width)


def generate_text(model, image_embeds, texts, **options):
    """Answers to texts (b * q strings, "" for a caption), q about each picture's image tokens (b, n, d): b * q strings.

    options: of VLM.generate; greedy if none are given."""
    prompts = tokenize_prompts(texts, image_embeds.device)
    each, predictions = len(texts) // len(image_embeds), []
    pictures = max(ROWS // each, 1)
    for image, asked in zip(image_embeds.split(pictures), prompts.split(pictures * each)):
        tokens = model.generate(image, asked, max_new_tokens=MAX_TEXT_TOKENS - prompts.shape[1], **options)
        predictions += [tokenizer.decode(row) for row in tokens.tolist()]
    return predictions


class VLMPredictor:
    """A VLM as the exams know it: scenes and questions in, words out. Tests put blind, deaf and stubborn ones in its place."""

    def __init__(self, model, world, image_size, device):
        self.model, self.world, self.image_size, self.device = model, world, image_size, device
        self.answers, self.seconds = 0, 0.0

    def iter_batches(self, scenes, each, blind=False):
        """Image tokens of as many pictures at a time as give ROWS answers, and where they are: (slice, (c, n, d)); none if blind."""
        step = max(ROWS // each, 1)
        for start in range(0, len(scenes.objects), step):
            mine = slice(start, start + step)
            if blind:
                yield mine, torch.zeros(len(scenes.objects[mine]), 0, self.model.decoder.dim, device=self.device)
                continue
            with torch.no_grad():
                yield mine, self.model.encode_image(render(self.world, hard_negatives.select(scenes, mine), self.image_size, self.device))

    def answer(self, scenes, asked, blind=False):
        """asked: for each of b pictures a list of q questions ("" for a caption) -> b lists of q answers."""
        began, each, predictions = time.time(), len(asked[0]), []
        for mine, image_embeds in self.iter_batches(scenes, each, blind):
            predictions += generate_text(self.model, image_embeds, [q for row in asked[mine] for q in row])
        self.answers, self.seconds = self.answers + len(predictions), self.seconds + time.time() - began
        return [predictions[k : k + each] for k in range(0, len(predictions), each)]

    def prefers_yes(self, scenes, asked):
        """The same, without words: is "yes" likelier than "no" as the first word? (b, q), 1, 0, or 0.5 for a tie."""
        yes, no = tokenizer.encode("yes no")
        leaning = []
        for mine, image_embeds in self.iter_batches(scenes, len(asked[0])):
            prompts = tokenize_prompts([q for row in asked[mine] for q in row], self.device)
            logits = self.model.decoder.lm_head(self.model.prefill(image_embeds, prompts)[0]).float()
            leaning.append(metrics.win_rate(logits[:, yes].cpu().numpy(), logits[:, no].cpu().numpy()))
        return np.concatenate(leaning).reshape(len(asked), -1)


def columns(*texts):
    """Columns of strings, n each -> n rows."""
    return [list(row) for row in zip(*texts)]


def evaluate_captions(predictor, world, seed, split, items):
    """Captions of `items` pictures, no two of one minimal pair: {name: metrics.Score}, the captions and the scenes."""
    indices = np.arange(0, 2 * items, 2)
    scenes = sample(world, seed, split, indices)
    captions = [row[0] for row in predictor.answer(scenes, [[""]] * items)]
    return metrics.caption_report(captions, scenes.objects, indices // 2), captions, scenes


def evaluate_vqa(predictor, world, seed, split, families, pairs):
    """Each family on so many minimal pairs: {family: (seeing, blind, in other words, seeing the hard ones: Score each)}, and all that was said.

    "In other words" asks the same with a template that training never used. Hard ones, which take counting, are counts of two and three and comparisons
    of things that are both there (questions.Pairs). What was said: [(scene index, question, wanted, said)].
    Families that the split has no pairs of are left out; TooPoor if that is all of them.
    """
    result, record = {}, []
    for family in families:
        try:
            found = questions.sample_minimal_pairs(world, seed, split, family, pairs)
        except NotEnoughScenes:
            if family == families[-1] and not result:
                raise
            continue
        indices, rows = (found.indices[:, None] + [0, 1]).reshape(-1), found.rows.repeat(2, 0)
        scenes = sample(world, seed, split, indices)
        asked, otherwise = (grammar.texts(grammar.render_question(rows, templates)) for templates in (QUESTIONS, PARAPHRASES))
        targets = grammar.texts(grammar.render_answer(rows, found.answers.reshape(-1)))
        seeing, other = zip(*predictor.answer(scenes, columns(asked, otherwise)))
        blind = [row[0] for row in predictor.answer(scenes, columns(asked), blind=True)]
        chance = questions.chance(world, family, found.answers)
        right, hard = [metrics.exact_match(predictions, targets) for predictions in (seeing, blind, other)], found.needs_counting.repeat(2)
        result[family] = tuple(metrics.proportion(part, indices // 2, "", chance) for part in right)
        result[family] += (metrics.proportion(right[0][hard], indices[hard] // 2, "of these, those that take counting"),)
        record += list(zip(indices.tolist(), asked, targets, seeing))
    return result, record


def macro_mean(families, which):
    """The mean over families of vqa_exam's result, 0 seeing, 1 blind, 2 in other words: Score."""
    scores = [scores[which] for scores in families.values()]
    return metrics.macro_mean(scores, "", float(np.mean([score.chance for score in scores])))


def evaluate_pope(predictor, world, seed, split, items):
    """Presence of shapes, two questions about each of `items` pictures: {kind of negative: {"words" or "logits": {name: Score}}}; see foils.presence."""
    result = {}
    for kind in hard_negatives.NEGATIVES:
        scenes, shapes, there = hard_negatives.sample_pope(world, seed, split, kind, items // 2)
        asked = [grammar.texts(grammar.render_question(hard_negatives.existence_statements(row))) for row in shapes]
        square = (np.arange(len(asked)) // 2).repeat(2)  # its four answers hang together
        answers = (("words", predictor.answer(scenes, asked)), ("logits", predictor.prefers_yes(scenes, asked)))
        result[kind] = {form: metrics.pope_report(np.array(predictions, object).reshape(-1), there.reshape(-1), square) for form, predictions in answers}
    return result


def evaluate_transfer(predictor, world, seed, split, items, each=7):
    """A split whose pictures differ from training's: captions, and `each` unpaired questions a picture, {name: Score}.

    The questions are those of training (yes and no balanced where the scene allows), so compare splits with one another here, not with vqa_exam.
    """
    report, _, scenes = evaluate_captions(predictor, world, seed, split, items)
    indices = np.arange(0, 2 * items, 2)
    # A held-out pair may be asked for where it is what the split is about.
    asking = replace(world, held_out=0) if split == "held_out" else world
    rows, answers = questions.sample_questions(asking, seed, split, indices, scenes.objects, questions.FAMILIES, each)
    flat = rows.reshape(-1, grammar.WIDTH)
    asked, targets = grammar.texts(grammar.render_question(flat)), grammar.texts(grammar.render_answer(flat, answers.reshape(-1)))
    rows = [asked[k : k + each] for k in range(0, len(asked), each)]
    predictions, guessed = ([answer for row in predictor.answer(scenes, rows, blind=blind) for answer in row] for blind in (False, True))
    group, kept = (indices // 2).repeat(each), ("fact_f1", "fact_recall", "exact_caption", "chair_i", "chair_s", "misdescribed_i", "misdescribed_s", "unparseable")
    right = metrics.proportion(metrics.exact_match(predictions, targets), group, f"{each} questions a picture, unpaired")
    by_words = metrics.proportion(metrics.exact_match(guessed, targets), group, "the same without picture")
    return {name: report[name] for name in kept} | dict(vqa_unpaired=right, vqa_unpaired_blind=by_words)


def grad_x_input(model, pixels, asked, predictions):
    """Where the first word of each answer came from: (b, 14, 14), the strongest patch of each picture is 1.

    |gradient x token| of the word's log-probability for each patch token of the encoder: unlike attention maps it reads alike through every
    projector. Shrikumar et al., "Not just a black box" (2016).
    """
    tokens = model.encode_patches(pixels).detach().requires_grad_()
    image_embeds, prompts = model.project(tokens), tokenize_prompts(asked, pixels.device)
    there, n = prompts != PAD, image_embeds.shape[1]
    x = model.build_inputs_embeds(image_embeds, prompts, torch.arange(prompts.shape[1], device=pixels.device).expand_as(prompts))
    hidden = model.decoder(x, packed_attention_mask(n, None, there.long(), torch.zeros_like(there)), skip_prefix=n)
    rows = torch.arange(len(prompts), device=pixels.device)
    chances = model.decoder.lm_head(hidden[rows, there.sum(1)]).log_softmax(-1)
    first = torch.tensor([(tokenizer.encode(s) or [EOS])[0] for s in predictions], device=pixels.device)
    (gradient,) = torch.autograd.grad(chances[rows, first].sum(), tokens, allow_unused=True)
    return as_grid(tokens * (0 if gradient is None else gradient))  # no gradient comes through hard labels


def as_grid(parts):
    """Each patch's parts (b, 196, d) -> their absolute sums as a map (b, 14, 14), at most 1."""
    size = parts.detach().sum(-1).abs()
    return rearrange(size / size.amax(1, keepdim=True).clamp(min=1e-12), "b (i j) -> b i j", i=GRID)
