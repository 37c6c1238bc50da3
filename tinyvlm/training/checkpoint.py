"""Checkpoints: sealed with a hash, written in one piece, read without executing anything."""

import dataclasses
import hashlib
import io
import os
import pickle
import platform
import sys
import zipfile
import zlib
from pathlib import Path

import torch

from tinyvlm.training.config import UserError, in_todays_names, validate_config
from tinyvlm.training.files import is_folder, read_json, write_atomically

FORMAT = 3  # of a checkpoint
CHECKSUM_TAG = b"tinyvlm:"  # stands before the SHA-256 of all bytes before it, at the end
MAX_BYTES = 8 * 2**30  # of a checkpoint that will be read at all
UNREADABLE = (
    zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, RuntimeError, KeyError, TypeError,
    EOFError, OSError, ValueError, AttributeError,
)  # fmt: skip


class Damaged(UserError):
    """No checkpoint of tinyvlm, or one that is damaged."""

    def __init__(self, path):
        hint = "train it again or name another file"
        super().__init__(f"{path} is no checkpoint of tinyvlm or is damaged; {hint}")


# ---------------------------------------------------------------- writing


def save_checkpoint(folder, name="last.pt", *, kind, config, step, model, optimizers=(), **more):
    """Into file `name`: format, kind ("clip", "vlm", "decoder"), config, step, weights, optimizers
    and `more`.

    The same state gives the same bytes, however often the run was stopped on its way there. Wall
    time is therefore no part of it.
    """
    first = next(model.parameters())
    content = dict(
        format=FORMAT,
        kind=kind,
        config=dataclasses.asdict(
            dataclasses.replace(config, out="", resume=False, overwrite=False)
        ),
        step=step,
        model=model.state_dict(),
        optimizers=[optimizer.state_dict() for optimizer in optimizers],
        made_with=dict(
            torch=str(torch.__version__),
            python=platform.python_version(),
            threads=torch.get_num_threads(),
            device=str(first.device),
            dtype=str(first.dtype),
        ),
        **more,
    )
    buffer = io.BytesIO()
    torch.save(normalize_for_pickle(content), buffer)
    write_atomically(Path(folder) / name, sealed(buffer.getvalue()))


def sealed(payload):
    return payload + CHECKSUM_TAG + hashlib.sha256(payload).digest()


