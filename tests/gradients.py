"""Loss and gradients of one training step, in one process or several: `python -m torch.distributed.run --nproc-per-node 2 tests/gradients.py OUT`."""

import sys

import numpy as np
import torch

import train_clip
import train_vlm
from conftest import SMALL
from data.dataset import VQADataset, CaptionDataset
from tinyvlm.training import distributed, loop
from tinyvlm.losses import LOSSES

BATCH = 8


def clip_step(dist):
    config = train_clip.Config(**SMALL)
    model = train_clip.build_model(config)
    data = CaptionDataset(loop.build_world(config))
    batch = data.batch("train", dist.shard(np.arange(BATCH)))
    shared = dist.wrap_ddp(model)
    image, text, scale = shared(batch.pixels, batch.tokens)
    is_match = data.is_match("train", np.arange(BATCH))
    loss = LOSSES["multi_positive"](dist.all_gather_with_grad(image), dist.all_gather_with_grad(text), scale, is_match)
    loss.backward()
    return model, loss.detach()


def vlm_step(dist):
    config = train_vlm.Config(encoder_init="random", dim=32, depth=1, heads=1, projector="label")
    model = train_vlm.build_model(config, train_vlm.load_encoder(config)[0])
    data = VQADataset(loop.build_world(config))
    batch = data.batch("train", dist.shard(np.arange(BATCH)))
    if dist.rank == 0:
        batch.loss_mask[0] = False  # uneven numbers of words that are learned
    shared = dist.wrap_ddp(model)
    losses, aux_loss = shared(batch)
    loss = losses.sum() * dist.size / dist.all_reduce_sum(batch.loss_mask.sum()) + aux_loss
    loss.backward()
    return model, dist.all_reduce_sum(loss) / dist.size


if __name__ == "__main__":
    dist = distributed.Distributed("cpu")
    result = {}
    for name, step in (("clip", clip_step), ("vlm", vlm_step)):
        model, loss = step(dist)
        result[name] = dict(loss=loss, **{n: p.grad for n, p in model.named_parameters()})
    if dist.is_main:
        torch.save(result, sys.argv[1])
    dist.shutdown()
