"""What the cells of an experiment say: differences, intervals, verdicts."""

import math
from dataclasses import dataclass

import numpy as np

from tinyvlm.ablation import statistics
from tinyvlm.ablation.cells import cell_of
from tinyvlm.ablation.results import load_result
from tinyvlm.evaluation.statistics import RatioMetric

MOST_SEEDS = 32  # of which finished cells are looked for


@dataclass(frozen=True)
class Finding:
    """One claim and what became of it. Differences are those of shares: 0.01 is a point.

    interval: Student's t over seeds. both: the bootstrap over seeds and scenes. left_out: seeds
    whose two cells are there, but of different code. needed: seeds that would decide.
    """

    claim: object
    seeds: list
    difference: float
    deviation: float
    interval: tuple
    both: tuple
    p: float
    p_equivalent: float
    verdict: str
    needed: int | None
    left_out: list


def arms_of(experiment, scripts, folder):
    """Finished cells that have what the experiment asks of its arms: {arm: {seed: Result}}."""
    found = {arm: {} for arm in experiment.arms}
    for arm, results in found.items():
        for seed in range(MOST_SEEDS):
            cell = cell_of(experiment.script, experiment.settings(arm), seed, scripts)
            result = load_result(folder, cell)
            if result and experiment.metric_of(arm) in result.content["metrics"]:
                results[seed] = result
    return found


@dataclass(frozen=True)
class Answer:
    """What there is of an experiment. arms: {arm: {seed: Result}}."""

    experiment: object
    arms: dict
    findings: list

    @property
    def is_begun(self):
        """Has any claim the cells that it takes?"""
        return any(finding.seeds for finding in self.findings)


def answer_of(experiment, scripts, folder):
    arms = arms_of(experiment, scripts, folder)
    return Answer(experiment, arms, findings_of(experiment, arms))


def findings_of(experiment, arms):
    """A Finding for each claim, Holm's correction over all of them."""
    raw = [compare(claim, arms, experiment) for claim in experiment.claims]
    ps = statistics.holm([found["p"] for found in raw])
    return [judge(found, p, experiment.smallest) for found, p in zip(raw, ps, strict=True)]


def compare(claim, arms, experiment):
    """The paired differences of a claim's two arms: a dict of Finding's fields, but its verdict."""
    one = arms[claim.first]
    other = arms.get(claim.second, one)  # against a number, a seed needs but one cell
    both = sorted(set(one) & set(other))
    seeds = [seed for seed in both if one[seed].codes == other[seed].codes]
    found = dict(claim=claim, seeds=seeds, left_out=[seed for seed in both if seed not in seeds])
    nothing = (math.nan, math.nan)
    if not seeds:
        empty = dict(difference=math.nan, deviation=math.nan, p=math.nan, p_equivalent=math.nan)
        return found | empty | dict(interval=nothing, both=nothing)
    metrics = [experiment.metric_of(arm) for arm in (claim.first, claim.second)]
    pairs = [
        [r[seed].metric(m) for r, m in zip((one, other), metrics, strict=True)] for seed in seeds
    ]
    if not isinstance(claim.second, str):
        pairs = [(metric, constant(metric, claim.second)) for metric, _ in pairs]
    differences = np.array([first.value - second.value for first, second in pairs])
    return found | dict(
        difference=float(differences.mean()),
        deviation=float(differences.std(ddof=1)) if len(seeds) > 1 else math.nan,
        interval=statistics.paired_interval(differences),
        both=statistics.bootstrap_interval(pairs),
        p=statistics.paired_p(differences),
        p_equivalent=statistics.tost_p(differences, experiment.smallest),
    )


def judge(found, p, smallest):
    verdict = statistics.verdict(
        found["claim"].relation, found["difference"], p, found["p_equivalent"]
    )
    if len(found["seeds"]) < statistics.MIN_SEEDS:
        verdict = "INCONCLUSIVE"
    needed = None
    if verdict == "INCONCLUSIVE" and not math.isnan(found["deviation"]):
        needed = max(statistics.seeds_needed(found["deviation"], smallest), statistics.MIN_SEEDS)
    return Finding(**found | dict(p=p), verdict=verdict, needed=needed)


def constant(metric, value):
    """A metric over the same scenes whose every item has this value."""
    return RatioMetric(value * metric.denominator, metric.denominator, metric.cluster)
