"""A question of one's own: ablate.py's --arm "NAME: --flag value", twice or more."""

import shlex

from tinyvlm.ablation.cells import cell_of
from tinyvlm.ablation.experiment import OWN, Claim, Experiment
from tinyvlm.training.config import (
    UserError,
    did_you_mean,
    parse_settings,
    validate_config,
    with_recipe,
)


def own_question(config, scripts):
    """The experiment of ablate.py's --arm "NAME: --flag value". UserError if it makes no sense."""
    if config.name:
        raise UserError(f"--arm asks a question of your own; leave out {config.name}")
    arms = {}
    for text in config.arm:
        name, colon, flags = text.partition(":")
        if not colon or not name.strip() or name.strip() in arms:
            hint = 'write --arm "NAME: --flag value", each with a name of its own'
            raise UserError(f"--arm {text!r} names no arm; {hint}")
        arms[name.strip()] = settings_of_arm(text, flags, scripts[config.script].Config, config)
    if len(arms) < 2:
        raise UserError("one --arm compares nothing; give two or more")
    first, *others = arms
    return Experiment(
        name=OWN, question=" or ".join(arms) + "?", source="nobody",
        script=config.script, arms=arms, metric=config.metric, smallest=config.smallest,
        claims=tuple(Claim(arm, ">", first) for arm in others),
        common=dict(recipe=config.recipe),
    )  # fmt: skip


def settings_of_arm(text, flags, config_class, config):
    """The flags of an --arm `text`, read and checked: {setting: value}. UserError."""
    try:
        settings = parse_settings(config_class, shlex.split(flags))
    except ValueError as error:
        raise UserError(f"--arm {text!r} cannot be read: {str(error).lower()}; close it")
    if told := sorted({"seed", "out", "device", "resume", "overwrite"} & set(settings)):
        flag = told[0].replace("_", "-")
        raise UserError(f"--arm {text!r}: --{flag} is the same for all arms; leave it out")
    try:
        validate_config(with_recipe(config_class, dict(recipe=config.recipe) | settings))
    except UserError as error:
        raise UserError(f"--arm {text!r}: {error}")
    return settings


def check_metric(experiment, results):
    """UserError, before anything is run, if no finished cell of the script has the metric of one's
    own question item by item. results: see load_results."""
    contents = [result.content for those in results.values() for result in those]
    known = {m for c in contents if c["script"] == experiment.script for m in c["items"]}
    if known and experiment.name == OWN and experiment.metric not in known:
        what = f"--metric {experiment.metric} is not measured by {experiment.script}"
        hint = did_you_mean(experiment.metric, known)
        raise UserError(f"{what}{hint}; items.json of any run names what is")


def refuse_equal_arms(experiment, scripts):
    """UserError where a question of one's own compares something with itself."""
    known = {}
    for arm in experiment.arms:
        cell = cell_of(experiment.script, experiment.settings(arm), 0, scripts)
        other = known.setdefault(cell.key, arm)
        if other != arm:
            raise UserError(f"--arm {other!r} and {arm!r} are the same run; change one")
