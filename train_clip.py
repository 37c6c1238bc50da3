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

from data.dataset import PairsForCLIP, tokenizer
from data.scene import WORLDS
from tinyvlm import files, metrics, plots, run
from tinyvlm.clip import CLIP
from tinyvlm.config import UserError, check, run_script, setting
from tinyvlm.exam_clip import Ranker, pair_exam, retrieval_exam, zero_shot_exam
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
    world: str = setting("default", "default (1 to 3 objects), full (1 to 6), zipf or friends (not all is equally frequent)", choices=tuple(WORLDS))
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


def build(config):
    """A fresh CLIP with the config's sizes and seed."""
    sizes = {k: getattr(config, k) for k in ("encoder", "image_size", "dim", "depth", "heads", "text_dim", "text_depth", "text_heads", "embed_dim")}
    try:
        return run.seeded(lambda: CLIP(vocab=tokenizer.size, **sizes), config.seed)
    except ValueError as error:
        raise UserError(f"{error}; change the sizes")


def restore(saved, path, device):
    """The content of a checkpoint -> the model, in evaluation mode, and the config it was trained with. UserError if they do not fit this code."""
    config = files.config_from(Config, saved["config"], path)
    model = build(config)
    files.load_weights(model, saved["model"], path)
    return model.to(device).eval(), config


def main(config):
    """Train, test, save: returns what metrics.json holds ({} in all but the first of several processes)."""
    # 1. Processes, folder, world.
    entered = time.time()
    check(config)
    processes = run.Processes(config.device)
    device = processes.device
    data = PairsForCLIP(run.world_of(config), config.seed, config.image_size, device)
    model = build(config).to(device)
    processes.part(np.arange(config.batch_size))  # does it divide?
    folder = files.open_folder(config.out, lock=processes.is_first)

    # 2. Optimiser, or the run that is to go on.
    optimisers = run.make_optimisers(model, config.lr, config.muon_lr, config.weight_decay)
    start, best, seconds, wall = 0, -1.0, 0.0, 0.0
    if config.resume:
        saved = files.load_checkpoint(folder / "last.pt", "clip")
        files.check_resume(config, saved["config"], ("out", "resume", "device", "log_every", "eval_every", "eval_items"), folder / "last.pt")
        files.load_weights(model, saved["model"], folder / "last.pt")
        files.load_optimisers(optimisers, saved["optimisers"], folder / "last.pt")
        start, best, [seconds, wall] = saved["step"], saved["best"], files.read_times(folder, "seconds", "wall")
        if start == config.steps and (folder / "metrics.json").exists():
            print(f"{folder / 'last.pt'} is finished ({start} steps); nothing to do")
            files.unlock(folder)
            return json.loads((folder / "metrics.json").read_text())
    if processes.is_first:
        ceiling = metrics.plain_ceiling(data.batch("train", np.arange(config.batch_size)).tokens)
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}; {config.world} world; loss {config.loss}")
        print(f"best accuracy that the plain loss can reach on such a batch of {config.batch_size}: {ceiling:.3f} (identical captions)")

    # 3. The loop: pictures and captions, similarity, loss, step.
    shared, stopping = processes.wrap(model), False
    with run.bar(config.steps, start, "clip", processes.is_first) as progress, run.StopSignals() as stop:
        for step in range(start, config.steps):
            began = time.time()
            run.set_rate(optimisers, run.rate_at(step, config.steps, config.warmup))
            indices = step * config.batch_size + np.arange(config.batch_size)
            batch = data.batch("train", processes.part(indices))
            with run.precision(device):
                image, text, scale = shared(batch.pixels, batch.tokens)
            # The loss is that of the whole batch, whichever process its pictures and captions are in.
            image, text = processes.gather(image.float()), processes.gather(text.float())
            positives = batch.positives if processes.size == 1 else data.positives("train", indices)
            loss = LOSSES[config.loss](image, text, scale, positives)
            run.update(optimisers, list(model.parameters()), loss, step)
            if processes.is_first and step == start:  # from here on it is this run's folder: a run that cannot even begin leaves an older one as it was
                files.begin(folder, config, start)
            model.cap_scale()
            seconds += time.time() - began

            done, stopping = step + 1, processes.any(stop.caught is not None)
            progress.set_postfix_str(f"loss {loss.item():.3f}, {done * config.batch_size / seconds:.0f} images/s", refresh=False)
            progress.update()
            is_last, is_best = done == config.steps, False
            if processes.is_first and (done % config.log_every == 0 or is_last):
                files.append_log(folder, done, loss=loss.item(), scale=model.scale.item())
            if processes.is_first and (done % config.eval_every == 0 or is_last):
                scores = quick_scores(model, data)
                files.append_log(folder, done, **{"val_" + name: score for name, score in scores.items()})
                is_best, best = scores["r_at_1"] > best, max(scores["r_at_1"], best)
            if processes.is_first and (done % config.eval_every == 0 or is_last or stopping):
                files.write_times(folder, seconds=seconds, wall=wall + time.time() - entered)
                files.save_checkpoint(folder, is_best, kind="clip", config=config, step=done, model=model, optimisers=optimisers, best=best)
            if stopping:
                break
    if stopping or stop.caught:
        processes.leave()  # the first process has saved before anybody goes
        raise run.stopped(stop.caught, done)

    # 4. The test split: table, metrics, pictures.
    result = {}
    if processes.is_first:
        rows, numbers = test(model, data, config)
        run.print_table("test split", rows)
        show_samples(model, data, folder / "samples.png")
        wall += time.time() - entered  # with validation, tests and pictures
        result = dict(seconds=round(seconds, 1), wall_seconds=round(wall, 1), images_per_second=round(config.steps * config.batch_size / max(seconds, 1e-9), 1), **numbers)
        files.write_metrics(folder, result)
        plots.curves(files.read_log(folder), folder / "curves.png")
        print(f"{wall:.0f} s, of which {seconds:.0f} s of training, {result['images_per_second']:.0f} images/s; {folder}/samples.png shows what it sees")
    files.unlock(folder)
    processes.leave()
    return result


