"""What the cells of an experiment say: differences, intervals, verdicts."""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from tinyvlm.ablation import statistics
from tinyvlm.ablation.cells import cell_of
from tinyvlm.evaluation.statistics import RatioMetric

MOST_SEEDS = 32  # of which finished cells are looked for


@dataclass(frozen=True)
class Finding:
    """One claim and what became of it. Differences are those of shares: 0.01 is a point.

    seeds: those of one maker, see Result.maker. interval: Student's t over seeds. both: the
    bootstrap over seeds and scenes. left_out: seeds whose two cells are there, but of different
    makers, or of another one than the other seeds'. needed: so many seeds would decide, even if the
    difference is the smallest of interest.
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


def arms_of(experiment, scripts, results):
    """Finished cells that have what the experiment asks of its arms: {arm: {seed: Result}}.

    results: see load_results. Of a seed those that one maker made of most arms; of several such the
    one that made most of all seeds, or the latest; where an arm lacks that, its latest.
    """
    made = {}  # {seed: {arm: [Result]}}
    for seed in range(MOST_SEEDS):
        for arm in experiment.arms:
            cell = cell_of(experiment.script, experiment.settings(arm), seed, scripts)
            metric = experiment.metric_of(arm)
            those = [r for r in results.get(cell.key, []) if metric in r.content["metrics"]]
            if those:
                made.setdefault(seed, {})[arm] = those
    of_all = best_maker([those for by_arm in made.values() for those in by_arm.values()])
    found = {arm: {} for arm in experiment.arms}
    for seed, by_arm in made.items():
        best = best_maker(by_arm.values(), of_all)
        for arm, those in by_arm.items():
            same = [result for result in those if result.maker == best]
            found[arm][seed] = (same or those)[-1]
    return found


def best_maker(results_of_arms, preferred=None):
    """Who made most arms (or seeds); of several the preferred one, or the latest.

    results_of_arms: [[Result]].
    """
    arms, latest = Counter(), {}
    for those in results_of_arms:
        arms.update({result.maker for result in those})
        for result in those:
            latest[result.maker] = max(result.content["date"], latest.get(result.maker, ""))

    def order(maker):
        return arms[maker], maker == preferred, latest[maker]

    return max(arms, key=order, default=None)


def complete_seeds(arms):
    """Seeds of which all arms are there, all of one maker; see of_one_maker."""
    return of_one_maker(list(arms.values()))


def older_seeds(arms):
    """Those of complete_seeds that were not made by today's code on this machine, in order."""
    one = next(iter(arms.values()))
    return sorted(seed for seed in complete_seeds(arms) if not one[seed].is_todays)


def of_one_maker(arms):
    """The seeds of which all arms are there, made by one maker: by the one with most such seeds, of
    several the latest. arms: [{seed: Result}]."""
    seeds = set.intersection(*map(set, arms))
    alike = {s for s in seeds if len({results[s].maker for results in arms}) == 1}
    best = best_maker([[arms[0][s]] for s in alike])
    return {s for s in alike if arms[0][s].maker == best}


@dataclass(frozen=True)
class Answer:
    """What there is of an experiment. arms: {arm: {seed: Result}}."""

    experiment: object
    arms: dict
    findings: list

    @property
    def is_begun(self):
        """Has any claim the cells that it takes? Where nothing is claimed: two arms (one may have
        those of another experiment)?"""
        if not self.findings:
            return sum(map(bool, self.arms.values())) >= min(len(self.arms), 2)
        return any(finding.seeds for finding in self.findings)


def answer_of(experiment, scripts, results):
    arms = arms_of(experiment, scripts, results)
    return Answer(experiment, arms, findings_of(experiment, arms))


def findings_of(experiment, arms):
    """A Finding for each claim, Holm's correction over all of them, of both kinds of p."""
    raw = [compare(claim, arms, experiment) for claim in experiment.claims]
    corrected = [statistics.holm([found[p] for found in raw]) for p in ("p", "p_equivalent")]
    return [
        judge(found | dict(p=p, p_equivalent=p_equivalent), experiment)
        for found, p, p_equivalent in zip(raw, *corrected, strict=True)
    ]


def compare(claim, arms, experiment):
    """The paired differences of a claim's two arms: a dict of Finding's fields, but its verdict."""
    one = arms[claim.first]
    other = arms.get(claim.second, one)  # against a number, a seed needs but one cell
    both, seeds = sorted(set(one) & set(other)), sorted(of_one_maker([one, other]))
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
    margin = experiment.smallest if claim.relation == "=" else 0.0
    return found | dict(
        difference=float(differences.mean()),
        deviation=float(differences.std(ddof=1)) if len(seeds) > 1 else math.nan,
        interval=statistics.paired_interval(differences),
        both=statistics.bootstrap_interval(pairs),
        p=statistics.paired_p(differences, margin),
        p_equivalent=statistics.tost_p(differences, experiment.smallest),
    )


def judge(found, experiment):
    """A Finding from what compare gives, with corrected p's."""
    seeds, relation, smallest = len(found["seeds"]), found["claim"].relation, experiment.smallest
    verdict = statistics.verdict(
        relation, found["difference"], found["p"], found["p_equivalent"], found["both"], smallest
    )
    if seeds < statistics.MIN_SEEDS:
        verdict = "INCONCLUSIVE"
    needed = None
    if verdict == "INCONCLUSIVE" and not math.isnan(found["deviation"]):
        claims = len(experiment.claims)
        planned = statistics.seeds_needed(found["deviation"], smallest, relation, claims)
        needed = max(planned, statistics.MIN_SEEDS, seeds + 1)
    return Finding(**found, verdict=verdict, needed=needed)


def constant(metric, value):
    """A metric over the same scenes whose every item has this value."""
    return RatioMetric(value * metric.denominator, metric.denominator, metric.cluster)
