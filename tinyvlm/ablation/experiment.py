"""What an experiment is: data. A question, its source, arms, and what was claimed before it ran."""

import hashlib
import json
from dataclasses import dataclass, field

RELATIONS = (">", "<", "=")
# The families of questions, as metrics.
FAMILIES = tuple(
    f"vqa_{f}" for f in ("existence", "count", "colour", "shape", "size", "relation", "compare")
)
OWN = "own-question"  # the name of an experiment that stands in no catalogue


@dataclass(frozen=True)
class From:
    """The value of a setting that names another run's folder: that run, of the same seed."""

    script: str
    settings: dict


@dataclass(frozen=True)
class Claim:
    """`first` RELATION `second` in the experiment's metric: an arm, ">", "<" or "=", and another
    arm or a number, such as chance."""

    first: str
    relation: str
    second: object

    def __str__(self):
        return f"{self.first} {self.relation} {self.second}"


@dataclass(frozen=True)
class Experiment:
    """A question about these models, fixed before its first cell runs.

    arms: {name: {setting: value}} of `script` (train_clip or train_vlm), beside `common`, which all
    have; "threads" among them is torch's. metric: a name in a run's metrics.json. metrics: {arm:
    another name} for arms that are one run, looked at in several ways. smallest: the smallest
    difference of interest. source: who claimed it, and what was measured there; "" where there are
    no claims, and numbers alone are wanted. seeds: how many are wanted. shown: further metrics of
    the tables, about which nothing is claimed.
    """

    name: str
    question: str
    source: str
    script: str
    arms: dict
    claims: tuple
    metric: str
    smallest: float = 0.01
    seeds: int = 3
    common: dict = field(default_factory=lambda: dict(recipe="lab"))
    shown: tuple = ()
    metrics: dict = field(default_factory=dict)

    def __post_init__(self):
        for claim in self.claims:
            named = [claim.first, claim.second]
            unknown = [name for name in named if isinstance(name, str) and name not in self.arms]
            if unknown or claim.relation not in RELATIONS:
                raise ValueError(f"experiment {self.name}: the claim {claim} names no two arms")

    def settings(self, arm):
        return self.common | self.arms[arm]

    def metric_of(self, arm):
        return self.metrics.get(arm, self.metric)

    @property
    def registration(self):
        """A hash of all that is fixed before the first cell runs; more seeds may follow."""
        fixed = {name: value for name, value in vars(self).items() if name not in OPEN}
        if not self.metrics:
            fixed.pop("metrics")  # younger than some registrations
        text = json.dumps(fixed, sort_keys=True, default=vars)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


OPEN = ("seeds", "shown", "source")  # what may change later: none of it changes what is asked
LATE = "~"  # stands before the hash of what was registered when some of its cells had run


def spelled(settings):
    """Settings as the flags that one would type."""
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, From):
            words.append(f"--{flag} ({value.script}.py {spelled(value.settings)})")
        else:
            words.append(f"--{flag} {value}")
    return " ".join(words)
