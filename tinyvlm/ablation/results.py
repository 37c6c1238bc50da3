"""What finished cells found, as files in the repository: numbers, items, log; no weights."""

import ast
import functools
import hashlib
import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tinyvlm.evaluation.items import unpack
from tinyvlm.training.files import make_folder, read_json, read_log, write_atomically

SAME_CODE = "same_code.json"


@dataclass(frozen=True)
class Result:
    """What a finished cell found, as it is kept in the repository: no weights, some kB."""

    content: dict
    same_code: dict = field(default_factory=dict)  # see same_code.py

    def number(self, metric):
        return self.content["metrics"][metric]

    @property
    def log(self):
        return self.content["log"]

    def metric(self, name):
        """Item by item: RatioMetric."""
        return unpack(self.content["items"][name])

    @property
    def codes(self):
        """The versions of the code that made it and what it needed: a set. Cells of different code
        are not paired."""
        needs = self.content["needs"].values()
        codes = {self.content["code"]}.union(*(need["codes"] for need in needs))
        return set(map(self.canonical, codes))

    def canonical(self, code):
        """The first version that gave the same numbers as this one."""
        return self.same_code.get(code, code)


def load_result(folder, cell):
    """Result, or None if the cell is not finished."""
    content = read_json(Path(folder) / f"{cell.key}.json")
    return Result(content, read_json(Path(folder) / SAME_CODE)) if content else None


def save_result(folder, cell, run_folder, needed):
    """Keep what a finished run's folder says. needed: {setting: Result} of the cells it needed."""
    run_folder = Path(run_folder)
    content = dict(
        script=cell.script,
        settings=cell.settings,
        threads=cell.threads or torch.get_num_threads(),
        needs={
            name: dict(key=need.key, settings=need.settings, codes=sorted(needed[name].codes))
            for name, need in cell.needs.items()
        },
        code=code_version(),
        hardware=hardware(),
        config=read_json(run_folder / "config.json"),
        metrics=read_json(run_folder / "metrics.json"),
        log=read_log(run_folder),
        items=read_json(run_folder / "items.json"),
    )
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    write_atomically(make_folder(folder) / f"{cell.key}.json", text.encode())


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
