"""Findings as Markdown: the page of all experiments, and a table on the screen for one."""

import math
import textwrap

import numpy as np

from tinyvlm.ablation.experiment import FAMILIES, LATE, OWN, spelled
from tinyvlm.ablation.planning import number_of_seeds
from tinyvlm.ablation.tables import interval, median, number, outcome, over_seeds, points, table
from tinyvlm.training.files import write_atomically

PICTURES = "findings"  # folder of the pictures, beside the page
NOISE = ("noise", "noise-clip")  # whose arms "one" and "another" differ in rounding alone
# Arms that are the recipe as it is, and of which metrics it is to be seen how seeds scatter.
PLAIN = (
    ("negatives", "hard negatives", ("r_at_1", "zero_shot", "group_attributes")),
    ("guessing", "qformer", ("vqa", *FAMILIES, "fact_f1")),
)
VERDICTS = ("REPRODUCED", "REVERSED", "NULL", "INCONCLUSIVE")
MARKS = "<!-- written by ablate.py report -->\n", "<!-- end of it -->"  # in README.md
HEAD = """\
# Claims about vision-language models, re-tested

Written by `python ablate.py report` from `experiments/cells/`; the experiments stand in
`experiments/catalogue.py`. Where nothing else is said they use `--recipe lab`: CLIP in 260 steps,
a VLM in 1,848 of language, which arms of a seed share and whose seconds are not counted, 66 of
align and 286 of instruct. So numbers are lower than those of RESULTS.md.

Arms of a seed share data, order and initial weights, so differences are paired, within one version
of the code on one machine. `t`: 95 % interval of the mean difference over seeds (Student); `seeds
and scenes`: bootstrap over both; `p`: of the test of "no difference" (where "=" is claimed: of
"none larger than the smallest of interest"), small where there is one, Holm's over the claims of an
experiment; `p (equal)`: of two one-sided tests of "a difference as large as the smallest of
interest", small where arms are equal, corrected, too. REPRODUCED, REVERSED: a difference in the
claimed, in the opposite direction (it may be smaller than the smallest of interest), or arms that
are equal, or not, where "=" is claimed; NULL: a difference too small to be of interest;
INCONCLUSIVE: more seeds are needed. All but the last pass both p and the bootstrap. What is claimed
is claimed of arms as they are here; where a source does otherwise, its line says so.

`vqa`: the mean of seven families of questions, asked in minimal pairs (chance: 0.357); `vqa_blind`:
without the picture, `vqa_unpaired_blind`: of questions that no twin stands beside; `fact_f1`: of
captions; `r_at_1`: retrieval among 256, both ways, `r_at_1_of_2048` among so many; `zero_shot`: of
64 classes, `zero_shot_held_out`: of pictures of a pair of colour and shape that training never had,
or (known) of one that it had; `group_attributes`: Winoground's group score on exchanged colours and
sizes; `pair_accuracy`: own caption against that of the picture's edited twin; `matched_cosine`: of
a picture and its caption; `modality_gap`: from the mean of the pictures' vectors to that of the
captions' (0.01 is a point); `misdescribed_i`: of the objects in a caption, those not there as
described, `chair_i`: those whose shape is not there; `vqa_hard_count`: "how many", where it is two
or more; `count_all`: how many things in all; `premise_recognised`: told that there is no such
thing, or several. Seconds are those of the whole command. In the pictures dots are seeds, bars 95 %
intervals of their mean (Student's, which may pass 0 and 1). An arm may differ between experiments
whose code differs. Hashes are those of sources, and of experiments as they were registered; they
are no commits.
"""


def page(answers, registered):
    """FINDINGS.md of all experiments that have finished cells. registered: {name: hash}."""
    parts, summary = [], []
    twins = twins_of(answers)
    for answer in begun(answers):
        experiment = answer.experiment
        summary += [summary_row(experiment, finding) for finding in answer.findings]
        parts.append(section(answer, registered.get(experiment.name), twins))
        parts.append(f"![{experiment.name}]({PICTURES}/{experiment.name}.png)\n")
    names = [answer.experiment.name for answer in answers if not answer.is_begun]
    if names:
        listed = textwrap.wrap(", ".join(names) + ".", 100, break_on_hyphens=False)
        parts += ["## Not run yet", "", *listed, ""]
    head = ["experiment", "claim", "difference, points", "t", "seeds", "verdict"]
    return "\n".join([HEAD, *table(head, summary), *parts, *scatter(answers)]).rstrip() + "\n"


