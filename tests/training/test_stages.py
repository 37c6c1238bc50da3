"""Stages of a VLM's training: which steps, what they train, and where the encoder comes from."""

import pytest
from helpers import (
    CLIP_ARGS,
    VLM_ARGS,
    command,
    flags,
    same_weights,
    shapes,
    skip_test_phase,
    weights,
)
from helpers import RANDOM_ENCODER as RANDOM

import train_clip
import train_vlm
from data.shapes.dataset import Shapes
from tinyvlm.decoders import DECODERS
from tinyvlm.projectors import PROJECTORS
from tinyvlm.training import files
from tinyvlm.training.config import UserError
from tinyvlm.training.stages import FAR, STAGES, parse_stages


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    skip_test_phase(monkeypatch)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The folder of a CLIP of two steps."""
    folder = tmp_path_factory.mktemp("clip")
    with pytest.MonkeyPatch.context() as patch:
        skip_test_phase(patch)
        train_clip.main(train_clip.Config(out=str(folder), **CLIP_ARGS | dict(steps=2)))
    return str(folder)


def train(out, **settings):
    config = train_vlm.Config(out=str(out), **VLM_ARGS | dict(projector="mlp") | settings)
    return train_vlm.main(config)


def fresh(**settings):
    """A model as a run with these settings begins with, and the weights of its encoder."""

    class Fresh:
        start = None

    config = train_vlm.Config(**VLM_ARGS | dict(projector="mlp") | settings)
    encoder, encoder_weights = train_vlm.load_encoder(config, Fresh)
    return train_vlm.build_model(config, encoder, config.decoder, shapes()), encoder_weights


# ---------------------------------------------------------------- which steps


@pytest.mark.quick
def test_the_stages_share_all_steps_in_order():
    config = train_vlm.Config(steps=100, shares="0.43,0.07,0.5")
    stages = parse_stages(config, 100)
    assert [(s.name, s.first, s.end) for s in stages] == [
        ("language", 0, 43),
        ("align", 43, 50),
        ("instruct", 50, 100),
    ]
    assert [s.text_only for s in stages] == [True, False, False]
    assert [s.trained for s in stages] == [["decoder.*"], ["projector.*"], ["*"]]
    config = train_vlm.Config(steps=100, shares="0.43,0.07,0.5", warmup=10, warmup_language=20)
    words, pictures, _ = parse_stages(config, 100)
    assert (words.lr_share(0), pictures.lr_share(43)) == (1 / 20, 1 / 10)
    [alone] = parse_stages(train_vlm.Config(stages="align", shares="1", warmup=0), 2000)
    assert alone.lr_share(0) == 1.0


@pytest.mark.quick
def test_what_a_stage_shows_does_not_depend_on_those_of_other_kinds():
    def batches(stages, steps):
        shares = ",".join(str(n / sum(steps)) for n in steps)
        config = train_vlm.Config(steps=sum(steps), stages=stages, shares=shares)
        found = parse_stages(config, sum(steps))
        return {s.name: [s.batch_at(step) for step in range(s.first, s.end)] for s in found}

    whole = batches("represent,language,align,instruct", [4, 10, 2, 6])
    without = batches("language,align,instruct", [10, 2, 6])
    assert without == {name: whole[name] for name in without}
    assert len(set(sum(whole.values(), []))) == 22  # nothing is shown twice
    assert batches("language,align,instruct", [3, 2, 6])["instruct"] == whole["instruct"]
    one_stage = batches("language,instruct", [10, 8])
    assert one_stage["instruct"] == whole["align"] + whole["instruct"]
    assert whole["language"] == list(range(10))


@pytest.mark.quick
def test_a_batch_is_that_of_its_stage(tmp_path, monkeypatch):
    drawn, vqa_batch = [], Shapes.vqa_batch
    monkeypatch.setattr(
        Shapes, "vqa_batch",
        lambda self, split, indices, *rest: drawn.append((split, indices[0]))
        or vqa_batch(self, split, indices, *rest),
    )  # fmt: skip
    train(tmp_path, **RANDOM, stages="language,align", shares="0.5,0.5", steps=4)
    size = VLM_ARGS["batch_size"]
    trained = [int(first) // size for split, first in drawn if split == "train"]
    assert trained == [0, 1, FAR, FAR + 1]


def test_objects_come_in_pieces_in_the_last_two_fifths_of_the_language_stage(tmp_path, monkeypatch):
    asked, vqa_batch = [], Shapes.vqa_batch

    def listen(self, split, indices, with_pixels=True, pieces=True):
        if split == "train":
            asked.append((with_pixels, pieces))
        return vqa_batch(self, split, indices, with_pixels, pieces)

    monkeypatch.setattr(Shapes, "vqa_batch", listen)
    train(tmp_path / "run", stages="language,instruct", shares="0.5,0.5", steps=10, **RANDOM)
    assert [pieces for with_pixels, pieces in asked if not with_pixels] == [False] * 3 + [True] * 2
    assert len(asked) == 10


@pytest.mark.quick
def test_stages_may_be_left_out_and_train_several_patterns():
    settings = dict(stages="align, instruct", shares="0.2,0.8")
    settings["train_instruct"] = "decoder.*, vision.*"
    one, other = parse_stages(train_vlm.Config(steps=10, **settings), 10)
    assert (one.name, one.first, one.end) == ("align", 0, 2)
    assert (other.end, other.trained) == (10, ["decoder.*", "vision.*"])


@pytest.mark.quick
@pytest.mark.parametrize(
    "settings, named",
    [
        (dict(stages="language,alignn,instruct"), "alignn"),
        (dict(stages=""), "--stages"),
        (dict(shares="0.5,0.5"), "--shares"),
        (dict(shares="0.5,0.5,0.5"), "--shares"),
        (dict(shares="1.5,-1,0.5"), "--shares"),
        (dict(shares="0.5,half,0"), "--shares"),
        (dict(shares="nan,0.5,0.5"), "--shares"),
        (dict(steps=2, shares="0.7,0.05,0.25"), "stage instruct gets none of 2 steps"),
    ],
)
def test_stages_that_make_no_sense_are_refused(settings, named):
    with pytest.raises(UserError, match=named):
        config = train_vlm.Config(**settings)
        parse_stages(config, config.steps)


# ---------------------------------------------------------------- what is trained


def test_every_stage_trains_its_part_and_leaves_the_others(tmp_path):
    parts = {"language": {"decoder"}, "align": {"projector"}}
    parts["instruct"] = {"vision", "projector", "decoder"}
    parts["represent"] = {"projector"}
    settings = RANDOM | dict(projector="qformer")
    before = fresh(**settings)[0].state_dict()
    for stage in STAGES:
        train(tmp_path / stage, steps=2, stages=stage, shares="1", **settings)
        after = weights(tmp_path / stage)
        moved = {n.split(".")[0] for n, w in after.items() if not w.equal(before[n])}
        assert moved == parts[stage], stage
        still = {n for n, w in after.items() if w.equal(before[n])}
        if stage == "represent":  # the way to the decoder has its turn later
            still -= {"projector.out_proj.weight", "projector.out_proj.bias"}
        assert not [n for n in still if n.split(".")[0] in parts[stage]], stage


@pytest.mark.parametrize(
    "stages, shares, patterns",
    [
        ("instruct", "1", "*"),
        ("align,instruct", "0.5,0.5", "decoder.*"),
        ("instruct", "1", "projector.*,vision.blocks.*"),
    ],
)
def test_recipes_of_the_literature_are_a_flag_away(stages, shares, patterns, clip, tmp_path):
    settings = dict(steps=2, stages=stages, shares=shares, projector="linear", clip=clip)
    train(tmp_path, train_instruct=patterns, **settings)
    log = files.read_log(tmp_path)
    assert [line["stage"] for line in log if "loss" in line] == (2 * stages.split(","))[:2]


def test_a_stage_that_trains_nothing_its_loss_depends_on_is_refused(tmp_path):
    with pytest.raises(UserError, match="--train-language"):
        train(tmp_path, train_language="projector.*", **RANDOM)


def test_a_pattern_of_any_stage_that_matches_nothing_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(UserError, match=r"projektor"):
        train(tmp_path / "run", train_instruct="projektor.*", **RANDOM)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- where the parts come from


def test_align_starts_from_the_encoder_of_clip_and_moves_the_projector_alone(clip, tmp_path):
    settings = dict(steps=2, stages="align", shares="1", clip=clip)
    train(tmp_path, **settings)
    model, encoder = fresh(**settings)
    of_clip = {n: w for n, w in weights(clip).items() if n.startswith("vision.")}
    assert of_clip and same_weights(of_clip, {f"vision.{n}": w for n, w in encoder.items()})
    for name, w in weights(tmp_path).items():
        start = of_clip.get(name, model.state_dict()[name])
        assert w.equal(start) == (not name.startswith("projector.")), name


def test_projectors_share_encoder_and_decoder_to_the_last_bit(clip):
    models = [fresh(projector=name, clip=clip)[0] for name in PROJECTORS]
    for model in models[1:]:
        for part in ("vision", "decoder"):
            one, other = (getattr(m, part).state_dict() for m in (models[0], model))
            assert same_weights(one, other)


def test_encoders_share_the_text_tower_to_the_last_bit():
    models = [
        train_clip.build_model(train_clip.Config(encoder=name), shapes().tokenizer)
        for name in ("vit", "stem", "convnext")
    ]
    for model in models[1:]:
        assert same_weights(models[0].text.state_dict(), model.text.state_dict())


def test_an_encoder_of_another_data_set_is_noted_and_of_other_pairs_refused(clip, tmp_path, capsys):
    settings = dict(steps=1, stages="align", shares="1", clip=clip)
    train(tmp_path / "full", dataset="shapes-full", **settings)
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and "train_clip.py --dataset shapes-full" in notes[0]
    with pytest.raises(UserError, match="--held-out is 1, .* has 0; train CLIP with the same"):
        train(tmp_path / "held", held_out=1, **settings)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_decoder_is_the_same_for_any_number_of_image_tokens(decoder):
    settings = dict(projector="qformer", decoder=decoder, **RANDOM)
    one, other = (fresh(image_tokens=n, **settings)[0].decoder.state_dict() for n in (4, 9))
    assert same_weights(one, other)


# ---------------------------------------------------------------- a variant of a reader's

VARIANTS = """
import sys
from torch import nn
from tinyvlm import decoders, projectors, vision

