"""Cells one after another: what is missing is run, what was stopped goes on, what fails is told.

Any number of processes may work on the same folders, on one machine or on many that share a disk:
a cell whose folder is locked is another one's, and is looked at again later.
"""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from tinyvlm.ablation.results import load_todays, made_here, save_result
from tinyvlm.training.checkpoint import checkpoint_file
from tinyvlm.training.config import Stopped, UserError, describe_failure, with_recipe
from tinyvlm.training.files import FolderInUse, make_folder, read_json

PAUSE = 5  # seconds, where all that is left is being run by others


class Runner:
    """Runs cells, by today's code on this machine, in folders below `runs`; keeps what they find in
    `results`. scripts: {name: module}, whose main(config) is called. device: for all of them.
    """

    def __init__(self, scripts, runs, results, device="auto"):
        self.scripts, self.runs, self.results = scripts, Path(runs), results
        self.device = device
        self.failed = {}  # {key: a line that says why}

    def is_finished(self, cell):
        return load_todays(self.results, cell) is not None

    def folder(self, cell):
        return self.runs / made_here(cell)

    def has_weights(self, cell):
        folder = self.folder(cell)
        return (folder / "metrics.json").exists() and checkpoint_file(folder).exists()

    def missing(self, cells):
        """What has to run, each once and after what it needs: cells that are not finished, and
        those of which they need the weights, where these are gone."""
        order = {}
        for cell in cells:
            if not self.is_finished(cell):
                for part in cell.with_needs():
                    if part is cell or not (self.is_finished(part) and self.has_weights(part)):
                        order[part.key] = part
        return list(order.values())

    def run(self, cells, names, score):
        """Run what is missing of cells. names: {key: what to call it}. score: of metrics.json, for
        the line on each. Returns {name: why} of those that failed."""
        left = self.missing(cells)
        with tqdm(total=len(left), unit="cell", desc="cells") as bar:
            while left:
                before = len(left)
                for cell in list(left):
                    name = names.get(cell.key, str(cell))
                    if line := self.try_cell(cell, name, left, score, bar):
                        left.remove(cell)
                        bar.update()
                        tqdm.write(line)
                if len(left) == before:
                    time.sleep(PAUSE)
        return {names.get(key, key): why for key, why in self.failed.items()}

    def try_cell(self, cell, name, left, score, bar):
        """Run a cell if that is possible now. A line on how it went, or None."""
        if any(need.key in self.failed for need in cell.needs.values()):
            self.failed[cell.key] = "what it needs has failed"
        elif any(need in left for need in cell.needs.values()):
            return None
        else:
            bar.set_postfix_str(f"{name}; see {made_here(cell)}.txt")
            try:
                metrics = self.run_cell(cell)
                scored = f"{score} {metrics[score]:.4f}, " if score in metrics else ""
                return f"{name}: {scored}{metrics['wall_seconds']:.0f} s"
            except FolderInUse:
                return None
            except Stopped:
                raise
            except UserError as error:
                self.failed[cell.key] = str(error)
            except Exception as error:  # whatever it is, the other cells go on
                self.failed[cell.key] = describe_failure(error)
        return f"{name}: FAILED: {self.failed[cell.key]}"

    def run_cell(self, cell):
        """Call its script's main, or let it go on where it has stopped: metrics.json."""
        make_folder(self.runs)
        script, folder = self.scripts[cell.script], self.folder(cell)
        settings = cell.settings | dict(
            out=str(folder),
            device=self.device,
            resume=(folder / "last.pt").exists(),
            **{name: str(self.folder(need)) for name, need in cell.needs.items()},
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(threads(cell.threads))
            output = open(f"{folder}.txt", "a", encoding="utf-8")  # noqa: SIM115
            stack.enter_context(output)
            stack.enter_context(contextlib.redirect_stdout(output))
            stack.enter_context(contextlib.redirect_stderr(output))
            script.main(with_recipe(script.Config, settings))
        needed = {n: load_todays(self.results, need) for n, need in cell.needs.items()}
        save_result(self.results, cell, folder, needed)
        return read_json(folder / "metrics.json")


@contextlib.contextmanager
def threads(number):
    """So many threads of torch's, for a while; 0: as many as it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_on_gpus(script, config):
    """The same command (of `script`, with sys.argv) once on each of so many GPUs; each takes cells
    that no other one has. What failed, in words."""
    words, running = [word for word in sys.argv[1:] if word], []
    for gpu in range(config.jobs):
        aside = make_folder(Path(config.runs) / f"pages-{gpu}")  # else they write the same pages
        pages = ["--out", str(aside / "FINDINGS.md"), "--readme", str(aside / "README.md")]
        own = ["--jobs", "1", "--device", f"cuda:{gpu}", *pages]
        running.append(subprocess.Popen([sys.executable, script, *words, *own]))
    ended = [process.wait() for process in running]
    return "a process failed; what the others finished is kept" if any(ended) else ""
