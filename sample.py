"""Show a checkpoint a picture: words out, and a page with the pictures and the words.

python sample.py                                          # captions and answers of test pictures
python sample.py --question "what colour is the circle?"  # your question
python sample.py --image picture.png                      # your picture, of any size
python sample.py --checkpoint runs/clip                   # CLIP: which caption fits best
"""

import dataclasses
import os
import warnings
from pathlib import Path

import numpy as np
import torch

from tinyvlm.evaluation import plots
from tinyvlm.evaluation.predictor import encode_images, generate_text
from tinyvlm.training.checkpoint import checkpoint_file, load_checkpoint
from tinyvlm.training.config import UserError, option, refuse_unused, run_script, validate_config
from tinyvlm.training.distributed import pick_device
from tinyvlm.training.files import is_folder

MAX_PIXELS = 64_000_000  # of a picture of the user's
BACKDROP = (40, 40, 40, 255)  # what shows through where a picture is transparent


@dataclasses.dataclass
class Config:
    checkpoint: str = option(
        "runs/vlm-qformer", "checkpoint, or its folder, of train_vlm.py or train_clip.py"
    )
    image: str = option("", "a picture file of yours; if empty, pictures of the test split")
    question: str = option("", "a question; if empty, some of the world's own")
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
    pixels, names, lines = show(config, saved, path, device)
    for name, own in zip(names, lines, strict=True):
        print(f"\n{name}")
        for pieces in own:
            print("  " + "".join(printable(text) + mark(truth) for text, truth in pieces))
    plots.save_image_grid(pixels, lines, out)
    print(f"\nthe page: {out}")
    return str(out)


def refuse_what_has_no_effect(config, kind):
    """UserError for a setting that could be left out without a difference."""
    if config.image:
        refuse_unused(config, ["items", "start"], "with --image")
    if kind == "clip":
        refuse_unused(config, ["temperature", "top_k", "seed"], "with a CLIP, which says no words")
        if config.question:
            hint = "give --checkpoint a VLM's folder"
            raise UserError(f"CLIP ranks captions and answers no questions; {hint}")
    elif config.temperature == 0:
        refuse_unused(config, ["top_k", "seed"], "without --temperature")


def printable(text):
    """An untrained model says any byte: what a terminal could not show becomes a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text)


def mark(truth):
    return "" if truth is None else " [true]" if truth else " [FALSE]"


# ---------------------------------------------------------------- pictures


def open_pictures(config, data, device):
    """The user's picture, or pictures of the test split: pixels (b, 3, H, W), names, Pictures.

    There are no Pictures, so no truth, for a picture of the user's.
    """
    if config.image:
        pixels = read_picture(config.image, data.image_size).to(device)
        return pixels, [config.image], None
    pictures = data.split("test").pictures(config.items, config.start)
    return pictures.pixels(), [f"test picture {i}" for i in pictures.indices], pictures


def read_picture(path, size):
    """A picture file of any size -> uint8 (1, 3, size, size), its middle square. UserError if none.

    Where a value has more than 8 bits, or is a float, the largest one in the picture is white.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    too_large = UserError(f"{path} is too large; give a picture of at most 64 megapixels")
    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if file.width * file.height > MAX_PIXELS:  # before a pixel is read
                raise too_large
            if any(";16" in str(tile) for tile in file.tile) and not file.mode.startswith("I"):
                what = f"{path} has 16 bits a colour, of which half would be lost"
                raise UserError(f"{what}; save it with 8 bits")
            picture = to_rgb(ImageOps.exif_transpose(file), path)
    except Image.DecompressionBombError:
        raise too_large
    except FileNotFoundError:
        raise UserError(f"there is no picture {path}; check the name")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        what = f"{path} cannot be read as a picture ({type(error).__name__})"
        raise UserError(f"{what}; give a PNG or JPEG file")
    square = np.array(ImageOps.fit(picture, (size, size)))  # (H, W, C)
    return torch.from_numpy(square).permute(2, 0, 1)[None].contiguous()


