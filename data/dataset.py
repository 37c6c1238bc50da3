"""The data sets that the scripts choose from by name: DATASETS.

The contract of an entry, `make(language=, held_out=, seed=, image_size=, device=, captions=,
hard_negatives=, num_questions=, num_blind=)`:
  for training
    tokenizer, image_size, seed    words to ids and back, see tokenizer.py; pixels a side; the draw
    caption_batch(split, indices)  -> CaptionBatch, see batch.py
    is_match(split, indices)       -> the batch's truth alone
    vqa_batch(split, indices, with_pixels=True, pieces=True) -> VLMBatch
    label_token_ids                the words of a classifier, for the label bottleneck
  for evaluation: "val" and "test" always, others by name
    splits, shifted_splits         names; those whose pictures differ from training's
    split(name)                    -> what evaluation asks, see shapes/split.py
    languages, language            names: those that training speaks, the one that splits speak
    speaking(language)             the same data set, whose splits speak another one
    caption_prompt, yes_no         what asks for a usual caption in that language; the two answers
  for the sampler
    normalize_caption(text), normalize_question(text)    as the data set spells them
    explain_question(text)         a line on one that it does not know
    describe_shift(pixels)         a line on a picture that is none of its kind
    generic_questions, class_captions()
Same index, same bits, whatever the batch size and the number of processes. Splits do not overlap.
"""

from functools import partial

from data.shapes.dataset import VARIANTS, Shapes
from data.shapes.languages import CHOICES as LANGUAGES  # noqa: F401
from data.shapes.languages import TABLES

SPOKEN = tuple(TABLES)  # of LANGUAGES, those that a text can be in
DATASETS = {variant: partial(Shapes, variant) for variant in VARIANTS}
OLDER_NAMES = {
    "default": "shapes",
    "full": "shapes-full",
    "zipf": "shapes-zipf",
    "friends": "shapes-cooccurrence",
}
