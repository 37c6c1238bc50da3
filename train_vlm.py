"""Train a vision-language model: encode, project, decode, in the stages of LLaVA.

    python train_vlm.py --projector qformer     # needs the encoder that train_clip.py makes
    python train_vlm.py --projector mlp
    python train_vlm.py --stages instruct --shares 1 --out runs/one-stage    # no language before pictures, no alignment

language: the decoder alone learns the language of the world, with a few bags of words in the place of the picture.
align: the projector learns to make pictures look like those words; encoder and decoder are frozen.
instruct: everything learns together, from captions and questions.
"""

import dataclasses
import inspect
import json
import time

import numpy as np
import torch

from data import language, questions
from data.dataset import Conversations, tokenizer
from data.render import render
from data.scene import WORLDS, sample
from tinyvlm import files, metrics, plots, run
from tinyvlm.config import UserError, check, run_script, setting
from tinyvlm.exam import Speaker, caption_exam, respond, see_all, vqa_exam, vqa_mean
from tinyvlm.gpt import GPT
from tinyvlm.projectors import PROJECTORS
from tinyvlm.vision import VISION_ENCODERS
from tinyvlm.vlm import VLM

STAGES = ("language", "align", "instruct")


@dataclasses.dataclass
class Config:
    projector: str = setting("qformer", "from vision tokens to image tokens", choices=tuple(PROJECTORS))
    out: str = setting("", "folder for the checkpoint, the log, the metrics and the pictures; if empty runs/vlm-PROJECTOR")
    resume: bool = setting(False, "go on from the last checkpoint in --out")
    seed: int = setting(0, "seed of the weights and of the training pictures", low=0, high=2**31)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")
    clip: str = setting("runs/clip", "checkpoint (or its folder) of train_clip.py that holds the encoder")
    encoder_init: str = setting("clip", "where the encoder's weights come from", choices=("clip", "random"))
    steps: int = setting(1500, "optimiser steps of all stages", low=1)
    stages: str = setting("language,align,instruct", "which stages, in order, separated by commas")
    shares: str = setting("0.43,0.07,0.50", "each stage's share of the steps, separated by commas; they add up to 1")
    train_language: str = setting("decoder.*", "patterns of the parameters that stage language trains, separated by commas")
    train_align: str = setting("projector.*", "the same for stage align")
    train_instruct: str = setting("*", "the same for stage instruct")
    batch_size: int = setting(32, "pictures in a step", low=1)
    questions: int = setting(9, "questions about each picture", low=1, high=64)
    blind: int = setting(1, "how many of them are asked without the picture, which makes the blind model honest", low=0)
    lr: float = setting(1e-3, "AdamW's learning rate", low=0.0, high=1.0)
    muon_lr: float = setting(1.5e-2, "Muon's learning rate, for convolutions and the matrices inside the blocks", low=0.0, high=1.0)
    weight_decay: float = setting(0.01, "weight decay of AdamW's matrices", low=0.0, high=1.0)
    warmup: int = setting(30, "steps until the full learning rate, in each stage", low=0)
    world: str = setting("default", "default (1 to 3 objects), full (1 to 6), zipf or friends (not all is equally frequent)", choices=tuple(WORLDS))
    held_out: int = setting(0, "colour-shape pairs (of each colour) that training never shows", low=0, high=4)
    queries: int = setting(32, "queries of the Q-Former", low=1, high=196)
    dim: int = setting(128, "width of the decoder", low=8)
    depth: int = setting(4, "blocks of the decoder", low=1)
    heads: int = setting(4, "attention heads of the decoder", low=1)
    log_every: int = setting(10, "steps between lines of the log", low=1)
    eval_every: int = setting(200, "steps between validations (and saves)", low=1)
    eval_items: int = setting(250, "minimal pairs of each question family, and twice as many captions, in the final test", low=1)


