"""A split's pictures, words and truth: strings against plain loops over the objects behind them."""

import itertools

import numpy as np
import pytest

from data.batch import NotEnoughItems
from data.shapes import minimal_pairs, questions, truth
from data.shapes.dataset import Shapes
from data.shapes.english import NUMBERS, PLURALS
from data.shapes.facts import match_objects
from data.shapes.languages import grammars_of
from data.shapes.split import Split
from data.shapes.world import (
    COLOUR,
    COLOURS,
    PLACE,
    PLACES,
    SHAPE,
    SHAPES,
    SIZE,
    SIZES,
    World,
    diagonal_of,
)  # fmt: skip

GRAMMAR = grammars_of("en")["en"]

DATA, FULL, HELD_OUT = Shapes(), Shapes("shapes-full"), Shapes(held_out=2)
TEST = DATA.split("test")


def words_of(thing, columns=(SIZE, COLOUR, SHAPE)):
    tables = (SIZES, COLOURS, SHAPES, PLACES)
    return " ".join(tables[column][thing[column] - 1] for column in columns)


def things(pictures, k):
    """The objects of picture k, without the empty rows."""
    objects = pictures.scenes.objects[k]
    return objects[objects[:, SHAPE] > 0]


def counts_of(texts):
    """How many phrases a caption has."""
    return [text.count(" , ") + text.count(" and ") + 1 for text in texts]


def is_fluent(caption):
    phrases = GRAMMAR.parser.parse_caption(caption)
    return GRAMMAR.caption_texts(phrases[None])[0] == caption


# ---------------------------------------------------------------- pictures


def test_a_split_takes_one_picture_of_each_minimal_pair():
    pictures = TEST.pictures(5, start=3)
    assert pictures.indices.tolist() == [6, 8, 10, 12, 14]
    assert pictures.cluster.tolist() == [3, 4, 5, 6, 7] and len(pictures) == 5
    assert TEST.take(np.array([6, 7])).cluster.tolist() == [3, 3]


def test_pictures_are_those_that_training_would_see():
    pictures = DATA.split("train").take(np.arange(4))
    assert (pictures.pixels() == DATA.caption_batch("train", np.arange(4)).pixels).all()


@pytest.mark.parametrize("keep", [[4, 0], slice(1, 4), np.arange(6) % 2 == 0])
def test_some_pictures_of_some_pictures(keep):
    pictures = TEST.pictures(6)
    some = pictures[keep]
    assert (some.indices == pictures.indices[keep]).all() and len(some) == len(some.indices)
    assert (some.pixels() == pictures.pixels()[keep]).all()
    assert some.captions() == np.array(pictures.captions())[keep].tolist()


def test_captions_say_all_objects_in_reading_order_but_what_is_left_out():
    pictures = FULL.split("test").pictures(30)
    for omit, columns in (
        (("place",), (SIZE, COLOUR, SHAPE)),
        (("size", "place"), (COLOUR, SHAPE)),
        (("colour", "size", "place"), (SHAPE,)),
    ):
        for k, caption in enumerate(pictures.captions(omit)):
            nouns = [words_of(thing, columns) for thing in things(pictures, k)]
            said = [text.split(" ", 1)[1] for text in caption.replace(" and ", " , ").split(" , ")]
            assert said == nouns
    for k, caption in enumerate(pictures.captions(omit=())):
        assert [phrase[PLACE] for phrase in GRAMMAR.parser.parse_caption(caption)] == [
            thing[PLACE] for thing in things(pictures, k)
        ]


def test_captions_may_name_the_same_things_backwards():
    pictures = FULL.split("test").pictures(20)
    pairs = zip(pictures.captions(), pictures.captions(backwards=True), strict=True)
    parse = GRAMMAR.parser.parse_caption
    assert all((parse(one) == parse(other)[::-1]).all() for one, other in pairs)
    assert all(map(is_fluent, pictures.captions(backwards=True)))
    several = pictures.of_several()
    assert len(several) == (pictures.scenes.count > 1).sum() and (several.scenes.count > 1).all()


# ---------------------------------------------------------------- what is true of a picture


