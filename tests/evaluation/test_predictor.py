"""A VLM that is asked: the same answers in any company, and maps of where they came from."""

import pytest
import torch
from helpers import small_vlm

from data.shapes.dataset import Shapes
from tinyvlm.decoders import DECODERS
from tinyvlm.evaluation import predictor
from tinyvlm.evaluation.predictor import VLMPredictor, grad_x_input, tokenize_prompts
from tinyvlm.evaluation.trace import trace
from tinyvlm.projectors import PROJECTORS

DATA, BOTH = Shapes(), Shapes(language="both")
TEST = DATA.split("test")

ASKED = [["is there a circle ?", "what colour is the large square ?", ""]] * 5


@pytest.fixture(scope="module")
def model():
    return small_vlm().eval()


def test_answers_do_not_depend_on_how_many_are_asked_together(model, monkeypatch):
    pictures = TEST.pictures(5)
    together = VLMPredictor(model, DATA.tokenizer)
    words = together.answer(pictures, ASKED)
    assert [len(row) for row in words] == [3] * 5 and together.answers == 15
    assert together.seconds > 0
    monkeypatch.setattr(predictor, "ROWS", 6)
    one_by_one = VLMPredictor(model, DATA.tokenizer)
    assert one_by_one.answer(pictures, ASKED) == words
    questions = [row[:2] for row in ASKED]
    chunked = one_by_one.prefers_yes(pictures, questions)
    monkeypatch.undo()
    assert (chunked == together.prefers_yes(pictures, questions)).all()
    assert chunked.shape == (5, 2)


def test_the_blind_answer_alike_whatever_is_shown(model):
    vlm = VLMPredictor(model, DATA.tokenizer)
    one = vlm.answer(TEST.pictures(5), ASKED, blind=True)
    assert one == vlm.answer(TEST.pictures(5, start=9), ASKED, blind=True)
    assert all(row == one[0] for row in one)


def test_a_question_is_the_same_without_its_mark(model):
    asked = [["is there a circle", "is there a circle ?", "is there a star ?"]]
    [[bare, said, other]] = VLMPredictor(model, DATA.tokenizer).answer(TEST.pictures(1), asked)
    assert bare == said != other


@pytest.mark.parametrize(
    "language, yes_no, asked",
    [
        ("en", "yes no", ["is there a circle ?", "is there a star ?"]),
        ("ko", "네 아니요", ["원이 있나요 ?", "별이 있나요 ?"]),
    ],
)
def test_prefers_yes_compares_the_first_words_logits(language, yes_no, asked):
    model, asked = small_vlm(language="both").eval(), [asked] * 3
    pictures = BOTH.speaking(language).split("test").pictures(3)
    found = VLMPredictor(model, BOTH.tokenizer).prefers_yes(pictures, asked)
    yes, no = BOTH.tokenizer.encode(yes_no)
    for k, question in ((k, q) for k in range(3) for q in range(2)):
        prompt = torch.tensor([BOTH.tokenizer.encode(asked[k][question])])
        embeds, mask = model.encode_image(pictures[[k]].pixels())
        last, *_ = model.prefill(embeds, prompt, mask)
        [logits] = model.decoder.lm_head(last)
        assert abs(logits[yes] - logits[no]) > 1e-4  # no tie: a comparison that can fail
        assert found[k, question] == float(logits[yes] > logits[no])


def test_the_mode_is_put_back_after_an_error_too():
    model = small_vlm().train()
    with pytest.raises(AttributeError):
        VLMPredictor(model, DATA.tokenizer).answer([None], [[""]])
    assert model.training and torch.is_grad_enabled()


# ---------------------------------------------------------------- where an answer came from


@pytest.mark.parametrize("projector", PROJECTORS)
def test_saliency_is_a_map_for_every_projector(projector):
    model = small_vlm(projector)
    pixels = TEST.pictures(3).pixels()
    asked, said = ["is there a circle ?"] * 3, ["yes", "no", ""]
    saliency = grad_x_input(model, DATA.tokenizer, pixels, asked, said)
    assert saliency.shape == (3, 14, 14) and saliency.min() >= 0
    # No gradient comes through hard labels, and of the tokens "pooled" reads none.
    assert saliency.amax((1, 2)).tolist() == [float(projector not in ("label", "pooled"))] * 3
    assert all(p.grad is None for p in model.parameters())


def test_saliency_does_not_depend_on_what_stands_beside_it(model):
    pixels = TEST.pictures(3).pixels()
    asked = ["is there a circle ?", "", "how many large red circles are there ?"]
    said = ["yes", "a red circle", "two"]
    args = model, DATA.tokenizer
    together = grad_x_input(*args, pixels, asked, said)
    for k in range(3):
        alone = grad_x_input(*args, pixels[[k]], [asked[k]], [said[k]])
        assert torch.allclose(together[[k]], alone, atol=1e-4)
    assert not torch.allclose(together[0], together[2], atol=1e-2)


# ---------------------------------------------------------------- the way through the model


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_words_of_a_trace_are_those_of_generate(decoder):
    model, pixels = small_vlm(decoder=decoder), TEST.pictures(1).pixels()
    lines = trace(model, DATA.tokenizer, pixels, "is there a circle ?", words=5)
    likeliest = [line.split("(1, 32)")[1].split()[0] for line in lines if "  word " in line]
    prompts = tokenize_prompts(DATA.tokenizer, ["is there a circle ?"], pixels.device)
    image_embeds, _ = model.eval().encode_image(pixels)
    said = model.generate(image_embeds, prompts, max_new_tokens=5)[0].tolist()
    assert likeliest == [DATA.tokenizer.name(token) for token in said]
