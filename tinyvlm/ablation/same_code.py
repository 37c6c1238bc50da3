"""Does today's code do what older code did? A new arm changes the code's version, and no number of
the arms that were there: then cells of both versions may be paired.

Asked of finished cells of the older version, one of each kind of model, which are run again: their
numbers must be the same to the last digit. (On other hardware they would not be.)
"""

import contextlib
import dataclasses
import io
from pathlib import Path

from tinyvlm.ablation.results import SAME_CODE, code_version, hardware
from tinyvlm.training.config import UserError, with_recipe
from tinyvlm.training.files import read_json, write_json

TIMES = ("seconds", "wall_seconds", "images_per_second")
# What a kind of model is: each of its parts is code of its own, which may have changed alone.
PARTS = (
    "encoder", "text_encoder", "loss", "projector", "decoder", "stages", "represent", "drop",
    "dataset", "language",
)  # fmt: skip


def check_same_code(scripts, runs, folder):
    """Run the cheapest finished cell of each kind again, for each older version of the code.

    Returns {version: True where all their numbers were the same}, and writes those down. UserError
    if there is no cell of other code that was run on this hardware.
    """
    contents = [read_json(path) for path in sorted(Path(folder).glob("*.json"))]
    same, today, found = read_json(Path(folder) / SAME_CODE), code_version(), {}
    here = [c for c in contents if c.get("hardware") == hardware()]
    older = {c["code"] for c in here} - {today} - {v for v in same if same[v] == same.get(today)}
    if not older:
        raise UserError(
            f"{folder} has no cell of other code from this hardware; nothing to compare"
        )
    for version in sorted(older):
        cells = [c for c in here if c["code"] == version]
        if not all(is_of_todays_recipe(c, scripts[c["script"]]) for c in cells):
            found[version] = False
            continue
        cheapest = {kind_of(c): c for c in sorted(cells, key=cost, reverse=True)}.values()
        found[version] = all(gives_the_same(c, scripts[c["script"]], runs) for c in cheapest)
        if found[version]:
            first = same.get(today) or same.get(version, version)
            same = same | {today: first, version: first}
            write_json(Path(folder) / SAME_CODE, same)
    return found


def is_of_todays_recipe(content, script):
    """Do the settings of a cell mean today what they meant when it ran? A recipe may have changed.
    (What is younger than the cell changes nothing that was there.)"""
    today = dataclasses.asdict(with_recipe(script.Config, content["settings"]))
    told = {"out", "device", "resume", "overwrite", *content["needs"]}
    was = content["config"]
    return all(was.get(name, value) == value for name, value in today.items() if name not in told)


def kind_of(content):
    """The script and the parts of the model that a cell trained."""
    return content["script"], *(str(content["settings"].get(part)) for part in PARTS)


def cost(content):
    return content["metrics"]["wall_seconds"]


def gives_the_same(content, script, runs):
    """Run a cell again: are all its numbers what they were?"""
    again = content["config"] | dict(out=str(Path(runs) / "again"), overwrite=True, resume=False)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        numbers = script.main(with_recipe(script.Config, again))
    return all(
        numbers[name] == value for name, value in content["metrics"].items() if name not in TIMES
    )