def is_true_by_brute_force(caption, objects):
    """Can each phrase have an object of its own that is as it says?"""
    phrases = GRAMMAR.parser.parse_caption(caption)
    return any(
        all(((p == 0) | (p == o)).all() for p, o in zip(phrases, chosen, strict=True))
        for chosen in itertools.permutations(objects, len(phrases))
    )


@pytest.mark.parametrize("omit", [("place",), ("size", "colour", "place"), ("size", "place"), ()])
def test_which_captions_are_true_of_which_pictures(omit):
    pictures = FULL.split("val").pictures(60)
    pictures = pictures[pictures.scenes.count <= 4]
    captions = pictures.captions(omit)
    found = pictures.is_match(captions)
    assert found.shape == (len(pictures), len(captions)) and found.diagonal().all()
    assert not found.all() and (omit == () or found.sum() > len(pictures))
    by_hand = [
        [is_true_by_brute_force(caption, things(pictures, k)) for caption in captions]
        for k in range(len(pictures))
    ]
    assert (found == np.array(by_hand)).all()


def test_truth_does_not_depend_on_how_many_are_asked_at_once():
    pictures = TEST.pictures(300)
    captions = pictures.captions(("size", "place"))
    one_by_one = [pictures.is_match([captions[k]])[:, 0] for k in (0, 255, 256, 299)]
    together = pictures.is_match(captions)[:, [0, 255, 256, 299]]
    assert (together == np.stack(one_by_one, 1)).all()


