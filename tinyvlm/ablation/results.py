"""What finished cells found, as files in the repository: numbers, items, log; no weights.

A file is called KEY-CODE-HARDWARE.json. The same cell made by other code, or on another machine, is
another file beside it, and arms are compared within what one code made on one machine: so nothing
that is there is ever lost, and whoever adds seeds or arms elsewhere runs what they are compared
with again.
"""

import ast
import functools
import hashlib
import json
import math
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tinyvlm.evaluation.items import unpack
from tinyvlm.training.config import UserError
from tinyvlm.training.files import make_folder, read_json, read_log, write_atomically

SAME_CODE = "same_code.json"


@dataclass(frozen=True)
class Result:
    """What a finished cell found, as it is kept in the repository: no weights, some kB."""

    content: dict
    same_code: dict = field(default_factory=dict)  # see same_code.py

    def number(self, metric):
        """nan: this cell is older than the metric."""
        return self.content["metrics"].get(metric, math.nan)

    @property
    def log(self):
        return self.content["log"]

    def metric(self, name):
        """Item by item: RatioMetric."""
        return unpack(self.content["items"][name])

    @property
    def maker(self):
        """The versions of the code that made it and what it needed, and the machine. Cells of
        different makers are not paired."""
        needs = self.content["needs"].values()
        codes = {self.content["code"]}.union(*(need["codes"] for need in needs))
        return frozenset(map(self.canonical, codes)), self.content["hardware"]

    @property
    def is_todays(self):
        """Was it made by this code on this machine?"""
        return self.maker == (frozenset({self.canonical(code_version())}), hardware())

    def canonical(self, code):
        """The first version that gave the same numbers as this one."""
        return self.same_code.get(code, code)


def load_results(folder, key="*"):
    """All that is kept, or what is of one cell: {key of a cell: [Result]}, the latest last.
    UserError for a file that is no such thing."""
    same, found = read_json(Path(folder) / SAME_CODE), {}
    for path in sorted(Path(folder).glob(f"{key}-*-*.json")):
        result = Result(read_json(path), same)
        if "date" not in result.content:
            raise UserError(f"{path} is no finished cell; move it away")
        found.setdefault(path.name.split("-")[0], []).append(result)
    for results in found.values():
        results.sort(key=lambda result: result.content["date"])
    return found


def load_todays(folder, cell):
    """What today's code made of a cell on this machine: Result or None."""
    results = load_results(folder, cell.key).get(cell.key, [])
    return next((result for result in results if result.is_todays), None)


def made_here(cell):
    """A name for what today's code makes of a cell on this machine."""
    machine = hashlib.sha256(hardware().encode()).hexdigest()[:4]
    return f"{cell.key}-{code_version()}-{machine}"


def save_result(folder, cell, run_folder, needed):
    """Keep what a finished run's folder says. needed: {setting: Result} of the cells it needed."""
    run_folder = Path(run_folder)
    content = dict(
        script=cell.script,
        settings=cell.settings,
        threads=cell.threads or torch.get_num_threads(),
        needs={
            name: dict(key=need.key, settings=need.settings, codes=sorted(needed[name].maker[0]))
            for name, need in cell.needs.items()
        },
        code=code_version(),
        hardware=hardware(),
        date=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        config=read_json(run_folder / "config.json"),
        metrics=read_json(run_folder / "metrics.json"),
        log=read_log(run_folder),
        items=read_json(run_folder / "items.json"),
    )
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    write_atomically(make_folder(folder) / f"{made_here(cell)}.json", text.encode())


def hardware():
    """The processor (or the GPU), in words: times are those of cells of the same hardware."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = [line.split(":")[1].strip() for line in cpu_info() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def cpu_info():
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


# ---------------------------------------------------------------- the code's version

# What a run's numbers come from. Pictures, pages and the ablation itself are not among it.
SOURCES = ("data", "tinyvlm", "train_clip.py", "train_vlm.py")
NO_SOURCES = ("ablation", "plots.py", "hangul.py", "trace.py", "cases.py", "reports.py")


@functools.cache
def code_version(root=Path(__file__).parents[2]):
    """A hash of what the code does: of its syntax trees, without comments and docstrings. That of
    the files as they are when it is first asked for: what runs was read then."""
    paths = [p for name in SOURCES for p in sorted([root / name, *(root / name).rglob("*.py")])]
    hashed = hashlib.sha256()
    for path in paths:
        if path.is_file() and not set(path.parts) & set(NO_SOURCES):
            tree = WithoutDocstrings().visit(ast.parse(path.read_text(encoding="utf-8")))
            hashed.update(ast.dump(tree).encode())
    return hashed.hexdigest()[:8]


class WithoutDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node):
        return None if isinstance(node.value, ast.Constant) else node
