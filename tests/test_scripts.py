"""The scripts as their users meet them: what a run leaves, samples, bad input, help, the README."""

import ast
import json
import re

import pytest
import torch
from helpers import CLIP_ARGS, ROOT, VLM_ARGS, command, in_process, shapes
from PIL import Image

import ablate
import evaluate
import sample
import train_clip
import train_vlm
from tinyvlm.projectors import PROJECTORS
from tinyvlm.training import config as settings
from tinyvlm.training import files
from tinyvlm.training.config import UserError

MODULES = {f"{m.__name__}.py": m for m in (train_clip, train_vlm, sample, evaluate, ablate)}
LEFT_BY_RUNS = {
    "config.json", "log.jsonl", "last.pt", "metrics.json", "times.json", "curves.png",
    "samples.png", "items.json",
}  # fmt: skip
FAMILIES = ("existence", "count", "colour", "shape", "size", "relation", "compare")


# ---------------------------------------------------------------- what a run leaves


def test_clip_leaves_what_it_promises(clip_folder):
    assert {p.name for p in clip_folder.iterdir()} - {"sample.png"} == LEFT_BY_RUNS
    numbers = json.loads((clip_folder / "metrics.json").read_text())
    scores = {"matched_cosine", "mismatched_cosine", "zero_shot", "r_at_1"}
    assert scores | {"seconds", "wall_seconds", "images_per_second"} <= set(numbers)
    assert all(isinstance(value, (int, float)) for value in numbers.values())
    log = files.read_log(clip_folder)
    assert [line["step"] for line in log if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in log if "val_loss" in line] == [2, 4, 6]


def test_vlm_leaves_what_it_promises(vlm_folder):
    assert {p.name for p in vlm_folder.iterdir()} - {"sample.png"} == LEFT_BY_RUNS | {"language.pt"}
    numbers = json.loads((vlm_folder / "metrics.json").read_text())
    scores = {"fact_f1", "exact_caption", "vqa", "vqa_blind"}
    scores |= {f"vqa_{family}" for family in FAMILIES}
    assert scores | {"seconds", "wall_seconds", "images_per_second"} <= set(numbers)
    log = files.read_log(vlm_folder)
    stages = [line["stage"] for line in log if "loss" in line]
    assert stages == ["language"] * 3 + ["align"] + ["instruct"] * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu(tmp_path):
    on_gpu, clip = dict(device="cuda", eval_every=3), str(tmp_path / "clip")
    train_clip.main(train_clip.Config(out=clip, **CLIP_ARGS | on_gpu))
    for projector in PROJECTORS:
        folder = str(tmp_path / projector)
        options = VLM_ARGS | on_gpu | dict(projector=projector, clip=clip, out=folder)
        train_vlm.main(train_vlm.Config(**options))
    for folder in (str(tmp_path / name) for name in ("clip", *PROJECTORS)):
        evaluate.main(evaluate.Config(checkpoint=folder, items=20, device="cuda"))
        sample.main(sample.Config(checkpoint=folder, items=2, device="cuda"))


# ---------------------------------------------------------------- samples


def sampled(folder, tmp_path, **options):
    for name in {"image", "question", "caption"} & options.keys():
        value = options[name]
        options[name] = (value,) if isinstance(value, str) else value
    options = dict(checkpoint=str(folder), device="cpu", out=str(tmp_path / "page.png")) | options
    return sample.main(sample.Config(**options))


def test_samples_of_both_kinds_of_checkpoint(clip_folder, vlm_folder, tmp_path, capsys):
    for folder, words in ((clip_folder, "0."), (vlm_folder, "?")):
        page = sampled(folder, tmp_path, items=2, start=3)
        said = capsys.readouterr().out
        assert Image.open(page).width > 100
        assert "test picture 6" in said and "test picture 8" in said and words in said
        assert re.search(r"\[(true|FALSE)\]", said)


def test_a_checkpoint_may_be_named_by_its_file_and_the_page_lies_beside_it(vlm_folder):
    page = vlm_folder / "sample.png"
    sample.main(sample.Config(checkpoint=str(vlm_folder / "last.pt"), items=1, device="cpu"))
    assert page.exists()
    page.unlink()


