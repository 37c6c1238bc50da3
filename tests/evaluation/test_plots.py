"""Drawing: every function leaves a picture, and matplotlib as it was before."""

import sys

import matplotlib
import numpy as np
import pytest
import torch
from helpers import small_clip, small_vlm
from PIL import Image

from data.shapes.dataset import Shapes
from tinyvlm.evaluation import cases, eval_clip, eval_vlm, plots
from tinyvlm.evaluation.predictor import VLMPredictor

DATA = Shapes(image_size=28)
LOG = [
    dict(step=1, stage="language", loss=5.0),
    dict(step=2, stage="language", loss=4.0),
    dict(step=2, val_loss=4.5),
    dict(step=3, stage="instruct", loss=3.0),
    dict(step=4, stage="instruct", loss=2.0),
    dict(step=4, val_loss=2.5, val_vqa=0.25),
]


def pictures(n):
    return torch.randint(0, 256, (n, 3, 28, 28), dtype=torch.uint8)


def draw_curves(path):
    plots.curves(LOG, path)


def draw_similarity(path):
    captions = ["a red circle and a blue square", "a ring , a star and a heart", "a cross"]
    plots.similarity(pictures(3), captions, np.eye(3), np.eye(3, dtype=bool), path)


def draw_grid(path):
    lines = [[[("a red circle", True), (" and ", None), ("a dog", False)], [("yes", None)]]] * 5
    plots.save_image_grid(pictures(5), lines, path)


DRAWING = [draw_curves, draw_similarity, draw_grid]