def build(config, encoder):
    """A fresh VLM. `encoder`: the vision encoder's name and sizes. Each part is initialised from the seed by itself,
    so that runs with different projectors share encoder and decoder to the last bit."""
    try:
        sizes = {k: encoder[k] for k in ("image_size", "dim", "depth", "heads")}
        vision = run.seeded(lambda: VISION_ENCODERS[encoder["encoder"]](**sizes), config.seed)
        decoder = run.seeded(lambda: GPT(vocab=tokenizer.size, dim=config.dim, depth=config.depth, heads=config.heads), config.seed + 1)
        projector = PROJECTORS[config.projector]
        own = own_settings(projector, queries=config.queries)
        shape = dict(vision_dim=vision.dim, text_dim=config.dim, num_patches=vision.num_tokens)
        return VLM(vision, run.seeded(lambda: projector(**shape, **own), config.seed + 2), decoder)
    except ValueError as error:
        raise UserError(f"{error}; change the sizes")


def own_settings(projector, **given):
    """Those of the given settings that the projector has. UserError if another one was changed from its default."""
    known = inspect.signature(projector).parameters
    defaults = {f.name: f.default for f in dataclasses.fields(Config)}
    for name, value in given.items():
        if name not in known and value != defaults[name]:
            raise UserError(f"this projector has no setting --{name}; leave it out or choose another --projector")
    return {name: value for name, value in given.items() if name in known}


def plan(config):
    """The stages of a run: [(name, first step, end, patterns)]. UserError if the settings make no sense."""
    names, shares = config.stages.split(","), config.shares.split(",")
    for name in names:
        if name not in STAGES:
            raise UserError(f"--stages names {name!r}; choose from {', '.join(STAGES)}")
    try:
        shares = [float(share) for share in shares]
    except ValueError:
        raise UserError(f"--shares is {config.shares!r}; give numbers such as 0.3,0.1,0.6")
    if len(shares) != len(names) or not abs(sum(shares) - 1) < 1e-6 or not min(shares) > 0:
        raise UserError(f"--shares {config.shares} does not fit --stages {config.stages}; give one positive share a stage, 1 in all")
    ends = [round(config.steps * sum(shares[: k + 1])) for k in range(len(names))]
    patterns = [getattr(config, "train_" + name).split(",") for name in names]
    return [(name, first, end, list(p)) for name, first, end, p in zip(names, [0] + ends, ends, patterns)]


def restore(saved, path, device):
    """The content of a checkpoint -> the model, in evaluation mode, and the config it was trained with. UserError if they do not fit this code."""
    config = files.config_from(Config, saved["config"], path)
    model = build(config, saved["encoder"])
    files.load_weights(model, saved["model"], path)
    return model.to(device).eval(), config


