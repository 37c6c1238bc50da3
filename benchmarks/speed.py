"""How fast: samples/s of the world, images/s of each training step, and its share of the peak.

    python benchmarks/speed.py
    python benchmarks/speed.py --device cuda
    python benchmarks/speed.py --arms    # what each arm of each dictionary costs beside the default

The peak is this machine's fastest product of two square matrices, in the type that training uses.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

import train_clip  # noqa: E402
import train_vlm  # noqa: E402
from data.batch import IGNORE  # noqa: E402
from data.dataset import DATASETS  # noqa: E402
from tinyvlm.decoders import DECODERS  # noqa: E402
from tinyvlm.losses import LOSSES  # noqa: E402
from tinyvlm.projectors import PROJECTORS  # noqa: E402
from tinyvlm.text import TEXT_ENCODERS  # noqa: E402
from tinyvlm.training.config import option, run_script  # noqa: E402
from tinyvlm.training.distributed import autocast, pick_device  # noqa: E402
from tinyvlm.training.optim import backward_and_step, configure_optimizers  # noqa: E402
from tinyvlm.training.settings import encoder_of, open_dataset  # noqa: E402
from tinyvlm.vision import VISION_ENCODERS  # noqa: E402


@dataclasses.dataclass
class Config:
    device: str = option("auto", "auto, cpu, mps, cuda or cuda:N")
    arms: bool = option(False, "a table of all arms, instead of the defaults' speed")


class Step(NamedTuple):
    """One optimizer step on a fixed batch, to be done by work()."""

    model: torch.nn.Module
    work: object
    images: int
    data_seconds: float  # what making such a batch takes


def main(config):
    device = pick_device(config.device)
    where = f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    if config.arms:
        print(f"{where}; times beside the default's, which was taken again for each arm\n")
        print_arms(device)
    else:
        best = peak(device)
        print(f"{where}; matrix-product peak {best / 1e9:.0f} GFLOP/s")
        print_speeds(device, best)


def print_speeds(device, best):
    data, indices = DATASETS["shapes"](device=device), np.arange(256)
    for name, make in (("captions", data.caption_batch), ("conversations", data.vqa_batch)):
        rate = 256 / seconds_of(lambda make=make: make("train", indices))
        print(f"{f'world: {name}':28}{rate:8.0f} finished samples/s (scene, pixels, tokens)")
    for encoder, depth in (("convvit", 3), ("convnext", 3), ("stem", 2), ("vit", 2), ("vit", 4)):
        name = f"CLIP, {encoder}, depth {depth}"
        report(name, clip_step(device, encoder=encoder, encoder_depth=depth), best)
    for projector in PROJECTORS:
        report(f"VLM, {projector}", vlm_step(device, projector=projector), best)


def print_arms(device):
    """A table: what each variant has and costs, all else at the defaults."""
    print("| box | arm | tokens | parameters | GFLOP a step | time of a step |")
    print("| --- | --- | --- | --- | --- | --- |")
    boxes = (
        ("vision encoder", VISION_ENCODERS, clip_step, "encoder", "vision"),
        ("text encoder", TEXT_ENCODERS, clip_step, "text_encoder", "text"),
        ("contrastive loss", LOSSES, clip_step, "loss", ""),  # of the whole CLIP
        ("projector", PROJECTORS, vlm_step, "projector", "projector"),
        ("decoder", DECODERS, vlm_step, "decoder", "decoder"),
    )
    for box, arms, make_step, setting, part in boxes:
        default = make_step(device)
        for name, arm in arms.items():
            # A class token is read where tokens are not widened.
            pooling = dict(pool_dim=0) if getattr(arm, "has_class_token", False) else {}
            step = make_step(device, **{setting: name}, **pooling)
            own_seconds, seconds = seconds_in_turn(step.work, default.work)
            module = step.model.get_submodule(part)
            parameters = sum(p.numel() for p in module.parameters())
            cells = [box, name, getattr(module, "num_tokens", ""), f"{parameters:,}"]
            cells += [f"{flops_of(step.work) / 1e9:.1f}", f"{own_seconds / seconds:.2f}"]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def seconds_of(work, repeats=5):
    """The median time of one call, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        synchronize()
        t0 = time.perf_counter()
        work()
        synchronize()
        times.append(time.perf_counter() - t0)
    return float(np.median(times))


def seconds_in_turn(*works, rounds=4):
    """The least time of one call of each: whatever else runs here slows now one, now another."""
    return np.min([[seconds_of(work, 1) for work in works] for _ in range(rounds)], axis=0)


def synchronize():
    """Wait for a GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    if torch.backends.mps.is_available():
        torch.mps.synchronize()


def peak(device):
    """The fastest product of two square matrices, FLOP/s."""
    is_cuda = device.type == "cuda"
    n, dtype = (8192, torch.bfloat16) if is_cuda else (2048, torch.float32)
    a = torch.randn(n, n, device=device, dtype=dtype)
    return max(2 * n**3 / seconds_of(lambda: a @ a, 1) for _ in range(8))


def report(name, step, best):
    """One line: images/s, share of the peak, share of the data."""
    seconds = seconds_of(step.work)
    rate = flops_of(step.work) / seconds
    share = f"{rate / 1e9:6.0f} GFLOP/s, {rate / best:.0%} of the peak"
    data = f"making a batch takes {step.data_seconds / seconds:.1%} of a step"
    print(f"{name:28}{step.images / seconds:8.0f} images/s {share}; {data}")


def flops_of(work):
    """Counted with attention as plain matrix products: the counter knows no fused CPU kernel."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def clip_step(device, **settings):
    """A Step of train_clip.py."""
    config = train_clip.Config(**settings)
    data = open_dataset(config, config.image_size, device)
    indices = np.arange(config.batch_size)
    model = train_clip.build_model(config, data.tokenizer).to(device)
    optimizers = configure_optimizers(model, config.lr, config.muon_lr, config.weight_decay)
    batch = data.caption_batch("train", indices)

    def work():
        with autocast(device):
            image, text, scale, bias = model(batch.pixels, batch.tokens)
        loss = LOSSES[config.loss](image.float(), text.float(), scale, bias, batch.is_match)
        backward_and_step(optimizers, model, loss, 0)

    data_seconds = seconds_of(lambda: data.caption_batch("train", indices))
    return Step(model, work, len(indices), data_seconds)


def vlm_step(device, **settings):
    """A Step of the last stage of train_vlm.py: everything is trained."""
    config = train_vlm.Config(**settings)
    encoder = encoder_of(config)  # the default's
    data = open_dataset(config, encoder["image_size"], device)
    indices = np.arange(config.batch_size)
    model = train_vlm.build_model(config, encoder, config.decoder, data).to(device)
    optimizers = configure_optimizers(model, config.lr, config.muon_lr, config.weight_decay)
    batch = data.vqa_batch("train", indices)

    def work():
        with autocast(device):
            losses, aux_loss = model(batch)
            loss = losses.sum() / (batch.labels != IGNORE).sum() + aux_loss
        backward_and_step(optimizers, model, loss, 0)

    data_seconds = seconds_of(lambda: data.vqa_batch("train", indices))
    return Step(model, work, len(indices), data_seconds)


if __name__ == "__main__":
    run_script(main, Config, __doc__)
