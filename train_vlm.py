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

from data.shapes import grammar, questions
from data.dataset import VQADataset, tokenizer
from data.shapes.render import render
from data.shapes.scene import WORLDS, sample
from tinyvlm.evaluation import metrics, plots
from tinyvlm.training import checkpoint, distributed, loop, optim
from tinyvlm.training.config import UserError, option, run_script, validate as check
from tinyvlm.evaluation.eval_vlm import VLMPredictor, evaluate_captions, generate_text, encode_images, evaluate_vqa, macro_mean
from tinyvlm.decoders import GPT
from tinyvlm.projectors import PROJECTORS
from tinyvlm.vision import VISION_ENCODERS
from tinyvlm.vlm import VLM

STAGES = ("language", "align", "instruct")


@dataclasses.dataclass
class Config:
    projector: str = option("qformer", "from vision tokens to image tokens", choices=tuple(PROJECTORS))
    out: str = option("", "folder for the checkpoint, the log, the metrics and the pictures; if empty runs/vlm-PROJECTOR")
    resume: bool = option(False, "go on from the last checkpoint in --out")
    seed: int = option(0, "seed of the weights and of the training pictures", min=0, max=2**31)
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    clip: str = option("runs/clip", "checkpoint (or its folder) of train_clip.py that holds the encoder")
    encoder_init: str = option("clip", "where the encoder's weights come from", choices=("clip", "random"))
    steps: int = option(1500, "optimizer steps of all stages", min=1)
    stages: str = option("language,align,instruct", "which stages, in order, separated by commas")
    shares: str = option("0.43,0.07,0.50", "each stage's share of the steps, separated by commas; they add up to 1")
    train_language: str = option("decoder.*", "patterns of the parameters that stage language trains, separated by commas")
    train_align: str = option("projector.*", "the same for stage align")
    train_instruct: str = option("*", "the same for stage instruct")
    batch_size: int = option(32, "pictures in a step", min=1)
    questions: int = option(9, "questions about each picture", min=1, max=64)
    blind: int = option(1, "how many of them are asked without the picture, which makes the blind model honest", min=0)
    lr: float = option(1e-3, "AdamW's learning rate", min=0.0, max=1.0)
    muon_lr: float = option(1.5e-2, "Muon's learning rate, for convolutions and the matrices inside the blocks", min=0.0, max=1.0)
    weight_decay: float = option(0.01, "weight decay of AdamW's matrices", min=0.0, max=1.0)
    warmup: int = option(30, "steps until the full learning rate, in each stage", min=0)
    world: str = option("default", "default (1 to 3 objects), full (1 to 6), zipf or friends (not all is equally frequent)", choices=tuple(WORLDS))
    held_out: int = option(0, "colour-shape pairs (of each colour) that training never shows", min=0, max=4)
    num_queries: int = option(32, "queries of the Q-Former", min=1, max=196, alias="--queries")
    dim: int = option(128, "width of the decoder", min=8)
    depth: int = option(4, "blocks of the decoder", min=1)
    heads: int = option(4, "attention heads of the decoder", min=1)
    log_every: int = option(10, "steps between lines of the log", min=1)
    eval_every: int = option(200, "steps between validations (and saves)", min=1)
    eval_items: int = option(250, "minimal pairs of each question family, and twice as many captions, in the final test", min=1)


def build_model(config, encoder):
    """A fresh VLM. `encoder`: the vision encoder's name and sizes. Each part is initialised from the seed by itself,
    so that runs with different projectors share encoder and decoder to the last bit."""
    try:
        sizes = {k: encoder[k] for k in ("image_size", "dim", "depth", "heads")}
        vision = loop.with_seed(lambda: VISION_ENCODERS[encoder["encoder"]](**sizes), config.seed)
        decoder = loop.with_seed(lambda: GPT(vocab_size=tokenizer.size, dim=config.dim, depth=config.depth, heads=config.heads), config.seed + 1)
        projector = PROJECTORS[config.projector]
        own = projector_kwargs(projector, num_queries=config.num_queries)
        shape = dict(vision_dim=vision.dim, text_dim=config.dim, num_patches=vision.num_tokens)
        return VLM(vision, loop.with_seed(lambda: projector(**shape, **own), config.seed + 2), decoder)
    except ValueError as error:
        raise UserError(f"{error}; change the sizes")


def projector_kwargs(projector, **given):
    """Those of the given settings that the projector has. UserError if another one was changed from its default."""
    known = inspect.signature(projector).parameters
    defaults = {f.name: f.default for f in dataclasses.fields(Config)}
    for name, value in given.items():
        if name not in known and value != defaults[name]:
            raise UserError(f"this projector has no setting --{name}; leave it out or choose another --projector")
    return {name: value for name, value in given.items() if name in known}


def parse_stages(config):
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