def main(config):
    """Train, test, save: returns what metrics.json holds ({} in all but the first of several processes)."""
    # 1. Processes, folder, world, encoder.
    entered = time.time()
    check(config)
    processes = run.Processes(config.device)
    device = processes.device
    config = dataclasses.replace(config, out=config.out or f"runs/vlm-{config.projector}")
    if config.blind >= config.questions:
        raise UserError(f"--blind {config.blind} leaves no question with a picture; give more --questions or --blind 0")
    stages = plan(config)
    processes.part(np.arange(config.batch_size))  # does it divide?
    folder = files.open_folder(config.out, lock=processes.is_first)
    saved = files.load_checkpoint(folder / "last.pt", "vlm") if config.resume else None
    encoder, weights = (saved["encoder"], None) if saved else encoder_of(config)
    model = build(config, encoder)
    if weights:
        files.load_weights(model.vision, weights, config.clip)
    for _, _, _, patterns in stages:
        run.freeze(model, patterns)
    model = model.to(device)
    data = Conversations(run.world_of(config), config.seed, encoder["image_size"], device, config.questions, config.blind)

    # 2. A run that is to go on.
    start, best, seconds, seeing, wall = 0, -1.0, 0.0, 0.0, 0.0
    if saved:
        files.check_resume(config, saved["config"], ("out", "resume", "device", "log_every", "eval_every", "eval_items"), folder / "last.pt")
        files.load_weights(model, saved["model"], folder / "last.pt")
        start, best, [seconds, seeing, wall] = saved["step"], saved["best"], files.read_times(folder, "seconds", "seeing", "wall")
        if start == config.steps and (folder / "metrics.json").exists():
            print(f"{folder / 'last.pt'} is finished ({start} steps); nothing to do")
            files.unlock(folder)
            return json.loads((folder / "metrics.json").read_text())
    if processes.is_first:
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}; {config.world} world; {model.projector.num_tokens} image tokens")

    # 3. The loop, stage after stage: picture (or words), projector, decoder, loss, step.
    stopping = False
    with run.bar(config.steps, start, "vlm", processes.is_first) as progress, run.StopSignals() as stop:
        for step in range(start, config.steps):
            stage, first, end, patterns = next(s for s in stages if step < s[2])
            if step in (start, first):  # a stage begins, or goes on
                run.freeze(model, patterns)
                optimisers = run.make_optimisers(model, config.lr, config.muon_lr, config.weight_decay)
                shared = processes.wrap(model)
                if step > first:
                    files.load_optimisers(optimisers, saved["optimisers"], folder / "last.pt")
            began, is_language = time.time(), stage == "language"
            run.set_rate(optimisers, run.rate_at(step - first, end - first, config.warmup))
            indices = processes.part(step * config.batch_size + np.arange(config.batch_size))
            batch = data.batch("train", indices, with_pixels=not is_language)
            with run.precision(device):
                losses, lesson = shared(batch, from_words=is_language)
            # The mean over all words of the whole batch, whichever process they are in.
            loss = losses.sum() * processes.size / processes.total(batch.learn.sum()) + lesson
            run.update(optimisers, list(model.parameters()), loss, step)
            if processes.is_first and step == start:  # from here on it is this run's folder: a run that cannot even begin leaves an older one as it was
                files.begin(folder, config, start)
            took = time.time() - began
            seconds, seeing = seconds + took, seeing + took * (not is_language)

            done, stopping = step + 1, processes.any(stop.caught is not None)
            mean = processes.total(loss).item() / processes.size
            progress.set_postfix_str(f"{stage}, loss {mean:.3f}, {config.batch_size / took:.0f} {'texts/s' if is_language else 'images/s'}", refresh=False)
            progress.update()
            is_last, is_best = done == config.steps, False
            if processes.is_first and (done % config.log_every == 0 or is_last):
                files.append_log(folder, done, stage=stage, loss=mean)
            if processes.is_first and not is_language and (done % config.eval_every == 0 or is_last):  # before a picture was seen there is nothing to say
                scores = quick_scores(model, data)
                files.append_log(folder, done, **scores)
                is_best, best = scores["val_vqa"] > best, max(scores["val_vqa"], best)
            if processes.is_first and (done % config.eval_every == 0 or is_last or stopping):
                files.write_times(folder, seconds=seconds, seeing=seeing, wall=wall + time.time() - entered)
                state = dict(model=model, optimisers=optimisers, encoder=encoder, best=best)
                files.save_checkpoint(folder, is_best, kind="vlm", config=config, step=done, **state)
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
        seen = sum(end - first for stage, first, end, _ in stages if stage != "language") * config.batch_size
        show_samples(model, data, folder / "samples.png")
        wall += time.time() - entered  # with validation, tests and pictures
        result = dict(seconds=round(seconds, 1), wall_seconds=round(wall, 1), images_per_second=round(seen / max(seeing, 1e-9), 1), **numbers)
        files.write_metrics(folder, result)
        plots.curves(files.read_log(folder), folder / "curves.png")
        print(f"{wall:.0f} s, of which {seconds:.0f} s of training, {result['images_per_second']:.0f} images/s; {folder}/samples.png shows what it says")
    files.unlock(folder)
    processes.leave()
    return result


