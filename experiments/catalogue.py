"""The experiments of ablate.py: claims from the literature, as data. Fixed before they run.

An experiment may get more seeds; whatever else is changed later shows in the report.
"""

from tinyvlm.ablation.experiment import FAMILIES, Claim, Experiment, From

ANSWERS = ("vqa_relation", "vqa_count", "fact_f1")
MANY = "r_at_1_of_2048"
KEPT = dict(learn_temperature=False)
FROZEN = dict(train_instruct="projector.*,decoder.*")  # the encoder, in all stages
# A run in which everything learns from captions alone, for its encoder; of --projector label the
# encoder learns which of 18 words are there.
EYE = dict(
    recipe="lab", encoder_init="random", stages="instruct", shares="1", steps=700,
    num_questions=0, num_blind=0,
)  # fmt: skip
# BLIP-2's first stage, 700 steps, before the others, which keep theirs: 1,848, 66 and 286.
REPRESENT = dict(
    steps=2900,
    stages="language,represent,align,instruct",
    shares="0.6372414,0.2413793,0.0227586,0.0986207",
)
# The same 700 steps more of instruct: 986.
LONGER = dict(steps=2900, shares="0.6372414,0.0227586,0.34")

# The same with the default recipe's 1,380, 115 and 805.
STAGE_1 = dict(
    steps=3000,
    stages="language,represent,align,instruct",
    shares="0.46,0.233333,0.038333,0.268334",
)
# A trained run (of linear, which has 196 image tokens) as it is, asked again: nothing learns.
ASKED_AGAIN = dict(
    projector="linear", init=From("train_vlm", dict(recipe="lab", projector="linear")),
    stages="instruct", shares="1", steps=1, lr=0.0, muon_lr=0.0,
)  # fmt: skip
# What is not the default, without what other experiments show of it.
ENCODERS = ("vit-registers", "vit-learned", "stem", "convnext", "resnet", "patches")
RARER_PROJECTORS = ("pooled", "avgpool", "cabstractor", "resampler", "slots")
RARER_DECODERS = (
    "gpt-relu2", "gpt-qknorm", "llama", "llama-relu2", "llama-qknorm", "llama-one", "llama-2d",
)  # fmt: skip

