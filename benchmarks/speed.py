"""How fast: samples/s of the world, images/s of each training step, and what share of this machine's matrix-product peak that is.

    python benchmarks/speed.py
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import train_clip
import train_vlm
from data.dataset import VQADataset, CaptionDataset
from tinyvlm.training import distributed, loop, optim
from tinyvlm.losses import LOSSES
from tinyvlm.projectors import PROJECTORS


def seconds_of(work, repeats=5):
    """The median time of one call, after one to warm up."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    work()
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def peak(device):
    """The fastest product of two square matrices in the type that training uses, FLOP/s."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32)
    return max(2 * n**3 / seconds_of(lambda: a @ a, 1) for _ in range(8))


def report(name, images, seconds, flops, best, data_seconds):
    rate = flops / seconds
    share = f"{rate / 1e9:6.0f} GFLOP/s, {rate / best:.0%} of the peak"
    print(f"{name:28}{images / seconds:8.0f} images/s {share}; making a batch takes {data_seconds / seconds:.1%} of a step")


def flops_of(work):
    """Counted with attention as plain matrix products: the counter does not know the fused kernel of a CPU."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def clip_step(encoder, device, **sizes):
    """One optimizer step of train_clip.py on a fixed batch, and the time to make a batch."""
    config = train_clip.Config(encoder=encoder, **sizes)
    model = train_clip.build_model(config).to(device)
    optimizers = optim.configure_optimizers(model, 1e-3, 1e-2, 0.01)
    data = CaptionDataset(loop.build_world(config), device=device)
    batch = data.batch("train", np.arange(config.batch_size))

    def work():
        with distributed.autocast(device):
            image, text, scale = model(batch.pixels, batch.tokens)
        optim.backward_and_step(optimizers, list(model.parameters()), LOSSES["multi_positive"](image.float(), text.float(), scale, batch.is_match), 0)

    return work, config.batch_size, seconds_of(lambda: data.batch("train", np.arange(config.batch_size)))


def vlm_step(projector, device):
    """One step of the last stage of train_vlm.py (everything trained) on a fixed batch, and the time to make a batch."""
    config = train_vlm.Config(projector=projector, encoder_init="random")
    model = train_vlm.build_model(config, train_vlm.load_encoder(config)[0]).to(device)
    optimizers = optim.configure_optimizers(model, 1e-3, 1e-2, 0.01)
    data = VQADataset(loop.build_world(config), device=device)
    batch = data.batch("train", np.arange(config.batch_size))

    def work():
        with distributed.autocast(device):
            losses, aux_loss = model(batch)
            loss = losses.sum() / batch.loss_mask.sum() + aux_loss
        optim.backward_and_step(optimizers, list(model.parameters()), loss, 0)

    return work, config.batch_size, seconds_of(lambda: data.batch("train", np.arange(config.batch_size)))


def main():
    device = distributed.pick_device("auto")
    best = peak(device)
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}; matrix-product peak {best / 1e9:.0f} GFLOP/s")
    world = loop.build_world(train_clip.Config())
    for name, data in (("world: captions", CaptionDataset(world, device=device)), ("world: conversations", VQADataset(world, device=device))):
        print(f"{name:28}{256 / seconds_of(lambda: data.batch('train', np.arange(256))):8.0f} finished samples/s (scene, pixels, tokens)")
    for encoder, sizes in (("stem", {}), ("vit", {}), ("vit", dict(depth=4))):
        work, images, data_seconds = clip_step(encoder, device, **sizes)
        report(f"CLIP, {encoder}, depth {sizes.get('depth', 2)}", images, seconds_of(work), flops_of(work), best, data_seconds)
    for projector in PROJECTORS:
        work, images, data_seconds = vlm_step(projector, device)
        report(f"VLM, {projector}", images, seconds_of(work), flops_of(work), best, data_seconds)


if __name__ == "__main__":
    main()
