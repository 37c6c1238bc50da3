"""Gates of the VLM's evaluation: who knows all gets all, who sees nothing gets chance, at most."""

import random

import numpy as np
import pytest
import torch
from helpers import small_vlm

from data.batch import NotEnoughItems
from data.shapes.dataset import Shapes
from data.shapes.split import Split
from data.shapes.truth import COLOUR_OF, COUNT, KIND, answer
from data.shapes.world import SHAPE, World
from tinyvlm.evaluation import eval_vlm

DATA, HELD_OUT = Shapes(), Shapes(held_out=2)
TEST = DATA.split("test")
FAULTS = ("chair_i", "chair_s", "misdescribed_i", "misdescribed_s", "unparseable")


# ---------------------------------------------------------------- speakers in the place of a VLM


class Fake:
    """A predictor that answers by a rule: (question, one picture or None if blind) -> words."""

    answers, seconds = 0, 1.0

    def __init__(self, rule):
        self.rule = rule

    def answer(self, pictures, asked, blind=False):
        seen = [None if blind else pictures[[k]] for k in range(len(pictures))]
        return [[self.rule(q, s) for q in row] for s, row in zip(seen, asked, strict=True)]

    def prefers_yes(self, pictures, asked):
        shares = dict(yes=1.0, no=0.0)
        words = self.answer(pictures, asked)
        return np.array([[shares.get(word, 0.5) for word in row] for row in words])


def oracle(question, picture):
    """Knows everything, but only where there is a picture."""
    if picture is None:
        return ""
    return (picture.answers(question) if question else picture.captions())[0]


def says(word):
    return Fake(lambda question, picture: word)


class SeesTheOther(Fake):
    """Looks at the other picture of each minimal pair."""

    def answer(self, pictures, asked, blind=False):
        return super().answer(pictures[np.arange(len(pictures)) ^ 1], asked, blind)


def vqa(predictor, split=TEST, pairs=60, which="seeing"):
    result, _ = eval_vlm.evaluate_vqa(predictor, split, split.families, pairs)
    return {family: scores[which].value for family, scores in result.items()}


# ---------------------------------------------------------------- who knows everything


def test_who_knows_everything_answers_everything():
    result, record = eval_vlm.evaluate_vqa(Fake(oracle), TEST, TEST.families, 60)
    for scores in result.values():
        assert scores["seeing"].value == scores["paraphrased"].value == 1.0
        assert scores["blind"].value == 0.0 and scores["seeing"].items == 120
    hard = {family: scores["needs_counting"].items for family, scores in result.items()}
    assert {family: n for family, n in hard.items() if n} == dict(count=60, compare=60)
    asked = TEST.question_pairs("count", 60)
    cluster = asked.pictures.cluster[asked.needs_counting]
    assert (result["count"]["needs_counting"].cluster == cluster).all()
    assert len(record) == 7 * 120 and all(target == said for _, _, target, said in record)
    assert eval_vlm.vqa_mean(result, "seeing").value == pytest.approx(1.0)
    assert eval_vlm.vqa_mean(result, "seeing").items == 7 * 120


def test_the_record_says_which_picture_was_asked_what():
    _, record = eval_vlm.evaluate_vqa(Fake(oracle), TEST, ["colour", "count"], 10)
    parse = TEST.grammar.parser.parse
    kinds = [parse(question, question=True)[KIND] for _, question, _, _ in record]
    assert kinds == [COLOUR_OF] * 20 + [COUNT] * 20
    for index, question, target, _ in record:
        assert TEST.take(np.array([index])).answers(question) == [target]


def test_who_knows_everything_says_the_whole_caption():
    report, captions = eval_vlm.evaluate_captions(Fake(oracle), TEST.pictures(100))
    assert captions == TEST.pictures(100).captions()
    for name, metric in report.items():
        assert metric.value == (0.0 if name in FAULTS else 1.0), name


def test_who_knows_everything_knows_what_is_there():
    result = eval_vlm.evaluate_pope(Fake(oracle), TEST, 100)
    assert set(result) == set(TEST.negatives)
    for forms in result.values():
        for scores in forms.values():
            assert scores["accuracy"].value == scores["f1"].value == 1.0
            assert scores["yes_rate"].value == 0.5 and scores["invalid"].value == 0.0
            assert scores["accuracy"].items == 200


def test_who_knows_everything_knows_it_in_other_splits():
    for data, names in ((DATA, ("more",)), (HELD_OUT, ("held_out", "control"))):
        for name in names:
            report = eval_vlm.evaluate_transfer(Fake(oracle), data.split(name), 40)
            assert report["vqa_unpaired"].value == report["exact_caption"].value == 1.0
            assert report["vqa_unpaired_blind"].value == 0.0
            assert report["vqa_unpaired"].items == 280 and report["exact_caption"].items == 40


