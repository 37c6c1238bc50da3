"""A question in, an answer with error bars out: arms, paired seeds, intervals, a verdict.

    python ablate.py                          # the catalogue: questions, claims, what is done
    python ablate.py plan connector           # cells, minutes, the smallest difference to be seen
    python ablate.py run connector --seeds 5  # what is missing; what was stopped goes on
    python ablate.py report                   # experiments/FINDINGS.md from all finished cells
    python ablate.py same                     # does today's code do what that of older cells did?
    python ablate.py run --script train_vlm --arm "mlp: --projector mlp" \\
        --arm "qformer: --projector qformer" --metric vqa --seeds 3    # one's own question

An experiment is data (experiments/catalogue.py). A cell is one run of a training script, in
runs/ablate; what it found is kept in experiments/cells. What is compared was made by one version of
the code on one machine: who has those adds seeds, anyone else runs them all anew.
"""

import dataclasses
from pathlib import Path

import train_clip
import train_vlm
from experiments.catalogue import EXPERIMENTS
from tinyvlm.ablation.cells import cell_of
from tinyvlm.ablation.experiment import LATE, OWN
from tinyvlm.ablation.findings import answer_of, arms_of, complete_seeds, older_seeds
from tinyvlm.ablation.own_question import check_metric, own_question, refuse_equal_arms
from tinyvlm.ablation.planning import kind_of_cell, shard_of, times_here, what_can_be_seen
from tinyvlm.ablation.plots import draw
from tinyvlm.ablation.report import (
    NOISE,
    PICTURES,
    begun,
    claims_list,
    page,
    section,
    shown_arms,
    twins_of,
    write_between_marks,
)
from tinyvlm.ablation.results import load_results
from tinyvlm.ablation.runner import Runner, run_on_gpus
from tinyvlm.ablation.same_code import check_same_code
from tinyvlm.training.config import (
    Stopped,
    UserError,
    did_you_mean,
    option,
    refuse_unused,
    run_script,
    validate_config,
)
from tinyvlm.training.files import make_folder, read_json, write_atomically, write_json

SCRIPTS = {"train_clip": train_clip, "train_vlm": train_vlm}
COMMANDS = ("list", "plan", "run", "report", "same")
REGISTERED = "registered.json"


@dataclasses.dataclass
class Config:
    command: str = option("list", "what to do", choices=COMMANDS, positional=True)
    name: str = option("", "an experiment of the catalogue; if empty all", positional=True)
    seeds: int = option(0, "seeds of each arm; 0: as many as the experiment wants", min=0, max=32)
    script: str = option("train_vlm", "of one's own question", choices=tuple(SCRIPTS))
    arm: tuple = option((), 'an arm of one\'s own question, "NAME: --flag value ..."; the first is'
                        " what the others are compared with")  # fmt: skip
    metric: str = option("vqa", "what one's own question is about, of metrics.json")
    recipe: str = option("lab", "of one's own question", choices=("default", "lab"))
    smallest: float = option(0.01, "its smallest difference of interest", min=1e-6, max=1.0)
    shard: str = option("", "i/n: the i-th of n parts of the seeds, counted from 0")
    jobs: int = option(1, "processes, one a GPU", min=1, max=64)
    renew: bool = option(False, "run again what other code or another machine has made")
    device: str = option("auto", "auto, cpu, mps, cuda or cuda:N")
    runs: str = option("runs/ablate", "folder of the runs, with their weights")
    cells: str = option("experiments/cells", "folder of what finished cells found")
    out: str = option("experiments/FINDINGS.md", "the page that report writes")
    readme: str = option("README.md", "the page between whose marks it lists the verdicts")


def main(config):
    """Do what the command says; returns {experiment: [Finding]} of what it was about. RuntimeError
    that names what failed, once all else is done and reported."""
    config = validate_config(config)
    experiments = chosen(config)
    if config.command == "list":
        return show_catalogue(experiments, config)
    if config.command == "plan":
        return show_plan(experiments, config)
    if config.command == "same":
        return show_same_code(config)
    try:
        failed = run(experiments, config) if config.command == "run" else ""
    except Stopped as stop:
        raise Stopped("stopped; the same command goes on", stop.args[1])
    found = report(experiments, config)
    if failed:
        raise RuntimeError(failed)
    return found


# ---------------------------------------------------------------- which experiments


def chosen(config):
    """The experiments that the flags are about. UserError if there is none of that name, or if two
    arms of one's own question are one."""
    if config.arm:
        experiment = own_question(config, SCRIPTS)
        check_metric(experiment, load_results(config.cells))
        refuse_equal_arms(experiment, SCRIPTS)
        return [experiment]
    refuse_unused(config, ["script", "metric", "recipe", "smallest"], "without --arm")
    if config.name:
        names = [experiment.name for experiment in EXPERIMENTS]
        if config.name not in names:
            hint = did_you_mean(config.name, names)
            raise UserError(
                f"there is no experiment {config.name!r}{hint}; python ablate.py lists them"
            )
        return [EXPERIMENTS[names.index(config.name)]]
    return list(EXPERIMENTS)


