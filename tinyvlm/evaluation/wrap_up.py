"""The end of both training scripts, once the test split is scored."""

from tinyvlm.evaluation import plots
from tinyvlm.evaluation.items import save_items
from tinyvlm.evaluation.reference import compare_with, find_references
from tinyvlm.evaluation.reports import print_table
from tinyvlm.training.files import read_log

OF_A_STAGE = "test_"  # before the names, in the log, of what a stage found on the test split


def wrap_up(run, table, scores, decoder=""):
    """Print the table and where it lies among runs with the same settings, write items.json,
    curves.png and, last, metrics.json, for who has that is finished; returns what it holds.

    table: {title: metric}, of scores {name: metric}. decoder: of a VLM, its kind.
    """
    print_table("test split", table)
    references = find_references(run.config, f"train_{run.kind}", decoder)
    shown = {name: m for name, m in scores.items() if any(m is row for row in table.values())}
    for line in compare_with(references, shown):
        print(f"  {line}")
    save_items(run.folder / "items.json", scores)
    log = read_log(run.folder)
    tested = {n: value for line in log for n, value in line.items() if n.startswith(OF_A_STAGE)}
    plots.curves(log, run.folder / "curves.png", [content["log"] for content in references])
    return run.finish(scores, {n.removeprefix(OF_A_STAGE): v for n, v in tested.items()})