BOTH = Shapes(language="both")


@pytest.mark.parametrize("trained, language", [("both", "en"), ("both", "ko"), ("ko", "ko")])
def test_who_knows_everything_knows_it_in_each_language(trained, language):
    split, knows = Shapes(language=trained).speaking(language).split("test"), Fake(oracle)
    for which in ("seeing", "paraphrased"):
        assert set(vqa(knows, split, 20, which).values()) == {1.0}
    report, _ = eval_vlm.evaluate_captions(knows, split.pictures(20))
    assert report["exact_caption"].value == 1.0
    assert eval_vlm.evaluate_premises(knows, split, 40)["recognised"].value == 1.0
    assert eval_vlm.evaluate_pope(knows, split, 20)["random"]["words"]["accuracy"].value == 1.0


@pytest.mark.parametrize("language", BOTH.languages)
def test_captions_are_scored_for_what_was_asked(language):
    split = BOTH.speaking(language).split("test")
    for scores in eval_vlm.evaluate_instructions(Fake(oracle), split, 40).values():
        assert scores["as asked"].value == scores["fact F1"].value == 1.0
        assert scores["misdescribed_s"].value == 0.0
    usual = Fake(lambda question, picture: picture.captions()[0])
    found = eval_vlm.evaluate_instructions(usual, split, 40)
    right = {level: scores["as asked"].value for level, scores in found.items()}
    assert right == dict(brief=0.0, normal=1.0, detailed=0.0, list=0.0)
    assert found["normal"]["fact F1"].value == 1.0 > found["detailed"]["fact F1"].value > 0.5


def test_premises_are_recognised_and_denied():
    found = eval_vlm.evaluate_premises(Fake(oracle), TEST, 100)
    assert (found["recognised"].value, found["denied"].value) == (1.0, 0.0)
    assert found["recognised"].items == found["denied"].items == 100
    found = eval_vlm.evaluate_premises(says("there is none"), TEST, 100)
    assert (found["recognised"].value, found["denied"].value) == (0.5, 1.0)
    found = eval_vlm.evaluate_premises(says("red"), TEST, 100)
    assert (found["recognised"].value, found["denied"].value) == (0.0, 0.0)
    found = eval_vlm.evaluate_premises(SeesTheOther(oracle), TEST, 100)
    assert (found["recognised"].value, found["denied"].value) == (0.0, 1.0)
    lonely = Shapes()
    lonely.world = World(max_objects=1)
    assert eval_vlm.evaluate_premises(Fake(oracle), lonely.split("test"), 10) == {}


@pytest.mark.parametrize("language", BOTH.languages)
def test_who_always_denies_recognises_the_share_of_that_denial(language):
    split = BOTH.speaking(language).split("test")
    targets = split.premise_pairs(23).targets
    assert [targets.count(denial) for denial in split.denials] == [12, 11]
    for denial, share in zip(split.denials, (12 / 23, 11 / 23), strict=True):
        found = eval_vlm.evaluate_premises(says(denial), split, 23)
        assert (found["recognised"].value, found["denied"].value) == (share, 1.0)


def test_who_does_not_look_recognises_no_more_premises_than_he_denies():
    words = [*TEST.denials, "red"]
    found = eval_vlm.evaluate_premises(Fake(lambda q, picture: words[len(q) % 3]), TEST, 100)
    assert 0.1 < found["recognised"].value <= found["denied"].value < 0.9


def test_everything_is_counted():
    assert eval_vlm.evaluate_count(Fake(oracle), TEST, 50).value == 1.0
    assert 0.2 < eval_vlm.evaluate_count(says("three"), TEST, 50).value < 0.7


# ---------------------------------------------------------------- who knows one language


def in_english(question, picture):
    """Knows everything, and says it in English when it is asked in Korean."""
    if picture is None:
        return ""
    row = BOTH.grammars["ko"].parser.parse(question, question=True)[None]
    return TEST.grammar.answer_texts(row, answer(row, picture.scenes.objects))[0]


