"""Score what a checkpoint says against the world: what it sees, binds, counts, invents, guesses.

    python evaluate.py runs/vlm-qformer              # tables, and report.json, .md, .png beside it
    python evaluate.py runs/clip                     # the same for CLIP
    python evaluate.py --compare runs/vlm-label runs/vlm-mlp    # differences with paired intervals
    python evaluate.py runs/vlm-mlp --split more --families count,compare --items 2000

What each number means stands in tinyvlm/evaluation/metrics.py. Every number has its items and a
95 % interval (over whole scenes).
"""

import dataclasses
from pathlib import Path

import torch

import train_clip
import train_vlm
from data.batch import NotEnoughItems
from data.dataset import SPOKEN
from tinyvlm.dropping import DROPPING
from tinyvlm.evaluation import eval_clip, eval_vlm, plots, readouts
from tinyvlm.evaluation.cases import clip_cases, vlm_cases
from tinyvlm.evaluation.predictor import VLMPredictor
from tinyvlm.evaluation.reports import (
    answer_sections,
    presence_sections,
    print_table,
    report_name,
    write_comparison,
    write_report,
)
from tinyvlm.training.checkpoint import checkpoint_file, load_checkpoint
from tinyvlm.training.config import UserError, did_you_mean, option, run_script, validate_config
from tinyvlm.training.distributed import pick_device
from tinyvlm.training.files import make_folder

LABELS = "which sizes, colours and shapes are there, macro F1"
SCRIPTS = {"clip": train_clip, "vlm": train_vlm}


@dataclasses.dataclass
class Config:
    checkpoint: str = option(
        "", "checkpoint, or its folder; if empty runs/vlm-qformer", positional=True
    )
    compare: tuple = option((), "several checkpoints of one kind, side by side")
    split: str = option("test", "which pictures: train (of a VLM: read of), val, test, more ...")
    items: int = option(
        500, "pictures for captions, and for questions of each family", min=20, max=20000
    )
    families: str = option("", "question families of a VLM, by commas; if empty all")
    drop: str = option("", "of a VLM's image tokens: see train_vlm.py", choices=tuple(DROPPING))
    language: str = option("", "one of those that the model knows; if empty each", choices=SPOKEN)
    out: str = option("", "folder of the report; if empty the checkpoint's, or runs/compare")
    device: str = option("auto", "auto, cpu, mps, cuda or cuda:N")


@dataclasses.dataclass
class LoadedModel:
    """A model that is to be evaluated; `about` says in a few words which."""

    path: str
    kind: str
    model: torch.nn.Module
    data: object
    about: dict


def main(config):
    """Evaluate, print, write; returns {section: {name: metric}}, one for each that is compared."""
    config, device = validate_config(config), pick_device(config.device)
    is_odd = config.checkpoint or len(set(config.compare)) < max(len(config.compare), 2)
    if config.compare and is_odd:
        hint = "name each once, behind --compare"
        raise UserError(f"--compare takes two or more different checkpoints and no other; {hint}")
    paths = config.compare or [config.checkpoint or "runs/vlm-qformer"]
    models = [open_model(path, device, config) for path in paths]
    check_comparable(models, config)
    beside = "runs/compare" if config.compare else str(checkpoint_file(paths[0]).parent)
    folder = make_folder(config.out or beside)
    reports = [evaluate(loaded, config) for loaded in models]
    if config.compare:
        sections = [sections for sections, _ in reports]
        write_comparison(folder, list(paths), sections, config.split)
        return sections
    [loaded], [(sections, (pixels, lines))] = models, reports
    name = report_name(Path(loaded.about["file"]), config)
    write_report(folder, name, loaded.about, sections, split=config.split, items=config.items)
    plots.save_image_grid(pixels, lines, folder / f"{name}.png")
    for title, metrics in sections.items():
        print_table(title, metrics)
    print(f"{folder}/{name}.md has these tables, {name}.png the best and the worst cases")
    return sections


def open_model(path, device, config):
    """A checkpoint -> LoadedModel. UserError if it cannot be evaluated as asked."""
    saved = load_checkpoint(path)
    kind = saved["kind"]
    if kind not in SCRIPTS:
        hint = "name a checkpoint of train_clip.py or train_vlm.py"
        raise UserError(f"{path} holds a {kind!r} model; {hint}")
    if kind == "clip" and (config.families or config.drop):
        what = "is a CLIP, which answers no questions"
        raise UserError(f"{path} {what}; leave out --families and --drop")
    saved["config"] |= dict(drop=config.drop) if config.drop else {}
    model, trained, data = SCRIPTS[kind].load_model(saved, path, device)
    families_of(config, data)
    try:
        data.split(config.split)
    except ValueError as error:
        hint = did_you_mean(config.split, data.splits)
        raise UserError(f"--split {config.split} cannot be used with {path}{hint}: {error}")
    about = dict(kind=kind, step=saved["step"], seed=trained.seed, world=trained.dataset)
    about |= dict(held_out=trained.held_out, file=checkpoint_file(path).name)
    if config.language and config.language not in data.languages:
        known = " and ".join(data.languages)
        raise UserError(f"{path} knows {known}; leave out --language {config.language}")
    about |= dict(language=trained.language)
    kept = ("projector", "encoder", "loss") if kind == "clip" else ("projector", "drop")
    about |= {k: v for k, v in saved["config"].items() if k in kept}
    return LoadedModel(path, kind, model, data, about)


