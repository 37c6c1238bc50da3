"""What several test files share: small models, a small batch, and scripts run as the shell does."""

import contextlib
import importlib
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import train_clip
import train_vlm
from data.batch import IGNORE
from data.dataset import DATASETS
from tinyvlm.clip import CLIP
from tinyvlm.decoders import DECODERS
from tinyvlm.evaluation.statistics import proportion
from tinyvlm.projectors import PROJECTORS
from tinyvlm.text import TEXT_ENCODERS
from tinyvlm.training.checkpoint import load_checkpoint
from tinyvlm.training.config import kwargs_for, run_script
from tinyvlm.vision import VISION_ENCODERS
from tinyvlm.vlm import VLM

ROOT = Path(__file__).parent.parent
SCRIPTS = ("train_clip.py", "train_vlm.py", "sample.py", "evaluate.py", "ablate.py")
SMALL = dict(
    encoder_dim=16,
    encoder_depth=1,
    encoder_heads=1,
    text_dim=16,
    text_depth=1,
    text_heads=1,
    embed_dim=16,
)
CLIP_ARGS = SMALL | dict(
    device="cpu", steps=6, batch_size=8, eval_items=512, eval_every=2, log_every=1
)
VLM_ARGS = dict(
    device="cpu",
    steps=6,
    batch_size=4,
    dim=32,
    depth=1,
    heads=1,
    shares="0.5,0.17,0.33",
    eval_every=2,
    eval_items=4,
    log_every=1,
)


RANDOM_ENCODER = dict(encoder_init="random", encoder_dim=16, encoder_depth=1, encoder_heads=1)


# ---------------------------------------------------------------- scripts


def flags(**settings):
    """Settings as command-line words."""
    pairs = [("--" + name.replace("_", "-"), str(value)) for name, value in settings.items()]
    return [word for pair in pairs for word in pair]