def normalize_for_pickle(value):
    """A copy that pickles to the same bytes whatever was loaded or shared before.

    Tensors of their own, and one object for equal strings.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().contiguous().clone()
    if isinstance(value, dict):
        return {normalize_for_pickle(k): normalize_for_pickle(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(normalize_for_pickle(v) for v in value)
    return sys.intern(value) if isinstance(value, str) else value


# ---------------------------------------------------------------- reading


def checkpoint_file(path):
    """A checkpoint, or the folder of a run, whose checkpoint is last.pt -> the file: Path."""
    return Path(path) / "last.pt" if is_folder(path) else Path(path)


def load_checkpoint(path, kind=None):
    """A checkpoint's content, on the CPU; nothing in it is executed.

    UserError if it is missing, damaged, of another format or of another kind.
    """
    path = checkpoint_file(path)
    if not os.path.exists(path):
        hint = "train one first (python train_clip.py, then python train_vlm.py)"
        raise UserError(f"there is no checkpoint {path}; {hint}")
    payload = read_sealed(path)
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            # torch never packs: what is packed may be a bomb.
            kinds = {entry.compress_type for entry in archive.infolist()}
            if kinds - {zipfile.ZIP_STORED} or archive.testzip() is not None:
                raise Damaged(path)
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        found, written_as = content["kind"], content["format"]
        for name in ("config", "model", "step"):
            content[name]
    except UNREADABLE:
        raise Damaged(path)
    if written_as != FORMAT:
        hint = "use the code that wrote it, or train it again"
        raise UserError(f"{path} has format {written_as}, this code reads {FORMAT}; {hint}")
    if kind and found != kind:
        hint = "name another file"
        raise UserError(f"{path} holds a {found} model, but a {kind} model is wanted; {hint}")
    return content


def read_sealed(path):
    """The bytes of a checkpoint, if its seal is right. UserError otherwise."""
    length = len(CHECKSUM_TAG) + hashlib.sha256().digest_size
    try:
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise Damaged(path)
        size = path.stat().st_size
        with open(path, "rb") as file:
            file.seek(max(size - length, 0))
            if not file.read().startswith(CHECKSUM_TAG):
                raise Damaged(path)  # no seal, no reading
            file.seek(0)
            data = file.read(size)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); name another file")
    payload = data[:-length]
    if data != sealed(payload):
        raise Damaged(path)
    return payload


def load_weights(module, weights, path):
    """Load strictly.

    UserError with the first name and the count of missing, extra, misshaped or non-finite tensors.
    """
    own = module.state_dict()
    faults = [f"{name} is missing" for name in own if name not in weights]
    faults += [f"{name} is extra" for name in weights if name not in own]
    for name in own.keys() & weights.keys():
        found, expected = tuple(weights[name].shape), tuple(own[name].shape)
        if found != expected:
            faults.append(f"{name} has shape {found} instead of {expected}")
        elif not weights[name].isfinite().all():
            faults.append(f"{name} is not finite")
    if faults:
        fault = f"{sorted(faults)[0]} ({len(faults)} in all)"
        hint = "name the checkpoint of this architecture"
        raise UserError(f"{path} does not fit this model: {fault}; {hint}")
    module.load_state_dict(weights)


def load_optimizers(optimizers, states, path):
    """Put optimizers back to their states. UserError if these belong to another model."""
    try:
        if len(optimizers) != len(states):
            raise ValueError("another number of optimizers")
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError) as error:
        hint = "leave out --resume"
        raise UserError(f"{path} does not fit: its optimizer is another one ({error}); {hint}")


# ---------------------------------------------------------------- settings


def config_from(config_class, values, path):
    """The config that a checkpoint was trained with, in today's words.

    A setting that did not exist then takes its default, with a note. UserError for one that this
    code does not know.
    """
    fields = {field.name: field.default for field in dataclasses.fields(config_class)}
    values = in_todays_names(values, config_class)
    unknown = sorted(set(values) - set(fields))
    if unknown:
        hint = "use that version, or train it again"
        named = f"setting {unknown[0]!r}, {len(unknown)} in all"
        raise UserError(f"{path} was written by another version ({named}); {hint}")
    for name in sorted(set(fields) - set(values)):
        print(f"note: {path} is older than the setting {name}, taken as {fields[name]!r}")
    return validate_config(config_class(**values))


def differences(config, saved, path, may_differ):
    """Settings that are other than `saved` (a dict), but for those in may_differ: ["NAME ..."].

    UserError where config_from has one.
    """
    then, now = (dataclasses.asdict(c) for c in (config_from(type(config), saved, path), config))
    return [
        f"{name} {then[name]!r} then, {now[name]!r} now"
        for name in now
        if name not in may_differ and then[name] != now[name]
    ]


def describe_what_is_there(config, lost, may_differ):
    """What a new run of this config would take away (files.what_would_be_lost, not empty): a run,
    told by the settings that it does not share with this one, or other files."""
    if lost[0].name not in ("last.pt", "metrics.json"):
        return f"what a run would take away ({', '.join(path.name for path in lost)})"
    older = read_json(lost[0].parent / "config.json")
    try:
        other = differences(config, older, lost[0], may_differ)
    except UserError:  # of another script, or of another version
        older = {}
    if not older:
        return "another run"
    return f"a run with other settings ({'; '.join(other)})" if other else "this very run"


def setting_of(saved, name, config_class):
    """One setting of `saved` (a dict), which may be older, in today's words; what did not exist
    then has its default."""
    [field] = [field for field in dataclasses.fields(config_class) if field.name == name]
    value = in_todays_names(saved, config_class).get(name, field.default)
    return (field.metadata["renamed"] or {}).get(value, value)


def require_same(config, saved, path, names, hint):
    """UserError, with the hint, if a setting of these has another value in `saved`, see
    setting_of."""
    for name in names:
        now, then = getattr(config, name), setting_of(saved, name, type(config))
        if now != then:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} is {now}, {path} has {then}; {hint}")
