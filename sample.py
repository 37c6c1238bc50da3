"""Show a checkpoint pictures: words out, and a page with the pictures and the words.

python sample.py                                           # test pictures: captions, answers
python sample.py --question "what colour is the circle?"   # your question, or several
python sample.py --image picture.png holiday/              # your pictures, files and folders
python sample.py --image picture.png --heat                # and where each answer came from
python sample.py --items 1 --trace                         # the way through the model, shapes
python sample.py --checkpoint runs/clip --caption "a red circle" --caption "two dogs"
"""

import dataclasses
import os
from pathlib import Path

import torch

from data.dataset import SPOKEN
from tinyvlm.evaluation import plots
from tinyvlm.evaluation.cases import saliency_of_answers, saliency_of_cosines
from tinyvlm.evaluation.predictor import encode_images, generate_text
from tinyvlm.evaluation.shown import open_pictures
from tinyvlm.evaluation.trace import trace
from tinyvlm.training.checkpoint import checkpoint_file, load_checkpoint
from tinyvlm.training.config import UserError, option, refuse_unused, run_script, validate_config
from tinyvlm.training.distributed import pick_device
from tinyvlm.training.files import is_folder

LEAST_TEMPERATURE = 0.01  # below, logits overflow


@dataclasses.dataclass
class Config:
    checkpoint: str = option(
        "runs/vlm-qformer", "checkpoint, or its folder, of train_vlm.py or train_clip.py"
    )
    image: tuple = option((), "picture files or folders of yours; if none, the test split's")
    question: tuple = option((), "questions; if none, some of the world's own")
    caption: tuple = option((), "captions for a CLIP to rank; if none, the world's own")
    language: str = option("", "of captions; if empty the first of training's", choices=SPOKEN)
    heat: bool = option(False, "show where each answer, or best cosine, came from")
    trace: bool = option(False, "show the way of the first picture and question, with shapes")
    items: int = option(8, "pictures of the test split", min=1, max=64)
    start: int = option(0, "first picture of the test split", min=0, max=10**12)
    temperature: float = option(0.0, "0 says the likeliest words, more others too", min=0.0, max=10)
    top_k: int = option(0, "with a temperature: among the k likeliest words, 0 among all", min=0)
    seed: int = option(0, "seed of the choice, with a temperature", min=0, max=2**31)
    device: str = option("auto", "auto, cpu, mps, cuda or cuda:N")
    out: str = option("", "file of the page; if empty sample.png beside the checkpoint")


def main(config):
    """Print what the model says and write the page; returns the page's path."""
    config, device = validate_config(config), pick_device(config.device)
    saved = load_checkpoint(config.checkpoint)
    refuse_what_has_no_effect(config, saved["kind"])
    path = Path(config.checkpoint)
    out = Path(config.out) if config.out else checkpoint_file(path).parent / "sample.png"
    if out.suffix.lower() != ".png" or is_folder(out):
        raise UserError(f"--out {out} is no PNG file; give a name that ends in .png")
    if not is_folder(out.parent) or not os.access(out.parent, os.W_OK):
        raise UserError(f"there is no folder {out.parent} to write to; name another --out")
    show = rank_captions if saved["kind"] == "clip" else caption_and_answer
    shown, lines, drawn = show(config, saved, path, out, device)
    for name, notes, own in zip(shown.names, shown.notes, lines, strict=True):
        print(f"\n{printable(name)}" + "".join(f"\n  note: {note}" for note in notes))
        for pieces in own:
            print("  " + "".join(printable(text) + mark(truth) for text, truth in pieces))
    plots.save_image_grid(drawn, lines, out)
    print(f"\nthe page: {out}")
    return str(out)


def refuse_what_has_no_effect(config, kind):
    """UserError for a setting that could be left out without a difference."""
    if config.image:
        refuse_unused(config, ["items", "start"], "with --image")
    if kind == "clip":
        names = ["temperature", "top_k", "seed", "trace"]
        refuse_unused(config, names, "with a CLIP, which says no words")
        if config.question:
            hint = "give --checkpoint a VLM's folder, or --caption"
            raise UserError(f"CLIP ranks captions and answers no questions; {hint}")
        return
    if config.caption:
        hint = "give --checkpoint a CLIP's folder, or --question"
        raise UserError(f"a VLM answers questions and ranks no captions; {hint}")
    if config.temperature == 0:
        refuse_unused(config, ["top_k", "seed"], "without --temperature")
    elif config.temperature < LEAST_TEMPERATURE:
        hint = f"give 0 for the likeliest words, or {LEAST_TEMPERATURE} or more"
        raise UserError(f"--temperature {config.temperature:g} is too low to draw words by; {hint}")


