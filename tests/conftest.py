"""Two small trained runs that several test files look at, and how many threads a test has."""

import os

import pytest
import torch
from helpers import CLIP_ARGS, VLM_ARGS

import train_clip
import train_vlm

if "PYTEST_XDIST_WORKER" in os.environ:  # a core for each of the processes that share the tests
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # and for those that they start


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    train_clip.main(train_clip.Config(out=str(folder), **CLIP_ARGS))
    return folder


@pytest.fixture(scope="session")
def vlm_folder(clip_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm")
    settings = VLM_ARGS | dict(out=str(folder), clip=str(clip_folder), image_tokens=4)
    train_vlm.main(train_vlm.Config(**settings))
    return folder
