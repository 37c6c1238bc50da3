"""Damaged, foreign and malicious checkpoints: refused in one line, and nothing in them is run."""

import dataclasses
import io
import os
import pickle
import random
import resource
import zipfile

import pytest
import torch
from accidents import contents
from helpers import CLIP_ARGS, VLM_ARGS, flags, in_process

import evaluate
import sample
import train_clip
import train_vlm
from tinyvlm.training import checkpoint
from tinyvlm.training.checkpoint import CHECKSUM_TAG, FORMAT, load_checkpoint, sealed
from tinyvlm.training.config import UserError


@pytest.fixture(params=["clip", "vlm"])
def folder(request):
    return request.getfixturevalue(f"{request.param}_folder")


def packed(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def payload_of(folder):
    """A checkpoint without its seal."""
    return (folder / "last.pt").read_bytes()[: -len(CHECKSUM_TAG) - 32]


def write_checkpoint(folder, content):
    folder.mkdir(exist_ok=True)
    (folder / "last.pt").write_bytes(sealed(packed(content)))
    return folder


def refused(path, named="damaged", kind=None):
    with pytest.raises(UserError, match=named):
        load_checkpoint(path, kind)


# ---------------------------------------------------------------- damage


def flip(data, rng):
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(data, rng):
    del data[rng.randrange(len(data)) :]


def swap(data, rng):
    a, b = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    data[a : a + 16], data[b : b + 16] = data[b : b + 16], data[a : a + 16]


def garble_a_header(data, rng):
    """In the first or the last bytes, where zip keeps its headers."""
    k = rng.choice((rng.randrange(200), len(data) - 1 - rng.randrange(400)))
    data[k] = (data[k] + 1 + rng.randrange(255)) % 256


DAMAGE = (flip, cut, swap, garble_a_header)


def test_three_hundred_corruptions_are_all_refused(folder, tmp_path):
    good, rng, tried = (folder / "last.pt").read_bytes(), random.Random(0), 0
    for number in range(300):
        damaged = bytearray(good)
        DAMAGE[number % 4](damaged, rng)
        if damaged != good:
            tried += 1
            (tmp_path / "last.pt").write_bytes(damaged)
            refused(tmp_path)
    assert tried > 290
    (tmp_path / "last.pt").write_bytes(good)
    assert load_checkpoint(tmp_path)["step"] == 6


def test_a_flipped_bit_under_a_right_seal_is_found_by_the_zip(folder, tmp_path):
    payload = bytearray(payload_of(folder))
    payload[len(payload) // 2] ^= 1
    (tmp_path / "last.pt").write_bytes(sealed(bytes(payload)))
    refused(tmp_path)


# ---------------------------------------------------------------- no checkpoints


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        bytes(1000),
        CHECKSUM_TAG,
        sealed(b""),
        sealed(b"text"),
        sealed(packed([1, 2])),
        sealed(packed(dict(kind="clip"))),
        sealed(packed(dict(kind="clip", format=FORMAT, config={}, step=1))),
        sealed(pickle.dumps(dict(kind="clip", format=FORMAT, config={}, step=1, model={}))),
    ],
)
def test_what_is_no_checkpoint_is_refused(data, tmp_path):
    (tmp_path / "x.pt").write_bytes(data)
    refused(tmp_path / "x.pt")


def test_a_checkpoint_without_its_whole_seal_is_refused(folder, tmp_path):
    good = (folder / "last.pt").read_bytes()
    for data in (good[:-1], payload_of(folder), good + b"\n", good + good):
        (tmp_path / "x.pt").write_bytes(data)
        refused(tmp_path / "x.pt")


def test_what_is_not_there_is_named(tmp_path):
    refused(tmp_path / "nowhere", "there is no checkpoint .*nowhere; train one first")
    refused(tmp_path, "there is no checkpoint .*last.pt; train one first")
    (tmp_path / "last.pt").mkdir()
    refused(tmp_path)
    refused("x" * 300, "there is no checkpoint")
    refused("nul\0", "there is no checkpoint")


def test_a_file_that_may_not_be_read_is_named(folder, tmp_path, monkeypatch):
    def forbidden(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(UserError) as error:
        load_checkpoint(folder)
    monkeypatch.undo()
    assert "last.pt (Permission denied); name another file" in str(error.value)


def test_a_bomb_is_not_unpacked(tmp_path):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(200_000_000))
    (tmp_path / "x.pt").write_bytes(sealed(bomb.getvalue()))
    assert (tmp_path / "x.pt").stat().st_size < 1_000_000
    room = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path / "x.pt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - room < 50_000  # KiB


