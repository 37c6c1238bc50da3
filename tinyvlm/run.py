"""What both training scripts need around their loop, and never a loop: optimiser, rates, freezing, seeds, files."""

import contextlib
import dataclasses
import fnmatch
import io
import json
import math
import os
import pickle
import platform
import sys
import zipfile
import zlib
from pathlib import Path

import torch
from torch import nn

from tinyvlm.config import UserError

FORMAT = 1  # of a checkpoint

# ---------------------------------------------------------------- device, seeds, precision


def pick_device(name):
    """"auto", "cpu", "cuda" or "cuda:1" -> torch.device. Raises UserError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdigit())):
        raise UserError(f"--device is {name!r}; choose auto, cpu, cuda or cuda:N")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is cuda, but this machine shows no GPU; use --device cpu")
    if number and int(number) >= torch.cuda.device_count():
        raise UserError(f"--device is {name}, but there are {torch.cuda.device_count()} GPUs; use a smaller number")
    return torch.device(name)


def precision(device):
    """bfloat16 where it is fast (GPU), float32 on a CPU.

    Measured on two cores: 300 GFLOP/s in float32 and 160 in bfloat16; on two with AVX2 only, 139 and 1.
    """
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()


def seeded(make, seed):
    """make() with torch's generators seeded and put back afterwards, so that each part's weights depend on `seed` alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


# ---------------------------------------------------------------- what is trained, and how fast


def freeze(model, trained):
    """Train the parameters whose names match one of the patterns (fnmatch, "projector.*"), freeze all others.

    Raises UserError if a pattern matches nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in trained:
        if not fnmatch.filter(names, pattern):
            tops = sorted({name.split(".")[0] + ".*" for name in names})
            raise UserError(f"the pattern {pattern!r} matches no parameter; the parts are {', '.join(tops)}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatch.fnmatch(name, pattern) for pattern in trained))


def rate_at(step, steps, warmup, flat=0.5):
    """Share of the full learning rate at a step: linear warm-up, flat until `flat` of the steps, then linear to 5 %."""
    rise = min(1.0, (step + 1) / max(warmup, 1))
    fall = max(0.0, (step / steps - flat) / (1 - flat))
    return rise * (1 - 0.95 * fall)


def make_optimisers(model, lr, muon_lr, weight_decay):
    """Muon for convolutions, the matrices inside blocks and those of projectors, AdamW for the rest; norms, biases, embeddings, temperature do not decay."""
    groups = {"muon": [], "decayed": [], "plain": []}
    for name, p in model.named_parameters():
        if p.requires_grad:
            groups[optimiser_group(name, p)].append(p)
    made = [Muon(groups["muon"], lr=muon_lr)] if groups["muon"] else []
    adam = [dict(params=groups["decayed"], weight_decay=weight_decay), dict(params=groups["plain"], weight_decay=0.0)]
    made.append(torch.optim.AdamW(adam, lr=lr, betas=(0.9, 0.98)))
    for optimiser in made:
        for group in optimiser.param_groups:
            group["full_lr"] = group["lr"]
    return made


def optimiser_group(name, parameter):
    if parameter.ndim < 2 or name.rsplit(".", 2)[-2] in ("token", "position") or name.endswith("query"):
        return "plain"
    inside = ".blocks." in name or name.startswith("projector.")
    return "muon" if parameter.ndim == 4 or inside else "decayed"


def set_rate(optimisers, share):
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["full_lr"] * share


def update(optimisers, parameters, loss, step):
    """Backward, clip the gradient's norm at 1, step. Raises RuntimeError, before any weight changes, if a number is not finite."""
    for optimiser in optimisers:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_([p for p in parameters if p.requires_grad], 1.0)
    if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
        raise RuntimeError(f"the loss or its gradient is not finite at step {step}; nothing was saved, try a smaller --lr")
    for optimiser in optimisers:
        optimiser.step()


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by five Newton-Schulz steps; Jordan et al., "Muon" (2024).

    torch.optim.Muon does these steps in bfloat16, which a CPU without bfloat16 units does a hundred times slower; here they
    run in the parameter's own type, and matrices of one shape run as one batch.
    """

    def __init__(self, params, lr=1e-2, momentum=0.95):
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.flatten(1).shape, []).append(p)  # a convolution is a matrix, too
            for shape, params in by_shape.items():
                updates = []
                for p in params:
                    velocity = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                    velocity.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(velocity, group["momentum"]))  # Nesterov
                scale = group["lr"] * max(1, shape[0] / shape[1]) ** 0.5
                for p, direction in zip(params, orthogonal(torch.stack(updates).flatten(2))):
                    p.sub_(direction.view_as(p), alpha=scale)


def orthogonal(g, steps=5):
    """Roughly the nearest (semi-)orthogonal matrices to g (k, rows, columns): singular values land in 0.7 .. 1.2."""
    tall = g.shape[1] > g.shape[2]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (2.0315 * a @ a - 4.7750 * a) @ x
    return x.mT if tall else x


# ---------------------------------------------------------------- files


def open_folder(out):
    """Make the folder of a run. Raises UserError if that cannot be."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out} ({error.strerror}); name another --out")
    return folder


