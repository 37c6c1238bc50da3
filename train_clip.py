"""Train CLIP in the generated world: pictures and captions meet on the unit sphere.

    python train_clip.py                      # the defaults; the numbers they reach stand in README.md
    python train_clip.py --world full         # 1 to 6 objects
    python train_clip.py --loss plain         # the loss of the paper, which punishes other true captions
"""

import dataclasses
import json
import time

import numpy as np
import torch

from data import language
from data.dataset import PairsForCLIP, to_tokens, tokenizer
from data.scene import COLOUR, SHAPE, WORLDS, sample
from data.render import render
from data.tokenizer import BOS
from tinyvlm import metrics, plots, run
from tinyvlm.clip import CLIP
from tinyvlm.config import UserError, run_script, setting
from tinyvlm.losses import LOSSES
from tinyvlm.vision import VISION_ENCODERS


@dataclasses.dataclass
class Config:
    out: str = setting("runs/clip", "folder for the checkpoint, the log, the metrics and the pictures")
    resume: bool = setting(False, "go on from the last checkpoint in --out")
    seed: int = setting(0, "seed of the weights and of the training pictures", low=0, high=2**31)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    steps: int = setting(900, "optimiser steps", low=1)
    batch_size: int = setting(64, "pictures (and captions) in a step", low=2)
    lr: float = setting(2e-3, "AdamW's learning rate", low=0.0, high=1.0)
    muon_lr: float = setting(1.5e-2, "Muon's learning rate, for convolutions and the matrices inside the blocks", low=0.0, high=1.0)
    weight_decay: float = setting(0.01, "weight decay of AdamW's matrices", low=0.0, high=1.0)
    warmup: int = setting(50, "steps until the full learning rate", low=0)
    loss: str = setting("multi_positive", "contrastive loss", choices=tuple(LOSSES))
    world: str = setting("default", "default (1 to 3 objects) or full (1 to 6)", choices=tuple(WORLDS))
    held_out: int = setting(0, "colour-shape pairs (of each colour) that training never shows", low=0, high=4)
    image_size: int = setting(56, "side of a picture in pixels, a multiple of 28", low=28, high=448)
    encoder: str = setting("stem", "vision encoder", choices=tuple(VISION_ENCODERS))
    dim: int = setting(64, "width of the vision encoder", low=8)
    depth: int = setting(2, "blocks of the vision encoder", low=1)
    heads: int = setting(2, "attention heads of the vision encoder", low=1)
    text_dim: int = setting(64, "width of the text tower", low=8)
    text_depth: int = setting(2, "blocks of the text tower", low=1)
    text_heads: int = setting(2, "attention heads of the text tower", low=1)
    embed_dim: int = setting(64, "width of the common space", low=2)
    log_every: int = setting(10, "steps between lines of the log", low=1)
    eval_every: int = setting(150, "steps between validations (and saves)", low=1)
    eval_items: int = setting(1024, "test pictures for the cosines; 256 of them for retrieval", low=512)


def world_of(config):
    """The world that the settings name: World."""
    return dataclasses.replace(WORLDS[config.world], held_out=config.held_out)


def build(config):
    """A fresh CLIP with the config's sizes and seed."""
    sizes = {k: getattr(config, k) for k in ("encoder", "image_size", "dim", "depth", "heads", "text_dim", "text_depth", "text_heads", "embed_dim")}
    try:
        return run.seeded(lambda: CLIP(vocab=tokenizer.size, **sizes), config.seed)
    except ValueError as error:
        raise UserError(f"{error}; change the sizes")


