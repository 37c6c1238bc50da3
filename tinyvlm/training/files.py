"""The folder of a run: its lock, log, settings, metrics. All of a file or the file as it was."""

import contextlib
import dataclasses
import errno
import json
import os
from pathlib import Path

from tinyvlm.training.config import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

# What stands in the folder of a run that was finished, sampled and evaluated.
LANGUAGE_FILE = "language.pt"  # the decoder as the language stage left it
WEIGHTS = "last.pt", LANGUAGE_FILE
OF_THE_END = ("metrics.json", "items.json", "samples.png", "curves.png", "sample.png")
REPORTS = "report*.json", "report*.md", "report*.png"  # of evaluate.py, by patterns


class FolderInUse(UserError):
    """Another run is in the folder at this moment."""


def is_folder(path):
    """False, too, for names that no system can have."""
    with contextlib.suppress(OSError, ValueError):
        return Path(path).is_dir()
    return False


def make_folder(out):
    """The folder, made if it is not there: Path. UserError if that cannot be."""
    if not out:
        raise UserError("an empty name is no folder; name one")
    folder = Path(out)
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out {out} is a file; name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "it is read-only")
    except OSError as error:
        hint = "name another --out"
        raise UserError(f"cannot make or use the folder {out} ({error.strerror}); {hint}")
    return folder


@contextlib.contextmanager
def locked(folder):
    """Keep other runs out of a folder, until the end of this context, however it ends.

    UserError if one is there. Where the system has no locks (Windows, some network file systems),
    nothing is kept out. A folder that is empty in the end is taken away again.
    """
    descriptor = take_lock(folder) if fcntl else None
    try:
        yield
    finally:
        if fcntl:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            folder.rmdir()


def take_lock(folder):
    """A descriptor that holds the folder's lock. UserError if another run has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FolderInUse(f"{folder} is in use by another run; wait for it or name another --out")
    except OSError as error:  # some network file systems have no locks
        print(f"note: {folder} cannot be locked ({error.strerror}); start no second run there")
    return descriptor


def write_atomically(path, data):
    """All of `data` or the file as it was.

    A temporary file in the same folder, fsync, replace, fsync the folder.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder):
    """Make names durable, where the system can: Windows opens no folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path, content):
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path):
    """A dict, empty if there is no such file or it holds none."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}


def what_would_be_lost(folder):
    """What a new run would take away from a folder: [Path]. A log or settings alone are those of a
    run that has saved nothing yet."""
    named = [folder / name for name in (*WEIGHTS, *OF_THE_END)]
    found = [path for path in named if path.exists()]
    return found + [path for pattern in REPORTS for path in sorted(folder.glob(pattern))]


def start_run(folder, config, step):
    """The folder is this run's now: config.json, and the log cut back to `step`.

    Nothing is left of an older run, nor of what a finished one said. UserError if it is read-only.
    """
    try:
        for path in what_would_be_lost(folder):
            if not step or path.name not in WEIGHTS:
                path.unlink()
        if not step:
            (folder / "times.json").unlink(missing_ok=True)
        lines = [line for line in read_log(folder) if line["step"] <= step] if step else []
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomically(folder / "log.jsonl", text.encode())
        write_json(folder / "config.json", dataclasses.asdict(config))
    except OSError as error:
        raise UserError(f"cannot write into {folder} ({error.strerror}); name another --out")


def append_log(folder, step, **values):
    line = dict(step=step)
    line |= {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
    with open(folder / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def log_once(folder, step, **values):
    """append_log, but for a step whose line has these already: of a run that was killed behind it
    and goes on from before."""
    if not any(line["step"] == step and values.keys() <= line.keys() for line in read_log(folder)):
        append_log(folder, step, **values)


def read_log(folder):
    """The lines of log.jsonl as dicts; a line that a crash left half-written is left out."""
    path, lines = folder / "log.jsonl", []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    return lines
