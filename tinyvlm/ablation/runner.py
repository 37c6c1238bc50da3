"""Cells one after another: what is missing is run, what was stopped goes on, what fails is told.

Any number of processes may work on the same folders, on one machine or on many that share a disk:
a cell whose folder is locked is another one's, and is looked at again later.
"""

import contextlib
import time
from pathlib import Path

import torch
from tqdm import tqdm

from tinyvlm.ablation.results import code_version, load_result, save_result
from tinyvlm.training.checkpoint import checkpoint_file
from tinyvlm.training.config import Stopped, UserError, describe_failure, with_recipe
from tinyvlm.training.files import FolderInUse, make_folder, read_json

PAUSE = 5  # seconds, where all that is left is being run by others


class Runner:
    """Runs cells in folders below `runs` and keeps what they find in `results`.

    scripts: {name: module}, whose main(config) is called. device: for all of them. renew: cells
    that older code finished are run again. asked: {key of a cell: metrics}; where older code
    finished it and did not measure one of them, it is run again, too.
    """

    def __init__(self, scripts, runs, results, device="auto", renew=False, asked=None):
        self.scripts, self.runs, self.results = scripts, Path(runs), results
        self.device, self.renew, self.asked = device, renew, asked or {}
        self.failed = {}  # {key: a line that says why}

    def is_finished(self, cell):
        """Its result is there, with what is asked, and of today's code where that is wanted."""
        result = load_result(self.results, cell)
        if not result:
            return False
        is_todays = result.content["code"] == code_version()
        if not is_todays and not self.asked.get(cell.key, set()) <= set(result.content["metrics"]):
            return False
        return not self.renew or result.codes == {result.canonical(code_version())}

    def has_weights(self, cell):
        folder = self.runs / cell.key
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
            bar.set_postfix_str(f"{name}; see {cell.key}.txt")
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
        """Call its script's main, or let it go on where the same code has stopped: metrics.json."""
        script, folder = self.scripts[cell.script], make_folder(self.runs) / cell.key
        has_begun, mark = (folder / "last.pt").exists(), folder.with_suffix(".code")
        is_same_code = mark.exists() and mark.read_text() == code_version()
        settings = cell.settings | dict(
            out=str(folder),
            device=self.device,
            resume=has_begun and is_same_code,
            overwrite=not is_same_code,
            **{name: str(self.runs / need.key) for name, need in cell.needs.items()},
        )
        mark.write_text(code_version())
        with contextlib.ExitStack() as stack:
            stack.enter_context(threads(cell.threads))
            output = open(folder.with_suffix(".txt"), "a", encoding="utf-8")  # noqa: SIM115
            stack.enter_context(output)
            stack.enter_context(contextlib.redirect_stdout(output))
            stack.enter_context(contextlib.redirect_stderr(output))
            script.main(with_recipe(script.Config, settings))
        needed = {n: load_result(self.results, need) for n, need in cell.needs.items()}
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
