"""How fast the same training step is elsewhere: ours, transformers' and nanoVLM's, in turn.

    pip install transformers    # none of this project's requirements
    python benchmarks/peers.py --nanovlm FOLDER    # a clone of github.com/huggingface/nanoVLM

A step is forward, a simple loss, backward and torch.optim.AdamW(fused=True), on one batch, all in
float32 without dropout, so that only the models differ. A round takes one step of each, after one
to warm up. Of the rounds a cell shows the median, the last column the median and the range.

The sizes are the same, the rest is as each project has it, and not all of it can be compared:
    pictures    ours normalizes bytes in the step, the others are given floats
    ViT         the others learn positions, 13 thousand numbers; transformers' (and CLIP's) has one
                token more, [CLS]; nanoVLM's GELU is the one with tanh; ours pools besides
    VLM         the others' decoders have RMSNorm, rotary positions and gated MLPs with as many
                numbers as ours, nanoVLM's projector is one matrix; ours pays for a mask, where they
                are plainly causal, but ends its last block for the words alone, a seventh less work
    Q-Former    ours makes tokens 96 wide first, a third more work; BLIP-2's reads them as they are
nanoVLM has no CLIP and no Q-Former. Its VLM (mid 2025 and later) wants a tokenizer from the hub, of
which a step needs the id of image tokens alone: a stand-in knows it, so nothing is downloaded.
"""

import dataclasses
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from speed import peak, seconds_of  # noqa: E402

from data.batch import IGNORE, VLMBatch  # noqa: E402
from data.tokenizer import BOS, EOS  # noqa: E402
from tinyvlm.clip import CLIP  # noqa: E402
from tinyvlm.decoders import DECODERS  # noqa: E402
from tinyvlm.losses import LOSSES  # noqa: E402
from tinyvlm.projectors import PROJECTORS  # noqa: E402
from tinyvlm.text import TEXT_ENCODERS  # noqa: E402
from tinyvlm.training.config import UserError, option, run_script  # noqa: E402
from tinyvlm.training.distributed import pick_device  # noqa: E402
from tinyvlm.vision import VISION_ENCODERS  # noqa: E402
from tinyvlm.vlm import VLM  # noqa: E402

BATCH, SIDE, PATCH, PATCHES = 64, 56, 4, 196
WIDTH, DEPTH, HEADS = 64, 4, 4  # of vision and of CLIP's text
CAPTION, TEXT, VOCAB = 24, 80, 80  # tokens of a caption, of a conversation; words
TEXT_DIM, TEXT_DEPTH, GATED = 96, 3, 256  # the decoder; the width of a gated MLP
QUERIES, Q_DEPTH, Q_HEADS = 32, 2, 3  # as PROJECTORS["qformer"] has them
FIRST, IMAGE, END = 3, VOCAB - 2, VOCAB - 1  # ids: words from FIRST; the peers' image and end


@dataclasses.dataclass
class Config:
    device: str = option("auto", "auto, cpu, mps, cuda or cuda:N")
    rounds: int = option(7, "measured steps of each", min=1)
    nanovlm: str = option("", "a clone of github.com/huggingface/nanoVLM; if empty it shows -")


def main(config):
    version = find_peers(config.nanovlm)
    device = pick_device(config.device)
    where = f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{where}, transformers {version}; matrix-product peak {peak(device) / 1e9:.0f} GFLOP/s")
    names = "".join(f"{name:>18}" for name in ("ours", "transformers", "nanoVLM"))
    print(f"{'images/s (parameters)':22}{names}   ours / best other")
    with device:
        batch = make_batch()
    for name, makers in ROWS.items():
        there = makers if config.nanovlm else (*makers[:2], None)
        steps = [make and training_step(make, batch, device) for make in there]
        print(f"{name:22}{cells(steps, config.rounds)}")


def find_peers(folder):
    """Make the peers ready for import: transformers' version. UserError if one is not there."""
    if folder and not (Path(folder) / "models" / "vision_language_model.py").is_file():
        raise UserError(f"--nanovlm {folder} is no clone of huggingface/nanoVLM; git clone it")
    tokenizer = SimpleNamespace(image_token_id=IMAGE)  # its data is nanoVLM's, not ours
    sys.modules["data.processors"] = SimpleNamespace(get_tokenizer=lambda *_: tokenizer)
    sys.path += [folder] * bool(folder)
    try:
        return importlib.import_module("transformers").__version__
    except ModuleNotFoundError:
        raise UserError("transformers is not installed; pip install transformers")


