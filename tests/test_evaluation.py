"""Evaluation that cannot be fooled: definitions worked out by hand, foils that are false, and models that must not get more than chance."""

import math

import numpy as np
import pytest
import torch

from data.shapes import grammar, hard_negatives, questions
from data.dataset import tokenizer
from data.shapes.hard_negatives import shapes_there
from data.shapes.grammar import A, B
from data.shapes.scene import sample
from data.shapes.world import COLOUR, PLACE, SHAPE, SIZE, WORLDS, World, checksum
from tinyvlm.evaluation import eval_clip, eval_vlm, metrics
from tinyvlm.decoders import GPT
from tinyvlm.projectors import PROJECTORS
from tinyvlm.vision import VISION_ENCODERS
from tinyvlm.vlm import VLM

WORLD = WORLDS["default"]
close = lambda a, b: math.isclose(a, b, abs_tol=1e-9)


# ---------------------------------------------------------------- definitions, by hand

SCENE = np.array(
    [[1, 1, 1, 1], [2, 6, 2, 5], [0, 0, 0, 0]]
)  # a small red circle, a large blue square


def test_a_score_is_a_ratio_of_sums_and_draws_whole_scenes():
    score = metrics.RatioMetric(np.array([1.0, 3, 0]), np.array([2.0, 4, 2]), np.array([7, 7, 9]))
    assert score.value == 0.5 and score.items == 8
    low, high = score.interval()
    assert low == 0.0 and close(high, 4 / 6)  # scene 9 alone, scene 7 alone
    other = metrics.RatioMetric(
        score.numerator - score.denominator / 4, score.denominator, score.cluster
    )
    assert np.allclose(
        score.paired_difference(other)[1], 0.25
    )  # a quarter better in each scene: no doubt about it
    assert score.paired_difference(score)[1] == (0.0, 0.0)
    low, high = metrics.proportion(np.ones(100), np.arange(100)).interval()
    assert 0.95 < low < 0.99 and close(high, 1.0)
    few = metrics.RatioMetric(
        np.array([3.0, 3, 0, 0, 0]), np.array([3.0, 3, 0, 0, 0]), np.arange(5)
    )
    assert np.allclose(
        few.interval(), metrics.wilson_interval(2, 2)
    )  # three scenes have nothing that counts: they say nothing
    nothing = metrics.proportion(np.zeros(100), np.arange(100))
    (top, bottom), upper = nothing.paired_difference(nothing)[1], nothing.interval()[1]
    assert close(top, -upper) and close(bottom, upper)  # two zeros of 100 may still differ
    mean = metrics.macro_mean(
        [metrics.proportion([1, 1], [0, 1]), metrics.proportion([0, 0, 0, 1], [2, 3, 4, 5])]
    )
    assert close(mean.value, 0.625) and mean.items == 6


def test_captions_by_hand():
    captions = [
        "a small red circle and a large blue square",
        "a small red circle and a large red star",
        "a large red circle",
        "yes",
        "",
    ]
    report = metrics.caption_report(captions, np.stack([SCENE] * 5), np.arange(5))
    value = {name: score.value for name, score in report.items()}
    assert close(value["chair_i"], 1 / 5) and close(value["chair_s"], 1 / 5)  # the red star
    assert close(value["misdescribed_i"], 2 / 5) and close(
        value["misdescribed_s"], 2 / 5
    )  # and the large red circle
    assert close(value["exact_caption"], 1 / 5) and close(value["unparseable"], 2 / 5)
    assert (
        close(value["fact_precision"], 11 / 15)
        and close(value["fact_recall"], 11 / 30)
        and close(value["fact_f1"], 22 / 45)
    )
    assert close(value["objects_precision"], 4 / 5) and close(value["objects_recall"], 4 / 10)
    assert close(value["attributes_precision"], 7 / 10) and close(
        value["attributes_recall"], 7 / 20
    )
    assert close(value["relations_precision"], 1 / 2) and close(
        value["relations_recall"], 1 / 5
    )  # circle before square
    # Counts stated: (two, one circle, one square) right; (two, one circle) right and (one star) wrong; (one) wrong and (one circle) right.
    assert close(value["counts_precision"], 6 / 8) and close(value["counts_recall"], 6 / 15)