def main(config):
    """Train, test, save: returns what metrics.json holds."""
    # 1. Device, folder, world.
    device = run.pick_device(config.device)
    data = PairsForCLIP(world_of(config), config.seed, config.image_size, device)
    model = build(config).to(device)
    folder = run.open_folder(config.out)

    # 2. Optimiser, or the run that is to go on.
    optimisers = run.make_optimisers(model, config.lr, config.muon_lr, config.weight_decay)
    start, seconds = 0, 0.0
    if config.resume:
        saved = run.load_checkpoint(folder / "last.pt", "clip")
        run.check_resume(config, saved["config"], ("out", "resume", "device", "log_every", "eval_every", "eval_items"), folder / "last.pt")
        run.load_weights(model, saved["model"], folder / "last.pt")
        for optimiser, state in zip(optimisers, saved["optimisers"]):
            optimiser.load_state_dict(state)
        start, seconds = saved["step"], saved["seconds"]
        if start == config.steps and (folder / "metrics.json").exists():
            print(f"{folder / 'last.pt'} is finished ({start} steps); nothing to do")
            return json.loads((folder / "metrics.json").read_text())
    run.begin_log(folder, config, start)
    first = data.batch("train", np.arange(config.batch_size))
    ceiling = metrics.plain_ceiling(first.tokens)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}; {config.world} world; loss {config.loss}")
    print(f"best accuracy that the plain loss can reach on such a batch of {config.batch_size}: {ceiling:.3f} (identical captions)")

    # 3. The loop: pictures and captions, similarity, loss, step.
    progress = run.bar(config.steps, start, "clip")
    for step in range(start, config.steps):
        began = time.time()
        run.set_rate(optimisers, run.rate_at(step, config.steps, config.warmup))
        batch = data.batch("train", step * config.batch_size + np.arange(config.batch_size))
        with run.precision(device):
            image, text = model.encode_image(batch.pixels), model.encode_text(batch.tokens)
        loss = LOSSES[config.loss](image.float(), text.float(), model.scale, batch.positives)
        run.update(optimisers, list(model.parameters()), loss, step)
        model.cap_scale()
        seconds += time.time() - began

        done = step + 1
        speed = done * config.batch_size / seconds
        progress.set_postfix_str(f"loss {loss.item():.3f}, {speed:.0f} images/s")
        progress.update()
        if done % config.log_every == 0 or done == config.steps:
            run.append_log(folder, done, loss=loss.item(), scale=model.scale.item())
        if done % config.eval_every == 0 or done == config.steps:
            run.append_log(folder, done, **{"val_" + k: v for k, v in quick_scores(model, data).items()})
            run.save_checkpoint(folder / "last.pt", kind="clip", config=config, step=done, model=model, optimisers=optimisers, seconds=seconds)
    progress.close()

    # 4. The test split: table, metrics, pictures.
    rows, numbers = test(model, data, config)
    run.print_table("test split", rows)
    result = dict(seconds=round(seconds, 1), images_per_second=round(config.steps * config.batch_size / seconds, 1), **numbers)
    run.write_metrics(folder, result)
    plots.curves(run.read_log(folder), folder / "curves.png")
    shown = PairsForCLIP(data.world, config.seed, config.image_size, device, detail="full").batch("test", np.arange(0, 16, 2))
    image, text = encode(model, shown)
    plots.similarity(shown.pixels, [tokenizer.decode(t) for t in shown.tokens.tolist()], image @ text.T, shown.positives, folder / "samples.png")
    print(f"{seconds:.0f} s of training, {result['images_per_second']:.0f} images/s; {folder}/samples.png shows what it sees")
    return result


@torch.no_grad()
def encode(model, batch, chunk=128):
    """A batch -> image and text vectors on the CPU, (b, d) each, in evaluation mode."""
    was_training = model.training
    model.eval()
    image = torch.cat([model.encode_image(p) for p in batch.pixels.split(chunk)])
    text = torch.cat([model.encode_text(t) for t in batch.tokens.split(chunk)])
    model.train(was_training)
    return image.float().cpu(), text.float().cpu()


