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

from data.dataset import CaptionDataset, tokenizer
from data.shapes.scene import WORLDS
from tinyvlm.evaluation import metrics, plots
from tinyvlm.training import checkpoint, distributed, loop, optim
from tinyvlm.clip import CLIP
from tinyvlm.training.config import UserError, option, run_script, validate as check
from tinyvlm.evaluation.eval_clip import CLIPEmbedder, evaluate_pairs, evaluate_retrieval, evaluate_zero_shot
from tinyvlm.losses import LOSSES
from tinyvlm.vision import VISION_ENCODERS


@dataclasses.dataclass
class Config:
    out: str = option("runs/clip", "folder for the checkpoint, the log, the metrics and the pictures")
    resume: bool = option(False, "go on from the last checkpoint in --out")
    seed: int = option(0, "seed of the weights and of the training pictures", min=0, max=2**31)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    steps: int = option(900, "optimizer steps", min=1)
    batch_size: int = option(64, "pictures (and captions) in a step", min=2)
    lr: float = option(2e-3, "AdamW's learning rate", min=0.0, max=1.0)
    muon_lr: float = option(1.5e-2, "Muon's learning rate, for convolutions and the matrices inside the blocks", min=0.0, max=1.0)
    weight_decay: float = option(0.01, "weight decay of AdamW's matrices", min=0.0, max=1.0)
    warmup: int = option(50, "steps until the full learning rate", min=0)
    loss: str = option("multi_positive", "contrastive loss", choices=tuple(LOSSES))
    world: str = option("default", "default (1 to 3 objects), full (1 to 6), zipf or friends (not all is equally frequent)", choices=tuple(WORLDS))
    held_out: int = option(0, "colour-shape pairs (of each colour) that training never shows", min=0, max=4)
    image_size: int = option(56, "side of a picture in pixels, a multiple of 28", min=28, max=448)
    encoder: str = option("stem", "vision encoder", choices=tuple(VISION_ENCODERS))
    dim: int = option(64, "width of the vision encoder", min=8)
    depth: int = option(2, "blocks of the vision encoder", min=1)
    heads: int = option(2, "attention heads of the vision encoder", min=1)
    text_dim: int = option(64, "width of the text tower", min=8)
    text_depth: int = option(2, "blocks of the text tower", min=1)
    text_heads: int = option(2, "attention heads of the text tower", min=1)
    embed_dim: int = option(64, "width of the common space", min=2)
    log_every: int = option(10, "steps between lines of the log", min=1)
    eval_every: int = option(150, "steps between validations (and saves)", min=1)
    eval_items: int = option(1024, "test pictures for the cosines; 256 of them for retrieval", min=512)


def build_model(config):
    """A fresh CLIP with the config's sizes and seed."""
    sizes = {k: getattr(config, k) for k in ("encoder", "image_size", "dim", "depth", "heads", "text_dim", "text_depth", "text_heads", "embed_dim")}
    try:
        return loop.with_seed(lambda: CLIP(vocab_size=tokenizer.size, **sizes), config.seed)
    except ValueError as error:
        raise UserError(f"{error}; change the sizes")


def load_model(saved, path, device):
    """The content of a checkpoint -> the model, in evaluation mode, and the config it was trained with. UserError if they do not fit this code."""
    config = checkpoint.config_from(Config, saved["config"], path)
    model = build_model(config)
    checkpoint.load_weights(model, saved["model"], path)
    return model.to(device).eval(), config