def scatter(answers):
    """How long the lab recipe takes, and how far its seeds are apart: lines of the page."""
    plain = {(a.experiment.name, arm): r for a in answers for arm, r in a.arms.items()}
    rows = []
    for experiment, arm, metrics in PLAIN:
        results = list(plain.get((experiment, arm), {}).values())
        for metric in metrics if len(results) > 1 else ():
            values = [result.number(metric) for result in results]
            seconds = median([result.number("wall_seconds") for result in results])
            script, deviation = results[0].content["script"], f"{100 * np.std(values, ddof=1):.1f}"
            row = [script, metric, over_seeds(values), deviation, str(len(values)), seconds]
            rows.append(row)
    head = ["script", "metric", "mean (lowest to highest)", "standard deviation, points"]
    lines = [
        "## The lab recipe",
        "",
        "All at its defaults; a language stage is shared by a seed.",
        "",
    ]
    return lines + table([*head, "seeds", "seconds (median)"], rows) if rows else []


def begun(answers):
    return [answer for answer in answers if answer.is_begun]


def twins_of(answers):
    """The arms of each noise experiment among them."""
    return [answer.arms for answer in answers if answer.experiment.name in NOISE]


def claims_list(answers, registered):
    """README's list: the claims by verdict, of an experiment one with its difference in points and
    how many more, of open ones how many. A star: it was not registered before it ran."""
    lines = []
    for verdict in VERDICTS:
        listed = []
        for answer in begun(answers):
            own = [f for f in answer.findings if f.seeds and f.verdict == verdict]
            name = answer.experiment.name
            name += "*" * (registered.get(name) != answer.experiment.registration)
            if own and verdict == "INCONCLUSIVE":
                listed.append(f"{name} {len(own)}")
            elif own:
                about = f"{name} (`{answer.experiment.metric}`)"
                more = f" and {len(own) - 1} more" if len(own) > 1 else ""
                listed.append(f"{about} `{own[0].claim}` ({points(own[0].difference)}){more}")
        text = f"- **{verdict}** {'; '.join(listed)}."
        whole_words = dict(subsequent_indent="  ", break_on_hyphens=False)
        lines += textwrap.wrap(text, 110, **whole_words) if listed else []
    return "\n".join(lines) + "\n"


def write_between_marks(path, text):
    """Put a text between the two marks of a page, if it has them."""
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    if MARKS[0] in page:
        head, rest = page.split(MARKS[0])
        page = head + MARKS[0] + text + MARKS[1] + rest.split(MARKS[1], 1)[1]
        write_atomically(path, page.encode())


def summary_row(experiment, finding):
    link = f"[{experiment.name}](#{experiment.name})"
    return [
        link, f"{finding.claim} ({experiment.metric})", points(finding.difference),
        interval(finding.interval), str(len(finding.seeds)), outcome(finding),
    ]  # fmt: skip


def section(answer, registered, twins):
    """One experiment: question, source, arms, claims. twins: see twins_of."""
    experiment, findings = answer.experiment, answer.findings
    lines = [f"## {experiment.name}", "", experiment.question, ""]
    lines += [*textwrap.wrap(f"Claimed: {experiment.source or 'nothing'}", 100), ""]
    shown = shown_arms(answer)
    lines += [*arms_table(experiment, shown), *(claims_table(findings) if findings else [])]
    lines += [f"- {note}" for note in notes(experiment, shown, findings, registered)]
    lines += [f"- {note}" for note in noise_notes(experiment, shown, twins)]
    return "\n".join([*lines, ""])


def shown_arms(answer):
    """The results of an answer's arms that are shown: {arm: {seed: Result}}, see of_the_claims."""
    return {
        arm: of_the_claims(arm, results, answer.findings) for arm, results in answer.arms.items()
    }