def test_a_picture_of_the_users_and_a_question_as_people_type_it(
    clip_folder, vlm_folder, tmp_path, capsys
):
    Image.new("RGB", (90, 40), "red").save(tmp_path / "red.png")
    image = str(tmp_path / "red.png")
    sampled(vlm_folder, tmp_path, image=image, question="What color is the circle?")
    said = capsys.readouterr().out
    assert image in said and "what colour is the circle ?" in said
    assert not re.search(r"\[(true|FALSE)\]", said)
    assert "note: 90 x 40 is no square" in said
    sampled(vlm_folder, tmp_path, image=image)
    said = capsys.readouterr().out
    assert all(question in said for question in shapes().generic_questions)
    sampled(clip_folder, tmp_path, image=image)
    assert len(re.findall(r"[+-]0\.\d\d  an? \w+ \w+", capsys.readouterr().out)) == 5


@pytest.mark.parametrize("question", ["🙂", "\x00", "\ud800", "שלום", "why"])
def test_strange_questions_are_answered(vlm_folder, tmp_path, question):
    sampled(vlm_folder, tmp_path, items=1, question=question)


def test_several_pictures_questions_and_captions(clip_folder, vlm_folder, tmp_path, capsys):
    (tmp_path / "album").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (60, 60), "white").save(tmp_path / "album" / f"{name}.png")
    asked = ("What is the weather?", "is there a circle")
    images = (str(tmp_path / "album"), str(tmp_path / "album" / "b.png"))
    sampled(vlm_folder, tmp_path, image=images, question=asked, heat=True)
    said = capsys.readouterr().out
    assert said.count("bright background") == 3 and said.count("is there a circle ?") == 3
    assert said.count("; unknown: weather)") == said.count("(a guess)") == 3
    sampled(clip_folder, tmp_path, image=images, caption=("a red circle", "two dogs"), heat=True)
    said = capsys.readouterr().out
    assert len(re.findall(r"[+-]\d\.\d\d  (a red circle|two dogs)", said)) == 6
    words = ["--image", *images[:1], "--image", images[1], "--question", "a", "--question", "b c"]
    config = settings.parse(sample.Config, words, "")
    assert config.image == images and config.question == ("a", "b c") and config.caption == ()


def test_what_is_true_is_marked_phrase_by_phrase(clip_folder, vlm_folder, tmp_path, capsys):
    captions = ("a circle", "two dogs", "a triangle")
    sampled(clip_folder, tmp_path, items=8, caption=captions)
    said = capsys.readouterr().out
    assert len(re.findall(r"  (a circle|a triangle) \[(true|FALSE)\]", said)) == 16
    assert len(re.findall(r"  two dogs$", said, re.M)) == 8
    pictures = shapes().split("test").pictures(3)
    brief, first = "describe the picture briefly ?", pictures.captions()[0]
    marked = pictures.mark_answers(
        brief, [first.split(" and ")[0] + " and a small white heart"] * 3
    )
    assert [truth for _, truth in marked[0]] == [True, None, False], marked[0]
    assert pictures.mark_answers("is there a thing ?", ["yes", "no", ""]) == [
        [("yes", True)], [("no", False)], [("(nothing)", False)]
    ]  # fmt: skip
    assert pictures.mark_answers("why ?", ["so"] * 3) == [[("so", None)]] * 3


def test_the_page_does_not_take_the_place_of_a_picture(vlm_folder, tmp_path):
    Image.new("RGB", (60, 60)).save(tmp_path / "mine.png")
    before = (tmp_path / "mine.png").read_bytes()
    with pytest.raises(UserError, match="is one of the pictures"):
        sampled(vlm_folder, tmp_path, image=str(tmp_path), out=str(tmp_path / "mine.png"))
    assert (tmp_path / "mine.png").read_bytes() == before


def test_the_way_through_the_model_is_told_with_its_shapes(vlm_folder, tmp_path, capsys):
    sampled(vlm_folder, tmp_path, items=1, question="what colour is the circle?", trace=True)
    said = capsys.readouterr().out
    for what in (
        "(1, 3, 56, 56)", "(1, 196, 16)", "(1, 4, 32)", "(1, 11, 32)",
        "[BOS] h_1 .. h_4 what colour is the circle ?", "word 1",
        "tinyvlm/vision.py: VisionEncoder.forward", "tinyvlm/projectors.py: LearnedQueries.forward",
    ):  # fmt: skip
        assert what in said, what
    sampled(vlm_folder, tmp_path, items=1, question="what colour is the circle?")
    answer = re.search(r"circle \? (.*?)( \[|$)", capsys.readouterr().out, re.M)[1]
    likeliest = [line.split()[3] for line in said.splitlines() if line.startswith("  word ")]
    assert answer.split()[:1] == likeliest[:1] or not answer.isascii()


