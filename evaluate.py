"""Score what a checkpoint says against the world: what it sees, binds, counts, relates, invents and merely guesses.

    python evaluate.py runs/vlm-qformer                    # tables, report.json, report.md and report.png in the checkpoint's folder
    python evaluate.py runs/clip                           # the same for CLIP
    python evaluate.py --compare runs/vlm-label runs/vlm-mlp    # side by side, differences to the first with paired intervals
    python evaluate.py runs/vlm-mlp --split more --families count,compare --items 2000

What each number means stands in tinyvlm/metrics.py. Every number has its items and a 95 % interval (bootstrap over scenes).
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch

import train_clip
import train_vlm
from data import foils, language, questions
from data.render import render
from data.scene import PLACE, SPLITS, TooPoor, sample
from tinyvlm import exam, exam_clip, files, metrics, plots, run
from tinyvlm.config import UserError, run_script, setting


@dataclasses.dataclass
class Config:
    checkpoint: str = setting("", "checkpoint, or its folder, of train_clip.py or train_vlm.py; if empty runs/vlm-qformer", positional=True)
    compare: tuple = setting((), "several checkpoints of one kind, side by side")
    split: str = setting("test", "which pictures", choices=SPLITS)
    items: int = setting(500, "pictures for captions and questions of each family (two pictures a minimal pair)", low=20, high=20000)
    families: str = setting("", "question families of a VLM, separated by commas; if empty all")
    out: str = setting("", "folder of the report; if empty the checkpoint's, or runs/compare")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N")


@dataclasses.dataclass
class Subject:
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
    device, families = run.pick_device(config.device), families_of(config)
    if config.compare and (config.checkpoint or len(set(config.compare)) < max(len(config.compare), 2)):
        raise UserError("--compare takes two or more different checkpoints and no other one; name each once, behind --compare")
    path = config.checkpoint or "runs/vlm-qformer"
    subjects = [open_subject(path, device, config) for path in config.compare or [path]]
    check_alike(subjects, config)
    folder = files.open_folder(config.out or ("runs/compare" if config.compare else str(files.checkpoint_file(path).parent)))
    reports = [examine(subject, config, families) for subject in subjects]
    if config.compare:
        write_comparison(subjects, [sections for sections, _ in reports], config, folder)
        return [sections for sections, _ in reports]
    [(sections, (pixels, lines))] = reports
    name = "report" if subjects[0].about["file"] == "last.pt" else f"report-{Path(path).stem}"
    write_report(subjects[0], sections, config, folder, name)
    plots.page(pixels, lines, folder / f"{name}.png")
    for title, scores in sections.items():
        run.print_table(title, [metrics.table_row(name, score) for name, score in scores.items()])
    print(f"{folder}/{name}.md has these tables, {name}.png the best and the worst cases")
    return sections


def families_of(config):
    """The question families that --families names. UserError if it names another one."""
    names = [name.strip() for name in config.families.split(",")] if config.families else list(questions.FAMILIES)
    for name in names:
        if name not in questions.FAMILIES:
            raise UserError(f"--families names {name!r}; choose from {', '.join(questions.FAMILIES)}")
    return names


def open_subject(path, device, config):
    """A checkpoint -> Subject."""
    saved = files.load_checkpoint(path)
    script = dict(clip=train_clip, vlm=train_vlm).get(saved["kind"])
    if script is None:
        raise UserError(f"{path} holds a {saved['kind']!r} model; name a checkpoint of train_clip.py or train_vlm.py")
    model, trained = script.restore(saved, path, device)
    if config.families and saved["kind"] == "clip":
        raise UserError(f"{path} is a CLIP, which answers no questions; leave out --families")
    world = run.world_of(trained)
    if config.split in ("held_out", "control") and not world.held_out:
        raise UserError(f"{path} was trained with all colour-shape pairs; --split {config.split} takes one trained with --held-out 1 or more")
    about = dict(kind=saved["kind"], step=saved["step"], seed=trained.seed, world=trained.world, held_out=trained.held_out)
    about["file"] = files.checkpoint_file(path).name
    about |= {k: v for k, v in saved["config"].items() if k in ("projector", "encoder", "loss")}
    image_size = saved["encoder"]["image_size"] if saved["kind"] == "vlm" else trained.image_size
    return Subject(path, saved["kind"], model, world, trained.seed, image_size, device, about)


def check_alike(subjects, config):
    """Only models of one kind in one world can be compared item by item: UserError."""
    for other in subjects[1:]:
        if other.kind != subjects[0].kind or other.world != subjects[0].world:
            raise UserError(f"{other.path} is another kind of model, or of another world, than {subjects[0].path}; compare like with like")
        if config.split == "train" and other.seed != subjects[0].seed:
            raise UserError(f"{other.path} has other training pictures than {subjects[0].path}; choose another --split")


def examine(subject, config, families):
    """{section: {name: Score}}, and the best and worst cases as a page."""
    try:
        return (examine_vlm if subject.kind == "vlm" else examine_clip)(subject, config, families)
    except TooPoor as error:
        raise UserError(f"--split {config.split} cannot be used here: {error}; choose another --split, other --families or fewer --items")


# ---------------------------------------------------------------- VLM


def examine_vlm(subject, config, families):
    speaker = exam.Speaker(subject.model, subject.world, subject.image_size, subject.device)
    where = subject.world, subject.seed
    report, captions, scenes = exam.caption_exam(speaker, *where, config.split, config.items)
    answers, record = exam.vqa_exam(speaker, *where, config.split, families, config.items // 2)
    left_out = [family for family in families if family not in answers]
    if left_out:
        print(f"no minimal pairs of {', '.join(left_out)} in split {config.split}: left out, also of the mean")
    sections = {f"captions ({config.split})": report}
    for which, title in enumerate(("answers", "answers without picture", "answers to other words, never trained on")):
        sections[title] = {f: scores[which] for f, scores in answers.items()} | {"mean of families": exam.vqa_mean(answers, which)}
    sections["answers"] |= {f"{f}, hard ones": scores[3] for f, scores in answers.items() if scores[3].items}
    presence = exam.pope_exam(speaker, *where, config.split, config.items)
    for kind, forms in presence.items():
        sections[f"presence, {kind} negatives"] = forms["words"]
    logits = {f"{kind} {name}": score for kind, forms in presence.items() for name, score in forms["logits"].items()}
    sections["presence, from logits instead of words"] = {name: score for name, score in logits.items() if name.split()[1] in ("accuracy", "f1", "yes_rate")}
    for split in ("test", "more") + ("held_out", "control") * bool(subject.world.held_out):
        sections[f"where from: {split}"] = exam.transfer_exam(speaker, *where, split, config.items // 2)
    print(f"\n{subject.path}: {speaker.answers:,} answers, {speaker.answers / speaker.seconds:.0f} answers/s")
    return sections, vlm_cases(subject, config, captions, scenes, record)


def vlm_cases(subject, config, captions, scenes, record, each=4):
    """The worst captions, wrong answers, right answers, the best captions: pictures and lines. Beside an answer: where it came from."""
    tables = [metrics.score_caption(c, s) for c, s in zip(captions, scenes.objects)]
    badness = np.array([stated + there - 2 * true for true, stated, there, _, _ in tables])
    size = np.array([there for _, _, there, _, _ in tables])
    by_badness = np.lexsort((-size, badness))
    wrong, right = ([r for r in record if (r[2] == r[3]) == truth] for truth in (False, True))
    pixels, lines = [], []

    def show_captions(title, chosen):
        drawn = render(subject.world, foils.take(scenes, chosen), subject.image_size, subject.device)
        for k, picture in zip(chosen, drawn):
            pixels.append(picture)
            truth = language.text(language.caption(language.without(scenes.objects[[k]], PLACE))[0])
            true_line = [] if tables[k][3] else [[(f"true is {truth}", None)]]
            lines.append([[(title, None)], plots.judged_caption(captions[k], scenes.objects[k]), *true_line])

    def show_answers(title, chosen):
        if not chosen:
            return
        indices, asked, wanted, said = (list(column) for column in zip(*chosen))
        shown = sample(subject.world, subject.seed, config.split, np.array(indices))
        drawn = render(subject.world, shown, subject.image_size, subject.device)
        for picture, heat, q, w, s in zip(drawn, exam.heat(subject.model, drawn, asked, said), asked, wanted, said):
            traced = bool(heat.any())  # hard labels leave no trace
            pixels.append(plots.beside(picture, heat) if traced else picture)
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


def examine_clip(subject, config, families):
    ranker = exam_clip.Ranker(subject.model, subject.world, subject.image_size, subject.device)
    where, limit = (subject.world, subject.seed), subject.model.text.position.num_embeddings
    if exam_clip.longest_caption(*where, config.split, config.items) > limit:
        raise UserError(f"--split {config.split} has captions with places of more than {limit} tokens, the limit of this text tower; choose another --split")
    sections = {f"pictures and captions ({config.split})": exam_clip.retrieval_exam(ranker, *where, config.split, config.items)}
    first = sections[f"pictures and captions ({config.split})"]
    first["minimal pairs"] = exam_clip.pair_exam(ranker, *where, config.split, config.items)
    first["modality gap"] = exam_clip.gap_exam(ranker, *where, config.split, config.items)
    sections["longer captions, with places"] = exam_clip.retrieval_exam(ranker, *where, config.split, config.items, silent=())
    sections["zero-shot (test, pictures of one object)"] = exam_clip.zero_shot_exam(ranker, *where)
    for contrast, scores in exam_clip.winoground_exam(ranker, *where, config.split, config.items).items():
        sections[f"Winoground, {contrast.replace('_', ' ')}"] = scores
    kinds = exam_clip.foil_exam(ranker, *where, config.split, config.items)
    for which, title in enumerate(("SugarCrepe", "SugarCrepe without picture")):
        sections[title] = {kind: scores[which] for kind, scores in kinds.items()}
    for split in ("more",) + ("held_out", "control") * bool(subject.world.held_out):
        sections[f"where from: {split}"] = exam_clip.retrieval_exam(ranker, *where, split, config.items)
        if split != "more":
            sections[f"where from: {split}"] |= exam_clip.zero_shot_exam(ranker, *where, split)
    return sections, clip_cases(ranker, subject, config)


def clip_cases(ranker, subject, config, each=6, among=256):
    """The pictures whose own caption ranks lowest, and highest, among 256, and where its cosine came from."""
    scenes = sample(subject.world, subject.seed, config.split, np.arange(0, 2 * among, 2))
    things = language.without(scenes.objects, PLACE)
    captions = ranker.captions(things)
    cosines = ranker.pictures(scenes) @ captions.T
    true, words = language.caption_truth(things, scenes.objects).T, language.texts(language.caption(things))
    lead = cosines.diagonal() - np.where(true, -1, cosines).max(1)
    chosen = np.concatenate([lead.argsort()[:each], lead.argsort()[::-1][:each]])
    drawn = render(subject.world, foils.take(scenes, chosen), subject.image_size, subject.device)
    heats = exam_clip.heat(subject.model, drawn, torch.from_numpy(captions[chosen]).to(subject.device))
    lines = []
    for k, q in enumerate(chosen):
        best = cosines[q].argsort()[::-1][:2]
        ranked = [(f"{cosines[q, i]:+.2f} {words[i]}", bool(true[q, i])) for i in dict.fromkeys([*best.tolist(), int(q)])]
        lines.append([[("worst:" if k < each else "best:", None)], *[[piece] for piece in ranked]])
    return [plots.beside(picture, heat) for picture, heat in zip(drawn, heats)], lines


# ---------------------------------------------------------------- reports


def as_numbers(score):
    """A Score as plain numbers for JSON, rounded, so that the same checkpoint gives the same bytes."""
    low, high = score.interval()
    numbers = dict(value=score.value, low=low, high=high, items=score.items)
    return {k: round(v, 5) for k, v in numbers.items()} | ({} if np.isnan(score.chance) else dict(chance=round(score.chance, 5)))


def write_report(subject, sections, config, folder, name):
    """name.json and name.md."""
    content = dict(checkpoint=subject.about, split=config.split, items=config.items)
    content["sections"] = {title: {name: as_numbers(s) for name, s in scores.items()} for title, scores in sections.items()}
    files.write_atomically(folder / f"{name}.json", (json.dumps(content, indent=1) + "\n").encode())
    text = [f"# {', '.join(f'{k} {v}' for k, v in subject.about.items())}; split {config.split}", ""]
    for title, scores in content["sections"].items():
        text += [f"## {title}", "", "| | value | 95 % | items | chance | |", "| --- | --- | --- | --- | --- | --- |"]
        for row, s in scores.items():
            meaning = sections[title][row].meaning
            text.append(f"| {row} | {s['value']:.3f} | {s['low']:.3f} to {s['high']:.3f} | {s['items']:g} | {s.get('chance', '')} | {meaning} |")
        text.append("")
    files.write_atomically(folder / f"{name}.md", "\n".join(text).encode())


def write_comparison(subjects, reports, config, folder):
    """compare.json and compare.md, and the table on the screen: each model's value, and its difference to the first one's, paired."""
    names, content = [subject.path for subject in subjects], {}
    text = [f"# {config.split} split: {names[0]} with 95 % intervals; the others with their difference to it and its paired 95 % interval", ""]
    for title, scores in reports[0].items():
        text += [f"## {title}", "", f"| | items | {' | '.join(names)} |", "| --- | --- |" + " --- |" * len(names)]
        content[title] = {}
        for name, first in scores.items():
            low, high = first.interval()
            cells, entry = [f"{first.value:.3f} [{low:.3f}, {high:.3f}]"], [as_numbers(first)]
            for report in reports[1:]:
                other = report[title][name]
                difference, (low, high) = other.minus(first)
                cells.append(f"{other.value:.3f} ({difference:+.3f}, {low:+.3f} to {high:+.3f})")
                entry.append(as_numbers(other) | {k: round(v, 5) for k, v in dict(difference=difference, difference_low=low, difference_high=high).items()})
            text.append(f"| {name} | {first.items:g} | {' | '.join(cells)} |")
            content[title][name] = dict(zip(names, entry))
        text.append("")
    files.write_atomically(folder / "compare.md", "\n".join(text).encode())
    files.write_atomically(folder / "compare.json", (json.dumps(content, indent=1) + "\n").encode())
    print("\n".join(text))
    print(f"{folder}/compare.md has these tables")


if __name__ == "__main__":
    run_script(main, Config, __doc__)