def to_rgb(picture, path):
    """A picture of any mode -> RGB, 8 bits; what is transparent shows the backdrop."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        picture = Image.fromarray(to_bytes(np.asarray(picture), path))
    if "A" in picture.mode or "transparency" in picture.info:
        backdrop = Image.new("RGBA", picture.size, BACKDROP)
        picture = Image.alpha_composite(backdrop, picture.convert("RGBA"))
    return picture.convert("RGB")


def to_bytes(values, path):
    """Integers of more than 8 bits, or floats, as uint8, by their own range. UserError for nan.

    How many of the bits are used stands in no file: 12 bits in 16 are as frequent as 16.
    """
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise UserError(f"{path} has values that are not finite; give a PNG or JPEG file")
    low, high = min(values.min(), 0.0), values.max()
    return ((values - low) / max(high - low, 1e-12) * 255 + 0.5).astype(np.uint8)


# ---------------------------------------------------------------- VLM


def caption_and_answer(config, saved, path, device):
    """A caption and answers for each picture: pixels, names, lines."""
    import train_vlm

    model, _, data = train_vlm.load_model(saved, path, device)
    questions = own_question(config, data, model.decoder.max_length - 8)
    pixels, names, pictures = open_pictures(config, data, device)
    images = encode_images(model, pixels)
    generator = torch.Generator(device).manual_seed(config.seed)
    options = dict(temperature=config.temperature, top_k=config.top_k, generator=generator)

    def say(texts):
        return generate_text(model, data.tokenizer, images, texts, **options)

    captions = say([""] * len(pixels))
    if pictures is None:
        lines = [[[(caption or "(nothing)", None)]] for caption in captions]
    else:
        lines = [[pieces] for pieces in pictures.mark(captions)]
    for texts, targets in columns(questions, data, pictures, len(pixels)):
        for line, text, target, said in zip(lines, texts, targets, say(texts), strict=True):
            truth = None if target is None else said == target
            line.append([(text + " ", None), (said or "(nothing)", truth)])
    return pixels, names, lines


def own_question(config, data, limit):
    """The user's question as the grammar spells it: a list of one, or none. UserError if it is
    empty or too long."""
    if not config.question:
        return []
    text = data.normalize_question(config.question)
    if not text:
        raise UserError("--question is empty; ask something, or leave it out")
    if len(data.tokenizer.encode(text)) > limit:
        what = f"--question is longer than {limit} tokens (unknown words are spelled by bytes)"
        raise UserError(f"{what}; ask a shorter one")
    return [text]


def columns(questions, data, pictures, b):
    """What is asked, a column for each question: (b texts, b right answers, None if unknown)."""
    if questions or pictures is None:
        for text in questions or data.generic_questions:
            yield [text] * b, pictures.answers(text) if pictures else [None] * b
        return
    each = 3
    asked = data.split("test").questions(pictures, each)
    for q in range(each):
        yield asked.asked[q::each], asked.targets[q::each]


# ---------------------------------------------------------------- CLIP


def rank_captions(config, saved, path, device, candidates=5):
    """The best captions for each picture, with their cosines: pixels, names, lines.

    Candidates are all pictures' own captions, or "a COLOUR SHAPE" for a picture of the user's.
    """
    import train_clip

    model, _, data = train_clip.load_model(saved, path, device)
    pixels, names, pictures = open_pictures(config, data, device)
    captions = pictures.captions() if pictures else data.class_captions()
    tokens = torch.tensor(data.tokenizer.encode_captions(captions), device=device)
    with torch.no_grad():
        cosines = (model.encode_image(pixels) @ model.encode_text(tokens).T).cpu()  # (b, captions)
    is_match = pictures.is_match(captions) if pictures else None
    lines = []
    for k, row in enumerate(cosines):
        best = row.argsort(descending=True)[:candidates].tolist()
        truths = [None if is_match is None else bool(is_match[k, i]) for i in best]
        lines.append(
            [
                [(f"{row[i]:+.2f}  ", None), (captions[i], truth)]
                for i, truth in zip(best, truths, strict=True)
            ]
        )
    return pixels, names, lines


if __name__ == "__main__":
    run_script(main, Config, __doc__)