def test_greedy_and_sampled_words(vlm_folder, tmp_path, capsys):
    def said(**options):
        sampled(vlm_folder, tmp_path, items=1, **options)
        return capsys.readouterr().out

    greedy, again = said(), said()
    one, the_same = said(temperature=5.0), said(temperature=5.0)
    other, likeliest = said(temperature=5.0, seed=1), said(temperature=5.0, top_k=1)
    assert greedy == again == likeliest and one == the_same
    assert len({greedy, one, other}) == 3


def test_a_terminal_that_knows_no_korean_shows_question_marks(vlm_folder, tmp_path):
    words = ["--checkpoint", vlm_folder, "--items", "1", "--out", tmp_path / "page.png"]
    code, stdout, stderr = command(
        "sample.py", *words, "--question", "무슨 색?", env={"PYTHONIOENCODING": "cp1252"}
    )
    assert code == 0, stderr
    assert "?? ? ?" in stdout and "무" not in stdout


@pytest.mark.parametrize(
    "kind, options, named",
    [
        ("vlm", dict(top_k=5), "--top-k has no effect without --temperature"),
        ("vlm", dict(seed=1), "--seed has no effect without --temperature"),
        ("vlm", dict(image="a.png", items=3), "--items has no effect with --image"),
        ("vlm", dict(image="a.png", start=3), "--start has no effect with --image"),
        ("vlm", dict(question="why " * 100), "--question is longer"),
        ("vlm", dict(question="  "), "--question is empty"),
        ("vlm", dict(question="?"), "--question is empty"),
        ("vlm", dict(caption="a dog"), "ranks no captions"),
        ("clip", dict(caption="why " * 100), "--caption is longer"),
        ("clip", dict(caption=("a dog", " .")), "--caption is empty"),
        ("clip", dict(trace=True), "--trace has no effect with a CLIP"),
        ("vlm", dict(image="none.png"), "none.png"),
        ("vlm", dict(temperature=-1.0), "--temperature"),
        ("vlm", dict(temperature=1e-40), "--temperature 1e-40 is too low"),
        ("vlm", dict(image="x" * 300 + ".png"), "cannot be read as a picture"),
        ("vlm", dict(out="page.jpg"), "--out page.jpg is no PNG"),
        ("vlm", dict(out="nowhere/page.png"), "there is no folder nowhere"),
        ("clip", dict(temperature=1.0), "--temperature has no effect with a CLIP"),
        ("clip", dict(top_k=1), "--top-k has no effect with a CLIP"),
        ("clip", dict(seed=1), "--seed has no effect with a CLIP"),
        ("clip", dict(question="why ?"), "answers no questions"),
        ("clip", dict(image="a.png", items=3), "--items has no effect with --image"),
    ],
)
def test_what_cannot_be_sampled(kind, options, named, clip_folder, vlm_folder, tmp_path):
    with pytest.raises(UserError, match=re.escape(named)):
        sampled(clip_folder if kind == "clip" else vlm_folder, tmp_path, **options)


# ---------------------------------------------------------------- bad input: one line, exit code 2