EXPERIMENTS = (
    Experiment(
        name="noise",
        question="How far apart are two runs that differ in rounding alone?",
        source="nobody: the noise floor, by another number of threads",
        script="train_vlm",
        arms=dict(one={}, another=dict(threads=1)),
        claims=(Claim("one", "=", "another"),),
        metric="vqa",
        shown=ANSWERS,
    ),
    Experiment(
        name="noise-clip",
        question="How far apart are two CLIPs that differ in rounding alone?",
        source="nobody: the noise floor, by another number of threads",
        script="train_clip",
        arms=dict(one={}, another=dict(threads=1)),
        claims=(Claim("one", "=", "another"),),
        metric="group_attributes",
        smallest=0.05,
        shown=(MANY, "zero_shot"),
    ),
    Experiment(
        name="guessing",
        question="Do minimal pairs leave nothing to guess for a model that sees no picture?",
        source="this project, of its test set; compare VQA v2, Goyal et al. 2017: language only,"
        " trained and asked on the unbalanced set, 48.2 %, on the balanced one 43.0 %",
        script="train_vlm",
        arms=dict(qformer={}),
        claims=(Claim("qformer", "<", 0.387),),  # three points above chance
        metric="vqa_blind",
        shown=("vqa",),
    ),
    Experiment(
        name="guessable",
        question="Is a model that sees no picture right more often where questions are biased?",
        source="VQA v2, Goyal et al. 2017: language only, trained and asked on the unbalanced set,"
        " 48.2 %, on the balanced one 43.0 %",
        script="train_vlm",
        arms=dict(uniform={}, zipf=dict(dataset="shapes-zipf")),
        claims=(Claim("zipf", ">", "uniform"),),
        metric="vqa_unpaired_blind",
        smallest=0.02,
        shown=("vqa_blind", "vqa"),
    ),
    Experiment(
        name="naive",
        question="Does a language model that is told labels invent what aligned tokens do not?",
        source="the usual argument for aligned tokens over classify-then-talk; no number is given;"
        " what is invented is which attribute belongs to what (chair_i: things that are not there)",
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
        source="LLaVA-1.5, Liu et al. 2023: GQA 46.8 -> 47.3 from linear to MLP",
        script="train_vlm",
        arms=dict(linear=dict(projector="linear"), mlp=dict(projector="mlp")),
        claims=(Claim("mlp", ">", "linear"),),
        metric="vqa",
        shown=ANSWERS,
    ),
    Experiment(
        name="one-stage",
        question="Is the stage that trains the projector alone needed?",
        source="LLaVA, Liu et al. 2023: 90.92 -> 85.81 without it, with fewer steps (here they are"
        " as many); Prismatic, Karamcheti et al. 2024, says the opposite: no loss without it, 20 to"
        " 25 % of the time saved",
        script="train_vlm",
        arms={
            "two": {},
            # As many steps with pictures as two stages have.
            "one": dict(stages="language,instruct", shares="0.84,0.16"),
        },
        claims=(Claim("two", ">", "one"),),
        metric="vqa",
        shown=ANSWERS,
    ),
    Experiment(
        name="one-stage-frozen",
        question="Is that stage needed where the encoder stays frozen?",
        source="LLaVA, Liu et al. 2023: 90.92 -> 85.81 without it; Prismatic, Karamcheti et al."
        " 2024, says the opposite: no loss without it; encoders are frozen in both",
        script="train_vlm",
        arms={"two": FROZEN, "one": FROZEN | dict(stages="language,instruct", shares="0.84,0.16")},
        claims=(Claim("two", ">", "one"),),
        metric="vqa",
        smallest=0.02,
        shown=ANSWERS,
    ),
    Experiment(
        name="frozen-encoder",
        question="Should the encoder learn with the language model?",
        source="Prismatic, Karamcheti et al. 2024: VQAv2 77.09 -> 73.53 when it does",
        script="train_vlm",
        arms=dict(frozen=FROZEN, trained={}),
        claims=(Claim("frozen", ">", "trained"),),
        metric="vqa",
        shown=ANSWERS,
    ),
    Experiment(
        name="language-model",
        question="Must the decoder know language beforehand, and may it learn on?",
        source="Frozen, Tsimpoukelli et al. 2021, table 1: VQA 29.5 with the language model frozen,"
        " 24.0 when it is tuned, asked with no question in training; here questions are trained,"
        " and from scratch there are no steps but those with pictures, a sixth of the others'",
        script="train_vlm",
        arms={
            "tuned": {},
            "frozen": dict(train_instruct="vision.*,projector.*"),
            # As many steps with pictures as the others have.
            "from scratch": dict(stages="instruct", shares="1", steps=352),
        },
        claims=(
            Claim("frozen", ">", "tuned"),
            Claim("tuned", ">", "from scratch"),
        ),
        metric="vqa",
        shown=ANSWERS,
    ),
    Experiment(
        name="tokens",
        question="How many tokens must a picture have?",
        source="Honeybee, Cha et al. 2023, and DeCo, Yao et al. 2024: more visual tokens are"
        " better; that 49 are no better than 32 is this project's guess",
        script="train_vlm",
        arms={f"{n} queries": dict(image_tokens=n) for n in (1, 4, 16, 32, 49)},
        claims=(
            Claim("4 queries", ">", "1 queries"),
            Claim("16 queries", ">", "4 queries"),
            Claim("32 queries", ">", "16 queries"),
            Claim("49 queries", "=", "32 queries"),
        ),
        metric="vqa",
        shown=ANSWERS,
    ),
    Experiment(
        name="what-binds",
        question="What makes CLIP know what belongs to what, beside hard negatives?",
        source="this project's guess: several captions, which say more or less, the width before"
        " the maximum, something local before attention",
        script="train_clip",
        arms={
            "all of it": {},
            "one caption": dict(captions=1),
            "narrow": dict(pool_dim=0),
            "stem": dict(encoder="stem"),
        },
        claims=(
            Claim("all of it", ">", "one caption"),
            Claim("all of it", ">", "narrow"),
            Claim("all of it", ">", "stem"),
        ),
        metric="group_attributes",
        smallest=0.05,
        shown=("r_at_1", "zero_shot", "pair_accuracy"),
    ),
    Experiment(
        name="negatives",
        question="Do hard negatives make CLIP bind, or is it that they come with more captions?",
        source="NegCLIP, Yuksekgonul et al. 2022: without hard negatives CLIP is a bag of words;"
        " here half of what is added is true",
        script="train_clip",
        arms={
            "hard negatives": {},
            "none": dict(hard_negatives=False),
            "none, four captions": dict(hard_negatives=False, captions=4),
        },
        claims=(
            Claim("hard negatives", ">", "none"),
            Claim("hard negatives", ">", "none, four captions"),
        ),
        metric="group_attributes",
        smallest=0.05,
        shown=(MANY, "zero_shot", "pair_accuracy", "matched_cosine"),
    ),
    Experiment(
        name="sigmoid",
        question="Is a sigmoid for each pair better than a softmax over the batch?",
        source="SigLIP, Zhai et al. 2023: better at batches below 16 thousand, the more so the"
        " smaller they are; these are smaller than any there, steps are 260, captions have hard"
        " negatives, and the softmax leaves out what is true (masked)",
        script="train_clip",
        arms={
            f"{name}, {size}": dict(loss=loss, batch_size=size)
            for name, loss in (("softmax", "masked_clip"), ("sigmoid", "sigmoid"))
            for size in (16, 64)
        },
        claims=(
            Claim("sigmoid, 16", ">", "softmax, 16"),
            Claim("sigmoid, 64", ">", "softmax, 64"),
        ),
        metric=MANY,
        smallest=0.02,
        shown=("zero_shot", "group_attributes"),
    ),
    Experiment(
        name="convolutions",
        question="Do convolutions help an eye that has seen few pictures?",
        source="CCT, Hassani et al. 2021: convolutions let transformers learn from small data;"
        " Xiao et al. 2021: a convolutional stem makes them learn sooner",
        script="train_clip",
        arms={
            f"{encoder}, {steps} steps": dict(encoder=encoder, steps=steps)
            for encoder in ("vit", "stem", "convnext")
            for steps in (130, 390)
        },
        claims=(
            Claim("stem, 130 steps", ">", "vit, 130 steps"),
            Claim("convnext, 130 steps", ">", "stem, 130 steps"),
            Claim("convnext, 390 steps", ">", "vit, 390 steps"),
        ),
        metric=MANY,
        smallest=0.02,
        shown=("zero_shot", "group_attributes"),
    ),
    Experiment(
        name="eye",
        question="Does a CLIP that binds make a better eye for a language model?",
        source="this project: one seed said no",
        script="train_vlm",
        arms={
            "binds": FROZEN,
            "binds less": FROZEN
            | dict(clip=From("train_clip", dict(recipe="lab", hard_negatives=False))),
        },
        claims=(Claim("binds", "=", "binds less"),),
        metric="vqa",
        smallest=0.02,
        shown=ANSWERS,
    ),
    Experiment(
        name="encoder",
        question="Where should a frozen encoder come from?",
        source="LiMBeR, Merullo et al. 2022: the more language was in an encoder's training, the"
        " better it captions, and a random one is useless; CapPa, Tschannen et al. 2023: captioning"
        " makes encoders as good as contrast does",
        script="train_vlm",
        arms={
            "CLIP": FROZEN,
            "captions": FROZEN | dict(encoder=From("train_vlm", EYE)),
            "labels": FROZEN | dict(encoder=From("train_vlm", EYE | dict(projector="label"))),
            "random": FROZEN | dict(encoder_init="random"),
        },
        claims=(
            Claim("CLIP", ">", "random"),
            Claim("CLIP", ">", "labels"),
            Claim("captions", "=", "CLIP"),
        ),
        metric="vqa",
        smallest=0.02,
        shown=ANSWERS,
    ),
    Experiment(
        name="stage-1",
        question="Is the Q-Former's own first stage needed, and which of its losses?",
        source="BLIP-2, Li et al. 2023: without it VQA is much lower; generation beside contrast"
        " and matching lifts retrieval from 84.5 / 67.2 to 85.4 / 68.3; what each does for VQA is"
        " this project's question",
        script="train_vlm",
        arms={
            "none": {},
            "none, longer": LONGER,
            "all": REPRESENT,
            "no contrast": REPRESENT | dict(represent="itm,itg"),
            "no matching": REPRESENT | dict(represent="itc,itg"),
            "no generation": REPRESENT | dict(represent="itc,itm"),
        },
        claims=(
            Claim("all", ">", "none"),
            Claim("all", ">", "none, longer"),
            Claim("all", ">", "no contrast"),
            Claim("all", ">", "no matching"),
            Claim("all", ">", "no generation"),
        ),
        metric="vqa",
        smallest=0.02,
        shown=ANSWERS,
    ),
    Experiment(
        name="patches",
        question="Does a language model need to see patches?",
        source="the usual argument for patch tokens over one pooled vector",
        script="train_vlm",
        # With pool_dim 0 the pooled vector is the one that CLIP's contrast has trained.
        arms={
            name: dict(projector=projector, clip=From("train_clip", dict(recipe="lab", pool_dim=0)))
            for name, projector in (("patches", "mlp"), ("pooled", "pooled"))
        },
        claims=(Claim("patches", ">", "pooled"),),
        metric="vqa",
        smallest=0.02,
        shown=(*ANSWERS, "vqa_colour", "vqa_existence"),
    ),
    Experiment(
        name="resamplers",
        question="Do resamplers lose the places of things?",
        source="Honeybee, Cha et al. 2023: a C-Abstractor is better than a resampler where places"
        " count; DeCo, Yao et al. 2024: average pooling is better than a Q-Former; here queries"
        " start at places and are told the places of what they read, which theirs are not",
        script="train_vlm",
        arms={
            name: dict(projector=name, image_tokens=49)
            for name in ("qformer", "resampler", "avgpool", "cabstractor")
        },
        claims=(
            Claim("cabstractor", ">", "resampler"),
            Claim("avgpool", ">", "qformer"),
        ),
        metric="vqa_relation",
        smallest=0.02,
        shown=("vqa", "vqa_count", "fact_f1"),
    ),
    Experiment(
        name="decoder",
        question="Is the block of LLaMA better than that of GPT?",
        source="LLaMA, Touvron et al. 2023, takes RMSNorm, rotary positions and SwiGLU; nanochat's"
        " log: ReLU^2 is ahead of SwiGLU",
        script="train_vlm",
        arms={name: dict(decoder=name) for name in ("gpt", "gpt-relu2", "llama", "llama-relu2")},
        claims=(
            Claim("llama", ">", "gpt"),
            Claim("llama-relu2", ">", "llama"),
            Claim("gpt-relu2", ">", "gpt"),
        ),
        metric="vqa",
        shown=ANSWERS,
    ),
    Experiment(
        name="numbering",
        question="Should image tokens be numbered by row and column?",
        source="Qwen2-VL, Wang et al. 2024, does so",
        script="train_vlm",
        common=dict(recipe="lab", projector="avgpool", image_tokens=49),  # which lie in a grid
        arms={
            "one after the other": dict(decoder="llama"),
            "by row and column": dict(decoder="llama-2d"),
            "all the same": dict(decoder="llama-one"),
        },
        claims=(
            Claim("by row and column", ">", "one after the other"),
            Claim("one after the other", ">", "all the same"),
        ),
        metric="vqa",
        smallest=0.02,
        shown=ANSWERS,
    ),
    Experiment(
        name="transfer",
        question="Is Korean understood of pictures that were spoken of in English alone?",
        source="LLaVA-1.5, Liu et al. 2023: Chinese is answered without a picture in training that"
        " is spoken of in it (MMBench 64.3, in Chinese 58.3); here text alone teaches both",
        script="train_vlm",
        common=dict(recipe="lab", language="both", steps=2860),  # 1.3 times those of one language
        arms=dict(both={}, English=dict(picture_language="en")),
        claims=(
            Claim("English", ">", 0.387),  # three points above chance
            Claim("both", ">", "English"),
        ),
        metric="vqa_ko",
        smallest=0.02,
        shown=("vqa", "fact_f1", "fact_f1_ko", "vqa_relation_ko", "vqa_count_ko"),
    ),
    Experiment(
        name="composition",
        question="Are pairs of a colour and a shape known that were never seen together?",
        source="FiLM, Perez et al. 2018, on CLEVR's CoGenT: 98.3 -> 75.6 on new pairs; arXiv"
        " 2605.31503: from chance to perfect between 30 and 40 % of the pairs (here 5 and 6 of 8"
        " held out)",
        script="train_clip",
        common=dict(recipe="lab", hard_negatives=False),  # of which there would be fewer
        arms={
            f"{which}, {n} of 8 held out": dict(held_out=n)
            for n in (2, 4, 5, 6)
            for which in ("known", "new")
        },
        claims=(
            *(
                Claim(f"known, {n} of 8 held out", ">", f"new, {n} of 8 held out")
                for n in (2, 4, 5, 6)
            ),
            Claim("new, 4 of 8 held out", ">", "new, 6 of 8 held out"),
        ),
        metric="zero_shot_held_out",
        smallest=0.05,
        shown=("zero_shot", "r_at_1"),
        metrics={f"known, {n} of 8 held out": "zero_shot_control" for n in (2, 4, 5, 6)},
    ),
    Experiment(
        name="bag",
        question="Does contrast without hard negatives need the order of words?",
        source="Yuksekgonul et al. 2022: it is content with a bag of words",
        script="train_clip",
        common=dict(recipe="lab", hard_negatives=False),
        arms=dict(causal={}, bag=dict(text_encoder="bag")),
        claims=(Claim("bag", "=", "causal"),),
        metric=MANY,
        smallest=0.02,
        shown=("zero_shot", "group_attributes", "pair_accuracy"),
    ),
    Experiment(
        name="temperatures",
        question="Does a temperature that is learned mend a bad start, and lose nothing to the"
        " best that is kept?",
        source="CLIP, Radford et al. 2021, learns it so that nobody has to search for it",
        script="train_clip",
        arms={f"{t}, learned": dict(temperature=t) for t in (0.01, 0.07, 0.2)}
        | {f"{t}, kept": KEPT | dict(temperature=t) for t in (0.01, 0.07, 0.2)},
        claims=(
            Claim("0.01, learned", ">", "0.01, kept"),
            Claim("0.2, learned", ">", "0.2, kept"),
            Claim("0.07, learned", "=", "0.07, kept"),
        ),
        metric=MANY,
        smallest=0.02,
        shown=("zero_shot", "group_attributes", "matched_cosine"),
    ),
    Experiment(
        name="modality-gap",
        question="Does a low temperature keep pictures and captions apart?",
        source="Liang et al. 2022: the lower the temperature, the wider the gap between the means",
        script="train_clip",
        arms={f"{t}, kept": KEPT | dict(temperature=t) for t in (0.01, 0.07, 0.2)},
        claims=(
            Claim("0.01, kept", ">", "0.07, kept"),
            Claim("0.07, kept", ">", "0.2, kept"),
        ),
        metric="modality_gap",
        smallest=0.05,
        shown=("matched_cosine", "mismatched_cosine", MANY),
    ),
    Experiment(
        name="last-layer",
        question="Are the features of the layer before the last better?",
        source="LLaVA, Liu et al. 2023, table 8: 89.96 from the last, 90.92 from the one before;"
        " here the last of three blocks of attention",
        script="train_vlm",
        arms={
            name: FROZEN
            | dict(clip=From("train_clip", dict(recipe="lab", encoder="stem")))
            | skipped
            for name, skipped in (("last", {}), ("the one before", dict(skip_blocks=1)))
        },
        claims=(Claim("the one before", ">", "last"),),
        metric="vqa",
        smallest=0.02,
        shown=ANSWERS,
    ),
    Experiment(
        name="fastv",
        question="Can half of the image tokens be dropped after the second block of a decoder?",
        source="FastV, Chen et al. 2024: LLaVA-1.5 answers as well, if those that are looked at"
        " most are kept; here in a decoder of four blocks, which was trained with all",
        script="train_vlm",
        arms={
            "all": ASKED_AGAIN,
            "half, by attention": ASKED_AGAIN | dict(drop="attention"),
            "half, at random": ASKED_AGAIN | dict(drop="random"),
        },
        claims=(
            Claim("half, by attention", "=", "all"),
            Claim("half, by attention", ">", "half, at random"),
        ),
        metric="vqa",
        smallest=0.02,
        shown=ANSWERS + ("vqa_hard_count",),
    ),
    Experiment(
        name="slots",
        question="With nine image tokens, are slots that compete better than a Q-Former's queries?",
        source="slot attention, Locatello et al. 2020, finds the objects of a picture; of words"
        " beside them this project's guess, after one seed",
        script="train_vlm",
        arms={
            "9 slots": dict(projector="slots", image_tokens=9),
            "9 queries": dict(image_tokens=9),
            "32 queries": {},
        },
        claims=(
            Claim("9 slots", ">", "9 queries"),
            Claim("9 slots", "=", "32 queries"),
        ),
        metric="vqa",
        smallest=0.02,
        shown=ANSWERS,
    ),
    # What each projector and each arm of each box reaches with the default recipe, nothing claimed.
    Experiment(
        name="projectors",
        question="What does each projector reach with the default recipe, and how far are its"
        " seeds apart?",
        source="",
        script="train_vlm",
        common={},
        arms={p: dict(projector=p) for p in ("label", "linear", "mlp", "pixelshuffle", "qformer")},
        claims=(),
        metric="vqa",
        shown=("fact_f1", *FAMILIES, "vqa_hard_count", "premise_recognised", "count_all"),
    ),
    Experiment(
        name="arms-clip",
        question="What does each arm of CLIP reach with the default recipe?",
        source="",
        script="train_clip",
        common={},
        arms={
            "convvit, causal, masked_clip": {},
            **{name: dict(encoder=name) for name in ENCODERS},
            **{name: dict(encoder=name, pool_dim=0) for name in ("vit", "vit-cls")},
            **{name: dict(text_encoder=name) for name in ("bidirectional", "bag")},
            **{name: dict(loss=name) for name in ("clip", "sigmoid")},
        },
        claims=(),
        metric="r_at_1",
        seeds=1,
        shown=("zero_shot", "group_attributes", "matched_cosine", "mismatched_cosine"),
    ),
    Experiment(
        name="arms-vlm",
        question="What does each arm of a VLM reach with the default recipe?",
        source="",
        script="train_vlm",
        common={},
        arms={
            "qformer, gpt, CLIP": {},
            **{name: dict(projector=name) for name in RARER_PROJECTORS},
            **{name: dict(decoder=name) for name in RARER_DECODERS},
            "captions": dict(encoder=From("train_vlm", EYE)),
            "labels": dict(encoder=From("train_vlm", EYE | dict(projector="label"))),
            "random": dict(encoder_init="random"),
            "stage 1": STAGE_1,
        },
        claims=(),
        metric="vqa",
        seeds=1,
        shown=("fact_f1", *FAMILIES),
    ),
)
