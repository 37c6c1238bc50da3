"""Evaluating a VLM: captions, answers, presence. What its words are worth: metrics.py."""

import numpy as np

from data.batch import NotEnoughItems
from tinyvlm.evaluation import metrics
from tinyvlm.evaluation.common import in_each_language
from tinyvlm.evaluation.predictor import VLMPredictor
from tinyvlm.evaluation.statistics import macro_mean, proportion

TABLE = ("fact_f1", "fact_recall", "exact_caption", "unparseable", "chair_i", "misdescribed_i")
KEPT = (
    "fact_f1", "fact_precision", "fact_recall", "exact_caption", "unparseable",
    "chair_i", "chair_s", "misdescribed_i", "misdescribed_s",
)  # fmt: skip
UNPAIRED = 7  # questions about a picture, see evaluate_unpaired

# ---------------------------------------------------------------- tests


def evaluate_captions(predictor, pictures):
    """A usual caption of each picture: {name: metric}, and the captions."""
    asked = [[pictures.data.caption_prompt]] * len(pictures)
    captions = [row[0] for row in predictor.answer(pictures, asked)]
    return metrics.caption_report(pictures.judge(captions), pictures.cluster), captions


def evaluate_vqa(predictor, split, families, pairs):
    """Each question family on so many minimal pairs.

    Returns {family: {"seeing", "blind", "paraphrased", "needs_counting": metric}} and what was
    said, [(sample number, question, target, prediction)]. "Paraphrased" asks the same in words that
    training never used; "needs_counting" are counts of two and three and comparisons of things that
    are both there. Families that the split has no pairs of are left out; NotEnoughItems if that is
    all of them.
    """
    result, record = {}, []
    for family in families:
        try:
            asked = split.question_pairs(family, pairs)
        except NotEnoughItems:
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


def evaluate_premises(predictor, split, pairs):
    """Questions that presuppose a thing, which in one picture of each pair is not there, or not
    alone: {"recognised", "denied": metric}, shares of false and of true premises; {} if the split
    has too few of them."""
    try:
        asked = split.premise_pairs(pairs)
    except NotEnoughItems:
        return {}
    said = first_answers(predictor, asked)
    right = metrics.exact_match(said, asked.targets)
    denied = np.array([answer in split.denials for answer in said], float)
    false, true = asked.is_denied, ~asked.is_denied
    return {
        "recognised": proportion(
            right[false], asked.cluster[false], "what is not there, or not alone: it says so"
        ),
        "denied": proportion(
            denied[true], asked.cluster[true], "what is there, alone: it says the opposite"
        ),
    }


def evaluate_instructions(predictor, split, items):
    """Captions asked for in several ways, scored for what was asked: {level: {name: metric}}."""
    result = {}
    for level in split.levels:
        asked = split.caption_prompts(level, items)
        said = first_answers(predictor, asked)
        report = metrics.caption_report(asked.pictures.judge(said, level), asked.cluster)
        right, meaning = metrics.exact_match(said, asked.targets), "word for word as asked"
        result[level] = {
            "fact F1": report["fact_f1"], "misdescribed_s": report["misdescribed_s"],
            "as asked": proportion(right, asked.cluster, meaning),
        }  # fmt: skip
    return result


def evaluate_count(predictor, split, items):
    """How many things are there, in all? A metric."""
    asked = split.count_everything(items)
    right = metrics.exact_match(first_answers(predictor, asked), asked.targets)
    return proportion(right, asked.cluster, "how many things, in all")


def first_answers(predictor, asked):
    """What is said to Questions of which there is one about each picture."""
    return [row[0] for row in predictor.answer(asked.pictures, [[q] for q in asked.asked])]


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
                np.array(said, object).reshape(-1),
                found.is_there.reshape(-1),
                found.cluster,
                found.pictures.data.yes_no,
            )
            for form, said in answers.items()
        }
    return result


def evaluate_transfer(predictor, split, items):
    """A split whose pictures differ from training's: captions and unpaired questions.

    Returns {name: metric}, to be compared with the same of other splits.
    """
    pictures = split.pictures(items)
    report, _ = evaluate_captions(predictor, pictures)
    result = {name: report[name] for name in KEPT}
    asked = split.questions(pictures, UNPAIRED)
    for name, blind in (("vqa_unpaired", False), ("vqa_unpaired_blind", True)):
        result[name] = evaluate_unpaired(predictor, asked, blind)
    return result


def evaluate_unpaired(predictor, asked, blind):
    """Questions, UNPAIRED about each picture, as training draws them: a metric.

    Yes and no are balanced where the scene allows, but no picture stands beside that turns the
    answer round. So a model that sees nothing may guess (blind): where some colours are frequent it
    is more often right than where none is. Compare with one another, not with evaluate_vqa.
    """
    rows = [asked.asked[k : k + UNPAIRED] for k in range(0, len(asked.asked), UNPAIRED)]
    answers = predictor.answer(asked.pictures, rows, blind=blind)
    right = metrics.exact_match([a for row in answers for a in row], asked.targets)
    meaning = "the same without picture" if blind else f"{UNPAIRED} questions a picture, unpaired"
    return proportion(right, asked.cluster, meaning)


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
    """The test split: {title: metric} for the table, and all of {name: metric}."""
    return in_each_language(evaluate_language, model, data, items)


def evaluate_language(model, data, items):
    """The test split in one language, see evaluate_test."""
    predictor, split = VLMPredictor(model, data.tokenizer), data.split("test")
    captions, _ = evaluate_captions(predictor, split.pictures(2 * items))
    families, _ = evaluate_vqa(predictor, split, split.families, items)
    titles = {name: name.replace("_", " ") for name in TABLE}
    scores = {name: captions[name] for name in KEPT}
    for family, asked in families.items():
        titles[f"vqa_{family}"] = f"VQA {family}"
        scores[f"vqa_{family}"] = asked["seeing"]
        scores[f"vqa_blind_{family}"] = asked["blind"]
        scores[f"vqa_paraphrased_{family}"] = asked["paraphrased"]
        if asked["needs_counting"].items:
            titles[f"vqa_hard_{family}"] = f"VQA {family}, hard ones"
            scores[f"vqa_hard_{family}"] = asked["needs_counting"]
    scores["vqa"] = vqa_mean(families, "seeing")
    scores["vqa_blind"] = vqa_mean(families, "blind")
    scores["vqa_paraphrased"] = vqa_mean(families, "paraphrased")
    unpaired = split.questions(split.pictures(items), UNPAIRED)
    scores["vqa_unpaired_blind"] = evaluate_unpaired(predictor, unpaired, blind=True)
    scores["count_all"] = evaluate_count(predictor, split, items)
    for name, metric in evaluate_premises(predictor, split, items).items():
        scores[f"premise_{name}"] = metric
        titles[f"premise_{name}"] = f"premises {name}"
    for level, asked in evaluate_instructions(predictor, split, items).items():
        scores[f"misdescribed_s_{level}"] = asked["misdescribed_s"]
    titles |= {
        "vqa": "VQA, mean of families",
        "vqa_blind": "the same without picture",
        "vqa_paraphrased": "the same in words never trained",
        "count_all": "how many in all",
    }
    return {title: scores[name] for name, title in titles.items()}, scores


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
