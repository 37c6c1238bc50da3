"""Two small trained runs that several test files look at, and ways to run scripts as the shell does."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import train_clip
import train_vlm
from tinyvlm.training.config import run_script

ROOT = Path(__file__).parent.parent
SMALL = dict(dim=16, depth=1, heads=1, text_dim=16, text_depth=1, text_heads=1, embed_dim=16)
CLIP_ARGS = SMALL | dict(device="cpu", steps=6, batch_size=8, eval_items=512, eval_every=2, log_every=1)
VLM_ARGS = dict(device="cpu", steps=6, batch_size=4, dim=32, depth=1, heads=1, shares="0.5,0.17,0.33", eval_every=2, eval_items=4, log_every=1)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    train_clip.main(train_clip.Config(out=str(folder), **CLIP_ARGS))
    return folder


@pytest.fixture(scope="session")
def vlm_folder(clip_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    train_vlm.main(train_vlm.Config(out=str(folder), clip=str(clip_folder), num_queries=4, **VLM_ARGS))
    return folder


def flags(**settings):
    """Settings as command-line words."""
    return [word for name, value in settings.items() for word in ("--" + name.replace("_", "-"), str(value))]


def start(*words, **options):
    """A script as a process of its own, its output kept."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    words = [sys.executable, *(str(ROOT / w) if str(w) in ("train_clip.py", "train_vlm.py", "sample.py", "evaluate.py") else str(w) for w in words)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **{"cwd": ROOT} | options)


def command(*words, **options):
    """Run a script to its end: (exit code, stdout, stderr)."""
    process = start(*words, **options)
    stdout, stderr = process.communicate(timeout=300)
    return process.returncode, stdout, stderr


def in_process(*words):
    """The same without a new process, which takes seconds to start: (exit code, stdout, stderr)."""
    module, stdout, stderr = importlib.import_module(words[0].removesuffix(".py")), io.StringIO(), io.StringIO()
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