def test_phrases_share_objects_as_well_as_they_can():
    objects = np.array([[1, 1, 1, 1], [2, 1, 1, 2]])
    both = np.array(
        [[0, 1, 1, 0], [1, 1, 1, 0]]
    )  # "a red circle and a small red circle": the first one must take the large one
    assert metrics.match_objects(both, objects).tolist() == [True, True]
    assert metrics.match_objects(np.array([[1, 1, 1, 0], [1, 1, 1, 0]]), objects).tolist() == [
        True,
        False,
    ]
    assert metrics.match_objects(np.array([[0, 2, 1, 0]]), objects).tolist() == [False]


def test_presence_by_hand():
    there = np.array([True, True, False, False])
    value = lambda said: {
        name: score.value for name, score in metrics.pope_report(said, there, np.arange(4)).items()
    }
    always_yes, nothing, tie = value(["yes"] * 4), value([""] * 4), value([0.5] * 4)
    assert always_yes == dict(
        accuracy=0.5, precision=0.5, recall=1.0, f1=2 / 3, yes_rate=1.0, invalid=0.0
    )
    assert nothing == dict(
        accuracy=0.0, precision=0.0, recall=0.0, f1=0.0, yes_rate=0.0, invalid=1.0
    )
    assert tie["accuracy"] == tie["precision"] == tie["recall"] == tie["yes_rate"] == 0.5
    assert value(["yes", "no", "no", "red"]) == dict(
        accuracy=0.5, precision=1.0, recall=0.5, f1=2 / 3, yes_rate=0.25, invalid=0.25
    )


def test_winoground_by_hand_and_by_chance():
    right, same, half = (
        [[2, 1], [1, 2]],
        [[0, 0], [0, 0]],
        [[3, 2], [1, 0]],
    )  # half: everybody likes caption 0 and picture 0 best
    text, image, group = metrics.winoground([right, same, half])
    assert text.tolist() == [1.0, 0.25, 0.0] and image.tolist() == [1.0, 0.25, 0.0]
    assert group[0] == 1.0 and close(group[1], 1 / 6) and group[2] == 0.0
    text, image, group = metrics.winoground([[[1, 0], [0, 0]], [[1, 1], [0, 2]]])
    assert (
        text.tolist() == [0.5, 1.0]
        and image.tolist() == [0.5, 0.5]
        and group.tolist() == [1 / 3, 0.5]
    )  # the tie at the lower right


def test_better_and_gap():
    assert metrics.win_rate([1, 2, 3], np.array([2, 2, 2])).tolist() == [0, 0.5, 1]
    image, text = np.tile([[1.0, 0.0]], (5, 1)), np.tile([[0.0, 1.0]], (5, 1))
    assert (
        close(metrics.modality_gap(image, text).value, math.sqrt(2))
        and metrics.modality_gap(image, image).value == 0
    )


# ---------------------------------------------------------------- foils, counterfactuals, presence


@pytest.mark.parametrize("world", [WORLD, WORLDS["full"], WORLDS["zipf"]])
@pytest.mark.parametrize("kind", hard_negatives.KINDS)
def test_foils_are_false_and_differ_in_what_they_say(world, kind):
    found = hard_negatives.sample_sugarcrepe(world, 0, "test", kind, 150)
    assert len(found.true) == len(found.false) == len(found.scenes.objects) == 150
    for true, false, objects in zip(found.true, found.false, found.scenes.objects):
        assert metrics.match_objects(true[true[:, SHAPE] > 0], objects).all()
        phrases = false[false[:, SHAPE] > 0]
        assert not metrics.match_objects(phrases, objects).all()
        assert (
            grammar.parse_caption(grammar.text(grammar.render_caption(false[None])[0])) == phrases
        ).all()  # fluent
        difference = {
            c
            for c in range(4)
            if sorted(true[:, c][true[:, c] > 0]) != sorted(phrases[:, c][phrases[:, c] > 0])
        }
        wanted = dict(
            replace_object=[{SHAPE}], replace_attribute=[{COLOUR}, {SIZE}], replace_relation=[{PLACE}],
            swap_object=[set()], swap_attribute=[set()], add_object=[{SIZE, COLOUR, SHAPE, PLACE}], add_attribute=[{SIZE}],
        )  # fmt: skip
        assert difference in wanted[kind], (kind, difference)