def of_the_claims(arm, results, findings):
    """The results {seed: Result} of an arm that its claims were judged by, so that the means of two
    arms differ by what is said of them; all, if there are no such claims."""
    own = [f for f in findings if f.seeds and arm in (f.claim.first, f.claim.second)]
    seeds = {seed for finding in own for seed in finding.seeds}
    return {seed: result for seed, result in results.items() if seed in seeds or not own}


def arms_table(experiment, arms):
    """Means over seeds, and their range."""
    metrics = [experiment.metric, *experiment.shown]
    rows = []
    for arm, results in arms.items():
        read = [experiment.metric_of(arm), *experiment.shown]
        settings = spelled(experiment.arms[arm])
        cells = [over_seeds([r.number(metric) for r in results.values()]) for metric in read]
        cells.append(median([r.number("wall_seconds") for r in results.values()]))
        rows.append([arm, f"`{settings}`" if settings else "", str(len(results)), *cells])
    return table(["arm", "settings", "seeds", *metrics, "seconds (median)"], rows)


def claims_table(findings):
    rows = [
        [
            str(finding.claim), points(finding.difference), interval(finding.interval),
            interval(finding.both), number(finding.p), number(finding.p_equivalent),
            str(len(finding.seeds)), f"**{outcome(finding)}**",
        ]
        for finding in findings
    ]  # fmt: skip
    head = ["claim", "difference, points", "t", "seeds and scenes", "p", "p (equal)", "seeds"]
    return table([*head, "verdict"], rows)


def notes(experiment, arms, findings, registered):
    """What one has to know besides: size of interest, registration, code, hardware, command."""
    if experiment.claims:
        yield f"Smallest difference of interest, in points: {100 * experiment.smallest:g}."
    if registered is None:
        yield "Not registered before it ran."
    elif registered == experiment.registration:
        yield f"Registered before its first cell ran: `{registered}`."
    elif registered == LATE + experiment.registration:
        own = experiment.registration
        yield f"Registered when cells that it shares with others had run: `{own}`."
    else:
        yield f"**Changed since its first cell ran**: `{registered}`, `{experiment.registration}`."
    results = [result for by_seed in arms.values() for result in by_seed.values()]
    for what in ("code", "hardware"):
        values = sorted({result.content[what] for result in results})
        yield f"{what.capitalize()}: {'; '.join(values)}."
    for finding in findings:
        if finding.left_out:
            left_out = ", ".join(map(str, finding.left_out))
            yield f"Left out of {finding.claim}, being of different code or machines: {left_out}."
        if len(finding.seeds) > experiment.seeds:
            yield (
                f"{finding.claim}: more than the {experiment.seeds} seeds planned; if they were run"
                " because of what the first ones showed, p is too low."
            )
        if finding.needed:
            about = f"about {number_of_seeds(finding.needed)} seeds would decide"
            size = f"a difference of {100 * experiment.smallest:g}"
            if finding.claim.relation == "=":
                size = f"being equal within {100 * experiment.smallest:g}"
            yield f"{finding.claim}: {about}, were it {size}."
    if experiment.name != OWN:
        yield f"`python ablate.py run {experiment.name} --seeds {experiment.seeds}`"


def noise_notes(experiment, arms, twins):
    """How far two runs of the same recipe and maker are apart that differ in rounding alone."""
    metric, recipe = experiment.metric, experiment.common.get("recipe")
    makers = {result.maker for by_seed in arms.values() for result in by_seed.values()}
    apart = [
        abs(one.number(metric) - noise["another"][seed].number(metric))
        for noise in twins
        for seed, one in noise["one"].items()
        if seed in noise["another"] and {one.maker, noise["another"][seed].maker} <= makers
        if one.content["config"].get("recipe") == recipe
    ]
    apart = [difference for difference in apart if not math.isnan(difference)]
    if apart:
        moved = f"{100 * np.mean(apart):.1f} points (mean of {len(apart)} seeds)"
        yield f"Rounding alone, by another number of threads, moves `{metric}` by {moved}."