def test_an_answer_in_another_language_is_wrong():
    split = BOTH.speaking("ko").split("test")
    for which in ("seeing", "paraphrased"):
        assert set(vqa(Fake(in_english), split, 20, which).values()) == {0.0}
    assert eval_vlm.evaluate_count(Fake(in_english), split, 20).value == 0.0
    premises = eval_vlm.evaluate_premises(Fake(in_english), split, 20)
    assert {metric.value for metric in premises.values()} == {0.0}
    for word, yes_rate, invalid in (("yes", 0.0, 1.0), ("네", 1.0, 0.0)):
        scores = eval_vlm.evaluate_pope(says(word), split, 20)["random"]["words"]
        assert (scores["yes_rate"].value, scores["invalid"].value) == (yes_rate, invalid)
    usual = Fake(lambda question, picture: TEST.take(picture.indices).captions()[0])
    assert eval_vlm.evaluate_captions(usual, TEST.pictures(20))[0]["unparseable"].value == 0.0
    assert eval_vlm.evaluate_captions(usual, split.pictures(20))[0]["unparseable"].value == 1.0


def knows_korean(question, picture):
    """Knows everything, but says nothing unless it is asked in Korean."""
    is_korean = any("가" <= letter <= "힣" for letter in question)
    return oracle(question, picture) if is_korean else ""


def test_the_test_split_is_evaluated_in_each_language(monkeypatch):
    monkeypatch.setattr(eval_vlm, "VLMPredictor", lambda *_: Fake(knows_korean))
    table, scores = eval_vlm.evaluate_test(None, BOTH, items=6)
    english = {name for name in table if not name.endswith(" ko")}
    assert set(table) == english | {f"{name} ko" for name in english}
    zero = {"unparseable", "chair i", "misdescribed i", "the same without picture"}
    for name in english:
        assert table[name].value == (name == "unparseable"), name
        wanted = 0.0 if name in zero | {"premises denied"} else 1.0
        assert table[f"{name} ko"].value == pytest.approx(wanted), name
    hard = {"VQA count, hard ones", "VQA compare, hard ones"}
    assert hard | {"how many in all", "the same in words never trained"} < english
    for name in ("fact_f1", "vqa", "vqa_paraphrased", "vqa_hard_count", "premise_recognised"):
        assert scores[name].value == 0.0 and scores[f"{name}_ko"].value == pytest.approx(1.0), name


# ---------------------------------------------------------------- who knows nothing


def test_who_sees_the_other_picture_of_the_pair_is_always_wrong():
    assert set(vqa(SeesTheOther(oracle)).values()) == {0.0}


def test_the_stubborn_get_what_the_definitions_say():
    yes_no = dict(existence=0.5, relation=0.5, compare=0.5)
    assert vqa(says("yes")) == dict(count=0, colour=0, shape=0, size=0) | yes_no
    assert vqa(says("no")) == dict(count=0, colour=0, shape=0, size=0) | yes_no
    assert vqa(says("small"))["size"] == 0.5
    assert set(vqa(says("")).values()) == {0.0}


@pytest.mark.parametrize("word, accuracy, invalid", [("yes", 0.5, 0.0), ("", 0.0, 1.0)])
def test_what_is_no_caption_and_no_answer(word, accuracy, invalid):
    report, _ = eval_vlm.evaluate_captions(says(word), TEST.pictures(50))
    assert report["unparseable"].value == 1.0
    assert report["fact_recall"].value == report["chair_i"].value == 0.0
    for forms in eval_vlm.evaluate_pope(says(word), TEST, 50).values():
        assert forms["words"]["accuracy"].value == accuracy
        assert forms["words"]["invalid"].value == invalid
        assert forms["logits"]["invalid"].value == 0.0  # a tie is no answer and no nonsense
        assert forms["logits"]["accuracy"].value == 0.5


def by_words(question, picture):
    return "no" if "circle" in question else "yes"


def by_picture(question, picture):
    return "yes" if (picture.scenes.objects[..., SHAPE] == 1).any() else "no"


@pytest.mark.parametrize("rule", [by_words, by_picture])
def test_words_alone_and_pictures_alone_tell_nothing_about_presence(rule):
    for forms in eval_vlm.evaluate_pope(Fake(rule), TEST, 100).values():
        assert {scores["accuracy"].value for scores in forms.values()} == {0.5}


class LearnedReader(Fake):
    """A linear model of a question's bag of words that has learned from another split."""

    def __init__(self, split, family, pairs, steps=150):
        found = split.question_pairs(family, pairs)
        self.answered = sorted(set(found.targets))
        self.linear = torch.nn.Linear(DATA.tokenizer.size, len(self.answered))
        torch.nn.init.zeros_(self.linear.weight)
        x = self.bags(found.asked)
        y = torch.tensor([self.answered.index(target) for target in found.targets])
        optimizer = torch.optim.Adam(self.linear.parameters(), 0.03, weight_decay=1e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self.linear(x), y).backward()
            optimizer.step()

    def bags(self, texts):
        x = torch.zeros(len(texts), DATA.tokenizer.size)
        return x.scatter_(1, torch.tensor(DATA.tokenizer.encode_batch(texts)), 1.0)

    def answer(self, pictures, asked, blind=False):
        with torch.no_grad():
            best = self.linear(self.bags([text for row in asked for text in row])).argmax(1)
        words = [self.answered[k] for k in best.tolist()]
        each = len(asked[0])
        return [words[k : k + each] for k in range(0, len(words), each)]


