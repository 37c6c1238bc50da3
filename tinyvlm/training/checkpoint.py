"""The files of a run: its folder, log, settings, metrics and checkpoints. All of a file or the file as it was."""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
import pickle
import platform
import sys
import zipfile
import zlib
from pathlib import Path

import torch

from tinyvlm.training.config import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

FORMAT = 3  # of a checkpoint
CHECKSUM_TAG = b"tinyvlm:"  # stands before the SHA-256 of all bytes that precede it, at the end of a checkpoint
MAX_BYTES = 8 * 2**30  # bytes of a checkpoint that will be read at all

# ---------------------------------------------------------------- folders

locks = {}  # folder -> the descriptor that holds its lock, for as long as the process lives


def is_folder(path):
    """False, too, for names that no system can have."""
    with contextlib.suppress(OSError, ValueError):
        return Path(path).is_dir()
    return False


def open_folder(out, lock=False):
    """Make the folder of a run. lock: and keep other runs out of it. UserError if that cannot be."""
    folder = Path(out)
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out {out} is a file; name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "it is read-only")
        if lock and fcntl and folder.resolve() not in locks:
            descriptor = os.open(folder, os.O_RDONLY)
            locks[folder.resolve()] = descriptor
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(locks.pop(folder.resolve()))
        raise UserError(f"{out} is in use by another run; wait for it or name another --out")
    except OSError as error:
        raise UserError(f"cannot make or use the folder {out} ({error.strerror}); name another --out")
    return folder


def unlock(folder):
    """Let other runs into the folder again."""
    with contextlib.suppress(KeyError):
        os.close(locks.pop(folder.resolve()))


def start_run(folder, config, step):
    """The folder is this run's now: config.json, and the log cut back to `step`. At step 0 an older run's checkpoints are kept as previous.pt and
    previous-best.pt. UserError if the folder is read-only."""
    try:
        for name, kept in (("last.pt", "previous.pt"), ("best.pt", "previous-best.pt")):
            if step == 0 and (folder / name).exists():
                os.replace(folder / name, folder / kept)
        lines = [line for line in read_log(folder) if line["step"] <= step] if step else []
        write_atomically(folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
        (folder / "metrics.json").unlink(missing_ok=True)  # it speaks of another run, or of an earlier end
        write_atomically(folder / "config.json", (json.dumps(dataclasses.asdict(config), indent=2) + "\n").encode())
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror}); name another --out")


def write_atomically(path, data):
    """All of `data` or the file as it was: a temporary file in the same folder, fsync, replace, fsync the folder."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
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


# ---------------------------------------------------------------- checkpoints


def save_checkpoint(folder, is_best, *, kind, config, step, model, optimizers=(), **more):
    """last.pt (and best.pt, the same bytes, if `is_best`): format, kind ("clip" or "vlm"), config, step, weights, optimizers and what `more` adds.

    The same state gives the same bytes, however often the run was stopped on its way there. Wall time is therefore no part of it.
    """
    made_with = dict(torch=str(torch.__version__), python=platform.python_version(), threads=torch.get_num_threads())
    made_with |= dict(device=str(next(model.parameters()).device), dtype=str(next(model.parameters()).dtype))
    content = dict(
        format=FORMAT, kind=kind, config=dataclasses.asdict(dataclasses.replace(config, resume=False, out="")), step=step,
        model=model.state_dict(), optimizers=[o.state_dict() for o in optimizers], made_with=made_with, **more,
    )  # fmt: skip
    buffer = io.BytesIO()
    torch.save(normalize_for_pickle(content), buffer)
    data = buffer.getvalue()
    data += CHECKSUM_TAG + hashlib.sha256(data).digest()
    for name in ("best.pt",) * is_best + ("last.pt",):
        write_atomically(Path(folder) / name, data)


def normalize_for_pickle(value):
    """A copy that pickles to the same bytes whatever was loaded or shared before: own tensors, one object for equal strings."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().contiguous().clone()
    if isinstance(value, dict):
        return {normalize_for_pickle(k): normalize_for_pickle(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(normalize_for_pickle(v) for v in value)
    return sys.intern(value) if isinstance(value, str) else value


def checkpoint_file(path):
    """A checkpoint, or the folder of a run, whose checkpoint is last.pt -> the file: Path."""
    return Path(path) / "last.pt" if is_folder(path) else Path(path)


def load_checkpoint(path, kind=None):
    """A checkpoint's content, on the CPU; nothing in it is executed. UserError if it is missing, damaged, too new or of another kind."""
    path = checkpoint_file(path)
    if not os.path.exists(path):
        raise UserError(f"there is no checkpoint {path}; train one first (python train_clip.py, then python train_vlm.py)")
    damaged = UserError(f"{path} is no checkpoint of tinyvlm or is damaged; train it again or name another file")
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise damaged
        with open(path, "rb") as file:  # no seal, no reading
            file.seek(max(path.stat().st_size - len(CHECKSUM_TAG) - 32, 0))
            seal = file.read()
            if not seal.startswith(CHECKSUM_TAG):
                raise damaged
            file.seek(0)
            payload = file.read(path.stat().st_size - len(seal))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); name another file")
    try:
        if seal != CHECKSUM_TAG + hashlib.sha256(payload).digest():
            raise damaged
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            packed = [entry for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
            if packed or archive.testzip() is not None:  # torch never packs: what is packed may be a bomb
                raise damaged
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        found, made_in = content["kind"], content["format"]
        content["config"], content["model"], content["step"]
    except (zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError, OSError, ValueError, AttributeError):
        raise damaged
    if made_in != FORMAT:
        raise UserError(f"{path} has format {made_in}, this code reads {FORMAT}; use the code that wrote it")
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


def load_optimizers(optimizers, states, path):
    """Put optimizers back to their states. UserError if these belong to another model."""
    try:
        if len(optimizers) != len(states):
            raise ValueError("another number of optimizers")
        for optimizer, state in zip(optimizers, states):
            optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not fit: its optimizer is another one ({error}); leave out --resume")


def check_resume(config, saved, may_differ, path):
    """--resume goes on with the settings the run began with: UserError that lists the differences; `free` may differ."""
    now = dataclasses.asdict(config)
    other = [f"{k} {saved.get(k)!r} then, {now[k]!r} now" for k in now if k not in may_differ and saved.get(k) != now[k]]
    if other:
        raise UserError(f"{path} was trained with other settings ({'; '.join(other)}); give the same, or leave out --resume")


def write_metrics(folder, metrics):
    write_atomically(folder / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())


def write_times(folder, **seconds):
    """Wall times so far, for the table at the end of a run that was stopped in between."""
    write_atomically(folder / "times.json", json.dumps({k: round(v, 2) for k, v in seconds.items()}).encode())


def read_times(folder, *names):
    """The times that were written, 0 where there are none: a list."""
    with contextlib.suppress(OSError, ValueError):
        times = json.loads((folder / "times.json").read_text())
        return [float(times.get(name, 0.0)) for name in names]
    return [0.0] * len(names)