def test_what_is_packed_is_refused_even_if_it_could_be_read(folder, tmp_path):
    packed_again = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(payload_of(folder))) as good,
        zipfile.ZipFile(packed_again, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in good.namelist():
            archive.writestr(name, good.read(name))
    read = torch.load(io.BytesIO(packed_again.getvalue()), weights_only=True)
    assert read["step"] == 6
    (tmp_path / "x.pt").write_bytes(sealed(packed_again.getvalue()))
    refused(tmp_path / "x.pt")


def test_a_file_too_large_to_be_a_checkpoint_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_BYTES", (folder / "last.pt").stat().st_size - 1)
    refused(folder)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("place", ["model", "config", "step", "kind"])
def test_code_in_a_pickle_does_not_run(place, clip_folder, tmp_path):
    content = load_checkpoint(clip_folder) | {place: RunsCode(tmp_path / "was_here")}
    refused(write_checkpoint(tmp_path / "x", content))
    assert not (tmp_path / "was_here").exists()
    torch.load(io.BytesIO(packed(content)), weights_only=False)
    assert (tmp_path / "was_here").exists()  # it would have run


# ---------------------------------------------------------------- wrong contents


def test_a_newer_format_and_another_kind_are_named(clip_folder, vlm_folder, tmp_path):
    newer = load_checkpoint(clip_folder) | dict(format=FORMAT + 1)
    refused(write_checkpoint(tmp_path, newer), f"format {FORMAT + 1}, this code reads {FORMAT}")
    refused(vlm_folder, "vlm model, but a clip model is wanted", kind="clip")
    refused(clip_folder, "clip model, but a vlm model is wanted", kind="vlm")
    other = write_checkpoint(tmp_path, load_checkpoint(clip_folder) | dict(kind="oracle"))
    with pytest.raises(UserError, match="'oracle' model"):
        evaluate.main(evaluate.Config(checkpoint=str(other), items=20))


NAME = "image_proj.weight"


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda w: w.pop(NAME), rf"{NAME} is missing \(1 in all\)"),
        (lambda w: w.update({NAME: w[NAME][:1]}), rf"{NAME} has shape \(1, .*instead of"),
        (lambda w: w.update({NAME: w[NAME] * float("nan")}), f"{NAME} is not finite"),
        (lambda w: w.update({NAME: w[NAME] / 0}), f"{NAME} is not finite"),
        (lambda w: w.update(extra=w[NAME]), "extra is extra"),
    ],
)
def test_wrong_tensors_are_named(clip_folder, tmp_path, change, named):
    content = load_checkpoint(clip_folder)
    change(content["model"])
    write_checkpoint(tmp_path, content)
    with pytest.raises(UserError, match=named):
        train_clip.load_model(load_checkpoint(tmp_path), tmp_path, torch.device("cpu"))


@pytest.mark.parametrize("change", ["swapped", "longer", None])
def test_other_words_are_refused_though_all_tensors_fit(clip_folder, vlm_folder, tmp_path, change):
    """Templates changed after the training: the same sizes, and each word means another."""
    for script, folder in ((train_clip, clip_folder), (train_vlm, vlm_folder)):
        content = load_checkpoint(folder)
        words = content.pop("words")
        assert len(words) == len(set(words)) > 100
        changed = {"swapped": (words[1], words[0], *words[2:]), "longer": (*words, "zebra")}
        if change:
            content["words"] = changed[change]
        write_checkpoint(tmp_path, content)
        with pytest.raises(UserError, match="other words than data set shapes; use the code that"):
            script.load_model(load_checkpoint(tmp_path), tmp_path, torch.device("cpu"))


def test_a_run_does_not_go_on_with_other_words(clip_folder, tmp_path):
    content = load_checkpoint(clip_folder)
    content["words"] = content["words"][::-1]
    write_checkpoint(tmp_path, content)
    config = train_clip.config_from(train_clip.Config, content["config"], tmp_path)
    config = dataclasses.replace(config, out=str(tmp_path), resume=True)
    with pytest.raises(UserError, match="other words than data set"):
        train_clip.main(config)


def test_nothing_is_loaded_of_weights_that_do_not_fit():
    module = torch.nn.Linear(2, 2)
    before = {name: w.clone() for name, w in module.state_dict().items()}
    wrong = {"weight": torch.ones(2, 2), "bias": torch.ones(3)}
    with pytest.raises(UserError, match="bias has shape"):
        checkpoint.load_weights(module, wrong, "x")
    assert all(torch.equal(w, before[name]) for name, w in module.state_dict().items())


def with_prefixed_weights(folder, tmp_path, prefix="module."):
    content = load_checkpoint(folder)
    prefixed = {prefix + name: w for name, w in content["model"].items()}
    return write_checkpoint(tmp_path / "prefixed", content | dict(model=prefixed))


def test_prefixed_names_are_refused_everywhere(folder, tmp_path):
    wrong, n = with_prefixed_weights(folder, tmp_path), len(load_checkpoint(folder)["model"])
    named = rf"does not fit this model: .* \({2 * n} in all\)"
    page = str(tmp_path / "page.png")
    with pytest.raises(UserError, match=named):
        evaluate.main(evaluate.Config(checkpoint=str(wrong), items=20))
    with pytest.raises(UserError, match=named):
        sample.main(sample.Config(checkpoint=str(wrong), out=page, items=1))