def cells_of(experiments, config, results):
    """The cells of seeds that are not complete (with --renew of all): {key: (cell, name)}.

    Seed by seed, so that an answer comes early and gets better; a shard has whole seeds, so that
    one machine makes all that is compared. Seeds that older code has made are enough as long as no
    further one is wanted: else today's makes all of them, for only one maker's are compared.
    """
    wanted = {}
    for experiment in experiments:
        seeds = seeds_of(experiment, config)
        done = complete_seeds(arms_of(experiment, SCRIPTS, results))
        if done >= set(seeds) and not config.renew:
            continue
        for seed in seeds[slice(*shard_of(config.shard))]:
            for arm in experiment.arms:
                cell = cell_of(experiment.script, experiment.settings(arm), seed, SCRIPTS)
                wanted.setdefault(cell.key, (cell, f"{experiment.name}: {arm}, seed {seed}"))
    return wanted


def seeds_of(experiment, config):
    return range(config.seeds or experiment.seeds)


# ---------------------------------------------------------------- commands


def show_catalogue(experiments, config):
    found, results = {}, load_results(config.cells)
    for experiment in experiments:
        answer, seeds = answer_of(experiment, SCRIPTS, results), seeds_of(experiment, config)
        done = len(complete_seeds(answer.arms) & set(seeds))
        print(f"{experiment.name}: {experiment.question} {done} of {len(seeds)} seeds done")
        print(f"    claimed: {experiment.source or 'nothing'}")
        print(f"    arms: {', '.join(experiment.arms)}")
        found[experiment.name] = answer.findings
        for finding in answer.findings:
            seeds = ", ".join(map(str, finding.seeds))
            verdict = f"{finding.verdict} (seed {seeds})" if seeds else "not run"
            print(f"    {finding.claim}: {verdict}")
    return found


def show_plan(experiments, config):
    """Cells, minutes and what so many seeds can show; returns {}."""
    times, results, runner = times_here(config.cells), load_results(config.cells), runner_of(config)
    for experiment in experiments:
        arms, seeds = arms_of(experiment, SCRIPTS, results), len(seeds_of(experiment, config))
        cells = [cell for cell, _ in cells_of([experiment], config, results).values()]
        missing = runner.missing(cells)
        known = [times[k] for k in map(kind_of_cell, missing) if k in times]
        unknown = len(missing) - len(known)
        print(f"{experiment.name}: {len(missing)} cells to run, with what they need")
        if cells and (older := older_seeds(arms)):
            print(f"    seeds {', '.join(map(str, older))} are of older code or another machine and"
                  " are run again, for those of one maker alone are compared")  # fmt: skip
        print(f"    about {sum(known) / 60:.0f} minutes here", end="")
        print(f", and {unknown} that were never timed here" if unknown else "")
        print(f"    {what_can_be_seen(experiment, arms, seeds)}")
    return {}


def show_same_code(config):
    """Which older versions of the code give today's numbers; returns {version: bool}."""
    found = check_same_code(SCRIPTS, config.runs, config.cells)
    for version, is_same in found.items():
        print(
            f"code {version}: {'the same numbers as' if is_same else 'other numbers than'} today's"
        )
    return found


def runner_of(config):
    return Runner(SCRIPTS, config.runs, config.cells, config.device)


def run(experiments, config):
    """Run what is missing. What failed, in words, once all others are done; "" if nothing did."""
    results = load_results(config.cells)
    wanted = cells_of(experiments, config, results)
    for experiment in experiments:
        register(experiment, results, config)
    if config.jobs > 1:
        return run_on_gpus(__file__, config)
    names = {key: name for key, (_, name) in wanted.items()}
    metric = experiments[0].metric if len(experiments) == 1 else ""
    failed = runner_of(config).run([cell for cell, _ in wanted.values()], names, metric)
    lines = "; ".join(f"{name}: {why}" for name, why in failed.items())
    return f"{len(failed)} cells failed: {lines}" if failed else ""


def register(experiment, results, config):
    """Write down what the experiment is, before its first cell runs; LATE, if cells that it shares
    with others have run before."""
    path = make_folder(config.cells) / REGISTERED
    known = read_json(path)
    if experiment.name not in known and experiment in EXPERIMENTS:
        late = LATE if any(arms_of(experiment, SCRIPTS, results).values()) else ""
        write_json(path, known | {experiment.name: late + experiment.registration})


def report(experiments, config):
    """Tables and pictures from what is there; all experiments: the page."""
    registered, results = read_json(Path(config.cells) / REGISTERED), load_results(config.cells)
    if not results and experiments == list(EXPERIMENTS):
        raise UserError(f"--cells {config.cells} has no finished cell; nothing is reported")
    answers = [answer_of(experiment, SCRIPTS, results) for experiment in experiments]
    noise = [experiment for experiment in EXPERIMENTS if experiment.name in NOISE]
    twins = twins_of([answer_of(experiment, SCRIPTS, results) for experiment in noise])
    for answer in begun(answers):
        name, is_ours = answer.experiment.name, answer.experiment in EXPERIMENTS
        folder = make_folder(Path(config.out).parent / PICTURES if is_ours else config.runs)
        draw(answer.experiment, shown_arms(answer), folder / f"{name}.png")
        print(section(answer, registered.get(name), twins))
        print(f"{folder}/{name}.png draws it\n")
    if len(experiments) == 1 and not begun(answers):
        [name] = [experiment.name for experiment in experiments]
        hint = "" if name == OWN else f"; python ablate.py run {name}"
        print(f"no claim of {name} has the cells that it takes{hint}")
    if experiments == list(EXPERIMENTS):
        write_atomically(Path(config.out), page(answers, registered).encode())
        write_between_marks(Path(config.readme), claims_list(answers, registered))
        print(f"{config.out} has all of these, {config.readme} the verdicts")
    return {answer.experiment.name: answer.findings for answer in begun(answers)}


if __name__ == "__main__":
    run_script(main, Config, __doc__)