@pytest.mark.parametrize("contrast", hard_negatives.CONTRASTS)
def test_counterfactuals_are_true_of_their_own_picture_only(contrast):
    one, two, first, second = hard_negatives.sample_winoground(WORLD, 0, "test", contrast, 120)
    for here, there, a, b in zip(one.objects, two.objects, first, second):
        says = lambda caption, scene: (
            hard_negatives.is_true(caption, scene)
            and (caption > 0).any(1).sum() == (scene > 0).any(1).sum()
        )  # read as complete
        assert says(a, here) and says(b, there) and not says(a, there) and not says(b, here)
    plain = lambda text: sorted(
        text.replace(" , ", " ").replace(" and ", " ").replace("an ", "a ").split()
    )
    words = [
        [plain(text) for text in grammar.texts(grammar.render_caption(noun_phrases))]
        for noun_phrases in (first, second)
    ]
    assert all(
        (x == y) == (contrast != "one_more_or_less") for x, y in zip(*words)
    )  # the same words in another order
    for scenes in (one, two):
        assert set(checksum(scenes.objects) % 4) == {3}  # still of the test split


@pytest.mark.parametrize("kind", hard_negatives.NEGATIVES)
@pytest.mark.parametrize("name", WORLDS)
def test_presence_asks_for_what_is_there_and_for_what_is_not(name, kind):
    world = WORLDS[name]
    train = shapes_there(sample(world, 0, "train", np.arange(0, 8192, 2)).objects)
    scenes, shapes, there = hard_negatives.sample_pope(world, 0, "test", kind, 150)
    present = shapes_there(scenes.objects)
    assert (
        shapes.shape == there.shape == (300, 2)
        and (np.take_along_axis(present, shapes - 1, 1) == there).all()
    )
    assert (
        there.sum(1) == 1
    ).all()  # a picture alone tells nothing: one question is right, one is wrong
    squares = shapes.reshape(150, 2, 2), there.reshape(150, 2, 2)
    assert (squares[0][:, 0] == squares[0][:, 1]).all() and (
        squares[1].sum(1) == 1
    ).all()  # neither do words, within each square
    assert len(np.unique(scenes.style, axis=0)) == 300  # no picture twice
    asked = shapes[~there]
    assert len(set(asked.tolist())) > (6 if kind == "random" else 1)
    for mine, shape in zip(present, asked):
        absent = np.flatnonzero(~mine) + 1
        beside = [
            sum((train[:, s - 1] & train[:, k]).sum() for k in np.flatnonzero(mine)) for s in absent
        ]
        assert kind == "random" or shape == (
            absent[train.sum(0)[absent - 1].argmax()]
            if kind == "popular"
            else absent[int(np.argmax(beside))]
        )
    if name == "friends" and kind == "adversarial":  # what comes together is asked for
        lonely = present.sum(1) == 1
        assert ((asked[lonely] - 1 ^ 1) == present[lonely].argmax(1)).mean() > 0.9


# ---------------------------------------------------------------- gates: VLMs that must not get more than they deserve


class Fake:
    """A speaker that answers by a rule: (question, objects of the picture or None if blind) -> words."""

    answers, seconds = 0, 1.0

    def __init__(self, rule):
        self.rule = rule

    def answer(self, scenes, asked, blind=False):
        return [
            [self.rule(q, None if blind else objects) for q in row]
            for row, objects in zip(asked, scenes.objects)
        ]

    def prefers_yes(self, scenes, asked):
        return np.array(
            [[dict(yes=1.0, no=0.0).get(a, 0.5) for a in row] for row in self.answer(scenes, asked)]
        )


