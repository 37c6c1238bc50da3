"""What the tests of accidents share: runs that do not end by themselves, and what they leave."""

import hashlib
import time

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
ENDLESS = dict(steps=100_000, eval_every=100_000)


def train(module, settings, out, **more):
    """A script's main with these settings."""
    return module.main(module.Config(**settings | dict(out=str(out)) | more))


def wait_for_a_step(process, folder):
    """Until the run in this folder has logged a step."""
    log = folder / "log.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None, process.communicate()[1][-500:]
        time.sleep(0.02)


def state(folder):
    """What must be equal after every kind of accident."""
    names = ("last.pt", "log.jsonl")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