def load_model(saved, path, device):
    """The content of a checkpoint -> the model, in evaluation mode, and the config it was trained with. UserError if they do not fit this code."""
    config = checkpoint.config_from(Config, saved["config"], path)
    model = build_model(config, saved["encoder"])
    checkpoint.load_weights(model, saved["model"], path)
    return model.to(device).eval(), config


def main(config):
    """Train, test, save: returns what metrics.json holds ({} in all but the first of several processes)."""
    # 1. Processes, folder, world, encoder.
    entered = time.time()
    check(config)
    dist = distributed.Distributed(config.device)
    device = dist.device
    config = dataclasses.replace(config, out=config.out or f"runs/vlm-{config.projector}")
    if config.blind >= config.questions:
        raise UserError(f"--blind {config.blind} leaves no question with a picture; give more --questions or --blind 0")
    stages = parse_stages(config)
    dist.shard(np.arange(config.batch_size))  # does it divide?
    folder = checkpoint.open_folder(config.out, lock=dist.is_main)
    saved = checkpoint.load_checkpoint(folder / "last.pt", "vlm") if config.resume else None
    encoder, weights = (saved["encoder"], None) if saved else load_encoder(config)
    model = build_model(config, encoder)
    if weights:
        checkpoint.load_weights(model.vision, weights, config.clip)
    for _, _, _, patterns in stages:
        optim.freeze(model, patterns)
    model = model.to(device)
    data = VQADataset(loop.build_world(config), config.seed, encoder["image_size"], device, config.questions, config.blind)

    # 2. A run that is to go on.
    start, best, seconds, seeing, wall = 0, -1.0, 0.0, 0.0, 0.0
    if saved:
        checkpoint.check_resume(config, saved["config"], ("out", "resume", "device", "log_every", "eval_every", "eval_items"), folder / "last.pt")
        checkpoint.load_weights(model, saved["model"], folder / "last.pt")
        start, best, [seconds, seeing, wall] = saved["step"], saved["best"], checkpoint.read_times(folder, "seconds", "seeing", "wall")
        if start == config.steps and (folder / "metrics.json").exists():
            print(f"{folder / 'last.pt'} is finished ({start} steps); nothing to do")
            checkpoint.unlock(folder)
            return json.loads((folder / "metrics.json").read_text())
    if dist.is_main:
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters on {device}; {config.world} world; {model.projector.num_tokens} image tokens")

    # 3. The loop, stage after stage: picture (or words), projector, decoder, loss, step.
    stopping = False
    with loop.progress_bar(config.steps, start, "vlm", dist.is_main) as progress, loop.GracefulStop() as stop:
        for step in range(start, config.steps):
            stage, first, end, patterns = next(s for s in stages if step < s[2])
            if step in (start, first):  # a stage begins, or goes on
                optim.freeze(model, patterns)
                optimizers = optim.configure_optimizers(model, config.lr, config.muon_lr, config.weight_decay)
                shared = dist.wrap_ddp(model)
                if step > first:
                    checkpoint.load_optimizers(optimizers, saved["optimizers"], folder / "last.pt")
            began, is_language = time.time(), stage == "language"
            optim.set_lr(optimizers, optim.lr_schedule(step - first, end - first, config.warmup))
            indices = dist.shard(step * config.batch_size + np.arange(config.batch_size))
            batch = data.batch("train", indices, with_pixels=not is_language)
            with distributed.autocast(device):
                losses, aux_loss = shared(batch, text_only=is_language)
            # The mean over all words of the whole batch, whichever process they are in.
            loss = losses.sum() * dist.size / dist.all_reduce_sum(batch.loss_mask.sum()) + aux_loss
            optim.backward_and_step(optimizers, list(model.parameters()), loss, step)
            if dist.is_main and step == start:  # from here on it is this run's folder: a run that cannot even begin leaves an older one as it was
                checkpoint.start_run(folder, config, start)
            took = time.time() - began
            seconds, seeing = seconds + took, seeing + took * (not is_language)

            done, stopping = step + 1, dist.any_rank(stop.caught is not None)
            mean = dist.all_reduce_sum(loss).item() / dist.size
            progress.set_postfix_str(f"{stage}, loss {mean:.3f}, {config.batch_size / took:.0f} {'texts/s' if is_language else 'images/s'}", refresh=False)
            progress.update()
            is_last, is_best = done == config.steps, False
            if dist.is_main and (done % config.log_every == 0 or is_last):
                checkpoint.append_log(folder, done, stage=stage, loss=mean)
            if dist.is_main and not is_language and (done % config.eval_every == 0 or is_last):  # before a picture was seen there is nothing to say
                scores = validate(model, data)
                checkpoint.append_log(folder, done, **scores)
                is_best, best = scores["val_vqa"] > best, max(scores["val_vqa"], best)
            if dist.is_main and (done % config.eval_every == 0 or is_last or stopping):
                checkpoint.write_times(folder, seconds=seconds, seeing=seeing, wall=wall + time.time() - entered)
                state = dict(model=model, optimizers=optimizers, encoder=encoder, best=best)
                checkpoint.save_checkpoint(folder, is_best, kind="vlm", config=config, step=done, **state)
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
        seen = sum(end - first for stage, first, end, _ in stages if stage != "language") * config.batch_size
        show_samples(model, data, folder / "samples.png")
        wall += time.time() - entered  # with validation, tests and pictures
        result = dict(seconds=round(seconds, 1), wall_seconds=round(wall, 1), images_per_second=round(seen / max(seeing, 1e-9), 1), **numbers)
        checkpoint.write_metrics(folder, result)
        plots.curves(checkpoint.read_log(folder), folder / "curves.png")
        print(f"{wall:.0f} s, of which {seconds:.0f} s of training, {result['images_per_second']:.0f} images/s; {folder}/samples.png shows what it says")
    checkpoint.unlock(folder)
    dist.shutdown()
    return result