def oracle(question, objects):
    if objects is None:
        return ""
    if question == "":
        told = objects.copy()
        told[:, PLACE] = 0
        return grammar.text(grammar.render_caption(told[None])[0])
    row = grammar.parse(question, question=True)[None]
    return grammar.text(grammar.render_answer(row, grammar.answer(row, objects[None]))[0])


def vqa(rule, pairs=60, split="test", families=questions.FAMILIES):
    result, _ = eval_vlm.evaluate_vqa(Fake(rule), WORLD, 0, split, families, pairs)
    return {family: scores[0].value for family, scores in result.items()}


def test_who_knows_everything_gets_everything():
    scores, record = eval_vlm.evaluate_vqa(Fake(oracle), WORLD, 0, "test", questions.FAMILIES, 60)
    assert all(
        seeing.value == other.value == 1.0 and blind.value == 0.0
        for seeing, blind, other, _ in scores.values()
    )
    assert {family: hard.items for family, (*_, hard) in scores.items() if hard.items} == dict(
        count=60, compare=60
    )
    assert len(record) == 7 * 120 and all(wanted == said for _, _, wanted, said in record)
    report, _, _ = eval_vlm.evaluate_captions(Fake(oracle), WORLD, 0, "test", 100)
    assert all(
        score.value
        == (
            0.0
            if name in ("chair_i", "chair_s", "misdescribed_i", "misdescribed_s", "unparseable")
            else 1.0
        )
        for name, score in report.items()
    )
    for forms in eval_vlm.evaluate_pope(Fake(oracle), WORLD, 0, "test", 100).values():
        assert all(
            scores["accuracy"].value == 1.0 and scores["yes_rate"].value == 0.5
            for scores in forms.values()
        )
    about_words = lambda question, objects: "no" if "circle" in question else "yes"
    about_pictures = lambda question, objects: "yes" if (objects[:, SHAPE] == 1).any() else "no"
    for rule in (about_words, about_pictures):
        assert all(
            scores["words"]["accuracy"].value == 0.5
            for scores in eval_vlm.evaluate_pope(Fake(rule), WORLD, 0, "test", 100).values()
        )
    assert (
        eval_vlm.evaluate_transfer(Fake(oracle), WORLD, 0, "more", 60)["vqa_unpaired"].value == 1.0
    )


def test_the_stubborn_get_what_the_definitions_say():
    assert vqa(lambda q, o: "yes") == dict(
        existence=0.5, count=0, colour=0, shape=0, size=0, relation=0.5, compare=0.5
    )
    assert set(vqa(lambda q, o: "").values()) == {0.0}
    for word, wanted in (("yes", (0.5, 0.0)), ("", (0.0, 1.0))):
        report, _, _ = eval_vlm.evaluate_captions(Fake(lambda q, o: word), WORLD, 0, "test", 50)
        assert (
            report["unparseable"].value == 1.0
            and report["fact_recall"].value == report["chair_i"].value == 0.0
        )
        for forms in eval_vlm.evaluate_pope(Fake(lambda q, o: word), WORLD, 0, "test", 50).values():
            assert (forms["words"]["accuracy"].value, forms["words"]["invalid"].value) == wanted


class Shuffled(Fake):
    """Looks at the other picture of each minimal pair."""

    def answer(self, scenes, asked, blind=False):
        other = np.arange(len(scenes.objects)) ^ 1
        return super().answer(hard_negatives.select(scenes, other), asked, blind)


def test_who_sees_the_other_picture_of_the_pair_is_always_wrong():
    result, _ = eval_vlm.evaluate_vqa(Shuffled(oracle), WORLD, 0, "test", questions.FAMILIES, 60)
    assert {seeing.value for seeing, *_ in result.values()} == {0.0}


