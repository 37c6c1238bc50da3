"""Show a checkpoint a picture: words out, and a page with the pictures and the words.

    python sample.py                                          # captions and answers for pictures of the test split
    python sample.py --question "what colour is the circle?"  # your question
    python sample.py --image picture.png                      # your picture, of any size
    python sample.py --checkpoint runs/clip                   # CLIP: which caption fits best
"""

import dataclasses
import os
from pathlib import Path

import numpy as np
import torch

from data.shapes import grammar, questions
from data.dataset import to_tokens, tokenizer
from data.shapes.render import render
from data.shapes.scene import PLACE, sample
from data.tokenizer import BOS
from tinyvlm.evaluation import plots
from tinyvlm.training import checkpoint, distributed, loop
from tinyvlm.training.config import UserError, run_script, option
from tinyvlm.evaluation.eval_vlm import generate_text, encode_images
from tinyvlm.decoders import MAX_TEXT_TOKENS


@dataclasses.dataclass
class Config:
    checkpoint: str = option("runs/vlm-qformer", "checkpoint, or its folder, of train_vlm.py or train_clip.py")
    image: str = option("", "a picture file of yours; if empty, pictures of the test split")
    question: str = option("", "a question; if empty, some of the world's own")
    items: int = option(8, "pictures of the test split", min=1, max=64)
    start: int = option(0, "first sample of the test split", min=0, max=10**12)
    temperature: float = option(0.0, "0 says the likeliest words, more says others too", min=0.0, max=10.0)
    top_k: int = option(0, "with a temperature: choose among the k likeliest words only, 0 among all", min=0)
    seed: int = option(0, "seed of the choice, with a temperature", min=0, max=2**31)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    out: str = option("", "file of the page; if empty sample.png beside the checkpoint")


def main(config):
    """Print what the model says and write the page; returns the page's path."""
    device = distributed.pick_device(config.device)
    saved = checkpoint.load_checkpoint(config.checkpoint)
    path = Path(config.checkpoint)
    out = Path(config.out) if config.out else checkpoint.checkpoint_file(path).parent / "sample.png"
    if out.suffix.lower() != ".png" or checkpoint.is_folder(out):
        raise UserError(f"--out {out} is no PNG file; give a name that ends in .png")
    if not checkpoint.is_folder(out.parent) or not os.access(out.parent, os.W_OK):
        raise UserError(f"there is no folder {out.parent} to write to; name another --out")
    if saved["kind"] == "clip":
        rank_captions(config, saved, path, out, device)
    else:
        caption_and_answer(config, saved, path, out, device)
    print(f"\nthe page: {out}")
    return str(out)


def pictures(config, world, seed, image_size, device):
    """The user's picture, or pictures of the test split with their scenes: pixels (b, 3, H, W), Scenes or None, indices."""
    if config.image:
        return read_picture(config.image, image_size).to(device), None, None
    indices = 2 * np.arange(config.start, config.start + config.items)
    scenes = sample(world, seed, "test", indices)
    return render(world, scenes, image_size, device), scenes, indices


def read_picture(path, size):
    """A picture file of any size -> uint8 (1, 3, size, size), the middle square of it. UserError if it is none."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # our own limit follows, before a pixel is read
    try:
        with Image.open(path) as image:
            if image.width * image.height > 64_000_000:
                raise UserError(f"{path} has {image.width} x {image.height} pixels; give a picture of at most 64 megapixels")
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits a pixel
                image = Image.fromarray((np.asarray(image).astype(np.int64) // 256).clip(0, 255).astype(np.uint8))
            if "A" in image.mode or "transparency" in image.info:  # what is transparent shows the world's dark backdrop
                image = Image.alpha_composite(Image.new("RGBA", image.size, (40, 40, 40, 255)), image.convert("RGBA"))
            image = ImageOps.fit(image.convert("RGB"), (size, size))
    except FileNotFoundError:
        raise UserError(f"there is no picture {path}; check the name")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a picture ({type(error).__name__}); give a PNG or JPEG file")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous()


def normalize_question(question):
    """A question as people type it -> as the grammar spells it: small letters, a space before the question mark."""
    return " ".join(question.lower().replace("?", " ? ").replace(",", " , ").replace("color", "colour").split())


# ---------------------------------------------------------------- VLM


def caption_and_answer(config, saved, path, out, device):
    """A caption and answers for each picture."""
    import train_vlm

    model, trained = train_vlm.load_model(saved, path, device)
    world = loop.build_world(trained)
    pixels, scenes, indices = pictures(config, world, trained.seed, saved["encoder"]["image_size"], device)
    image_embeds = encode_images(model, pixels)
    b, asked = len(pixels), questions_for(config, world, trained, scenes, indices, len(pixels))
    generator = torch.Generator(device).manual_seed(config.seed)
    options = dict(temperature=config.temperature, top_k=config.top_k, generator=generator)
    captions = generate_text(model, image_embeds, [""] * b, **options)
    lines = [[plots.mark_caption(c, scenes.objects[k] if scenes else None)] for k, c in enumerate(captions)]
    for column in asked:
        texts = [text for text, _ in column]
        for line, (text, wanted), said in zip(lines, column, generate_text(model, image_embeds, texts, **options)):
            line.append([(text + " ", None), (said or "(nothing)", None if wanted is None else said == wanted)])
    for k, line in enumerate(lines):
        print(f"\n{config.image or f'test picture {indices[k]}'}")
        for pieces in line:
            print("  " + "".join(printable(text) + mark(truth) for text, truth in pieces))
    plots.save_image_grid(pixels, lines, out)


def printable(text):
    """An untrained model says any byte: what a terminal could not show becomes a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text)