def main(config):
    """Train, test, save: returns what metrics.json holds ({} in all but the first of several processes)."""
    # 1. Processes, folder, world.
    entered = time.time()
    check(config)
    dist = distributed.Distributed(config.device)
    device = dist.device
    data = CaptionDataset(loop.build_world(config), config.seed, config.image_size, device)
    model = build_model(config).to(device)
    dist.shard(np.arange(config.batch_size))  # does it divide?
    folder = checkpoint.open_folder(config.out, lock=dist.is_main)

    # 2. Optimizer, or the run that is to go on.
    optimizers = optim.configure_optimizers(model, config.lr, config.muon_lr, config.weight_decay)
    start, best, seconds, wall = 0, -1.0, 0.0, 0.0
    if config.resume:
        saved = checkpoint.load_checkpoint(folder / "last.pt", "clip")
        checkpoint.check_resume(config, saved["config"], ("out", "resume", "device", "log_every", "eval_every", "eval_items"), folder / "last.pt")
        checkpoint.load_weights(model, saved["model"], folder / "last.pt")
        checkpoint.load_optimizers(optimizers, saved["optimizers"], folder / "last.pt")
        start, best, [seconds, wall] = saved["step"], saved["best"], checkpoint.read_times(folder, "seconds", "wall")
        if start == config.steps and (folder / "metrics.json").exists():
            print(f"{folder / 'last.pt'} is finished ({start} steps); nothing to do")
            checkpoint.unlock(folder)
            return json.loads((folder / "metrics.json").read_text())
    if dist.is_main:
        ceiling = metrics.max_accuracy_with_duplicates(data.batch("train", np.arange(config.batch_size)).tokens)
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}; {config.world} world; loss {config.loss}")
        print(f"best accuracy that the plain loss can reach on such a batch of {config.batch_size}: {ceiling:.3f} (identical captions)")

    # 3. The loop: pictures and captions, similarity, loss, step.
    shared, stopping = dist.wrap_ddp(model), False
    with loop.progress_bar(config.steps, start, "clip", dist.is_main) as progress, loop.GracefulStop() as stop:
        for step in range(start, config.steps):
            began = time.time()
            optim.set_lr(optimizers, optim.lr_schedule(step, config.steps, config.warmup))
            indices = step * config.batch_size + np.arange(config.batch_size)
            batch = data.batch("train", dist.shard(indices))
            with distributed.autocast(device):
                image, text, scale = shared(batch.pixels, batch.tokens)
            # The loss is that of the whole batch, whichever process its pictures and captions are in.
            image, text = dist.all_gather_with_grad(image.float()), dist.all_gather_with_grad(text.float())
            is_match = batch.is_match if dist.size == 1 else data.is_match("train", indices)
            loss = LOSSES[config.loss](image, text, scale, is_match)
            optim.backward_and_step(optimizers, list(model.parameters()), loss, step)
            if dist.is_main and step == start:  # from here on it is this run's folder: a run that cannot even begin leaves an older one as it was
                checkpoint.start_run(folder, config, start)
            model.clamp_logit_scale()
            seconds += time.time() - began

            done, stopping = step + 1, dist.any_rank(stop.caught is not None)
            progress.set_postfix_str(f"loss {loss.item():.3f}, {done * config.batch_size / seconds:.0f} images/s", refresh=False)
            progress.update()
            is_last, is_best = done == config.steps, False
            if dist.is_main and (done % config.log_every == 0 or is_last):
                checkpoint.append_log(folder, done, loss=loss.item(), scale=model.scale.item())
            if dist.is_main and (done % config.eval_every == 0 or is_last):
                scores = validate(model, data)
                checkpoint.append_log(folder, done, **{"val_" + name: score for name, score in scores.items()})
                is_best, best = scores["r_at_1"] > best, max(scores["r_at_1"], best)
            if dist.is_main and (done % config.eval_every == 0 or is_last or stopping):
                checkpoint.write_times(folder, seconds=seconds, wall=wall + time.time() - entered)
                checkpoint.save_checkpoint(folder, is_best, kind="clip", config=config, step=done, model=model, optimizers=optimizers, best=best)
            if stopping:
                break
    if stopping or stop.caught:
        dist.shutdown()  # the first process has saved before anybody goes
        raise loop.stopped(stop.caught, done)

    # 4. The test split: table, metrics, pictures.
    result = {}
    if dist.is_main:
        rows, numbers = evaluate_test(model, data, config)
        loop.print_table("test split", rows)
        show_samples(model, data, folder / "samples.png")
        wall += time.time() - entered  # with validation, tests and pictures
        result = dict(seconds=round(seconds, 1), wall_seconds=round(wall, 1), images_per_second=round(config.steps * config.batch_size / max(seconds, 1e-9), 1), **numbers)
        checkpoint.write_metrics(folder, result)
        plots.curves(checkpoint.read_log(folder), folder / "curves.png")
        print(f"{wall:.0f} s, of which {seconds:.0f} s of training, {result['images_per_second']:.0f} images/s; {folder}/samples.png shows what it sees")
    checkpoint.unlock(folder)
    dist.shutdown()
    return result


def validate(model, data):
    """Validation: retrieval and cosines of 256 pictures that are no minimal pairs of one another, full captions."""
    embedder = CLIPEmbedder(model, data.world, data.image_size, data.device)
    scores = evaluate_retrieval(embedder, data.world, data.seed, "val", 256)
    return dict(r_at_1=scores["r_at_1"].value, matched=scores["matched_cosine"].value, mismatched=scores["mismatched_cosine"].value)


def evaluate_test(model, data, config):
    """Cosines, zero-shot, retrieval and minimal pairs: rows for the table and a flat dict for metrics.json."""
    embedder, where = CLIPEmbedder(model, data.world, data.image_size, data.device), (data.world, data.seed, "test")
    scores = evaluate_retrieval(embedder, *where, config.eval_items) | evaluate_zero_shot(embedder, *where)
    scores = {name: scores[name] for name in ("matched_cosine", "mismatched_cosine", "zero_shot", "r_at_1")}
    scores["pair_accuracy"] = evaluate_pairs(embedder, *where, config.eval_items)
    tokens = CaptionDataset(*where[:2], data.image_size, data.device, detail="full").batch("test", np.arange(0, 2 * config.eval_items, 2)).tokens
    numbers = {name: score.value for name, score in scores.items()} | dict(plain_ceiling=metrics.max_accuracy_with_duplicates(tokens))
    return [metrics.table_row(name.replace("_", " "), score) for name, score in scores.items()], numbers


@torch.no_grad()
def show_samples(model, data, path, items=8):
    """A page of test pictures and their captions with all cosines between them."""
    model.eval()
    shown = CaptionDataset(data.world, data.seed, data.image_size, data.device, detail="full").batch("test", np.arange(0, 2 * items, 2))
    cosines = (model.encode_image(shown.pixels) @ model.encode_text(shown.tokens).T).float().cpu()
    plots.similarity(shown.pixels, [tokenizer.decode(t) for t in shown.tokens.tolist()], cosines, shown.is_match, path)
    model.train()


if __name__ == "__main__":
    run_script(main, Config, __doc__)
