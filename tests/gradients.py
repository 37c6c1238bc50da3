"""Loss and gradients of one training step, in one process or several: `python -m torch.distributed.run --nproc-per-node 2 tests/gradients.py OUT`."""

import sys

import numpy as np
import torch

import train_clip
import train_vlm
from conftest import SMALL
from data.dataset import Conversations, PairsForCLIP
from tinyvlm import run
from tinyvlm.losses import LOSSES

BATCH = 8


def clip_step(processes):
    config = train_clip.Config(**SMALL)
    model = train_clip.build(config)
    data = PairsForCLIP(run.world_of(config))
    batch = data.batch("train", processes.part(np.arange(BATCH)))
    shared = processes.wrap(model)
    image, text, scale = shared(batch.pixels, batch.tokens)
    positives = data.positives("train", np.arange(BATCH))
    loss = LOSSES["multi_positive"](processes.gather(image), processes.gather(text), scale, positives)
    loss.backward()
    return model, loss.detach()


def vlm_step(processes):
    config = train_vlm.Config(encoder_init="random", dim=32, depth=1, heads=1, projector="label")
    model = train_vlm.build(config, train_vlm.encoder_of(config)[0])
    data = Conversations(run.world_of(config))
    batch = data.batch("train", processes.part(np.arange(BATCH)))
    if processes.rank == 0:
        batch.learn[0] = False  # uneven numbers of words that are learned
    shared = processes.wrap(model)
    losses, lesson = shared(batch)
    loss = losses.sum() * processes.size / processes.total(batch.learn.sum()) + lesson
    loss.backward()
    return model, processes.total(loss) / processes.size


if __name__ == "__main__":
    processes = run.Processes("cpu")
    result = {}
    for name, step in (("clip", clip_step), ("vlm", vlm_step)):
        model, loss = step(processes)
        result[name] = dict(loss=loss, **{n: p.grad for n, p in model.named_parameters()})
    if processes.is_first:
        torch.save(result, sys.argv[1])
    processes.leave()