def learned(features, split_from, split_to, family, pairs, steps=150, world=WORLD):
    """Accuracy on `split_to` of a linear model trained on `split_from`. features: (rows, scenes) -> (n, d)."""
    sides = []
    for split in (split_from, split_to):
        found = questions.sample_minimal_pairs(world, 0, split, family, pairs)
        indices, rows = (found.indices[:, None] + [0, 1]).reshape(-1), found.rows.repeat(2, 0)
        x = torch.from_numpy(features(rows, sample(world, 0, split, indices).objects)).float()
        sides.append((x, torch.from_numpy(found.answers.reshape(-1))))
    (x, y), (x_test, y_test) = sides
    model = torch.nn.Linear(x.shape[1], 140)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.Adam(model.parameters(), 0.03, weight_decay=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        return metrics.accuracy(model(x_test).numpy(), y_test.numpy())


def bag_of_words(rows, objects):
    ids = grammar.render_question(rows)
    return (ids[:, :, None] == np.arange(len(grammar.WORDS))).any(1)


def bag_of_objects(rows, objects):
    """The picture without the question: how often each attribute, colour-shape pair, and number of objects occurs."""
    there = objects[..., SHAPE] > 0
    one_hot = [
        (objects[..., c, None] == np.arange(1, k + 1)).sum(1)
        for c, k in ((SIZE, 2), (COLOUR, 8), (SHAPE, 8), (PLACE, 9))
    ]
    pairs = ((objects[..., COLOUR] * 9 + objects[..., SHAPE])[..., None] == np.arange(10, 81)).sum(
        1
    )
    counts = there.sum(1)[:, None] == np.arange(7)
    twins = [(part > k)[:, None].any(-1) for part in one_hot[1:3] for k in (1, 2)]
    return np.concatenate([*one_hot, pairs, counts, *twins], 1)


@pytest.mark.parametrize("family", questions.FAMILIES)
def test_models_that_cannot_see_stay_at_chance(family):
    """A bag of the question's words, and the most frequent answer: chance + 1 point at most."""
    chance = questions.CHANCE[family]
    number = 400 if chance == 0.5 else 2000  # with two answers every question has both
    assert learned(bag_of_words, "val", "test", family, number) <= chance + 0.01
    found = [
        questions.sample_minimal_pairs(WORLD, 0, split, family, number).answers
        for split in ("val", "test")
    ]
    most = np.bincount(found[0].reshape(-1)).argmax()
    assert (found[1] == most).mean() <= chance + 0.01


@pytest.mark.parametrize("family", ["colour", "shape"])
def test_chance_knows_which_pairs_are_held_out(family):
    """Where two of eight colours never come with a shape, the word for the shape tells six: that is the chance which tables show."""
    world = World(held_out=2)
    chance = questions.chance(world, family, None)
    assert (
        chance == 1 / 6
        and chance - 0.02
        <= learned(bag_of_words, "val", "test", family, 2000, world=world)
        <= chance + 0.01
    )


def test_half_of_the_comparisons_take_counting():
    found = questions.sample_minimal_pairs(WORLD, 0, "test", "compare", 200)
    assert found.needs_counting.sum() == 100
    here, there = (sample(WORLD, 0, "test", found.indices + k).objects for k in (0, 1))
    is_there = lambda noun, objects: grammar.matches(noun, objects)[:, :].any(1)
    both = np.logical_and.reduce(
        [is_there(found.rows[:, noun], side) for noun in (A, B) for side in (here, there)]
    )
    assert (both == found.needs_counting).all()
    # Who only knows what is there is right where one of the two is missing, and knows nothing where both are.
    says = is_there(found.rows[:, A], here) & ~is_there(found.rows[:, B], here)
    right = says == (found.answers[:, 0] == grammar.YES)
    assert right[found.needs_counting].mean() < 0.6


@pytest.mark.parametrize("family", questions.FAMILIES)
def test_models_that_cannot_read_stay_at_chance(family):
    """The picture without the question: its answers are known (the colours of the two that were swapped; how many are alike, if many are meant),
    which leaves one half where there are more than two answers, and nothing where there are two."""
    bound = dict(colour=0.5, shape=0.5, count=0.5).get(family, questions.CHANCE[family])
    assert learned(bag_of_objects, "val", "test", family, 1000) <= bound + 0.01


# ---------------------------------------------------------------- gates: CLIPs


class FakeEmbedder:
    def __init__(self, bag):
        self.bag = bag

    def embed_images(self, scenes):
        return self.bag(scenes.objects)

    embed_texts = property(lambda self: self.bag)


def constant(noun_phrases):
    return np.ones((len(noun_phrases), 3))


def bag_of_attributes(noun_phrases):
    """What occurs how often, but not what belongs to what: integers, so that ties are exact."""
    return np.concatenate(
        [
            (noun_phrases[..., c, None] == np.arange(1, k + 1)).sum(1)
            for c, k in ((SIZE, 2), (COLOUR, 8), (SHAPE, 8), (PLACE, 9))
        ],
        1,
    ).astype(float)


def test_a_clip_that_sees_nothing_gets_chance():
    nobody, where = FakeEmbedder(constant), (WORLD, 0, "test")
    scores = eval_clip.evaluate_retrieval(nobody, *where, 100, num_candidates=100)
    for k in (1, 5, 10):
        assert close(scores[f"r_at_{k}"].value, scores[f"r_at_{k}"].chance)
    assert all(
        close(score.value, 1 / 64)
        for score in eval_clip.evaluate_zero_shot(nobody, *where, items=50).values()
    )
    assert eval_clip.evaluate_pairs(nobody, *where, 100).value == 0.5
    for scores in eval_clip.evaluate_winoground(nobody, *where, 50).values():
        assert (
            close(scores["text"].value, 1 / 4)
            and close(scores["image"].value, 1 / 4)
            and close(scores["group"].value, 1 / 6)
        )
    assert all(
        seeing.value == blind.value == 0.5
        for seeing, blind in eval_clip.evaluate_sugarcrepe(nobody, *where, 50).values()
    )
    assert close(eval_clip.evaluate_modality_gap(nobody, *where, 50).value, 0)


def test_a_clip_that_binds_nothing_gets_chance_where_binding_is_asked():
    bag = FakeEmbedder(bag_of_attributes)
    scores = eval_clip.evaluate_winoground(bag, WORLD, 0, "test", 80)
    for contrast in ("attributes", "relation"):
        assert close(scores[contrast]["text"].value, 1 / 4) and close(
            scores[contrast]["group"].value, 1 / 6
        )
    by_kind = {
        kind: seeing.value
        for kind, (seeing, _) in eval_clip.evaluate_sugarcrepe(bag, WORLD, 0, "test", 80).items()
    }
    assert (
        by_kind["swap_object"] == by_kind["swap_attribute"] == 0.5
        and by_kind["replace_object"] > 0.9
        and by_kind["replace_relation"] > 0.9
    )


def test_held_out_splits_can_be_examined():
    world = World(held_out=2)
    for split in ("held_out", "control"):
        assert (
            eval_vlm.evaluate_transfer(Fake(oracle), world, 0, split, 40)["vqa_unpaired"].value
            == 1.0
        )
        assert (
            eval_clip.evaluate_zero_shot(FakeEmbedder(constant), world, 0, split, items=20)[
                "zero_shot"
            ].value
            == 1 / 64
        )
    with pytest.raises(ValueError, match="colour"):
        eval_vlm.evaluate_vqa(Fake(oracle), world, 0, "held_out", ["colour"], 20)


@pytest.mark.parametrize("projector", PROJECTORS)
def test_heat_is_a_map_for_every_projector(projector):
    vision, decoder = (
        VISION_ENCODERS["stem"](dim=32, depth=1, heads=1),
        GPT(vocab_size=tokenizer.size, dim=32, depth=1, heads=1),
    )
    model = VLM(vision, PROJECTORS[projector](vision_dim=32, text_dim=32, num_patches=196), decoder)
    pixels = torch.randint(0, 256, (3, 3, 56, 56), dtype=torch.uint8)
    heat = eval_vlm.grad_x_input(model, pixels, ["is there a circle ?"] * 3, ["yes", "no", ""])
    assert (
        heat.shape == (3, 14, 14)
        and heat.min() >= 0
        and heat.amax((1, 2)).tolist() == [float(projector != "label")] * 3
    )
