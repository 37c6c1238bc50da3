"""Loss and gradients of one training step, in one process or several.

`python -m torch.distributed.run --nproc-per-node 2 tests/gradients.py OUT` writes them to OUT.
"""

import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from helpers import SMALL, shapes

import train_clip
import train_vlm
from data.batch import IGNORE
from tinyvlm.losses import LOSSES
from tinyvlm.training.distributed import Distributed

BATCH = 8


def fresh_run(dist, config):
    """What a step needs of a run that goes on from no checkpoint."""
    return SimpleNamespace(start=None, config=config, dist=dist, device=dist.device)


def clip_step(dist, loss="masked_clip", **settings):
    """One step of CLIP, two captions a picture: the model with its gradients, the loss."""
    data = shapes(captions=2, **settings)
    config = train_clip.Config(loss=loss, batch_size=BATCH, **SMALL)
    model = train_clip.build_model(config, data.tokenizer)
    batch = train_clip.make_batch(fresh_run(dist, config), data, 0)
    ddp_model = dist.wrap_ddp(model)  # to be kept until backward has shared the gradients
    image, text, scale, bias = ddp_model(batch.pixels, batch.tokens, 2)  # in micro-batches
    image, text = dist.all_gather_with_grad(image), dist.all_gather_with_grad(text)
    loss = LOSSES[loss](image, text, scale, bias, batch.is_match)
    loss.backward()
    return model, loss.detach()


def vlm_step(dist):
    """One step of a VLM whose processes have uneven numbers of labels, and an aux_loss."""
    settings = dict(encoder_init="random", dim=32, depth=1, heads=1, projector="label")
    config, data = train_vlm.Config(**settings), shapes()
    run, stage = fresh_run(dist, config), SimpleNamespace(reads_captions=False, text_only=False)
    encoder, _ = train_vlm.load_encoder(config, run)
    model = train_vlm.build_model(config, encoder, config.decoder, data)
    batch = data.vqa_batch("train", dist.shard(np.arange(BATCH)))
    if dist.rank == 0:
        batch.labels[0] = IGNORE
    ddp_model = dist.wrap_ddp(model)
    loss = train_vlm.step_loss(run, ddp_model, stage, batch)
    loss.backward()
    return model, dist.all_reduce_sum(loss.detach()) / dist.size


STEPS = {
    "clip": clip_step,
    "hard negatives": partial(clip_step, loss="sigmoid", hard_negatives=True),
    "vlm": vlm_step,
}


def main(path):
    with Distributed("cpu") as dist:
        result = {}
        for name, step in STEPS.items():
            model, loss = step(dist)
            result[name] = dict(loss=loss, **{n: p.grad for n, p in model.named_parameters()})
        if dist.is_main:
            torch.save(result, path)


if __name__ == "__main__":
    main(sys.argv[1])