def quick_scores(model, data):
    """Validation: retrieval and cosines of 256 pictures that are no minimal pairs of one another, full captions."""
    data = PairsForCLIP(data.world, data.seed, data.image_size, data.device, detail="full")
    batch = data.batch("val", np.arange(0, 512, 2))
    image, text = encode(model, batch)
    similarity, true = image @ text.T, batch.positives.cpu()
    hits = (metrics.retrieval_at(1, similarity, true) + metrics.retrieval_at(1, similarity.T, true.T)) / 2
    return dict(r_at_1=hits, matched=similarity.diag().mean().item(), mismatched=similarity[~true].mean().item())


def test(model, data, config):
    """Cosines, zero-shot, retrieval and minimal pairs: rows for the table and a flat dict for metrics.json."""
    # Cosines: own caption; for the mismatch, all captions of the other pictures that are false of this one.
    # A full caption says size, colour and shape of every object.
    data = PairsForCLIP(data.world, data.seed, data.image_size, data.device, detail="full")
    batch = data.batch("test", np.arange(0, 2 * config.eval_items, 2))
    image, text = encode(model, batch)
    similarity, true = (image @ text.T).numpy(), batch.positives.cpu().numpy()
    matched = similarity.diagonal()
    mismatched = np.array([row[~fits].mean() for row, fits in zip(similarity, true)])
    # Retrieval among 256, both ways, any true caption (picture) counts.
    small, fits = similarity[:256, :256], true[:256, :256]
    hits = [metrics.retrieval_at(1, small[[q]], fits[[q]]) for q in range(256)]
    hits += [metrics.retrieval_at(1, small.T[[q]], fits.T[[q]]) for q in range(256)]
    # Minimal pairs: is the own caption nearer than that of the picture that differs in one edit?
    both = data.batch("test", np.arange(2 * config.eval_items))
    image, text = encode(model, both)
    other = torch.arange(len(image)) ^ 1
    clear = ~both.positives.cpu()[torch.arange(len(image)), other]
    margin = (image * text).sum(1) - (image * text[other]).sum(1)
    pair = ((margin > 0).float() + (margin == 0).float() / 2)[clear].numpy()
    correct = zero_shot(model, data)

    def row(name, key, values, meaning, groups=None):
        values = np.asarray(values, float)
        interval = metrics.group_interval(values, np.arange(len(values)) if groups is None else groups)
        return (name, values.mean(), interval, len(values), meaning), (key, float(values.mean()))

    rows = [
        row("matched cosine", "matched_cosine", matched, "a picture and its caption"),
        row("mismatched cosine", "mismatched_cosine", mismatched, "a picture and captions false of it"),
        row("zero-shot", "zero_shot", correct, "one object, 64 captions, chance 0.016"),
        row("R@1 of 256, both ways", "r_at_1", hits, "any true caption or picture is a hit", np.arange(512) % 256),
        row("minimal pairs", "pair_accuracy", pair, "own caption against the edited picture's, chance 0.5", other[clear].numpy() // 2),
    ]
    return [r for r, _ in rows], dict(kv for _, kv in rows) | dict(plain_ceiling=metrics.plain_ceiling(batch.tokens))


@torch.no_grad()
def zero_shot(model, data, items=640):
    """Pictures of a single object against the 64 captions "a COLOUR SHAPE": 1 or 0 each, a tie of k 1 / k."""
    lonely = dataclasses.replace(data.world, min_objects=1, max_objects=1)
    scenes = sample(lonely, data.seed, "test", np.arange(0, 2 * items, 2))
    pixels = render(lonely, scenes, data.image_size, data.device)
    things = language.every_colour_and_shape()
    captions = torch.from_numpy(to_tokens(language.caption(things), start=(BOS,))).to(data.device)
    was_training = model.training
    model.eval()
    scores = torch.cat([model.encode_image(p) for p in pixels.split(128)]) @ model.encode_text(captions).T
    model.train(was_training)
    label = (scenes.objects[:, 0, COLOUR] - 1) * 8 + scenes.objects[:, 0, SHAPE] - 1
    scores = scores.float().cpu().numpy()
    return [metrics.accuracy(scores[[q]], label[[q]]) for q in range(items)]


if __name__ == "__main__":
    run_script(main, Config, __doc__)
