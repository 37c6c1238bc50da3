"""Score what a checkpoint says against the world: what it sees, binds, counts, relates, invents and merely guesses.

    python evaluate.py runs/vlm-qformer                    # tables, report.json, report.md and report.png in the checkpoint's folder
    python evaluate.py runs/clip                           # the same for CLIP
    python evaluate.py --compare runs/vlm-label runs/vlm-mlp    # side by side, differences to the first with paired intervals
    python evaluate.py runs/vlm-mlp --split more --families count,compare --items 2000

What each number means stands in tinyvlm/evaluation/metrics.py. Every number has its items and a 95 % interval (bootstrap over scenes).
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

import train_clip
import train_vlm
from data.shapes import grammar, hard_negatives, questions
from data.shapes.render import render
from data.shapes.scene import PLACE, SPLITS, NotEnoughScenes, sample
from tinyvlm.evaluation import eval_clip, eval_vlm, metrics, plots
from tinyvlm.training import checkpoint, distributed, loop
from tinyvlm.training.config import UserError, run_script, option


@dataclasses.dataclass
class Config:
    checkpoint: str = option("", "checkpoint, or its folder, of train_clip.py or train_vlm.py; if empty runs/vlm-qformer", positional=True)
    compare: tuple = option((), "several checkpoints of one kind, side by side")
    split: str = option("test", "which pictures", choices=SPLITS)
    items: int = option(500, "pictures for captions and questions of each family (two pictures a minimal pair)", min=20, max=20000)
    families: str = option("", "question families of a VLM, separated by commas; if empty all")
    out: str = option("", "folder of the report; if empty the checkpoint's, or runs/compare")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")


@dataclasses.dataclass
class LoadedModel:
    """A model that is to be examined; `about` says in a few words which."""

    path: str
    kind: str
    model: torch.nn.Module
    world: object
    seed: int
    image_size: int
    device: torch.device
    about: dict


def main(config):
    """Examine, print, write; returns {section: {name: Score}}, or one of these for each checkpoint that is compared."""
    device, families = distributed.pick_device(config.device), families_of(config)
    if config.compare and (config.checkpoint or len(set(config.compare)) < max(len(config.compare), 2)):
        raise UserError("--compare takes two or more different checkpoints and no other one; name each once, behind --compare")
    path = config.checkpoint or "runs/vlm-qformer"
    loaded_models = [open_model(path, device, config) for path in config.compare or [path]]
    check_comparable(loaded_models, config)
    folder = checkpoint.open_folder(config.out or ("runs/compare" if config.compare else str(checkpoint.checkpoint_file(path).parent)))
    reports = [evaluate_one(loaded, config, families) for loaded in loaded_models]
    if config.compare:
        write_comparison(loaded_models, [sections for sections, _ in reports], config, folder)
        return [sections for sections, _ in reports]
    [(sections, (pixels, lines))] = reports
    name = "report" if loaded_models[0].about["file"] == "last.pt" else f"report-{Path(path).stem}"
    write_report(loaded_models[0], sections, config, folder, name)
    plots.save_image_grid(pixels, lines, folder / f"{name}.png")
    for title, scores in sections.items():
        loop.print_table(title, [metrics.table_row(name, score) for name, score in scores.items()])
    print(f"{folder}/{name}.md has these tables, {name}.png the best and the worst cases")
    return sections


def families_of(config):
    """The question families that --families names. UserError if it names another one."""
    names = [name.strip() for name in config.families.split(",")] if config.families else list(questions.FAMILIES)
    for name in names:
        if name not in questions.FAMILIES:
            raise UserError(f"--families names {name!r}; choose from {', '.join(questions.FAMILIES)}")
    return names


def open_model(path, device, config):
    """A checkpoint -> Subject."""
    saved = checkpoint.load_checkpoint(path)
    script = dict(clip=train_clip, vlm=train_vlm).get(saved["kind"])
    if script is None:
        raise UserError(f"{path} holds a {saved['kind']!r} model; name a checkpoint of train_clip.py or train_vlm.py")
    model, trained = script.load_model(saved, path, device)
    if config.families and saved["kind"] == "clip":
        raise UserError(f"{path} is a CLIP, which answers no questions; leave out --families")
    world = loop.build_world(trained)
    if config.split in ("held_out", "control") and not world.held_out:
        raise UserError(f"{path} was trained with all colour-shape pairs; --split {config.split} takes one trained with --held-out 1 or more")
    about = dict(kind=saved["kind"], step=saved["step"], seed=trained.seed, world=trained.world, held_out=trained.held_out)
    about["file"] = checkpoint.checkpoint_file(path).name
    about |= {k: v for k, v in saved["config"].items() if k in ("projector", "encoder", "loss")}
    image_size = saved["encoder"]["image_size"] if saved["kind"] == "vlm" else trained.image_size
    return LoadedModel(path, saved["kind"], model, world, trained.seed, image_size, device, about)


def check_comparable(loaded_models, config):
    """Only models of one kind in one world can be compared item by item: UserError."""
    for other in loaded_models[1:]:
        if other.kind != loaded_models[0].kind or other.world != loaded_models[0].world:
            raise UserError(f"{other.path} is another kind of model, or of another world, than {loaded_models[0].path}; compare like with like")
        if config.split == "train" and other.seed != loaded_models[0].seed:
            raise UserError(f"{other.path} has other training pictures than {loaded_models[0].path}; choose another --split")


def evaluate_one(loaded, config, families):
    """{section: {name: Score}}, and the best and worst cases as a page."""
    try:
        return (evaluate_vlm if loaded.kind == "vlm" else evaluate_clip)(loaded, config, families)
    except NotEnoughScenes as error:
        raise UserError(f"--split {config.split} cannot be used here: {error}; choose another --split, other --families or fewer --items")


# ---------------------------------------------------------------- VLM


def evaluate_vlm(loaded, config, families):
    predictor = eval_vlm.VLMPredictor(loaded.model, loaded.world, loaded.image_size, loaded.device)
    where = loaded.world, loaded.seed
    report, captions, scenes = eval_vlm.evaluate_captions(predictor, *where, config.split, config.items)
    answers, record = eval_vlm.evaluate_vqa(predictor, *where, config.split, families, config.items // 2)
    left_out = [family for family in families if family not in answers]
    if left_out:
        print(f"no minimal pairs of {', '.join(left_out)} in split {config.split}: left out, also of the mean")
    sections = {f"captions ({config.split})": report}
    for which, title in enumerate(("answers", "answers without picture", "answers to other words, never trained on")):
        sections[title] = {f: scores[which] for f, scores in answers.items()} | {"mean of families": eval_vlm.macro_mean(answers, which)}
    sections["answers"] |= {f"{f}, hard ones": scores[3] for f, scores in answers.items() if scores[3].items}
    presence = eval_vlm.evaluate_pope(predictor, *where, config.split, config.items)
    for kind, forms in presence.items():
        sections[f"presence, {kind} negatives"] = forms["words"]
    logits = {f"{kind} {name}": score for kind, forms in presence.items() for name, score in forms["logits"].items()}
    sections["presence, from logits instead of words"] = {name: score for name, score in logits.items() if name.split()[1] in ("accuracy", "f1", "yes_rate")}
    for split in ("test", "more") + ("held_out", "control") * bool(loaded.world.held_out):
        sections[f"where from: {split}"] = eval_vlm.evaluate_transfer(predictor, *where, split, config.items // 2)
    print(f"\n{loaded.path}: {predictor.answers:,} answers, {predictor.answers / predictor.seconds:.0f} answers/s")
    return sections, vlm_cases(loaded, config, captions, scenes, record)


def vlm_cases(loaded, config, captions, scenes, record, each=4):
    """The worst captions, wrong answers, right answers, the best captions: pictures and lines. Beside an answer: where it came from."""
    tables = [metrics.score_caption(c, s) for c, s in zip(captions, scenes.objects)]
    badness = np.array([stated + there - 2 * true for true, stated, there, _, _ in tables])
    size = np.array([there for _, _, there, _, _ in tables])
    by_badness = np.lexsort((-size, badness))
    wrong, right = ([r for r in record if (r[2] == r[3]) == truth] for truth in (False, True))
    pixels, lines = [], []

    def show_captions(title, chosen):
        drawn = render(loaded.world, hard_negatives.select(scenes, chosen), loaded.image_size, loaded.device)
        for k, picture in zip(chosen, drawn):
            pixels.append(picture)
            truth = grammar.text(grammar.caption(grammar.without(scenes.objects[[k]], PLACE))[0])
            true_line = [] if tables[k][3] else [[(f"true is {truth}", None)]]
            lines.append([[(title, None)], plots.mark_caption(captions[k], scenes.objects[k]), *true_line])

    def show_answers(title, chosen):
        if not chosen:
            return
        indices, asked, wanted, said = (list(column) for column in zip(*chosen))
        shown = sample(loaded.world, loaded.seed, config.split, np.array(indices))
        drawn = render(loaded.world, shown, loaded.image_size, loaded.device)
        for picture, heat, q, w, s in zip(drawn, eval_vlm.grad_x_input(loaded.model, drawn, asked, said), asked, wanted, said):
            traced = bool(heat.any())  # hard labels leave no trace
            pixels.append(plots.overlay_saliency(picture, heat) if traced else picture)
            lines.append([[(f"{title}, and where it came from:" if traced else f"{title}:", None)], [(q, None), (s or "(nothing)", s == w)], [(f"true is {w}", None)]])

    show_captions("worst caption:", by_badness[::-1][:each])
    show_answers("wrong", spread_out(wrong, each))
    show_answers("right", spread_out(right, each))
    show_captions("best caption:", by_badness[:each])
    return pixels, lines


def spread_out(items, number):
    """So many of the items, evenly spaced."""
    return [items[k] for k in np.linspace(0, len(items) - 1, min(number, len(items))).astype(int)]


# ---------------------------------------------------------------- CLIP


def evaluate_clip(loaded, config, families):
    embedder = eval_clip.CLIPEmbedder(loaded.model, loaded.world, loaded.image_size, loaded.device)
    where, limit = (loaded.world, loaded.seed), loaded.model.text.pos_embed.num_embeddings
    if eval_clip.longest_caption(*where, config.split, config.items) > limit:
        raise UserError(f"--split {config.split} has captions with places of more than {limit} tokens, the limit of this text tower; choose another --split")
    sections = {f"pictures and captions ({config.split})": eval_clip.evaluate_retrieval(embedder, *where, config.split, config.items)}
    first = sections[f"pictures and captions ({config.split})"]
    first["minimal pairs"] = eval_clip.evaluate_pairs(embedder, *where, config.split, config.items)
    first["modality gap"] = eval_clip.evaluate_modality_gap(embedder, *where, config.split, config.items)
    sections["longer captions, with places"] = eval_clip.evaluate_retrieval(embedder, *where, config.split, config.items, omit=())
    sections["zero-shot (test, pictures of one object)"] = eval_clip.evaluate_zero_shot(embedder, *where)
    for contrast, scores in eval_clip.evaluate_winoground(embedder, *where, config.split, config.items).items():
        sections[f"Winoground, {contrast.replace('_', ' ')}"] = scores
    kinds = eval_clip.evaluate_sugarcrepe(embedder, *where, config.split, config.items)
    for which, title in enumerate(("SugarCrepe", "SugarCrepe without picture")):
        sections[title] = {kind: scores[which] for kind, scores in kinds.items()}
    for split in ("more",) + ("held_out", "control") * bool(loaded.world.held_out):
        sections[f"where from: {split}"] = eval_clip.evaluate_retrieval(embedder, *where, split, config.items)
        if split != "more":
            sections[f"where from: {split}"] |= eval_clip.evaluate_zero_shot(embedder, *where, split)
    return sections, clip_cases(embedder, loaded, config)


def clip_cases(embedder, loaded, config, each=6, num_candidates=256):
    """The pictures whose own caption ranks lowest, and highest, among 256, and where its cosine came from."""
    scenes = sample(loaded.world, loaded.seed, config.split, np.arange(0, 2 * num_candidates, 2))
    noun_phrases = grammar.without(scenes.objects, PLACE)
    captions = embedder.embed_texts(noun_phrases)
    cosines = embedder.embed_images(scenes) @ captions.T
    true, words = grammar.caption_truth(noun_phrases, scenes.objects).T, grammar.texts(grammar.caption(noun_phrases))
    lead = cosines.diagonal() - np.where(true, -1, cosines).max(1)
    chosen = np.concatenate([lead.argsort()[:each], lead.argsort()[::-1][:each]])
    drawn = render(loaded.world, hard_negatives.select(scenes, chosen), loaded.image_size, loaded.device)
    heats = eval_clip.grad_x_input(loaded.model, drawn, torch.from_numpy(captions[chosen]).to(loaded.device))
    lines = []
    for k, q in enumerate(chosen):
        best = cosines[q].argsort()[::-1][:2]
        ranked = [(f"{cosines[q, i]:+.2f} {words[i]}", bool(true[q, i])) for i in dict.fromkeys([*best.tolist(), int(q)])]
        lines.append([[("worst:" if k < each else "best:", None)], *[[piece] for piece in ranked]])
    return [plots.overlay_saliency(picture, heat) for picture, heat in zip(drawn, heats)], lines


# ---------------------------------------------------------------- reports


def as_numbers(score):
    """A Score as plain numbers for JSON, rounded, so that the same checkpoint gives the same bytes."""
    low, high = score.interval()
    numbers = dict(value=score.value, low=low, high=high, items=score.items)
    return {k: round(v, 5) for k, v in numbers.items()} | ({} if np.isnan(score.chance) else dict(chance=round(score.chance, 5)))


def write_report(loaded, sections, config, folder, name):
    """name.json and name.md."""
    content = dict(checkpoint=loaded.about, split=config.split, items=config.items)
    content["sections"] = {title: {name: as_numbers(s) for name, s in scores.items()} for title, scores in sections.items()}
    checkpoint.write_atomically(folder / f"{name}.json", (json.dumps(content, indent=1) + "\n").encode())
    text = [f"# {', '.join(f'{k} {v}' for k, v in loaded.about.items())}; split {config.split}", ""]
    for title, scores in content["sections"].items():
        text += [f"## {title}", "", "| | value | 95 % | items | chance | |", "| --- | --- | --- | --- | --- | --- |"]
        for row, s in scores.items():
            meaning = sections[title][row].meaning
            text.append(f"| {row} | {s['value']:.3f} | {s['low']:.3f} to {s['high']:.3f} | {s['items']:g} | {s.get('chance', '')} | {meaning} |")
        text.append("")
    checkpoint.write_atomically(folder / f"{name}.md", "\n".join(text).encode())


def write_comparison(loaded_models, reports, config, folder):
    """compare.json and compare.md, and the table on the screen: each model's value, and its difference to the first one's, paired."""
    names, content = [loaded.path for loaded in loaded_models], {}
    text = [f"# {config.split} split: {names[0]} with 95 % intervals; the others with their difference to it and its paired 95 % interval", ""]
    for title, scores in reports[0].items():
        text += [f"## {title}", "", f"| | items | {' | '.join(names)} |", "| --- | --- |" + " --- |" * len(names)]
        content[title] = {}
        for name, first in scores.items():
            low, high = first.interval()
            cells, entry = [f"{first.value:.3f} [{low:.3f}, {high:.3f}]"], [as_numbers(first)]
            for report in reports[1:]:
                other = report[title][name]
                difference, (low, high) = other.paired_difference(first)
                cells.append(f"{other.value:.3f} ({difference:+.3f}, {low:+.3f} to {high:+.3f})")
                entry.append(as_numbers(other) | {k: round(v, 5) for k, v in dict(difference=difference, difference_low=low, difference_high=high).items()})
            text.append(f"| {name} | {first.items:g} | {' | '.join(cells)} |")
            content[title][name] = dict(zip(names, entry))
        text.append("")
    checkpoint.write_atomically(folder / "compare.md", "\n".join(text).encode())
    checkpoint.write_atomically(folder / "compare.json", (json.dumps(content, indent=1) + "\n").encode())
    print("\n".join(text))
    print(f"{folder}/compare.md has these tables")


if __name__ == "__main__":
    run_script(main, Config, __doc__)
