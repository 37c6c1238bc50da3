"""A cell: one call of a training script, named by a hash of its settings.

Experiments share cells: one CLIP a seed, one language stage a seed, one baseline. A cell may need
others, whose folders stand among its settings.
"""

import hashlib
import json
from dataclasses import dataclass

from tinyvlm.ablation.experiment import From, spelled
from tinyvlm.decoders import DECODERS
from tinyvlm.training.config import with_recipe
from tinyvlm.training.stages import parse_stages

# What a CLIP shares with the VLM that takes its encoder.
OF_THE_WORLD = ("recipe", "dataset", "language", "held_out")
# What the language stage depends on. (Its number of steps is computed.)
OF_THE_LANGUAGE_STAGE = OF_THE_WORLD + (
    "dim", "depth", "heads", "decoder", "batch_size", "num_questions", "num_blind",
    "lr", "muon_lr", "warmup_language", "weight_decay", "train_language",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """script: train_clip or train_vlm. settings: those that are not the defaults of its recipe.
    needs: {setting: the cell whose folder is its value}. threads: of torch; 0: as it likes."""

    script: str
    settings: dict
    needs: dict
    threads: int = 0

    @property
    def key(self):
        parts = [self.script, self.settings, {name: cell.key for name, cell in self.needs.items()}]
        text = json.dumps(parts + [self.threads] * bool(self.threads), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __str__(self):
        own = {name: value for name, value in self.settings.items() if name != "recipe"}
        return f"{self.script}.py {spelled(own)}"

    def with_needs(self):
        """All that must run before it, and it: [Cell]."""
        return [part for cell in self.needs.values() for part in cell.with_needs()] + [self]


def cell_of(script, settings, seed, scripts):
    """The cell of an arm's settings and a seed, with the cells that it needs.

    scripts: {name: module}. A VLM takes its encoder from a CLIP of the same world and seed, and its
    decoder from a language stage that all arms with this decoder share, unless it says otherwise.
    """
    own = {name: value for name, value in settings.items() if name != "threads"} | dict(seed=seed)
    needs = {
        name: cell_of(value.script, value.settings, seed, scripts)
        for name, value in settings.items()
        if isinstance(value, From)
    }
    own = {name: value for name, value in own.items() if name not in needs}
    config = with_recipe(scripts[script].Config, own)
    own = without_defaults(own, config)
    if script == "train_vlm":
        clip = {name: own[name] for name in OF_THE_WORLD if name in own}
        if config.encoder_init == "clip" and not {"clip", "encoder", "init"} & set(settings):
            needs["clip"] = cell_of("train_clip", clip, seed, scripts)
        language = language_stage(config, own) if config.decoder in DECODERS else None
        if language and "decoder" not in needs and "init" not in settings:
            needs["decoder"] = cell_of(script, language, seed, scripts)
            told = ("decoder", "train_language", "warmup_language")  # by the cell that it needs
            own = {name: value for name, value in own.items() if name not in told}
    return Cell(script, own, needs, settings.get("threads", 0))


def without_defaults(settings, config):
    """The settings without those that say what the config's recipe says: an arm that spells out a
    default is no other cell than the default."""
    default = with_recipe(type(config), dict(recipe=config.recipe))
    told = ("recipe", "seed") if config.recipe != type(config)().recipe else ("seed",)
    return {n: v for n, v in settings.items() if n in told or v != getattr(default, n)}


def language_stage(config, settings):
    """The settings of a run of the language stage alone, where others come after it; or None."""
    stages = parse_stages(config, config.steps)
    if len(stages) == 1 or not stages[0].text_only:
        return None
    kept = {name: settings[name] for name in OF_THE_LANGUAGE_STAGE if name in settings}
    # Nothing of its test is read.
    alone = dict(stages="language", shares="1", steps=stages[0].end, encoder_init="random")
    return kept | alone | dict(eval_items=1)