def test_an_encoder_with_prefixed_names_is_refused(clip_folder, tmp_path):
    wrong, out = with_prefixed_weights(clip_folder, tmp_path), tmp_path / "out"
    words = ["train_vlm.py", "--clip", wrong, "--out", out, *flags(**VLM_ARGS)]
    code, _, stderr = in_process(*words)
    assert code == 2 and "is missing" in stderr and not (out / "last.pt").exists()


def test_an_optimizer_of_another_model_is_refused(clip_folder):
    states = load_checkpoint(clip_folder)["optimizers"]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    with pytest.raises(UserError, match="its optimizer is another one"):
        checkpoint.load_optimizers([optimizer], states, "x")
    with pytest.raises(UserError, match="its optimizer is another one"):
        checkpoint.load_optimizers([optimizer] * len(states), states, "x")


# ---------------------------------------------------------------- settings of other versions


def with_config(folder, tmp_path, **changes):
    content = load_checkpoint(folder)
    config = {k: v for k, v in (content["config"] | changes).items() if v is not None}
    return write_checkpoint(tmp_path / "other", content | dict(config=config))


def test_an_unknown_setting_is_named(folder, tmp_path):
    newer = with_config(folder, tmp_path, new_setting=1)
    with pytest.raises(UserError, match="another version .*'new_setting', 1 in all"):
        sample.main(sample.Config(checkpoint=str(newer), out=str(tmp_path / "page.png")))


def test_a_setting_that_did_not_exist_takes_its_default(clip_folder, tmp_path, capsys):
    older = with_config(clip_folder, tmp_path, weight_decay=None)
    _, config, _ = train_clip.load_model(load_checkpoint(older), older, torch.device("cpu"))
    default = train_clip.Config().weight_decay
    assert config.weight_decay == default
    said = capsys.readouterr().out
    assert f"older than the setting weight_decay, taken as {default!r}" in said


def test_older_names_of_variants_are_understood(clip_folder, tmp_path):
    older = with_config(clip_folder, tmp_path, loss="multi_positive")
    _, config, _ = train_clip.load_model(load_checkpoint(older), older, torch.device("cpu"))
    assert config.loss == "masked_clip"


def test_older_names_of_settings_are_understood(vlm_folder, tmp_path):
    older = with_config(vlm_folder, tmp_path, image_tokens=None, num_queries=4)
    model, config, _ = train_vlm.load_model(load_checkpoint(older), older, torch.device("cpu"))
    assert config.image_tokens == model.projector.num_tokens == 4


# ---------------------------------------------------------------- through the scripts


def test_scripts_refuse_what_does_not_fit_and_touch_nothing(clip_folder, vlm_folder, tmp_path):
    clip_words = ["train_clip.py", "--resume", *flags(**CLIP_ARGS)]
    vlm_words = ["train_vlm.py", *flags(**VLM_ARGS, image_tokens=4)]
    for words, named in (
        ([*clip_words, "--out", clip_folder, "--text-dim", "32"], "text_dim 16 then, 32 now"),
        ([*clip_words, "--out", vlm_folder], "vlm model"),
        ([*clip_words, "--out", tmp_path / "empty"], "there is no checkpoint"),
        ([*vlm_words, "--resume", "--out", vlm_folder, "--lr", "0.5"], "lr 0.001 then, 0.5 now"),
        ([*vlm_words, "--resume", "--out", clip_folder], "clip model"),
        ([*vlm_words, "--clip", vlm_folder, "--out", tmp_path / "x"], "clip model is wanted"),
        ([*vlm_words, "--clip", clip_folder, "--out", tmp_path / "x", "--held-out", "1"], "--held"),
    ):
        before = contents(clip_folder), contents(vlm_folder)
        code, _, stderr = in_process(*words)
        assert code == 2 and stderr.count("\n") == 1 and stderr.startswith("error: ")
        assert named in stderr, stderr
        assert before == (contents(clip_folder), contents(vlm_folder))
    assert not list(tmp_path.iterdir())  # no empty folder is left


def test_a_resumed_vlm_needs_its_clip_no_more(clip_folder, vlm_folder):
    words = ["train_vlm.py", "--resume", "--out", vlm_folder, "--clip", "gone"]
    code, stdout, stderr = in_process(*words, *flags(**VLM_ARGS, image_tokens=4))
    assert (code, stderr) == (0, "") and "nothing to do" in stdout


def test_what_an_older_checkpoint_does_not_know_had_its_default():
    """Also where one setting alone is compared, as --clip, --init and --decoder do."""
    config = train_clip.Config()
    checkpoint.require_same(config, {}, "old", ["held_out", "language"], "")
    checkpoint.require_same(config, dict(world="default"), "old", ["dataset"], "")
    for saved in (dict(dataset="shapes-full"), dict(world="shapes-full")):
        with pytest.raises(UserError, match="--dataset is shapes, old has shapes-full; hint"):
            checkpoint.require_same(config, saved, "old", ["dataset"], "hint")