def relation_by_hand(one, other):
    """The four relations: True, False, or None where they do not differ clearly."""
    (x, y), (u, v) = (((o[PLACE] - 1) % 3, (o[PLACE] - 1) // 3) for o in (one, other))
    sides = {"left of": u - x, "right of": x - u, "above": v - y, "below": y - v}
    return {words: None if d == 0 else bool(d > 0) for words, d in sides.items()}


def yes_no(truth):
    return None if truth is None else "yes" if truth else "no"


@pytest.fixture(scope="module")
def some_pictures():
    return FULL.split("test").pictures(120)


@pytest.mark.parametrize("shape", range(1, 9))
def test_answers_by_hand(some_pictures, shape):
    name, plural = SHAPES[shape - 1], PLURALS[shape - 1]
    asked = {
        f"is there a {name} ?": lambda own: yes_no(len(own) > 0),
        f"how many {plural} are there ?": lambda own: NUMBERS[len(own)],
        f"what colour is the {name} ?": lambda own: only(own, COLOUR),
        f"say , the {name} is what size": lambda own: only(own, SIZE),
        f"where is the {name} ?": lambda own: only(own, PLACE),
    }
    for question, answer in asked.items():
        wanted = [
            answer([o for o in things(some_pictures, k) if o[SHAPE] == shape])
            for k in range(len(some_pictures))
        ]
        assert some_pictures.answers(question) == wanted and len(set(wanted)) > 1, question


def only(own, column):
    """An attribute of the only object, or what is said if there is none, or more than one."""
    if len(own) != 1:
        return "there are several" if own else "there is none"
    return words_of(own[0], (column,))


def test_answers_about_two_things_and_about_places(some_pictures):
    for k in range(40):
        one, *others = things(some_pictures, k)
        picture, known = some_pictures[[k]], words_of(one)
        [there] = picture.answers(f"what is at the {PLACES[one[PLACE] - 1]} ?")
        assert there.split(" ", 1)[1] == known
        empty = next(p for p in range(1, 10) if p not in things(some_pictures, k)[:, PLACE])
        assert picture.answers(f"what is at the {PLACES[empty - 1]} ?") == ["nothing"]
        if not others:
            continue
        if [words_of(o) for o in (one, *others)].count(known) > 1:
            question = f"is the {known} left of the {words_of(others[0])} ?"
            assert picture.answers(question) == ["there are several"]
            continue
        alone = [o for o in others if [words_of(p) for p in others].count(words_of(o)) == 1]
        for other in alone:
            for words, is_so in relation_by_hand(one, other).items():
                question = f"is the {known} {words} the {words_of(other)} ?"
                assert picture.answers(question) == [yes_no(is_so)], question


@pytest.mark.parametrize("words", ["", "hello ?", "is there a dog ?", "there is a circle"])
def test_what_is_no_question_of_the_grammar_has_no_answer(words):
    assert TEST.pictures(3).answers(words) == [None] * 3


# ---------------------------------------------------------------- questions


def test_questions_are_those_of_sample_questions():
    pictures = TEST.pictures(40)
    found = TEST.questions(pictures, 7)
    rows, answers = questions.sample_questions(
        DATA.world, 0, "test", pictures.indices, pictures.scenes.objects, questions.FAMILIES, 7
    )
    flat = rows.reshape(280, -1)
    parsed = [GRAMMAR.parser.parse(question, question=True) for question in found.asked]
    assert (np.array(parsed)[:, [truth.KIND, 1, 2, 3]] == flat[:, [truth.KIND, 1, 2, 3]]).all()
    assert found.targets == GRAMMAR.answer_texts(flat, answers.reshape(-1))
    assert len({question.split()[0] for question in found.asked}) > 10  # in many ways
    assert (found.cluster == pictures.cluster.repeat(7)).all()
    for k, (question, target) in enumerate(zip(found.asked, found.targets, strict=True)):
        assert pictures[[k // 7]].answers(question) == [target]


def pairs_named(asked):
    """The diagonals of the colour-shape pairs that a list of questions names."""
    rows = np.array([GRAMMAR.parser.parse(question, question=True) for question in asked])
    nouns = np.concatenate([rows[:, 1:5], rows[:, 6:10]])
    named = nouns[(nouns[:, COLOUR] > 0) & (nouns[:, SHAPE] > 0)]
    return set(diagonal_of(named[:, COLOUR], named[:, SHAPE]).tolist())


@pytest.mark.parametrize("name", HELD_OUT.splits)
def test_held_out_pairs_are_asked_for_where_they_are_what_it_is_about(name):
    split = HELD_OUT.split(name)
    named = pairs_named(split.questions(split.pictures(150), 7).asked)
    assert bool(named & {0, 1}) == (name == "held_out") and len(named) >= 6


@pytest.mark.parametrize("family", Split.families)
def test_both_pictures_of_a_pair_are_asked_the_same_and_answer_differently(family):
    found = TEST.question_pairs(family, 60)
    assert len(found.pictures) == len(found.asked) == len(found.targets) == 120
    assert (found.pictures.indices[1::2] == found.pictures.indices[::2] + 1).all()
    assert (
        found.asked[::2] == found.asked[1::2] and found.paraphrases[::2] == found.paraphrases[1::2]
    )
    assert all(a != b for a, b in zip(found.targets[::2], found.targets[1::2], strict=True))
    for k, (question, target) in enumerate(zip(found.asked, found.targets, strict=True)):
        assert found.pictures[[k]].answers(question) == [target]
    assert (found.cluster == found.pictures.cluster).all()
    assert found.chance == minimal_pairs.CHANCE[family]
    assert (found.needs_counting[::2] == found.needs_counting[1::2]).all()
    assert found.needs_counting.sum() == (60 if family in ("count", "compare") else 0)


def test_counting_is_needed_for_two_and_three_and_to_compare_what_both_pictures_have():
    found = TEST.question_pairs("count", 60)
    for k in range(0, 120, 2):
        assert set(found.targets[k : k + 2]) in ({"zero", "one"}, {"one", "two"}, {"two", "three"})
        assert found.needs_counting[k] == ({"two", "three"} == set(found.targets[k : k + 2]))
    found = TEST.question_pairs("compare", 60)
    for k in range(0, 120, 2):
        row = GRAMMAR.parser.parse(found.asked[k], question=True)
        both = [truth.matches(row[None, noun], found.pictures.scenes.objects[j : j + 1]).any()
                for noun in (truth.A, truth.B) for j in (k, k + 1)]  # fmt: skip
        assert found.needs_counting[k] == all(both)


@pytest.mark.parametrize("family", Split.families)
def test_a_paraphrase_asks_the_same_in_words_that_training_never_has(family):
    found = TEST.question_pairs(family, 60)
    train = DATA.split("train")
    taught = set(train.questions(train.pictures(400), 7).asked)
    for question, other in zip(found.asked, found.paraphrases, strict=True):
        one, same = (GRAMMAR.parser.parse(text, question=True) for text in (question, other))
        assert question != other and (one == same).all() and other not in taught
    assert len(set(found.asked)) > 30 and len(set(found.paraphrases)) > 30


@pytest.mark.parametrize("language", ["en", "ko"])
def test_premises_are_false_in_one_picture_of_a_pair(language):
    split = Shapes(language="both").speaking(language).split("test")
    found = split.premise_pairs(40)
    assert (found.is_denied[::2] != found.is_denied[1::2]).all()
    for k, (question, target) in enumerate(zip(found.asked, found.targets, strict=True)):
        assert found.pictures[[k]].answers(question) == [target]
        assert (target in split.denials) == found.is_denied[k]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_everything_is_counted_and_captions_say_what_was_asked(language):
    split = Shapes(language="both").speaking(language).split("test")
    for found in (
        split.count_everything(20),
        *(split.caption_prompts(n, 20) for n in split.levels),
    ):
        assert len(set(found.asked)) > 5
        for k, (question, target) in enumerate(zip(found.asked, found.targets, strict=True)):
            assert found.pictures[[k]].answers(question) == [target]
    for level in split.levels:
        found = split.caption_prompts(level, 20)
        judged = found.pictures.judge(found.targets, level)
        assert all(caption.is_exact for caption in judged)
        assert all(caption.stated == caption.there for caption in judged)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_questions_are_put_as_in_training_and_paraphrases_never_are(language):
    split = Shapes(language="both").speaking(language).split("test")
    parser, tables = split.grammar.parser, split.grammar.tables
    trained = parser.compile_all(tables.QUESTIONS, tables.END)

    def is_trained(text):
        rests = parser.without_start(parser.split(text))
        return any(pattern.fullmatch(rest) for rest in rests for _, _, pattern in trained)

    pairs = [split.premise_pairs(20)] + [split.question_pairs(f, 20) for f in split.families]
    prompts = [split.caption_prompts(level, 20) for level in split.levels]
    others = [split.count_everything(20), split.questions(split.pictures(4), 7)]
    for found in pairs + prompts + others:
        assert all(map(is_trained, found.asked))
    for found in pairs:
        assert not any(map(is_trained, found.paraphrases))


def test_a_poor_world_has_no_pairs_of_some_families():
    lonely = Shapes()
    lonely.world = World(max_objects=1)
    with pytest.raises(NotEnoughItems, match="relation"):
        lonely.split("test").question_pairs("relation", 10)


# ---------------------------------------------------------------- hard negatives, in words


@pytest.mark.parametrize("kind", Split.negatives)
def test_presence_asks_for_what_is_there_and_for_what_is_not(kind):
    found = TEST.presence(kind, 40)
    assert len(found.pictures) == len(found.asked) == 80 and found.is_there.shape == (80, 2)
    for k, (row, there) in enumerate(zip(found.asked, found.is_there, strict=True)):
        shown = {SHAPES[thing[SHAPE] - 1] for thing in things(found.pictures, k)}
        wanted = [name_of_shape(question) in shown for question in row]
        assert wanted == there.tolist() and sum(wanted) == 1
    # Two pictures and two questions hang together.
    assert found.cluster.tolist() == [k // 4 for k in range(160)]
    assert found.asked[::2] == found.asked[1::2]


def name_of_shape(question):
    return SHAPES[GRAMMAR.parser.parse(question, question=True)[1 + SHAPE] - 1]


@pytest.mark.parametrize("data", [DATA, FULL, HELD_OUT], ids=["default", "full", "held out"])
@pytest.mark.parametrize("kind", Split.foil_kinds)
def test_sugarcrepe_captions_are_fluent_and_true_and_false(kind, data):
    pictures, true, false = data.split("test").sugarcrepe(kind, 50)
    assert pictures.is_match(true).diagonal().all()
    assert not pictures.is_match(false).diagonal().any()
    assert all(is_fluent(caption) for caption in true + false)
    assert counts_of(true) == pictures.scenes.count.tolist()
    more = 1 if kind == "add_object" else 0
    assert counts_of(false) == [count + more for count in counts_of(true)]


def says_all(pictures, captions):
    """Is each caption true of its picture, and is every object in it?"""
    count = np.array(counts_of(captions)) == pictures.scenes.count
    return pictures.is_match(captions).diagonal() & count


@pytest.mark.parametrize("contrast", Split.contrasts)
def test_winoground_captions_are_fluent_and_true_of_their_own_picture_only(contrast):
    pictures, captions = TEST.winoground(contrast, 60)
    for own, other in ((0, 1), (1, 0)):
        assert says_all(pictures[own], captions[own]).all()
        assert not says_all(pictures[own], captions[other]).any()
        assert all(is_fluent(caption) for caption in captions[own])
    if contrast != "one_more_or_less":
        assert not pictures[0].is_match(captions[1]).diagonal().any()
    with_places = [" at the " in caption for caption in captions[0] + captions[1]]
    assert not any(with_places) if contrast == "attributes" else all(with_places)


def test_minimal_pairs_say_which_of_them_captions_tell_apart():
    pictures, tells = TEST.minimal_pairs(50)
    assert len(pictures) == len(tells) == 100
    captions, other = pictures.captions(), np.arange(100) ^ 1
    is_match = pictures.is_match(captions)
    assert (tells == ~is_match[np.arange(100), other]).all()
    assert tells.any() and not tells.all()  # two that swap places are told alike


# ---------------------------------------------------------------- classes


@pytest.mark.parametrize(
    "data, name", [(DATA, "test"), (HELD_OUT, "held_out"), (HELD_OUT, "control")]
)
def test_zero_shot_has_one_object_and_one_caption_that_is_true_of_it(data, name):
    found = data.split(name).zero_shot(100)
    is_match = found.pictures.is_match(found.templates["plain"])
    assert (found.pictures.scenes.count == 1).all() and (is_match.sum(1) == 1).all()
    assert (is_match.argmax(1) == found.label).all()
    share = np.bincount(found.label).max() / 100
    assert found.chance == (1 / 64 if data is DATA else share)


def test_every_template_says_the_same_classes():
    found = TEST.zero_shot(10)
    assert len(found.templates) == 12 and len(found.unseen) == 9
    plain = [GRAMMAR.parser.parse_caption(text)[0] for text in found.templates["plain"]]
    assert found.templates["plain"] == DATA.class_captions()
    for name, texts in found.templates.items():
        for text, one in zip(texts, plain, strict=True):
            [phrase] = GRAMMAR.parser.parse_caption(text)
            assert (phrase[[COLOUR, SHAPE]] == one[[COLOUR, SHAPE]]).all()
            assert name == "plain" or name in text


def test_training_has_no_caption_of_an_unseen_template():
    found = TEST.zero_shot(10)
    unseen = {text for name in found.unseen for text in found.templates[name]}
    batches = [DATA.caption_batch("train", np.arange(k, k + 250)) for k in range(0, 2000, 250)]
    taught = {DATA.tokenizer.decode(row) for b in batches for row in b.tokens.tolist()}
    assert set(found.templates["plain"]) & taught and not unseen & taught


@pytest.mark.parametrize("data", [DATA, FULL])
def test_the_longest_caption_is_as_long_as_a_tower_must_read(data):
    split = data.split("more")
    tokens = data.tokenizer.encode_captions(split.pictures(50).captions(omit=()))
    assert split.longest_caption(50) == len(tokens[0])


def test_a_split_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="'nowhere'.*train, val, test, more"):
        DATA.split("nowhere")
    with pytest.raises(ValueError, match="held_out takes a training with --held-out"):
        DATA.split("held_out")
    assert HELD_OUT.split("held_out").name == "held_out"


def test_judged_and_marked_captions_belong_to_their_pictures():
    pictures = TEST.pictures(20)
    captions = pictures.captions()
    assert all(judged.is_exact for judged in pictures.judge(captions))
    shifted = captions[1:] + captions[:1]
    marked = pictures.mark(shifted)
    for k, pieces in enumerate(marked):
        assert "".join(text for text, _ in pieces) == shifted[k].replace(" , ", ", ")
        phrases = GRAMMAR.parser.parse_caption(shifted[k])
        fits = match_objects(phrases, pictures.scenes.objects[k])
        assert [truth for _, truth in pieces if truth is not None] == fits.tolist()