@pytest.mark.quick
@pytest.mark.parametrize(
    "line, named",
    [
        ("train_clip.py --steps 0", "--steps"),
        ("train_clip.py --steps 1e3", "--steps"),
        ("train_clip.py --steps -5", "--steps"),
        ("train_clip.py --seed -1", "--seed"),
        ("train_clip.py --lr inf", "--lr"),
        ("train_clip.py --learning-rate 1", "--learning-rate"),
        ("train_clip.py --lr nan", "--lr"),
        ("train_clip.py --lr -1", "--lr"),
        ("train_clip.py --batch-size 1", "--batch-size"),
        ("train_clip.py --batch 8", "--batch-size"),
        ("train_clip.py --loss clipp", "did you mean clip"),
        ("train_clip.py --loss siglip2000", "choose one of clip, masked_clip"),
        ("train_clip.py --language fr", "choose one of en, ko, both"),
        ("train_vlm.py --language korean", "choose one of en, ko, both"),
        ("train_clip.py --dataset shape", "did you mean shapes"),
        ("train_clip.py --dataset photos", "choose one of shapes"),
        ("train_clip.py --resume False", "False"),
        ("train_clip.py --dim 20 --heads 3", "divisible"),
        ("train_clip.py --text-dim 20 --text-heads 3", "divisible"),
        (
            "train_clip.py --encoder convnext --heads 4",
            "--encoder-heads has no effect with ConvNeXt",
        ),
        ("train_clip.py --encoder patches --depth 4", "--encoder-depth has no effect with Patches"),
        ("train_clip.py --encoder vit-cls", "give --pool-dim 0, which reads the class token"),
        ("train_clip.py --text-encoder bag --text-heads 4", "no effect with BagOfWords"),
        ("train_clip.py --image-size 42", "multiple"),
        ("train_clip.py --image-size 60 --encoder convnext", "multiple"),
        ("train_clip.py --dim 10 --heads 1", "multiple of 4"),
        ("train_clip.py --device tpu", "tpu"),
        ("train_clip.py --device cuda:99", "cuda"),
        ("train_clip.py --out README.md", "README.md"),
        ("train_clip.py --out " + "x" * 300, "--out"),
        ("train_clip.py --world friends --held-out 1", "--held-out"),
        ("train_clip.py --dataset shapes-cooccurrence --held-out 1", "--held-out"),
        ("train_clip.py --resume", "there is no checkpoint"),
        ("train_clip.py --resume --overwrite", "give one of them"),
        ("train_vlm.py --projector qformr", "did you mean qformer"),
        ("train_vlm.py --proj mlp", "--projector"),
        ("train_vlm.py --projector linear --queries 8 --encoder-init random", "--image-tokens has"),
        ("train_vlm.py --clip nowhere", "train_clip.py"),
        ("train_vlm.py --clip README.md", "README.md"),
        ("train_vlm.py --clip x --encoder-init random", "--clip has no effect"),
        ("train_vlm.py --encoder-dim 32", "--encoder-dim has no effect"),
        ("train_vlm.py --encoder vit", "--encoder has no effect"),
        ("train_vlm.py --image-size 112", "--image-size has no effect"),
        (
            "train_vlm.py --encoder-init random --encoder convnext --encoder-heads 4",
            "--encoder-heads has no effect with ConvNeXt",
        ),
        ("train_vlm.py --encoder-init random --dim 20 --heads 3", "divisible"),
        ("train_vlm.py --stages language,alignn,instruct", "alignn"),
        ("train_vlm.py --shares 0.5,0.5", "--shares"),
        ("train_vlm.py --shares nan,0.5,0.5", "--shares"),
        ("train_vlm.py --train-align projektor.* --encoder-init random", "projektor"),
        (
            "train_vlm.py --stages instruct --shares 1 --train-align projector.*,vision.*",
            "--train-align has no effect with --stages instruct",
        ),
        ("train_vlm.py --blind 9", "--num-blind 9 leaves no question"),
        ("train_vlm.py --questions 0", "--num-blind 1 leaves no question"),
        ("train_vlm.py --projector label --language both", "the words of one language"),
        ("train_vlm.py --language ko --picture-language ko", "--picture-language"),
        (
            "train_vlm.py --language both --picture-language ko --stages language --shares 1",
            "--picture-language has no effect with --stages language",
        ),
        (
            "train_vlm.py --stages represent --shares 1 --batch-size 1",
            "--batch-size 1 has no false captions",
        ),
        ("train_vlm.py --init x --decoder llama", "--decoder has no effect with --init"),
        ("train_clip.py --init x --temperature 0.2", "--temperature has no effect with --init"),
        ("train_vlm.py --steps 2", "gets none of 2 steps"),
        ("sample.py --checkpoint nowhere", "nowhere"),
        ("sample.py --checkpoint " + "x" * 300, "no checkpoint"),
        ("sample.py --language both", "--language is 'both'"),
        ("sample.py --start 1" + "0" * 20, "--start"),
        ("sample.py --items 65", "--items"),
        ("evaluate.py nowhere", "nowhere"),
        ("evaluate.py --families colour,shap nowhere", "nowhere"),
        ("evaluate.py --language fr", "--language is 'fr'"),
        ("evaluate.py --items 2", "--items"),
        ("evaluate.py one two", "two"),
        ("evaluate.py --compare one one", "--compare"),
        ("evaluate.py one --compare two three", "--compare"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(line, named, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = line.split()
    is_training = words[0].startswith("train") and "--out" not in words
    code, _, stderr = in_process(*words, *["--out", tmp_path / "run"] * is_training)
    assert code == 2 and stderr.startswith("error: ") and stderr.count("\n") == 1, stderr
    assert named in stderr and not (tmp_path / "run").exists()


def test_the_shell_sees_the_same_exit_codes():
    for line, wanted in (("train_clip.py --steps 0", 2), ("evaluate.py --help", 0)):
        code, stdout, stderr = command(*line.split())
        assert code == wanted and bool(stdout) == (code == 0)
        assert stderr.count("\n") == (code == 2)


# ---------------------------------------------------------------- help


@pytest.mark.quick
@pytest.mark.parametrize("script", MODULES)
def test_help_explains_every_flag(script, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    code, stdout, _ = in_process(script, "--help")
    assert code == 0
    head, options = stdout.split("options:")
    options = " ".join(options.split())
    for name, field in MODULES[script].Config.__dataclass_fields__.items():
        if field.metadata["positional"]:
            assert field.metadata["help"] in head
            continue
        follows = ", " if field.type is bool else " "
        said = options.split(" --" + name.replace("_", "-") + follows, 1)[1][:500]
        assert field.metadata["help"] in said and "(default: " in said, name
        alias, choices = field.metadata["alias"], field.metadata["choices"]
        assert all(name in said for name in alias)
        assert all(str(choice) in said for choice in choices or ())


# ---------------------------------------------------------------- what texts say

DOCUMENTS = ("README.md", "RESULTS.md", "data/shapes/README.md")
MADE_BY_RUNNING = LEFT_BY_RUNS | {
    "picture.png", "sample.png", "report.md", "report.png", "report.json", "compare.md",
    "compare.json",
}  # fmt: skip


def texts():
    """{what: text} of all that tells people which commands to type."""
    names = [*DOCUMENTS, "experiments/all.sh", *MODULES, "benchmarks/speed.py"]
    for name in names:
        if (ROOT / name).exists():
            text = (ROOT / name).read_text(encoding="utf-8")
            yield name, ast.get_docstring(ast.parse(text)) if name.endswith(".py") else text


def commands(text):
    """(script, [words]) of every command line in a text; what varies gets a value."""
    for name, value in (("projector", "mlp"), ("seed", "1"), (r"\w+", "x")):
        text = re.sub(rf"\${name}\b", value, text)
    pattern = r"(?:python|torchrun --nproc-per-node \S+|train \S+) (\S+\.py)([^\n`#&|]*)"
    for script, rest in re.findall(pattern, text):
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', rest)]
        yield script, ["mlp" if word in ("NAME", "PROJECTOR", "P") else word for word in words]


@pytest.mark.quick
def test_commands_that_are_told_can_be_typed():
    told = [(name, *line) for name, text in texts() for line in commands(text)]
    assert len([name for name, *_ in told if name == "README.md"]) >= 5 and len(told) >= 20
    for name, script, words in told:
        assert (ROOT / script).exists(), (name, script)
        if script in MODULES:
            config = settings.parse(MODULES[script].Config, words, "")
            if script == "train_vlm.py":
                train_vlm.check_settings(config)


@pytest.mark.quick
def test_flags_that_are_told_exist():
    known = {flag for module in MODULES.values() for flag in settings.flags_of(module.Config)}
    known |= {"--help", "--nproc-per-node", "--arms"}  # of torchrun, of benchmarks/speed.py
    known |= {"--dist"}  # of pytest-xdist
    for name, text in texts():
        told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
        assert told <= known, (name, told - known)


@pytest.mark.quick
def test_files_and_targets_that_are_told_exist():
    known = {
        path.name
        for folder in ("", "data", "tests", "experiments", "benchmarks", "assets", "tinyvlm")
        for path in (ROOT / folder).glob("*")
    }
    for folder in ("data", "tests", "tinyvlm"):
        known |= {path.name for path in (ROOT / folder).rglob("*.*")}
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    for name in DOCUMENTS:
        if not (ROOT / name).exists():
            continue
        text, here = (ROOT / name).read_text(encoding="utf-8"), (ROOT / name).parent
        pattern = r"(?:^|[\s(`])((?:[\w.-]+/)*[\w-]+\.(?:py|md|png|txt|toml|sh|json|pt))\b"
        for path in re.findall(pattern, text, re.M):
            is_there = (ROOT / path).exists() or (here / path).exists()
            bare = "/" not in path and path in known
            made = path.startswith("runs/") or path in MADE_BY_RUNNING
            assert is_there or bare or made, (name, path)
        for folder in re.findall(r"(?:^|[\s(`])((?:[a-z]+/)+)(?=[\s`)])", text, re.M):
            assert (ROOT / folder).is_dir() or folder.startswith("runs/"), (name, folder)
        told = re.findall(r"`make\s+(\w+)`", text) + re.findall(r"^make (\w+)", text, re.M)
        assert set(told) <= targets, (name, told)


# ---------------------------------------------------------------- rooms

OUR = ("data", "tinyvlm", "tests", "train_clip", "train_vlm", "sample", "evaluate")
TOP = ("train_clip", "train_vlm", "sample", "evaluate")


def sources():
    """{module: path} of all that is no test."""
    paths = [*(ROOT / "data").rglob("*.py"), *(ROOT / "tinyvlm").rglob("*.py")]
    paths += [ROOT / f"{name}.py" for name in TOP]
    for path in paths:
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


def imports(path, module_level=False):
    """The modules that a file imports: anywhere, or outside of functions alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree)
    if module_level:
        inside = [n for f in nodes if isinstance(f, ast.FunctionDef) for n in ast.walk(f)]
        nodes = [node for node in ast.walk(tree) if node not in inside]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relative to itself"
            for alias in node.names:
                is_module = (ROOT / node.module.replace(".", "/") / f"{alias.name}.py").exists()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def may_import(module):
    """Beginnings of the modules of ours that this one may import."""
    room = module.rpartition(".")[0]
    if module.startswith("data."):
        return ("data.",)
    if room == "tinyvlm":
        return (
            "data.tokenizer",
            "data.batch",
            *(f"tinyvlm.{path.stem}" for path in (ROOT / "tinyvlm").glob("*.py")),
        )
    if room == "tinyvlm.training":
        return ("data.dataset", "data.tokenizer", "data.batch", "tinyvlm.")
    if room == "tinyvlm.evaluation":
        return ("data.", "tinyvlm.")
    if module in ("sample", "evaluate"):
        return ("data.", "tinyvlm.", "train_clip", "train_vlm")
    return ("data.", "tinyvlm.")


@pytest.mark.quick
def test_no_import_goes_upwards():
    seen = dict(sources())
    assert {"data.shapes.scene", "tinyvlm.vlm", "tinyvlm.training.loop", "evaluate"} <= set(seen)
    for module, path in seen.items():
        for name in imports(path):
            if name.split(".")[0] in OUR:
                assert name.startswith(may_import(module)), f"{module} imports {name}"
            if module.startswith("tinyvlm.training"):
                assert not name.startswith("tinyvlm.evaluation"), f"{module} imports {name}"


@pytest.mark.quick
def test_training_knows_no_data_set_by_more_than_its_name():
    for module, path in sources():
        if module in ("train_clip", "train_vlm", "sample") or module.startswith("tinyvlm.training"):
            assert not [name for name in imports(path) if name.startswith("data.shapes")], module


@pytest.mark.quick
def test_no_import_comes_back_to_where_it_began():
    graph = {module: set(imports(path)) for module, path in sources()}
    while graph:
        free = [module for module, needed in graph.items() if not needed & set(graph)]
        assert free, f"a cycle among {sorted(graph)}"
        for module in free:
            del graph[module]


@pytest.mark.quick
def test_drawing_and_pictures_are_imported_where_they_are_used_and_nowhere_else():
    users = {"matplotlib": "tinyvlm.evaluation.plots", "PIL": "data.folder"}
    for module, path in sources():
        outside = {name.split(".")[0] for name in imports(path, module_level=True)}
        assert not outside & set(users), module
        for name in {name.split(".")[0] for name in imports(path)} & set(users):
            assert users[name] == module