def begin_log(folder, config, step):
    """Write config.json and cut the log back to `step` (0: begin it anew). Raises UserError if the folder is read-only."""
    path = folder / "log.jsonl"
    try:
        kept = [line for line in read_log(folder) if line["step"] <= step] if step else []
        write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        (folder / "metrics.json").unlink(missing_ok=True)  # it speaks of another run, or of an earlier end
        write_atomically(folder / "config.json", (json.dumps(dataclasses.asdict(config), indent=2) + "\n").encode())
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror}); name another --out")


def write_atomically(path, data):
    """All of `data` or the file as it was: a temporary file in the same folder, fsync, replace."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def append_log(folder, step, **values):
    with open(folder / "log.jsonl", "a") as file:
        file.write(json.dumps(dict(step=step, **{k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()})) + "\n")


def read_log(folder):
    """The lines of log.jsonl as dicts; a line that a crash left half-written is left out."""
    path, lines = folder / "log.jsonl", []
    for text in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(text))
    return lines


def save_checkpoint(path, *, kind, config, step, model, optimisers=(), **more):
    """One file: format, kind ("clip" or "vlm"), config, step, weights, optimisers and what `more` adds."""
    content = dict(
        format=FORMAT, kind=kind, config=dataclasses.asdict(config), step=step, model=model.state_dict(),
        optimisers=[o.state_dict() for o in optimisers], versions=dict(torch=str(torch.__version__), python=platform.python_version()), **more,
    )  # fmt: skip
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(Path(path), buffer.getvalue())


def load_checkpoint(path, kind=None):
    """A checkpoint's content, on the CPU; nothing in it is executed. Raises UserError if it is missing, damaged or of another kind."""
    path = Path(path)
    if path.is_dir():
        path = path / "last.pt"
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}; train one first (python train_clip.py, then python train_vlm.py)")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile
        content = torch.load(path, map_location="cpu", weights_only=True)
        found, made_with = content["kind"], content["format"]
        content["config"], content["model"]
    except (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError, OSError, ValueError):
        raise UserError(f"{path} is no checkpoint of tinyvlm or is damaged; train it again or name another file")
    if made_with != FORMAT:
        raise UserError(f"{path} has format {made_with}, this code reads {FORMAT}; use the code that wrote it")
    if kind and found != kind:
        raise UserError(f"{path} holds a {found} model, but a {kind} model is wanted; name another file")
    return content


def load_weights(module, weights, path):
    """Load strictly. Raises UserError with the first name and the count of missing, extra, misshaped or non-finite tensors."""
    own = module.state_dict()
    faults = [f"{name} is missing" for name in own if name not in weights] + [f"{name} is extra" for name in weights if name not in own]
    for name in own.keys() & weights.keys():
        if own[name].shape != weights[name].shape:
            faults.append(f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}")
        elif not weights[name].isfinite().all():
            faults.append(f"{name} is not finite")
    if faults:
        raise UserError(f"{path} does not fit this model: {sorted(faults)[0]} ({len(faults)} in all); name the checkpoint of this architecture")
    module.load_state_dict(weights)


def config_from(config_class, values, path):
    """The config that a checkpoint was trained with. Raises UserError if its fields are not this code's."""
    names = {f.name for f in dataclasses.fields(config_class)}
    if set(values) != names:
        odd = sorted(set(values) ^ names)
        raise UserError(f"{path} was written by another version (setting {odd[0]!r}, {len(odd)} in all); train it again")
    return config_class(**values)


def check_resume(config, saved, free, path):
    """--resume goes on with the settings the run began with: UserError that lists the differences; `free` may differ."""
    now = dataclasses.asdict(config)
    other = [f"{k} {saved.get(k)!r} then, {now[k]!r} now" for k in now if k not in free and saved.get(k) != now[k]]
    if other:
        raise UserError(f"{path} was trained with other settings ({'; '.join(other)}); give the same, or leave out --resume")


# ---------------------------------------------------------------- what is shown


def bar(total, start, label):
    """tqdm, with one line at the end only where the output is no terminal."""
    from tqdm import tqdm

    return tqdm(total=total, initial=start, desc=label, unit="step", dynamic_ncols=True, mininterval=0.5 if sys.stderr.isatty() else 30)


def print_table(title, rows):
    """rows: [(name, value, interval or None, items, what it means)]."""
    print(f"\n{title}")
    print(f"  {'':28}{'value':>8}  {'95 % interval':>17}{'items':>8}")
    for name, value, interval, items, meaning in rows:
        span = f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        print(f"  {name:28}{value:8.3f}  {span:>17}{items:>8}  {meaning}")
    print()


def write_metrics(folder, metrics):
    write_atomically(folder / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