def load_encoder(config):
    """The encoder's name and sizes, and its weights: from the CLIP checkpoint, or None for random ones."""
    if config.encoder_init == "random":
        return dict(encoder="stem", image_size=56, dim=64, depth=2, heads=2), None
    saved = checkpoint.load_checkpoint(config.clip, "clip")
    if saved["config"]["held_out"] != config.held_out:
        raise UserError(f"--held-out is {config.held_out}, {config.clip} has {saved['config']['held_out']}; train CLIP with the same")
    if saved["config"]["world"] != config.world:
        print(f"note: the encoder of {config.clip} knows the {saved['config']['world']} world; for one of this world: python train_clip.py --world {config.world}")
    weights = {name[len("vision.") :]: w for name, w in saved["model"].items() if name.startswith("vision.")}
    return {k: saved["config"][k] for k in ("encoder", "image_size", "dim", "depth", "heads")}, weights


# ---------------------------------------------------------------- tests and samples


def validate(model, data):
    """Validation, a small one."""
    model.eval()
    predictor = VLMPredictor(model, data.world, data.image_size, data.device)
    captions, _, _ = evaluate_captions(predictor, data.world, data.seed, "val", 64)
    families, _ = evaluate_vqa(predictor, data.world, data.seed, "val", questions.FAMILIES, 24)
    model.train()
    return dict(val_fact_f1=captions["fact_f1"].value, val_exact_caption=captions["exact_caption"].value, val_vqa=macro_mean(families, 0).value)


def evaluate_test(model, data, config):
    """Captions by facts and answers by family: rows for the table and a flat dict for metrics.json."""
    model.eval()
    predictor = VLMPredictor(model, data.world, data.image_size, data.device)
    captions, _, _ = evaluate_captions(predictor, data.world, data.seed, "test", 2 * config.eval_items)
    families, _ = evaluate_vqa(predictor, data.world, data.seed, "test", questions.FAMILIES, config.eval_items)
    model.train()
    rows = [metrics.table_row(name.replace("_", " "), captions[name]) for name in ("fact_f1", "fact_recall", "exact_caption", "unparseable", "chair_i", "misdescribed_i")]
    kept = ("fact_f1", "fact_precision", "fact_recall", "exact_caption", "unparseable", "chair_i", "chair_s", "misdescribed_i", "misdescribed_s")
    numbers = {name: captions[name].value for name in kept}
    for family, (seeing, blind, *_) in families.items():
        rows.append(metrics.table_row(f"VQA {family}", seeing, f"blind {blind.value:.3f}"))
        numbers[f"vqa_{family}"], numbers[f"vqa_blind_{family}"] = seeing.value, blind.value
    seeing, blind = macro_mean(families, 0), macro_mean(families, 1)
    rows += [metrics.table_row("VQA, mean of families", seeing), metrics.table_row("the same without picture", blind)]
    return rows, numbers | dict(vqa=seeing.value, vqa_blind=blind.value, vqa_chance=seeing.chance)


@torch.no_grad()
def show_samples(model, data, path, items=8):
    """A page of test pictures with what the model says of them, judged against the scene."""
    model.eval()
    indices = np.arange(0, 4 * items, 4)
    scenes = sample(data.world, data.seed, "test", indices)
    pixels = render(data.world, scenes, data.image_size, data.device)
    image_embeds = encode_images(model, pixels)
    rows, answers = questions.sample_questions(data.world, data.seed, "test", indices, scenes.objects, questions.FAMILIES, 3)
    lines = [[plots.mark_caption(c, s)] for c, s in zip(generate_text(model, image_embeds, [""] * items), scenes.objects)]
    for q in range(3):
        asked = grammar.texts(grammar.render_question(rows[:, q]))
        wanted = grammar.texts(grammar.render_answer(rows[:, q], answers[:, q]))
        for line, question, said, right in zip(lines, asked, generate_text(model, image_embeds, asked), wanted):
            line.append([(question + " ", None), (said, said == right)])
    plots.save_image_grid(pixels, lines, path)
    model.train()


if __name__ == "__main__":
    run_script(main, Config, __doc__)