def cells(steps, rounds):
    """A row, measured. steps: (work, parameters) of each, ours first, or None."""
    seconds = np.full((rounds, len(steps)), np.inf)
    for r in range(rounds):
        for i, step in enumerate(steps):
            if step:
                seconds[r, i] = seconds_of(step[0], 1)
    medians = np.median(seconds, 0)
    texts = [
        f"{BATCH / median:.0f} ({step[1] / 1000:.0f}k)" if step else "-"
        for step, median in zip(steps, medians, strict=True)
    ]
    ratio = seconds[:, 1 + medians[1:].argmin()] / seconds[:, 0]  # (rounds,), to the best other
    texts[-1] = f"{texts[-1]:>18}   {np.median(ratio):.2f} ({ratio.min():.2f} .. {ratio.max():.2f})"
    return "".join(f"{text:>18}" for text in texts)


def training_step(make, batch, device):
    """make() -> a model and a function from a batch to its loss. Returns the step, parameters."""
    model, loss_of = make()
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def work():
        optimizer.zero_grad()
        loss_of(batch).backward()
        optimizer.step()

    return work, sum(p.numel() for p in model.parameters())


def make_batch():
    """Random pictures, texts and targets, the same for all."""
    torch.manual_seed(0)
    pixels = torch.randint(256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    words = torch.randint(FIRST, IMAGE, (BATCH, TEXT))  # (b, t)
    captions = F.pad(F.pad(words[:, 2:CAPTION], (1, 0), value=BOS), (0, 1), value=EOS)
    ones, positions = torch.ones_like(words), torch.arange(TEXT).repeat(BATCH, 1)
    peer_captions = captions.where(captions != EOS, END)  # 2 means something else there
    ids = F.pad(F.pad(words, (PATCHES, 0), value=IMAGE), (1, 0), value=BOS)  # a row as long as ours
    labels = F.pad(words, (1 + PATCHES, 0), value=IGNORE)  # (b, 1 + n + t)
    next_labels = F.pad(labels[:, 1:], (0, 1), value=IGNORE)  # as nanoVLM's data has them
    conversations = VLMBatch(pixels, None, words, ones, positions, words, ones == 0)
    return SimpleNamespace(
        pixels=pixels, floats=pixels / 127.5 - 1, captions=captions, peer_captions=peer_captions,
        conversations=conversations, ids=ids, labels=labels, next_labels=next_labels,
        patches=torch.randn(BATCH, PATCHES, WIDTH), answers=torch.randn(BATCH, QUERIES, TEXT_DIM),
    )  # fmt: skip


def sizes_of(width, depth, heads, **more):
    """A tower's sizes, as transformers calls them."""
    sizes = dict(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads)
    return sizes | dict(intermediate_size=4 * width, attn_implementation="sdpa") | more


VISION = sizes_of(WIDTH, DEPTH, HEADS, image_size=SIDE, patch_size=PATCH, hidden_act="gelu")
NANO = dict(
    vit_hidden_dim=WIDTH, vit_inter_dim=4 * WIDTH, vit_n_heads=HEADS, vit_n_blocks=DEPTH,
    vit_img_size=SIDE, vit_patch_size=PATCH, mp_pixel_shuffle_factor=1,
    mp_image_token_length=PATCHES, lm_hidden_dim=TEXT_DIM, lm_inter_dim=GATED, lm_n_heads=HEADS,
    lm_n_kv_heads=HEADS, lm_n_blocks=TEXT_DEPTH, lm_vocab_size=VOCAB, lm_tie_weights=False,
)  # fmt: skip


def our_vit():
    model = VISION_ENCODERS["vit"](image_size=SIDE, dim=WIDTH, depth=DEPTH, heads=HEADS)
    return model, lambda batch: F.mse_loss(model(batch.pixels)[0], batch.patches)


def their_vit():
    hf = importlib.import_module("transformers")
    model = hf.ViTModel(hf.ViTConfig(**VISION), add_pooling_layer=False)
    return model, lambda b: F.mse_loss(model(b.floats).last_hidden_state[:, 1:], b.patches)


def nano_vit():
    model = nano_vlm()[0].vision_encoder
    return model, lambda batch: F.mse_loss(model(batch.floats), batch.patches)


def our_clip():
    sizes = dict(vocab_size=VOCAB, dim=WIDTH, depth=DEPTH, heads=HEADS, max_length=CAPTION)
    model = CLIP(our_vit()[0], TEXT_ENCODERS["causal"](**sizes), embed_dim=WIDTH)
    return model, lambda batch: LOSSES["clip"](*model(batch.pixels, batch.captions))


def their_clip():
    hf = importlib.import_module("transformers")
    text = sizes_of(WIDTH, DEPTH, HEADS, hidden_act="gelu", max_position_embeddings=CAPTION)
    text |= dict(vocab_size=VOCAB, bos_token_id=BOS, eos_token_id=END, pad_token_id=0)
    towers = dict(text_config=text, vision_config=VISION, projection_dim=WIDTH)
    model = hf.CLIPModel(hf.CLIPConfig(**towers, attn_implementation="sdpa"))
    return model, lambda b: model(b.peer_captions, b.floats, return_loss=True).loss


def our_vlm():
    decoder = DECODERS["gpt"](vocab_size=VOCAB, dim=TEXT_DIM, depth=TEXT_DEPTH, heads=HEADS)
    projector = PROJECTORS["mlp"](vision_dim=WIDTH, text_dim=TEXT_DIM, num_patches=PATCHES)
    model = VLM(our_vit()[0], projector, decoder)
    return model, lambda batch: model(batch.conversations)[0].mean()  # of losses (b, t)


def their_llava():
    hf = importlib.import_module("transformers")
    sizes = sizes_of(TEXT_DIM, TEXT_DEPTH, HEADS, intermediate_size=GATED, vocab_size=VOCAB)
    text = hf.LlamaConfig(**sizes, max_position_embeddings=512, use_cache=False)
    sizes = dict(text_config=text, vision_config=hf.CLIPVisionConfig(**VISION))
    sizes |= dict(image_token_index=IMAGE, image_seq_length=PATCHES, vision_feature_layer=-1)
    model = hf.LlavaForConditionalGeneration(hf.LlavaConfig(**sizes, attn_implementation="sdpa"))
    return model, lambda batch: model(batch.ids, batch.floats, labels=batch.labels).loss


def nano_vlm():
    nano = importlib.import_module("models.vision_language_model")
    model = nano.VisionLanguageModel(nano.VLMConfig(**NANO), load_backbone=False)
    return model, lambda batch: model(batch.ids, batch.floats, targets=batch.next_labels)[1]


def our_qformer():
    sizes = dict(vision_dim=WIDTH, text_dim=TEXT_DIM, num_patches=PATCHES, image_tokens=QUERIES)
    model = PROJECTORS["qformer"](**sizes, depth=Q_DEPTH)
    return model, lambda batch: F.mse_loss(model(batch.patches, None), batch.answers)


def their_qformer():
    """With what BLIP-2 has around it: the queries, and a linear layer to the language model."""
    hf = importlib.import_module("transformers")
    sizes = sizes_of(TEXT_DIM, Q_DEPTH, Q_HEADS, encoder_hidden_size=WIDTH)
    rest = dict(hidden_dropout_prob=0, attention_probs_dropout_prob=0, cross_attention_frequency=1)
    model = hf.Blip2QFormerModel(hf.Blip2QFormerConfig(**sizes, **rest))
    model.queries = torch.nn.Parameter(torch.randn(1, QUERIES, TEXT_DIM))
    model.out_proj = torch.nn.Linear(TEXT_DIM, TEXT_DIM)

    def loss_of(batch):
        x = model(model.queries.expand(BATCH, -1, -1), encoder_hidden_states=batch.patches)[0]
        return F.mse_loss(model.out_proj(x), batch.answers)

    return model, loss_of


ROWS = {
    "ViT": (our_vit, their_vit, nano_vit),
    "CLIP": (our_clip, their_clip, None),
    "VLM, 196 image tokens": (our_vlm, their_llava, nano_vlm),
    "Q-Former": (our_qformer, their_qformer, None),
}


if __name__ == "__main__":
    run_script(main, Config, __doc__)