@pytest.mark.parametrize("family", Split.families)
def test_a_reader_that_cannot_see_stays_at_chance(family):
    """Chance + 1 point at most, in known and in new words."""
    pairs = 400 if TEST.question_pairs(family, 1).chance == 0.5 else 2000
    reader = LearnedReader(DATA.split("val"), family, pairs)
    result, _ = eval_vlm.evaluate_vqa(reader, TEST, [family], pairs)
    for which in ("seeing", "blind", "paraphrased"):
        score = result[family][which]
        assert score.value <= score.chance + 0.01, which
    assert result[family]["seeing"].value > 0.5 * result[family]["seeing"].chance


@pytest.mark.parametrize("family", ["colour", "shape"])
def test_the_chance_shown_is_what_a_reader_reaches_where_pairs_are_held_out(family):
    reader = LearnedReader(HELD_OUT.split("val"), family, 2000)
    result, _ = eval_vlm.evaluate_vqa(reader, HELD_OUT.split("test"), [family], 2000)
    score = result[family]["seeing"]
    assert score.chance == 1 / 6 and score.chance - 0.02 <= score.value <= score.chance + 0.01


# ---------------------------------------------------------------- splits that lack something


def test_families_without_pairs_are_left_out():
    lonely = Shapes()
    lonely.world = World(max_objects=1)
    result, record = eval_vlm.evaluate_vqa(
        Fake(oracle), lonely.split("test"), ["existence", "relation"], 20
    )
    assert list(result) == ["existence"] and len(record) == 40


@pytest.mark.parametrize("families", [["colour"], ["colour", "shape"]])
def test_a_split_without_any_pairs_says_so(families):
    with pytest.raises(NotEnoughItems, match=families[-1]):
        eval_vlm.evaluate_vqa(Fake(oracle), HELD_OUT.split("held_out"), families, 20)


# ---------------------------------------------------------------- for the training script


def global_state():
    torch_state, numpy_state = torch.get_rng_state().tolist(), np.random.get_state()
    return torch_state, random.getstate(), numpy_state[1].tolist(), numpy_state[2]


@pytest.mark.parametrize("training", [True, False])
def test_validation_leaves_the_model_and_the_generators_as_they_were(training):
    model = small_vlm().train(training)
    model.projector.register_forward_hook(lambda module, *_: modes.append(module.training))
    before, modes = global_state(), []
    weights = {name: w.clone() for name, w in model.state_dict().items()}
    scores = eval_vlm.validate(model, DATA, pictures=4, pairs=2)
    assert modes and not any(modes)  # it ran, and not in training mode
    assert all(module.training == training for module in model.modules())
    assert torch.is_grad_enabled() and global_state() == before
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(w, weights[name]) for name, w in model.state_dict().items())
    assert set(scores) == {"val_fact_f1", "val_exact_caption", "val_vqa"}


def test_two_evaluations_give_equal_bits():
    model = small_vlm()  # in training mode, as in the middle of a training
    one, other = (eval_vlm.evaluate_test(model, DATA, items=3) for _ in range(2))
    assert set(one[1]) == set(other[1]) and set(one[0]) == set(other[0])
    for name, metric in one[1].items():
        assert metric.value == other[1][name].value
        assert metric.interval() == other[1][name].interval()
    assert {f"vqa_{family}" for family in TEST.families} <= set(one[1])
    assert one[1]["vqa"].chance == pytest.approx((3 / 2 + 1 / 4 + 2 / 8 + 1 / 2) / 7)


def test_sample_lines_are_judged():
    model, pictures = small_vlm().eval(), TEST.pictures(2)
    lines = eval_vlm.sample_lines(model, DATA, pictures, each=3)
    asked = TEST.questions(pictures, 3)
    assert [len(line) for line in lines] == [4, 4]
    for k, line in enumerate(lines):
        for question, pieces in zip(asked.asked[3 * k : 3 * k + 3], line[1:], strict=True):
            (said, _), (answer, is_right) = pieces
            assert said == question + " " and answer
            assert is_right == (answer == pictures[[k]].answers(question)[0])