class Tiny(nn.Module):
    dim, pooled_dim, num_tokens = 12, 20, 50
    def __init__(self, *, image_size, dim):
        super().__init__()
        self.tokens, self.pool = nn.Linear(image_size * 3, 600), nn.Linear(image_size * 3, 20)
    def forward(self, pixels):
        x = pixels.float().mean(2).flatten(1) / 255
        return self.tokens(x).view(-1, 50, 12), self.pool(x)

class Pooled(nn.Module):
    num_tokens = 2
    def __init__(self, *, vision_dim, text_dim, num_patches, pooled_dim):
        super().__init__()
        self.project = nn.Linear(pooled_dim, 2 * text_dim)
    def forward(self, tokens, pooled):
        return self.project(pooled).view(len(pooled), 2, -1)

class Deep(decoders.GPT):
    def __init__(self, *, vocab_size, dim, depth, heads):
        super().__init__(vocab_size=vocab_size, dim=dim, depth=2 * depth, heads=heads)

vision.VISION_ENCODERS["tiny"] = Tiny
projectors.PROJECTORS["pooled"] = Pooled
decoders.DECODERS["deep"] = Deep
import train_vlm
from tinyvlm.training.config import run_script
run_script(train_vlm.main, train_vlm.Config, "")
"""


def test_a_new_variant_is_one_class_and_one_line(tmp_path):
    """Encoder, projector and decoder at once, trained and tested by the flags that choose them."""
    settings = VLM_ARGS | dict(projector="pooled", encoder="tiny", decoder="deep", eval_every=99)
    words = flags(encoder_init="random", **settings)
    code, stdout, stderr = command("-c", VARIANTS, "--out", tmp_path, *words)
    assert code == 0, stderr
    assert "2 image tokens, projector pooled" in stdout
    names = weights(tmp_path)
    assert {"vision.tokens.weight", "projector.project.weight"} <= set(names)
    assert {n.split(".")[2] for n in names if n.startswith("decoder.blocks")} == {"0", "1"}
