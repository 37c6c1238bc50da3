"""--language from training to the samples: en, ko and both."""

import json

import pytest
from helpers import CLIP_ARGS, VLM_ARGS, in_process

import evaluate
import sample
import train_clip
import train_vlm
from data.tokenizer import Tokenizer
from tinyvlm.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A CLIP and a VLM that speak both languages."""
    root = tmp_path_factory.mktemp("both")
    train_clip.main(train_clip.Config(out=f"{root}/clip", language="both", **CLIP_ARGS))
    settings = VLM_ARGS | dict(clip=f"{root}/clip", image_tokens=4, language="both")
    train_vlm.main(train_vlm.Config(out=f"{root}/vlm", **settings))
    return root


def is_korean(text):
    return any("가" <= letter <= "힣" for letter in text)


def test_a_training_in_both_languages_is_tested_in_both(folders):
    numbers = json.loads((folders / "vlm" / "metrics.json").read_text())
    in_english = {name for name in numbers if not name.endswith("_ko")}
    assert {"vqa", "fact_f1", "premise_recognised", "vqa_paraphrased"} <= in_english
    times = {"seconds", "wall_seconds", "images_per_second"}
    assert {f"{name}_ko" for name in in_english - times} == set(numbers) - in_english


@pytest.mark.parametrize("kind", ["clip", "vlm"])
def test_every_section_of_a_report_exists_in_each_language(folders, kind, tmp_path):
    config = evaluate.Config(
        checkpoint=f"{folders}/{kind}", items=20, device="cpu", out=str(tmp_path)
    )
    both = evaluate.main(config)
    english = {title.removesuffix(", en") for title in both if title.endswith(", en")}
    korean = {title.removesuffix(", ko") for title in both if title.endswith(", ko")}
    assert english == korean and len(both) == 2 * len(english)
    config.language = "ko"
    alone = evaluate.main(config)
    assert set(alone) == english
    for title, metrics in alone.items():
        values = {name: metric.value for name, metric in metrics.items()}
        other = {name: metric.value for name, metric in both[f"{title}, ko"].items()}
        assert values == pytest.approx(other, nan_ok=True)


@pytest.mark.parametrize("kind, method", [("clip", "encode_captions"), ("vlm", "encode_prompts")])
def test_a_report_is_made_in_the_language_that_is_chosen(
    folders, kind, method, tmp_path, monkeypatch
):
    heard, encode = set(), getattr(Tokenizer, method)

    def listen(tokenizer, texts):
        heard.update(texts)
        return encode(tokenizer, texts)

    monkeypatch.setattr(Tokenizer, method, listen)
    options = dict(checkpoint=f"{folders}/{kind}", items=20, device="cpu", out=str(tmp_path))
    for language, is_so in (("en", {False}), ("ko", {True}), ("", {False, True})):
        heard.clear()
        evaluate.main(evaluate.Config(language=language, **options))
        assert len(heard) > 100 and set(map(is_korean, heard - {""})) == is_so, language


def test_captions_are_asked_for_in_the_language_that_is_chosen(folders, tmp_path, monkeypatch):
    asked = []

    def listen(model, tokenizer, images, texts, **options):
        asked.append(texts[0])
        return ["" for _ in texts]

    monkeypatch.setattr(sample, "generate_text", listen)
    options = dict(checkpoint=f"{folders}/vlm", items=1, device="cpu", out=str(tmp_path / "p.png"))
    for language in ("", "en", "ko"):
        sample.main(sample.Config(language=language, **options))
    assert asked[0] == asked[4] == "" and asked[8] == "이 그림을 설명해 주세요 ?"
    assert not any(map(is_korean, asked[:8])) and all(map(is_korean, asked[8:]))


def test_a_question_in_either_language_is_known(folders, tmp_path, capsys):
    options = dict(checkpoint=f"{folders}/vlm", items=1, device="cpu", out=str(tmp_path / "p.png"))
    sample.main(
        sample.Config(question=("빨간 원은 무슨 크기인가요?", "count the rings"), **options)
    )
    said = capsys.readouterr().out
    assert "빨간 원은 무슨 크기인가요 ?" in said and "count the rings ?" in said
    assert "not a question" not in said and "guess" not in said


@pytest.fixture(scope="module")
def korean(clip_folder, tmp_path_factory):
    """A VLM that speaks Korean, with the eyes of an English CLIP."""
    folder = tmp_path_factory.mktemp("korean")
    settings = VLM_ARGS | dict(clip=str(clip_folder), image_tokens=4, language="ko")
    train_vlm.main(train_vlm.Config(out=str(folder), **settings))
    return folder


@pytest.mark.parametrize("script", ["sample.py --checkpoint", "evaluate.py"])
def test_a_language_that_a_model_does_not_know_is_refused(
    script, clip_folder, vlm_folder, korean, tmp_path
):
    for folder, known, asked in (
        (clip_folder, "en", "ko"), (vlm_folder, "en", "ko"), (korean, "ko", "en"),
    ):  # fmt: skip
        words = ["--language", asked, "--out", tmp_path / "page.png"]
        code, stdout, stderr = in_process(*script.split(), folder, *words)
        assert code == 2 and stdout == "" and stderr.count("\n") == 1
        assert f"knows {known}; leave out --language {asked}" in stderr
    assert not list(tmp_path.iterdir())


def test_korean_alone(korean, tmp_path, capsys):
    _, _, data = train_vlm.load_model(load_checkpoint(str(korean)), str(korean), "cpu")
    assert data.languages == ("ko",) and data.caption_prompt == ""
    assert all(is_korean(question) for question in data.generic_questions)
    numbers = json.loads((korean / "metrics.json").read_text())
    assert "vqa" in numbers and not [name for name in numbers if name.endswith("_ko")]
    options = dict(checkpoint=str(korean), device="cpu")
    sections = evaluate.main(evaluate.Config(items=20, out=str(tmp_path), **options))
    assert {"captions (test)", "answers", "what is not there"} < set(sections)
    capsys.readouterr()
    sample.main(sample.Config(items=1, out=str(tmp_path / "page.png"), **options))
    answers = capsys.readouterr().out.splitlines()[3:6]
    assert len(answers) == 3 and all(is_korean(line.split()[0]) for line in answers)


def test_models_are_compared_in_a_language_that_they_share(folders, vlm_folder, tmp_path):
    words = ["evaluate.py", "--compare", vlm_folder, f"{folders}/vlm", "--items", "20"]
    words += ["--families", "size", "--out", tmp_path]
    code, _, stderr = in_process(*words)
    assert code == 2 and stderr.count("\n") == 1 and "give the --language" in stderr
    code, _, stderr = in_process(*words, "--language", "en")
    assert (code, stderr) == (0, "") and (tmp_path / "compare.md").exists()