def mark(truth):
    return "" if truth is None else " [true]" if truth else " [FALSE]"


def questions_for(config, world, trained, scenes, indices, b):
    """Columns of (question, right answer or None), one for each picture."""
    if config.question:
        text = normalize_question(config.question)
        if not text:
            raise UserError("--question is empty; ask something, or leave it out")
        if len(tokenizer.encode(text)) > MAX_TEXT_TOKENS - 8:
            raise UserError(f"--question is longer than {MAX_TEXT_TOKENS - 8} tokens (unknown words are spelled byte by byte); ask a shorter one")
        return [[(text, truth_of(text, scenes, k)) for k in range(b)]]
    if scenes is None:
        return [[(text, None)] * b for text in ("how many objects are there ?", "what is at the center ?")]
    rows, answers = questions.sample_questions(world, trained.seed, "test", indices, scenes.objects, questions.FAMILIES, 3)
    columns = []
    for q in range(rows.shape[1]):
        texts = grammar.texts(grammar.render_question(rows[:, q]))
        wanted = grammar.texts(grammar.render_answer(rows[:, q], answers[:, q]))
        columns.append(list(zip(texts, wanted)))
    return columns


def truth_of(text, scenes, k):
    """The right answer to a question about picture k, or None if the grammar does not know it or it is undecided."""
    try:
        row = grammar.parse(text, question=True)[None]
    except ValueError:
        return None
    code = grammar.answer(row, scenes.objects[k : k + 1]) if scenes else np.array([grammar.UNDECIDED])
    return None if code[0] == grammar.UNDECIDED else grammar.text(grammar.render_answer(row, code)[0])


# ---------------------------------------------------------------- CLIP


def rank_captions(config, saved, path, out, device, candidates=5):
    """The best captions for each picture, with their cosines: of all pictures' own, or "a COLOUR SHAPE" for a picture of the user's."""
    import train_clip

    if config.question:
        raise UserError("CLIP ranks captions and answers no questions; give --checkpoint a VLM's folder")
    model, trained = train_clip.load_model(saved, path, device)
    pixels, scenes, _ = pictures(config, loop.build_world(trained), trained.seed, trained.image_size, device)
    noun_phrases = grammar.every_colour_and_shape()
    if scenes:
        noun_phrases = grammar.without(scenes.objects, PLACE)
    words = grammar.caption(noun_phrases)
    captions = grammar.texts(words)
    with torch.no_grad():
        cosines = model.encode_image(pixels) @ model.encode_text(torch.from_numpy(to_tokens(words, start=(BOS,))).to(device)).T
    lines = []
    for k, row in enumerate(cosines.cpu()):
        true = grammar.caption_truth(noun_phrases, scenes.objects[k : k + 1])[:, 0] if scenes else None
        best = row.argsort(descending=True)[:candidates].tolist()
        lines.append([[(f"{row[i]:+.2f} ", None), (captions[i], None if true is None else bool(true[i]))] for i in best])
        print(f"\n{config.image or f'test picture {2 * (config.start + k)}'}")
        for i in best:
            print(f"  {row[i]:+.2f}  {captions[i]}{mark(None if true is None else true[i])}")
    plots.save_image_grid(pixels, lines, out)


if __name__ == "__main__":
    run_script(main, Config, __doc__)