def start(*words, **options):
    """A script as a process of its own, its output kept."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    words = [str(ROOT / word) if word in SCRIPTS else str(word) for word in words]
    options = dict(cwd=ROOT, text=True, env=environment) | options
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return subprocess.Popen([sys.executable, *words], **pipes, **options)


def command(*words, **options):
    """Run a script to its end: (exit code, stdout, stderr)."""
    process = start(*words, **options)
    stdout, stderr = process.communicate(timeout=300)
    return process.returncode, stdout, stderr


def in_process(*words):
    """The same without a new process, which takes seconds: (exit code, stdout, stderr)."""
    module = importlib.import_module(words[0].removesuffix(".py"))
    stdout, stderr = io.StringIO(), io.StringIO()
    arguments, sys.argv = sys.argv, list(map(str, words))
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            run_script(module.main, module.Config, module.__doc__)
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = arguments
    return code, stdout.getvalue(), stderr.getvalue()


def skip_test_phase(monkeypatch):
    """Runs end after their last step: no test split, no pictures, no scores on validation pictures
    (but the loss on them)."""
    a_half = proportion([0.5], [0])
    for script in (train_clip, train_vlm):
        monkeypatch.setattr(script, "evaluate_test", lambda *_: ({}, dict(score=a_half)))
        monkeypatch.setattr(script, "draw_samples", lambda *_: None)
        monkeypatch.setattr(script.plots, "curves", lambda *_: None)
        monkeypatch.setattr(script, "validate", lambda *_: {})


def fail_in_step(monkeypatch, script, number, error):
    """Runs die of an error in the step of this number, from 1, of those that they do."""
    steps, backward_and_step = [], script.backward_and_step

    def or_fail(*arguments):
        steps.append(1)
        if len(steps) == number:
            raise error
        backward_and_step(*arguments)

    monkeypatch.setattr(script, "backward_and_step", or_fail)


def stop_after(monkeypatch, script, number):
    """Runs are stopped, in good order, once `number` steps are done."""
    after_step = script.Run.after_step

    def stopping(self, step, *arguments, **settings):
        self.stop.caught = 15 if step + 1 == number else None
        return after_step(self, step, *arguments, **settings)

    monkeypatch.setattr(script.Run, "after_step", stopping)


def weights(folder):
    return load_checkpoint(folder)["model"]


def same_weights(one, other):
    """Two folders of runs, or two dicts of tensors."""
    one, other = (w if isinstance(w, dict) else weights(w) for w in (one, other))
    return one.keys() == other.keys() and all(torch.equal(w, other[n]) for n, w in one.items())


# ---------------------------------------------------------------- models and batches


def shapes(**settings):
    """The data set of the defaults."""
    return DATASETS["shapes"](**settings)


def small_vqa_batch(n, **settings):
    """n training pictures, each with a caption that nothing asks for and four questions, the first
    of them blind."""
    data = shapes(num_questions=4, **settings)
    many = data.vqa_batch("train", np.arange(16 * n), with_pixels=False)
    unasked = np.flatnonzero(many.labels[:, 0].cpu() != IGNORE)
    return data.vqa_batch("train", unasked[:n])


def small_encoder(name, **sizes):
    """A vision encoder with those of these sizes that it asks for."""
    kind = VISION_ENCODERS[name]
    return kind(**kwargs_for(kind, None, {}, **dict(dim=16, depth=1, heads=1) | sizes))


def small_clip(seed=0):
    torch.manual_seed(seed)
    vision = begun(VISION_ENCODERS["stem"](dim=32, depth=1, heads=1))
    text = TEXT_ENCODERS["causal"](vocab_size=shapes().tokenizer.size, dim=32, depth=1, heads=1)
    return CLIP(vision, text, embed_dim=64)


def small_vlm(projector="qformer", seed=0, vision=None, language="en", decoder="gpt"):
    """Of width 32. projector: its name, or a class; vision: an encoder in the place of a stem."""
    torch.manual_seed(seed)
    vision = vision or begun(VISION_ENCODERS["stem"](dim=32, depth=1, heads=1))
    vocab_size = shapes(language=language).tokenizer.size
    decoder = DECODERS[decoder](vocab_size=vocab_size, dim=32, depth=2, heads=2)
    made = small_projector(projector, vision.dim, 32, vision.num_tokens, vision.pooled_dim)
    return VLM(vision, made, decoder)


def small_projector(projector, vision_dim, text_dim, num_patches, pooled_dim):
    """A projector by its name (or a class), with what it asks for beyond the three sizes."""
    kind = PROJECTORS.get(projector, projector)
    own = dict(image_tokens=6, pooled_dim=pooled_dim, label_token_ids=shapes().label_token_ids)
    own = kwargs_for(kind, None, {}, **own)
    return kind(vision_dim=vision_dim, text_dim=text_dim, num_patches=num_patches, **own)


def losses_of(model, batch):
    """Each token's loss, (b, t), 0 where there is no label."""
    return model(batch)[0]


def global_state():
    """The states of all generators that a process shares."""
    torch_state, numpy_state = torch.get_rng_state().tolist(), np.random.get_state()
    return torch_state, random.getstate(), numpy_state[1].tolist(), numpy_state[2]


def drawn_mask(function, corner):
    """The mask that a docstring draws, rows of bools. corner: the names of its first columns."""
    lines = function.__doc__.splitlines()
    [top] = [k for k, line in enumerate(lines) if line.split()[: len(corner)] == corner]
    names, rows = lines[top].split(), []
    for name, line in zip(names, lines[top + 1 :], strict=False):
        own, *cells = line.split()[: 1 + len(names)]
        assert own == name and set(cells) <= {"x", "."}
        rows.append([cell == "x" for cell in cells])
    return rows


def begun(model):
    """The model as if it had been trained a little: matrices that begin as zeros are so no more."""
    for p in model.parameters():
        if p.ndim > 1 and not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return model


def every_parameter_learns(module, loss):
    """Backward; the names of those that got no gradient, or one of zeros or that is not finite."""
    loss.backward()
    return [
        name
        for name, p in module.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.isfinite().all() or not p.grad.any())
    ]