def encoder_of(config):
    """The encoder's name and sizes, and its weights: from the CLIP checkpoint, or None for random ones."""
    if config.encoder_init == "random":
        return dict(encoder="stem", image_size=56, dim=64, depth=2, heads=2), None
    saved = files.load_checkpoint(config.clip, "clip")
    if saved["config"]["held_out"] != config.held_out:
        raise UserError(f"--held-out is {config.held_out}, {config.clip} has {saved['config']['held_out']}; train CLIP with the same")
    if saved["config"]["world"] != config.world:
        print(f"note: the encoder of {config.clip} knows the {saved['config']['world']} world; for one of this world: python train_clip.py --world {config.world}")
    weights = {name[len("vision.") :]: w for name, w in saved["model"].items() if name.startswith("vision.")}
    return {k: saved["config"][k] for k in ("encoder", "image_size", "dim", "depth", "heads")}, weights


# ---------------------------------------------------------------- tests and samples


def quick_scores(model, data):
    """Validation, a small one."""
    model.eval()
    speaker = Speaker(model, data.world, data.image_size, data.device)
    captions, _, _ = caption_exam(speaker, data.world, data.seed, "val", 64)
    families, _ = vqa_exam(speaker, data.world, data.seed, "val", questions.FAMILIES, 24)
    model.train()
    return dict(val_fact_f1=captions["fact_f1"].value, val_exact_caption=captions["exact_caption"].value, val_vqa=vqa_mean(families, 0).value)


def test(model, data, config):
    """Captions by facts and answers by family: rows for the table and a flat dict for metrics.json."""
    model.eval()
    speaker = Speaker(model, data.world, data.image_size, data.device)
    captions, _, _ = caption_exam(speaker, data.world, data.seed, "test", 2 * config.eval_items)
    families, _ = vqa_exam(speaker, data.world, data.seed, "test", questions.FAMILIES, config.eval_items)
    model.train()
    rows = [metrics.table_row(name.replace("_", " "), captions[name]) for name in ("fact_f1", "fact_recall", "exact_caption", "unparseable", "chair_i", "misdescribed_i")]
    kept = ("fact_f1", "fact_precision", "fact_recall", "exact_caption", "unparseable", "chair_i", "chair_s", "misdescribed_i", "misdescribed_s")
    numbers = {name: captions[name].value for name in kept}
    for family, (seeing, blind, *_) in families.items():
        rows.append(metrics.table_row(f"VQA {family}", seeing, f"blind {blind.value:.3f}"))
        numbers[f"vqa_{family}"], numbers[f"vqa_blind_{family}"] = seeing.value, blind.value
    seeing, blind = vqa_mean(families, 0), vqa_mean(families, 1)
    rows += [metrics.table_row("VQA, mean of families", seeing), metrics.table_row("the same without picture", blind)]
    return rows, numbers | dict(vqa=seeing.value, vqa_blind=blind.value, vqa_chance=seeing.chance)


@torch.no_grad()
def show_samples(model, data, path, items=8):
    """A page of test pictures with what the model says of them, judged against the scene."""
    model.eval()
    indices = np.arange(0, 4 * items, 4)
    scenes = sample(data.world, data.seed, "test", indices)
    pixels = render(data.world, scenes, data.image_size, data.device)
    prefix = see_all(model, pixels)
    rows, answers = questions.about(data.world, data.seed, "test", indices, scenes.objects, questions.FAMILIES, 3)
    lines = [[plots.judged_caption(c, s)] for c, s in zip(respond(model, prefix, [""] * items), scenes.objects)]
    for q in range(3):
        asked = language.texts(language.ask(rows[:, q]))
        wanted = language.texts(language.reply(rows[:, q], answers[:, q]))
        for line, question, said, right in zip(lines, asked, respond(model, prefix, asked), wanted):
            line.append([(question + " ", None), (said, said == right)])
    plots.page(pixels, lines, path)
    model.train()


if __name__ == "__main__":
    run_script(main, Config, __doc__)
