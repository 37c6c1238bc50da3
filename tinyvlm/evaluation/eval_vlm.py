"""Evaluating a VLM: captions, answers, presence. What its words are worth: metrics.py."""

import time

import numpy as np
import torch

from data.shapes.scene import NotEnoughScenes
from data.tokenizer import EOS, PAD
from tinyvlm.decoders import MAX_TEXT_TOKENS
from tinyvlm.evaluation import metrics
from tinyvlm.evaluation.common import evaluation_mode, saliency_grid
from tinyvlm.evaluation.statistics import macro_mean, proportion
from tinyvlm.vlm import packed_attention_mask

ROWS = 256  # answers that are decoded together
TABLE = ("fact_f1", "fact_recall", "exact_caption", "unparseable", "chair_i", "misdescribed_i")
KEPT = (
    "fact_f1", "fact_precision", "fact_recall", "exact_caption", "unparseable",
    "chair_i", "chair_s", "misdescribed_i", "misdescribed_s",
)  # fmt: skip

# ---------------------------------------------------------------- pictures and questions to words


@torch.no_grad()
def encode_images(model, pixels, chunk=128):
    """Pictures (b, 3, H, W) -> image_embeds (b, n, d), image_mask (b, n) or None; in chunks."""
    embeds, masks = zip(*[model.encode_image(part) for part in pixels.split(chunk)], strict=True)
    return torch.cat(embeds), None if masks[0] is None else torch.cat(masks)


def tokenize_prompts(tokenizer, texts, device):
    """Strings -> tokens (n, longest), [PAD] at the ends."""
    rows = tokenizer.encode_batch(texts)
    return torch.tensor(rows, dtype=torch.long, device=device).reshape(len(rows), -1)