def quick_scores(model, data):
    """Validation: retrieval and cosines of 256 pictures that are no minimal pairs of one another, full captions."""
    ranker = Ranker(model, data.world, data.image_size, data.device)
    scores = retrieval_exam(ranker, data.world, data.seed, "val", 256)
    return dict(r_at_1=scores["r_at_1"].value, matched=scores["matched_cosine"].value, mismatched=scores["mismatched_cosine"].value)


def test(model, data, config):
    """Cosines, zero-shot, retrieval and minimal pairs: rows for the table and a flat dict for metrics.json."""
    ranker, where = Ranker(model, data.world, data.image_size, data.device), (data.world, data.seed, "test")
    scores = retrieval_exam(ranker, *where, config.eval_items) | zero_shot_exam(ranker, *where)
    scores = {name: scores[name] for name in ("matched_cosine", "mismatched_cosine", "zero_shot", "r_at_1")}
    scores["pair_accuracy"] = pair_exam(ranker, *where, config.eval_items)
    tokens = PairsForCLIP(*where[:2], data.image_size, data.device, detail="full").batch("test", np.arange(0, 2 * config.eval_items, 2)).tokens
    numbers = {name: score.value for name, score in scores.items()} | dict(plain_ceiling=metrics.plain_ceiling(tokens))
    return [metrics.table_row(name.replace("_", " "), score) for name, score in scores.items()], numbers


@torch.no_grad()
def show_samples(model, data, path, items=8):
    """A page of test pictures and their captions with all cosines between them."""
    model.eval()
    shown = PairsForCLIP(data.world, data.seed, data.image_size, data.device, detail="full").batch("test", np.arange(0, 2 * items, 2))
    cosines = (model.encode_image(shown.pixels) @ model.encode_text(shown.tokens).T).float().cpu()
    plots.similarity(shown.pixels, [tokenizer.decode(t) for t in shown.tokens.tolist()], cosines, shown.positives, path)
    model.train()


if __name__ == "__main__":
    run_script(main, Config, __doc__)
