"""The scripts as their users meet them: a few steps, the files they leave, resume, bad input, and what the README says."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import sample
import train_clip
import train_vlm
from conftest import CLIP_ARGS, ROOT, VLM_ARGS, command, in_process
from tinyvlm.training import config as settings
from tinyvlm.training import checkpoint, distributed
from tinyvlm.projectors import PROJECTORS

FILES = {"config.json", "log.jsonl", "last.pt", "best.pt", "metrics.json", "times.json", "curves.png", "samples.png"}


def weights(folder):
    return checkpoint.load_checkpoint(folder / "last.pt")["model"]


def test_clip_leaves_what_it_promises(clip_folder):
    assert {p.name for p in clip_folder.iterdir()} == FILES
    numbers = json.loads((clip_folder / "metrics.json").read_text())
    assert {"seconds", "images_per_second", "matched_cosine", "mismatched_cosine", "zero_shot", "r_at_1"} <= set(numbers)
    assert all(isinstance(v, (int, float)) for v in numbers.values())
    assert [line["step"] for line in checkpoint.read_log(clip_folder) if "loss" in line] == [1, 2, 3, 4, 5, 6]


def test_vlm_leaves_what_it_promises(vlm_folder):
    assert {p.name for p in vlm_folder.iterdir()} == FILES
    numbers = json.loads((vlm_folder / "metrics.json").read_text())
    families = {"vqa_" + f for f in ("existence", "count", "colour", "shape", "size", "relation", "compare")}
    assert {"seconds", "images_per_second", "fact_f1", "exact_caption", "vqa", "vqa_blind", "vqa_chance"} | families <= set(numbers)
    assert [line.get("stage") for line in checkpoint.read_log(vlm_folder) if "loss" in line] == ["language"] * 3 + ["align"] + ["instruct"] * 2


def test_evaluations_do_not_change_the_training(clip_folder, vlm_folder, tmp_path):
    train_clip.main(train_clip.Config(out=str(tmp_path / "clip"), **CLIP_ARGS | dict(eval_every=3)))
    arguments = VLM_ARGS | dict(clip=str(clip_folder), num_queries=4, eval_every=6)
    train_vlm.main(train_vlm.Config(out=str(tmp_path / "vlm"), **arguments))
    for reference, other in ((clip_folder, "clip"), (vlm_folder, "vlm")):
        assert all(torch.equal(w, weights(reference)[n]) for n, w in weights(tmp_path / other).items())


def test_projectors_share_encoder_and_decoder_to_the_last_bit(clip_folder):
    built = []
    for name in PROJECTORS:
        config = train_vlm.Config(projector=name, clip=str(clip_folder))
        built.append(train_vlm.build_model(config, train_vlm.load_encoder(config)[0]))
    for model in built[1:]:
        for part in ("vision", "decoder"):
            other = getattr(built[0], part).state_dict()
            assert all(torch.equal(w, other[n]) for n, w in getattr(model, part).state_dict().items())


def test_align_starts_from_the_encoder_of_clip_and_moves_the_projector_alone(clip_folder, tmp_path):
    arguments = VLM_ARGS | dict(steps=2, stages="align", shares="1", projector="mlp", clip=str(clip_folder), out=str(tmp_path))
    train_vlm.main(train_vlm.Config(**arguments))
    fresh = train_vlm.build_model(train_vlm.Config(**arguments), train_vlm.load_encoder(train_vlm.Config(**arguments))[0]).state_dict()
    encoder = {name: w for name, w in weights(clip_folder).items() if name.startswith("vision.")}
    assert encoder
    for name, w in weights(tmp_path).items():
        assert torch.equal(w, encoder.get(name, fresh[name])) == (not name.startswith("projector.")), name


def test_a_config_that_makes_no_sense_is_refused_from_python_too(clip_folder):
    before = (clip_folder / "metrics.json").read_bytes()
    for wrong in (dict(steps=0), dict(loss="typo"), dict(lr=float("nan"))):
        with pytest.raises(settings.UserError, match="--"):
            train_clip.main(train_clip.Config(out=str(clip_folder), **CLIP_ARGS | wrong))
    assert (clip_folder / "metrics.json").read_bytes() == before


def test_a_stage_that_trains_nothing_its_loss_depends_on_is_refused(tmp_path):
    with pytest.raises(settings.UserError, match="--train-language"):
        train_vlm.main(train_vlm.Config(train_language="projector.*", encoder_init="random", out=str(tmp_path), **VLM_ARGS))


def test_a_device_without_a_number_is_the_current_one(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device.index))
    assert [str(distributed.Distributed(name).device) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]
    assert chosen == [1]  # set_device refuses a device without a number


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu(tmp_path):
    on_gpu = dict(device="cuda", eval_every=3)
    train_clip.main(train_clip.Config(out=str(tmp_path / "clip"), **CLIP_ARGS | on_gpu))
    for projector in PROJECTORS:
        train_vlm.main(train_vlm.Config(projector=projector, clip=str(tmp_path / "clip"), out=str(tmp_path / projector), **VLM_ARGS | on_gpu))
        evaluate.main(evaluate.Config(checkpoint=str(tmp_path / projector), items=20))
        sample.main(sample.Config(checkpoint=str(tmp_path / projector), items=2))


RECIPES = [("instruct", "1", "*"), ("align,instruct", "0.5,0.5", "decoder.*"), ("instruct", "1", "projector.*,vision.blocks.*")]


@pytest.mark.parametrize("stages, shares, patterns", RECIPES)
def test_recipes_of_the_literature_are_a_flag_away(clip_folder, tmp_path, stages, shares, patterns):
    arguments = VLM_ARGS | dict(steps=2, stages=stages, shares=shares, train_instruct=patterns, projector="linear")
    numbers = train_vlm.main(train_vlm.Config(out=str(tmp_path), clip=str(clip_folder), **arguments))
    assert {line["stage"] for line in checkpoint.read_log(tmp_path) if "loss" in line} == set(stages.split(",")) and 0 <= numbers["vqa"] < 0.6


def test_sampler_with_both_kinds_of_checkpoint_and_every_kind_of_picture(clip_folder, vlm_folder, tmp_path, capsys):
    for folder in (clip_folder, vlm_folder):
        page = sample.main(sample.Config(checkpoint=str(folder), items=2, out=str(tmp_path / "page.png")))
        assert Image.open(page).width > 100
    assert "test picture 0" in capsys.readouterr().out
    for mode in ("RGB", "RGBA", "P", "CMYK", "L", "I;16"):
        path = tmp_path / f"{mode.replace(';', '')}.{'tiff' if mode in ('CMYK', 'I;16') else 'png'}"
        Image.new(mode, (90, 40)).save(path)
        sample.main(sample.Config(checkpoint=str(vlm_folder), image=str(path), question="What color is the circle?", out=str(tmp_path / "page.png")))
        sample.main(sample.Config(checkpoint=str(clip_folder), image=str(path), out=str(tmp_path / "page.png")))
    assert "what colour is the circle ?" in capsys.readouterr().out


def test_greedy_and_sampled_words(vlm_folder, tmp_path, capsys):
    said = []
    for temperature, seed in ((0.0, 0), (0.0, 1), (5.0, 0), (5.0, 1)):
        sample.main(sample.Config(checkpoint=str(vlm_folder), items=1, temperature=temperature, seed=seed, out=str(tmp_path / "p.png")))
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and said[2] != said[3]


# ---------------------------------------------------------------- evaluation


def test_evaluation_leaves_its_reports_and_the_same_bytes_twice(clip_folder, vlm_folder, tmp_path, capsys):
    for folder in (clip_folder, vlm_folder):
        contents = []
        for out in (tmp_path / "one", tmp_path / "two"):
            evaluate.main(evaluate.Config(checkpoint=str(folder), items=20, out=str(out)))
            assert {p.name for p in out.iterdir()} == {"report.json", "report.md", "report.png"}
            contents.append([(out / name).read_bytes() for name in ("report.json", "report.md", "report.png")])
        assert contents[0] == contents[1]
        for scores in json.loads(contents[0][0])["sections"].values():
            assert all({"value", "low", "high", "items"} <= set(numbers) for numbers in scores.values())
    assert "answers/s" in capsys.readouterr().out


def test_evaluation_of_another_split_and_of_some_families(vlm_folder, tmp_path):
    sections = evaluate.main(evaluate.Config(checkpoint=str(vlm_folder), items=20, split="more", families="count,compare", out=str(tmp_path)))
    assert list(sections["answers"]) == ["count", "compare", "mean of families", "count, hard ones", "compare, hard ones"] and "captions (more)" in sections


def test_comparison_is_paired_and_of_like_with_like(clip_folder, vlm_folder, tmp_path):
    both = (str(vlm_folder), str(vlm_folder / "best.pt"))
    evaluate.main(evaluate.Config(compare=both, items=20, out=str(tmp_path)))
    table = (tmp_path / "compare.md").read_text()
    assert str(vlm_folder) in table and "| items |" in table
    numbers = json.loads((tmp_path / "compare.json").read_text())
    for scores in numbers.values():
        for first, other in (score.values() for score in scores.values()):
            assert np.isclose(other["difference"], other["value"] - first["value"], atol=2e-5)
            assert other["difference_low"] <= other["difference"] + 1e-5 and other["difference"] <= other["difference_high"] + 1e-5
    for wrong, named in (((str(vlm_folder), str(clip_folder)), "like with like"),):
        with pytest.raises(settings.UserError, match=named):
            evaluate.main(evaluate.Config(compare=wrong, items=20, out=str(tmp_path)))
    for options, named in ((dict(split="held_out"), "held-out"), (dict(families="colour", checkpoint=str(clip_folder)), "--families")):
        with pytest.raises(settings.UserError, match=named):
            evaluate.main(evaluate.Config(**dict(checkpoint=str(vlm_folder), items=20, out=str(tmp_path)) | options))


# ---------------------------------------------------------------- bad input: one line, exit code 2


@pytest.mark.parametrize(
    "words, named",
    [
        (["train_clip.py", "--steps", "0"], "--steps"),
        (["train_clip.py", "--steps", "1e3"], "--steps"),
        (["train_clip.py", "--steps", "-5"], "--steps"),
        (["train_clip.py", "--seed", "-1"], "--seed"),
        (["train_clip.py", "--lr", "inf"], "--lr"),
        (["train_clip.py", "--learning-rate", "1"], "--learning-rate"),
        (["train_clip.py", "--lr", "nan"], "--lr"),
        (["train_clip.py", "--lr", "-1"], "--lr"),
        (["train_clip.py", "--batch-size", "1"], "--batch-size"),
        (["train_clip.py", "--batch", "8"], "--batch-size"),
        (["train_clip.py", "--loss", "plane"], "did you mean plain"),
        (["train_clip.py", "--resume", "False"], "False"),
        (["train_clip.py", "--dim", "20", "--heads", "3"], "divisible"),
        (["train_clip.py", "--image-size", "42"], "multiple"),
        (["train_clip.py", "--image-size", "60", "--encoder", "convnext"], "multiple"),
        (["train_clip.py", "--dim", "10", "--heads", "1"], "multiple of 4"),
        (["train_vlm.py", "--shares", "nan,0.5,0.5"], "--shares"),
        (["train_clip.py", "--device", "tpu"], "tpu"),
        (["train_clip.py", "--device", "cuda:99"], "cuda"),
        (["train_clip.py", "--out", "README.md"], "README.md"),
        (["train_clip.py", "--out", "x" * 300], "--out"),
        (["train_clip.py", "--world", "friends", "--held-out", "1"], "--held-out"),
        (["train_vlm.py", "--projector", "qformr"], "did you mean qformer"),
        (["train_vlm.py", "--proj", "mlp"], "--projector"),
        (["train_vlm.py", "--projector", "linear", "--queries", "8", "--encoder-init", "random"], "--queries"),
        (["train_vlm.py", "--clip", "nowhere"], "train_clip.py"),
        (["train_vlm.py", "--clip", "README.md"], "README.md"),
        (["train_vlm.py", "--stages", "language,alignn,instruct"], "alignn"),
        (["train_vlm.py", "--shares", "0.5,0.5"], "--shares"),
        (["train_vlm.py", "--train-align", "projektor.*", "--encoder-init", "random"], "projektor"),
        (["train_vlm.py", "--blind", "9"], "--blind"),
        (["sample.py", "--checkpoint", "nowhere"], "nowhere"),
        (["sample.py", "--checkpoint", "x" * 300], "no checkpoint"),
        (["sample.py", "--start", "1" + "0" * 20], "--start"),
        (["evaluate.py", "nowhere"], "nowhere"),
        (["evaluate.py", "--families", "colour,shap"], "shap"),
        (["evaluate.py", "--split", "tset"], "did you mean test"),
        (["evaluate.py", "--items", "2"], "--items"),
        (["evaluate.py", "one", "two"], "two"),
        (["evaluate.py", "--compare", "one", "one"], "--compare"),
        (["evaluate.py", "one", "--compare", "two", "three"], "--compare"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(words, named, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    out = [] if "--out" in words or words[0] in ("sample.py", "evaluate.py") else ["--out", tmp_path / "run"]
    code, stdout, stderr = in_process(*words, *out)
    assert code == 2 and stderr.startswith("error: ") and stderr.count("\n") == 1 and named in stderr, stderr


def test_the_shell_sees_the_same_exit_codes():
    for words, wanted in ((["train_clip.py", "--steps", "0"], 2), (["evaluate.py", "--help"], 0)):
        code, stdout, stderr = command(*words)
        assert code == wanted and bool(stdout) == (code == 0) and stderr.count("\n") == (code == 2)


def test_bad_pictures_and_questions(vlm_folder, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.new("1", (9000, 8000)).save(tmp_path / "huge.png")
    Image.new("RGB", (90, 40), "red").save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for words, named in (
        (["--image", tmp_path / "none.png"], "none.png"),
        (["--image", tmp_path / "text.png"], "text.png"),
        (["--image", tmp_path / "empty.png"], "empty.png"),
        (["--image", tmp_path / "huge.png"], "64 megapixels"),
        (["--image", tmp_path / "cut.png"], "cut.png"),
        (["--image", tmp_path], str(tmp_path)),
        (["--question", "why " * 100], "--question"),
    ):
        with pytest.raises(settings.UserError, match=re.escape(named)):
            options = {str(words[0])[2:]: str(words[1])}
            sample.main(sample.Config(checkpoint=str(vlm_folder), out=str(tmp_path / "p.png"), **options))
    for strange in ("🙂", "\x00", "\ud800", "שלום", "?"):
        sample.main(sample.Config(checkpoint=str(vlm_folder), items=1, question=strange, out=str(tmp_path / "p.png")))


def test_resume_with_other_settings_lists_them(clip_folder):
    with pytest.raises(settings.UserError, match="lr 0.002 then, 0.5 now"):
        train_clip.main(train_clip.Config(out=str(clip_folder), resume=True, lr=0.5, **CLIP_ARGS))


@pytest.mark.parametrize("script", ["train_clip.py", "train_vlm.py", "sample.py", "evaluate.py"])
def test_help_explains_every_flag(script, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    code, stdout, _ = in_process(script, "--help")
    module = {"train_clip.py": train_clip, "train_vlm.py": train_vlm, "sample.py": sample, "evaluate.py": evaluate}[script]
    assert code == 0
    said = " ".join(stdout.split("options:")[1].split())
    for name, field in module.Config.__dataclass_fields__.items():
        if field.metadata["positional"]:
            assert field.metadata["help"] in stdout.split("options:")[0]
            continue
        after = said.split(" --" + name.replace("_", "-") + (", " if field.type is bool else " "), 1)[1]
        assert field.metadata["help"] in after[:400] and "(default: " in after[:400], name


# ---------------------------------------------------------------- the README


def test_readme_commands_flags_and_files_exist():
    text = (ROOT / "README.md").read_text() + (ROOT / "data" / "README.md").read_text()
    classes = {"train_clip.py": train_clip.Config, "train_vlm.py": train_vlm.Config, "sample.py": sample.Config, "evaluate.py": evaluate.Config}
    commands = re.findall(r"(?:python|torchrun --nproc-per-node \S+) (\S+\.py)([^\n`#]*)", text)
    assert len(commands) >= 5
    for script, rest in commands:
        assert (ROOT / script).exists(), script
        if script in classes:
            words = re.findall(r'"[^"]*"|\S+', rest)
            words = ["mlp" if w in ("P", "PROJECTOR") else w.strip('"') for w in words]
            settings.parse(classes[script], words, "")
    for path in re.findall(r"(?:^|[\s(`])((?:[\w.-]+/)*[\w.-]+\.(?:py|md|png|txt|ini))\b", text):
        made_by_running = path.startswith("runs/") or path in ("picture.png", "sample.png", "report.md", "report.png", "compare.md", *FILES)
        assert (ROOT / path).exists() or (ROOT / "data" / path).exists() or made_by_running, path
    known = {flag for config in classes.values() for flag in settings.flags_of(config)} | {"--help", "--nproc-per-node"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known
    for target in re.findall(r"(?:^|`)make (\w+)", text, re.M):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), target


def test_no_import_goes_upwards():
    rooms = {"data": {"data"}, "tinyvlm": {"data", "tinyvlm"}}
    for room, allowed in rooms.items():
        for path in (ROOT / room).glob("*.py"):
            for module in re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.M):
                if module in ("data", "tinyvlm", "train_clip", "train_vlm", "sample", "evaluate"):
                    assert module in allowed, path
                if module in ("matplotlib", "PIL"):
                    assert path.name == "plots.py", path


def test_readme_numbers_are_those_that_were_measured():
    import importlib.util

    spec = importlib.util.spec_from_file_location("numbers_of_readme", ROOT / "experiments" / "readme_numbers.py")
    numbers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(numbers)
    results = json.loads((ROOT / "experiments" / "results.json").read_text())
    assert numbers.section(results) in (ROOT / "README.md").read_text()
