"""The experiments of ablate.py: claims from the literature, as data. Fixed before they run.

An experiment may get more seeds; whatever else is changed later shows in the report.
"""

from tinyvlm.ablation.experiment import Claim, Experiment

VQA = ("vqa_relation", "vqa_count", "fact_f1")

EXPERIMENTS = (
    Experiment(
        name="naive",
        question="Does a language model that is told labels invent what aligned tokens do not?",
        source="the usual argument for aligned tokens over classify-then-talk; no number is given",
        script="train_vlm",
        arms=dict(linear=dict(projector="linear"), label=dict(projector="label")),
        claims=(Claim("label", ">", "linear"),),
        metric="misdescribed_i",
        smallest=0.02,
        shown=("chair_i", "fact_f1", "vqa"),
    ),
    Experiment(
        name="connector",
        question="Is a connector of two layers better than one matrix?",
        source="LLaVA-1.5, Liu et al. 2023, table 9: GQA 46.8 -> 47.3 from linear to MLP",
        script="train_vlm",
        arms=dict(linear=dict(projector="linear"), mlp=dict(projector="mlp")),
        claims=(Claim("mlp", ">", "linear"),),
        metric="vqa",
        shown=VQA,
    ),
    Experiment(
        name="encoder",
        question="Where should the eye come from: nowhere, or from CLIP?",
        source="LiMBeR, Merullo et al. 2022: captions from a random encoder are far worse than from"
        " CLIP's, all else frozen",
        script="train_vlm",
        arms={
            "CLIP": {},
            "random, frozen": dict(encoder_init="random", train_instruct="projector.*,decoder.*"),
        },
        claims=(Claim("CLIP", ">", "random, frozen"),),
        metric="vqa",
        shown=VQA,
    ),
)