def generate_text(model, tokenizer, images, texts, **options):
    """Answers to texts (b * q strings, "" for a caption), q about each picture: b * q strings.

    images: what encode_images returns. options: of VLM.generate; greedy if none are given.
    """
    image_embeds, image_mask = images
    prompts = tokenize_prompts(tokenizer, texts, image_embeds.device)
    each, words = len(texts) // len(image_embeds), []
    limit = MAX_TEXT_TOKENS - prompts.shape[1]
    step = max(ROWS // each, 1)
    for k in range(0, len(image_embeds), step):
        mask = None if image_mask is None else image_mask[k : k + step]
        tokens = model.generate(
            image_embeds[k : k + step],
            prompts[k * each : (k + step) * each],
            image_mask=mask,
            max_new_tokens=limit,
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
        """asked: for each of n pictures a list of q questions ("" for a caption) -> n lists of q."""
        t0, each, words = time.time(), len(asked[0]), []
        with evaluation_mode(self.model):
            for part, images in self.iter_batches(pictures, each, blind):
                texts = [text for row in asked[part] for text in row]
                words += generate_text(self.model, self.tokenizer, images, texts)
        self.answers, self.seconds = self.answers + len(words), self.seconds + time.time() - t0
        return [words[k : k + each] for k in range(0, len(words), each)]

    def prefers_yes(self, pictures, asked):
        """Is "yes" likelier than "no" as the first word? (n, q), 1, 0, or 0.5 for a tie."""
        yes, no = self.tokenizer.encode("yes no")
        wins = []
        with evaluation_mode(self.model):
            for part, (image_embeds, image_mask) in self.iter_batches(pictures, len(asked[0])):
                texts = [text for row in asked[part] for text in row]
                prompts = tokenize_prompts(self.tokenizer, texts, image_embeds.device)
                last_hidden, *_ = self.model.prefill(image_embeds, prompts, image_mask)
                logits = self.model.decoder.lm_head(last_hidden).float().cpu().numpy()
                wins.append(metrics.win_rate(logits[:, yes], logits[:, no]))
        return np.concatenate(wins).reshape(len(asked), -1)


# ---------------------------------------------------------------- tests


def evaluate_captions(predictor, pictures):
    """A caption of each picture: {name: metric}, and the captions."""
    captions = [row[0] for row in predictor.answer(pictures, [[""]] * len(pictures))]
    return metrics.caption_report(pictures.judge(captions), pictures.cluster), captions


def evaluate_vqa(predictor, split, families, pairs):
    """Each question family on so many minimal pairs.

    Returns {family: {"seeing", "blind", "paraphrased", "needs_counting": metric}} and what was
    said, [(sample number, question, target, prediction)]. "Paraphrased" asks the same in words that
    training never used; "needs_counting" are counts of two and three and comparisons of things that
    are both there. Families that the split has no pairs of are left out; NotEnoughScenes if that is
    all of them.
    """
    result, record = {}, []
    for family in families:
        try:
            asked = split.question_pairs(family, pairs)
        except NotEnoughScenes:
            if family == families[-1] and not result:
                raise
            continue
        result[family], predictions = evaluate_family(predictor, asked)
        indices = asked.pictures.indices.tolist()
        record += zip(indices, asked.asked, asked.targets, predictions, strict=True)
    return result, record


def evaluate_family(predictor, asked):
    """One family's QuestionPairs: ({"seeing" ...: metric}, the answers of the seeing)."""
    both = [list(row) for row in zip(asked.asked, asked.paraphrases, strict=True)]
    seeing, paraphrased = zip(*predictor.answer(asked.pictures, both), strict=True)
    alone = predictor.answer(asked.pictures, [[q] for q in asked.asked], blind=True)
    blind = [row[0] for row in alone]
    right = {
        name: metrics.exact_match(predictions, asked.targets)
        for name, predictions in (
            ("seeing", seeing), ("blind", blind), ("paraphrased", paraphrased),
        )
    }  # fmt: skip
    scores = {n: proportion(r, asked.cluster, "", asked.chance) for n, r in right.items()}
    counting = asked.needs_counting
    scores["needs_counting"] = proportion(
        right["seeing"][counting], asked.cluster[counting], "of these, those that take counting"
    )
    return scores, list(seeing)


def vqa_mean(families, which):
    """The mean over families of evaluate_vqa's result, `which` being "seeing", "blind" ..."""
    scores = [scores[which] for scores in families.values()]
    return macro_mean(scores, "", float(np.mean([score.chance for score in scores])))


def evaluate_pope(predictor, split, items):
    """Presence of shapes, two questions about each of `items` pictures, by kind of negative.

    Returns {kind: {"words" or "logits": {name: metric}}}; see data/shapes/hard_negatives.py.
    """
    result = {}
    for kind in split.negatives:
        found = split.presence(kind, items // 2)
        answers = dict(
            words=predictor.answer(found.pictures, found.asked),
            logits=predictor.prefers_yes(found.pictures, found.asked),
        )
        result[kind] = {
            form: metrics.pope_report(
                np.array(said, object).reshape(-1), found.is_there.reshape(-1), found.cluster
            )
            for form, said in answers.items()
        }
    return result


def evaluate_transfer(predictor, split, items, each=7):
    """A split whose pictures differ from training's: captions and `each` unpaired questions.

    The questions are those of training (yes and no balanced where the scene allows), so compare
    splits with one another here, not with evaluate_vqa. Returns {name: metric}.
    """
    pictures = split.pictures(items)
    report, _ = evaluate_captions(predictor, pictures)
    asked = split.questions(pictures, each)
    rows = [asked.asked[k : k + each] for k in range(0, len(asked.asked), each)]
    result = {
        name: report[name]
        for name in (
            "fact_f1", "fact_recall", "exact_caption", "chair_i", "chair_s",
            "misdescribed_i", "misdescribed_s", "unparseable",
        )
    }  # fmt: skip
    for name, blind, meaning in (
        ("vqa_unpaired", False, f"{each} questions a picture, unpaired"),
        ("vqa_unpaired_blind", True, "the same without picture"),
    ):
        answers = predictor.answer(pictures, rows, blind=blind)
        right = metrics.exact_match([a for row in answers for a in row], asked.targets)
        result[name] = proportion(right, asked.cluster, meaning)
    return result


# ---------------------------------------------------------------- for the training script


def validate(model, data, pictures=64, pairs=24):
    """A small validation: {"val_...": number}."""
    predictor, split = VLMPredictor(model, data.tokenizer), data.split("val")
    captions, _ = evaluate_captions(predictor, split.pictures(pictures))
    families, _ = evaluate_vqa(predictor, split, split.families, pairs)
    return dict(
        val_fact_f1=captions["fact_f1"].value,
        val_exact_caption=captions["exact_caption"].value,
        val_vqa=vqa_mean(families, "seeing").value,
    )


def evaluate_test(model, data, items):
    """The test split: {name: metric} for the table, and numbers for metrics.json."""
    predictor, split = VLMPredictor(model, data.tokenizer), data.split("test")
    captions, _ = evaluate_captions(predictor, split.pictures(2 * items))
    families, _ = evaluate_vqa(predictor, split, split.families, items)
    table = {name.replace("_", " "): captions[name] for name in TABLE}
    numbers = {name: captions[name].value for name in KEPT}
    for family, scores in families.items():
        table[f"VQA {family}"] = scores["seeing"]
        numbers[f"vqa_{family}"] = scores["seeing"].value
        numbers[f"vqa_blind_{family}"] = scores["blind"].value
    seeing, blind = vqa_mean(families, "seeing"), vqa_mean(families, "blind")
    table |= {"VQA, mean of families": seeing, "the same without picture": blind}
    return table, numbers | dict(vqa=seeing.value, vqa_blind=blind.value, vqa_chance=seeing.chance)


def sample_lines(model, data, pictures, each=3):
    """A caption and `each` answers of each picture, judged: lines for a page, see plots.py."""
    predictor = VLMPredictor(model, data.tokenizer)
    asked = pictures.data.split("test").questions(pictures, each)
    rows = [["", *asked.asked[k : k + each]] for k in range(0, len(asked.asked), each)]
    answers = predictor.answer(pictures, rows)
    lines = [[caption] for caption in pictures.mark([row[0] for row in answers])]
    for k, (line, row, answer) in enumerate(zip(lines, rows, answers, strict=True)):
        targets = asked.targets[k * each : (k + 1) * each]
        for question, said, target in zip(row[1:], answer[1:], targets, strict=True):
            line.append([(question + " ", None), (said or "(nothing)", said == target)])
    return lines


# ---------------------------------------------------------------- where an answer came from


def grad_x_input(model, tokenizer, pixels, asked, predictions):
    """Where the first word of each answer came from: (b, rows, columns), at most 1.

    |gradient x token| of the word's log-probability for each patch token of the encoder: unlike
    attention maps it reads alike through every projector. Shrikumar et al., "Not just a black box"
    (2016).
    """
    tokens, pooled = model.encode_patches(pixels)
    tokens = tokens.detach().requires_grad_()
    image_embeds, image_mask = model.project(tokens, pooled)
    prompts = tokenize_prompts(tokenizer, asked, pixels.device)
    is_word, n = prompts != PAD, image_embeds.shape[1]
    positions = torch.arange(prompts.shape[1], device=pixels.device).expand_as(prompts)
    x = model.build_inputs_embeds(image_embeds, prompts, positions)
    mask = packed_attention_mask(n, image_mask, is_word.long(), torch.zeros_like(is_word))
    hidden = model.decoder(x, mask, skip_prefix=n)
    rows = torch.arange(len(prompts), device=pixels.device)
    log_probs = model.decoder.lm_head(hidden[rows, is_word.sum(1)]).log_softmax(-1)
    first = [(tokenizer.encode(said) or [EOS])[0] for said in predictions]
    said = log_probs[rows, torch.tensor(first, device=pixels.device)].sum()
    (gradient,) = torch.autograd.grad(said, tokens, allow_unused=True)
    # No gradient comes through hard labels.
    return saliency_grid(tokens * (0 if gradient is None else gradient))