def printable(text):
    """An untrained model says any byte: what a terminal could not show becomes a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text)


def mark(truth):
    return "" if truth is None else " [true]" if truth else " [FALSE]"


# ---------------------------------------------------------------- VLM


def caption_and_answer(config, saved, path, page, device):
    """A caption and answers for each picture: Shown, lines, what is drawn."""
    import train_vlm

    model, _, data = train_vlm.load_model(saved, path, device)
    data = in_language(data, config)
    own = own_questions(config, data, model.decoder.max_length - 8)
    shown = open_pictures(config, page, data, device)
    images = encode_images(model, shown.pixels)
    generator = torch.Generator(device).manual_seed(config.seed)
    options = dict(temperature=config.temperature, top_k=config.top_k, generator=generator)
    columns = asked_columns(own, data, shown)
    texts = [[data.caption_prompt] * len(shown.pixels)] + [asked for asked, _ in columns]
    answers = [generate_text(model, data.tokenizer, images, t, **options) for t in texts]
    lines = caption_lines(shown.pictures, answers[0])
    for (asked, targets), said in zip(columns, answers[1:], strict=True):
        if own and shown.pictures:
            marked = shown.pictures.mark_answers(asked[0], said)
        else:
            marked = [[judged(*one)] for one in zip(said, targets, strict=True)]
        for k, pieces in enumerate(marked):
            lines[k] += answer_lines(data, asked[k], pieces)
    if config.trace:
        question = columns[0][0][0] if columns else ""
        print(f"the way of {printable(shown.names[0])} and {question!r}, by the likeliest words")
        print("\n".join(trace(model, data.tokenizer, shown.pixels[:1], question)))
    drawn = shown.pixels
    if config.heat:
        asked = [column for column, _ in columns]
        drawn = saliency_of_answers(model, data.tokenizer, shown.pixels, asked, answers[1:])
    return shown, lines, drawn


def in_language(data, config):
    """The data set, speaking the language that is asked for. UserError if it does not know it."""
    if config.language and config.language not in data.languages:
        known = " and ".join(data.languages)
        raise UserError(f"this model knows {known}; leave out --language {config.language}")
    return data.speaking(config.language or data.language)


def own_questions(config, data, limit):
    """The user's questions as the grammar spells them. UserError if one is empty or too long."""
    texts = [data.normalize_question(question) for question in config.question]
    for text in texts:
        if not text.strip("? "):
            raise UserError("--question is empty; ask something, or leave it out")
        if len(data.tokenizer.encode(text)) > limit:
            what = f"--question is longer than {limit} tokens (unknown words are spelled by bytes)"
            raise UserError(f"{what}; ask a shorter one")
    return texts


def asked_columns(own, data, shown, each=3):
    """What is asked: for each question (b texts, b right answers); None where it is a person's."""
    if own or shown.pictures is None:
        nothing = [None] * len(shown.pixels)
        return [([text] * len(nothing), nothing) for text in own or data.generic_questions]
    asked = data.split("test").questions(shown.pictures, each)
    return [(asked.asked[q::each], asked.targets[q::each]) for q in range(each)]


def caption_lines(pictures, captions):
    """The first line of each picture: its caption, marked where the truth is known."""
    if pictures is not None:
        return [[pieces] for pieces in pictures.mark(captions)]
    return [[[(caption or "(nothing)", None)]] for caption in captions]


def judged(said, target):
    """An answer as a piece of text, and whether it is right, None where that is not known."""
    return said or "(nothing)", None if target is None else said == target


def answer_lines(data, question, pieces):
    """A question and its answer, after a note if the data set does not know the question."""
    note = data.explain_question(question)
    answer = [(question + " ", None), *pieces]
    return [[(note, None)], [*answer, (" (a guess)", None)]] if note else [answer]


# ---------------------------------------------------------------- CLIP


def rank_captions(config, saved, path, page, device, candidates=5):
    """The best captions of each picture, with their cosines: Shown, lines, what is drawn.

    Candidates are the user's captions, all pictures' own, or "a COLOUR SHAPE".
    """
    import train_clip

    model, _, data = train_clip.load_model(saved, path, device)
    data = in_language(data, config)
    shown = open_pictures(config, page, data, device)
    captions, is_match = [data.normalize_caption(text) for text in config.caption], None
    if "" in captions:
        raise UserError("--caption is empty; say what could be in the picture")
    if shown.pictures:
        captions = captions or shown.pictures.captions()
        is_match = [shown.pictures.is_true(caption) for caption in captions]  # (captions, b)
    captions = captions or data.class_captions()
    tokens = torch.tensor(data.tokenizer.encode_captions(captions), device=device)
    if tokens.shape[1] > model.text.max_length:
        what = f"--caption is longer than {model.text.max_length - 2} tokens"
        raise UserError(f"{what} (unknown words are spelled by bytes); give a shorter one")
    with torch.no_grad():
        text = model.encode_text(tokens)
        cosines = (model.encode_image(shown.pixels) @ text.T).cpu()  # (b, captions)
    best = cosines.argsort(descending=True)[:, : len(config.caption) or candidates].tolist()
    lines = []
    for k, row in enumerate(cosines):
        truths = [is_match[i][k] if is_match else None for i in best[k]]
        ranked = zip(best[k], truths, strict=True)
        lines.append([[(f"{row[i]:+.2f}  ", None), (captions[i], truth)] for i, truth in ranked])
    drawn = shown.pixels
    if config.heat:
        drawn = saliency_of_cosines(model, shown.pixels, text[[row[0] for row in best]])
    return shown, lines, drawn


if __name__ == "__main__":
    run_script(main, Config, __doc__)