def check_comparable(models, config):
    """Only models of one kind in one world can be compared item by item: UserError."""
    first = models[0]
    for other in models[1:]:
        if any(other.about[k] != first.about[k] for k in ("kind", "world", "held_out")):
            what = f"{other.path} is another kind of model, or of another world, than {first.path}"
            raise UserError(f"{what}; compare like with like")
        if not config.language and other.data.languages != first.data.languages:
            what = f"{other.path} knows other languages than {first.path}"
            raise UserError(f"{what}; give the --language to compare them in")
        if config.split == "train" and other.data.seed != first.data.seed:
            what = f"{other.path} has other training pictures than {first.path}"
            raise UserError(f"{what}; choose another --split")


def evaluate(loaded, config):
    """{section: {name: metric}}, and the best and worst cases as a page; in each language."""
    names = [config.language] if config.language else loaded.data.languages
    sections, pages = {}, []
    for name in names:
        ending = f", {name}" if len(names) > 1 else ""
        speaking = dataclasses.replace(loaded, data=loaded.data.speaking(name))
        found, page = evaluate_in_language(speaking, config)
        sections |= {title + ending: metrics for title, metrics in found.items()}
        pages.append(page)
    pixels, lines = (
        [item for part in column for item in part] for column in zip(*pages, strict=True)
    )
    return sections, (pixels, lines)


def evaluate_in_language(loaded, config):
    """{section: {name: metric}}, and the best and worst cases as a page, in the language that the
    data set speaks."""
    try:
        if loaded.kind == "vlm":
            return evaluate_vlm(loaded, config, families_of(config, loaded.data))
        return evaluate_clip(loaded, config)
    except NotEnoughItems as error:
        what = f"--split {config.split} cannot be used here: {error}"
        raise UserError(f"{what}; choose another --split, other --families or fewer --items")


def families_of(config, data):
    """The question families that --families names. UserError if it names another one."""
    known = data.split("test").families
    names = [name.strip() for name in config.families.split(",")] if config.families else known
    for name in names:
        if name not in known:
            raise UserError(f"--families names {name!r}; choose from {', '.join(known)}")
    return names


def evaluate_vlm(loaded, config, families):
    data, split = loaded.data, loaded.data.split(config.split)
    predictor = VLMPredictor(loaded.model, data.tokenizer)
    pictures = split.pictures(config.items)
    report, captions = eval_vlm.evaluate_captions(predictor, pictures)
    sections = {f"captions ({config.split})": report}
    sections[LABELS] = {
        "encoder": readouts.evaluate_encoder_labels(loaded.model.vision, pictures),
        "captions": readouts.evaluate_caption_labels(pictures, captions),
    }
    answers, record = eval_vlm.evaluate_vqa(predictor, split, families, config.items // 2)
    left_out = [family for family in families if family not in answers]
    if left_out:
        where = f"in split {config.split}: left out, also of the mean"
        print(f"no minimal pairs of {', '.join(left_out)} {where}")
    sections |= answer_sections(answers)
    if "count" in families:
        count = eval_vlm.evaluate_count(predictor, split, config.items)
        sections["answers"]["how many in all"] = count
    premises = eval_vlm.evaluate_premises(predictor, split, config.items)
    sections |= {"what is not there": premises} if premises else {}
    asked = eval_vlm.evaluate_instructions(predictor, split, config.items // 2)
    sections |= {f"captions asked for, {level}": scores for level, scores in asked.items()}
    sections |= presence_sections(eval_vlm.evaluate_pope(predictor, split, config.items))
    for name in ["test", *data.shifted_splits]:
        sections[f"where from: {name}"] = eval_vlm.evaluate_transfer(
            predictor, data.split(name), config.items // 2
        )
    rate = predictor.answers / predictor.seconds
    print(f"\n{loaded.path}: {predictor.answers:,} answers, {rate:.0f} answers/s")
    return sections, vlm_cases(loaded.model, split, pictures, captions, record)


def evaluate_clip(loaded, config):
    data, split = loaded.data, loaded.data.split(config.split)
    limit = loaded.model.text.max_length
    if split.longest_caption(config.items) > limit:
        what = f"--split {config.split} has captions with places of more than {limit} tokens"
        raise UserError(f"{what}, the limit of this text tower; choose another --split")
    embedder = eval_clip.CLIPEmbedder(loaded.model, data.tokenizer)
    pictures = split.pictures(config.items)
    first = eval_clip.evaluate_retrieval(embedder, pictures)
    first["minimal pairs"] = eval_clip.evaluate_pairs(embedder, split, config.items)
    first["modality gap"] = eval_clip.evaluate_modality_gap(embedder, pictures)
    first["order changes the cosine by"] = eval_clip.evaluate_order(embedder, pictures)
    sections = {
        f"pictures and captions ({config.split})": first,
        "longer captions, with places": eval_clip.evaluate_retrieval(embedder, pictures, omit=()),
        "zero-shot (test, pictures of one object)": eval_clip.evaluate_zero_shot(
            embedder, data.split("test")
        ),
    }
    for contrast, metrics in eval_clip.evaluate_winoground(embedder, split, config.items).items():
        sections[f"Winoground, {contrast.replace('_', ' ')}"] = metrics
    kinds = eval_clip.evaluate_sugarcrepe(embedder, split, config.items)
    for which, title in enumerate(("SugarCrepe", "SugarCrepe without picture")):
        sections[title] = {kind: scores[which] for kind, scores in kinds.items()}
    binding = readouts.evaluate_binding(embedder, split, config.items)
    sections |= {"where binding is lost": binding} if binding else {}
    sections[LABELS] = {"encoder": readouts.evaluate_encoder_labels(loaded.model.vision, pictures)}
    for name in data.shifted_splits:
        other = data.split(name)
        found = eval_clip.evaluate_retrieval(embedder, other.pictures(config.items))
        if other.has_single_objects:
            found |= eval_clip.evaluate_zero_shot(embedder, other)
        sections[f"where from: {name}"] = found
    return sections, clip_cases(embedder, split)


if __name__ == "__main__":
    run_script(main, Config, __doc__)