def size_of(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        colours = image.convert("RGB").getcolors(maxcolors=2**24)
        assert len(colours) > 10  # something was drawn
        return image.size


@pytest.mark.parametrize("draw", DRAWING)
def test_each_drawing_leaves_a_picture_and_nothing_else(draw, tmp_path):
    draw(tmp_path / "page.png")
    width, height = size_of(tmp_path / "page.png")
    assert width > 250 and height > 250
    assert [path.name for path in tmp_path.iterdir()] == ["page.png"]


@pytest.mark.parametrize("draw", DRAWING)
def test_the_same_drawing_gives_the_same_bytes(draw, tmp_path):
    contents = []
    for name in ("one.png", "two.png"):
        torch.manual_seed(0)
        draw(tmp_path / name)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("draw", DRAWING)
def test_drawing_leaves_matplotlib_as_it_was(draw, tmp_path):
    before, backend = dict(matplotlib.rcParams), matplotlib.get_backend()
    draw(tmp_path / "page.png")
    assert dict(matplotlib.rcParams) == before and matplotlib.get_backend() == backend


@pytest.mark.parametrize("draw", DRAWING)
def test_drawing_needs_no_pyplot(draw, tmp_path, monkeypatch):
    """Which would choose a backend and keep every figure."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import of it fails
    draw(tmp_path / "page.png")


def record_texts(monkeypatch):
    """The texts that are drawn from here on, and with which options."""
    from matplotlib.axes import Axes

    drawn, real = [], Axes.text

    def text(axis, x, y, words, **options):
        drawn.append((words, options))
        return real(axis, x, y, words, **options)

    monkeypatch.setattr(Axes, "text", text)
    return drawn


def test_what_is_neither_ascii_nor_korean_becomes_a_question_mark(monkeypatch, tmp_path, recwarn):
    drawn = record_texts(monkeypatch)
    line = [("naïve 빨간 🙂 \x00\x1b \ud800 $x^2$ plain", None)]
    plots.save_image_grid(pictures(1), [[line]], tmp_path / "page.png")
    words = ["na?ve", plots.drawable("빨간"), "?", "??", "?", "$x^2$", "plain"]
    assert [word for word, _ in drawn] == words
    assert not any(options["parse_math"] for _, options in drawn)  # "$" is a letter like others
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_korean_letters_are_drawn_or_romanised(monkeypatch):
    monkeypatch.setattr(plots, "korean_font", lambda: None)
    assert plots.drawable("작은 빨간 원과 별, a ring") == "jakeun ppalgan wongwa byeol, a ring"
    assert plots.font_families() == ["DejaVu Sans"]
    monkeypatch.setattr(plots, "korean_font", lambda: "NanumGothic")
    assert plots.drawable("빨간 원") == "빨간 원" and plots.font_families()[-1] == "NanumGothic"


def test_words_have_the_colour_of_their_truth(monkeypatch, tmp_path):
    drawn = record_texts(monkeypatch)
    line = [("right", True), ("wrong", False), ("neither", None)]
    plots.save_image_grid(pictures(1), [[line]], tmp_path / "page.png")
    colours = {word: options["color"] for word, options in drawn}
    assert colours == dict(right=plots.TRUE, wrong=plots.FALSE, neither=plots.PLAIN)


def test_long_lines_are_broken_at_spaces_and_lose_nothing():
    line = [("a small red circle , ", True), ("a large blue square and so on", False)] * 3
    broken = plots.wrap(line, 44)
    assert len(broken) > 2
    assert all(sum(len(word) + 1 for word, _ in part) <= 44 for part in broken)
    words = [(word, truth) for text, truth in line for word in text.split()]
    assert [piece for part in broken for piece in part] == words
    cut = plots.wrap([("x" * 100, None)], 44)
    assert "".join(word for line in cut for word, _ in line) == "x" * 100
    assert all(0 < sum(map(plots.columns_of, line[0][0])) < 44 for line in cut)


def test_curves_have_one_panel_for_each_quantity(tmp_path):
    plots.curves(LOG, tmp_path / "two.png")  # the loss (with the validation's) and val_vqa
    plots.curves([dict(step=1, loss=1.0)], tmp_path / "one.png")
    assert size_of(tmp_path / "two.png")[0] == 2 * size_of(tmp_path / "one.png")[0]


def test_more_pictures_make_a_longer_page(tmp_path):
    sizes = []
    for n in (1, 4, 5):
        plots.save_image_grid(pictures(n), [[[("yes", True)]]] * n, tmp_path / "page.png")
        sizes.append(size_of(tmp_path / "page.png"))
    (one, height), (four, same), (wide, twice) = sizes
    assert one < four == wide and abs(twice - 2 * height) <= 1 and same == height


def test_a_lit_picture_stands_beside_the_picture_itself():
    picture, light = pictures(1)[0], torch.zeros(14, 14)
    light[0, 0] = 1.0
    both = plots.overlay_saliency(picture, light)
    assert both.shape == (3, 28, 57) and both.dtype == torch.uint8
    assert (both[..., :28] == picture).all() and (both[..., 28] == 255).all()
    assert (both[:, 0, 29] == picture[:, 0, 0]).all()  # full light
    dark = both[:, 14:, 43:].float() - 0.15 * picture[:, 14:, 14:].float()
    assert dark.abs().max() <= 1.0


# ---------------------------------------------------------------- pages of cases


def test_cases_of_a_vlm_are_the_worst_and_the_best():
    model, split = small_vlm().eval(), Shapes().split("test")
    shown = split.pictures(6)
    captions = shown.captions()
    captions[2] = "yes"  # the only one that is wrong
    predictor = VLMPredictor(model, DATA.tokenizer)
    _, record = eval_vlm.evaluate_vqa(predictor, split, ["size"], 4)
    record[0] = (*record[0][:3], record[0][2])  # the only answer that is right
    pixels, lines = cases.vlm_cases(model, split, shown, captions, record, each=1)
    assert len(pixels) == len(lines) == 4
    worst, wrong, right, best = lines
    assert (pixels[0] == shown[[2]].pixels()[0]).all()
    assert worst[0] == [("worst caption:", None)] and worst[1] == [("yes", False)]
    assert worst[2] == [(f"true is {shown[[2]].captions()[0]}", None)]
    assert len(best) == 2 and all(truth is not False for _, truth in best[1])
    assert wrong[0][0][0].startswith("wrong, and where") and wrong[1][1][1] is False
    assert right[1][1] == (record[0][2], True) and right[2] == [(f"true is {record[0][2]}", None)]
    assert pixels[1].shape == pixels[2].shape and pixels[1].shape[-1] > 2 * 56


def test_cases_of_a_clip_are_those_whose_own_caption_ranks_lowest_and_highest():
    model, split = small_clip().eval(), Shapes().split("test")
    embedder = eval_clip.CLIPEmbedder(model, DATA.tokenizer)
    pixels, lines = cases.clip_cases(embedder, split, each=2, candidates=12)
    assert [line[0][0][0] for line in lines] == ["worst:"] * 2 + ["best:"] * 2
    assert len(pixels) == 4 and all(picture.shape == (3, 56, 114) for picture in pixels)
    captions = split.pictures(12).captions()
    for line in lines:
        assert any(truth for _, truth in sum(line[1:], []))  # its own caption is shown
        for text, _ in sum(line[1:], []):
            assert text.split(" ", 1)[1] in captions


def test_spread_out_takes_from_one_end_to_the_other():
    assert cases.spread_out(list(range(10)), 4) == [0, 3, 6, 9]
    assert cases.spread_out([5, 6], 4) == [5, 6] and cases.spread_out([], 4) == []
