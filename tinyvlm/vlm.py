"""The VLM: encode, project, fuse, decode. `[BOS] h_1 .. h_n words [EOS]`."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from data.batch import IGNORE
from data.tokenizer import BOS, EOS, PAD
from tinyvlm.layers import patch_centers, sincos_2d
from tinyvlm.text import words_before


class VLM(nn.Module):
    """Vision encoder -> projector -> decoder; LLaVA, Liu et al. (2023)."""

    def __init__(self, vision, projector, decoder):
        super().__init__()
        self.vision, self.projector, self.decoder = vision, projector, decoder
        # Contrastive training needs no places, so the encoder's tokens may have lost theirs: they
        # get them back.
        pos_embed = sincos_2d(patch_centers(vision.num_tokens), vision.dim)
        self.register_buffer("pos_embed", pos_embed, persistent=False)

    # ------------------------------------------------------------ picture to image tokens

    def encode_patches(self, pixels):
        """(b, 3, H, W) -> placed tokens (b, patches, vision_dim), pooled (b, pooled_dim)."""
        tokens, pooled = self.vision(pixels)
        return tokens + self.pos_embed, pooled

    def project(self, tokens, pooled):
        """What encode_patches gives -> image_embeds (b, n, d), image_mask bool (b, n) or None.

        A projector that says words, (b, n) token ids, is read as words are.
        """
        out = self.projector(tokens, pooled)  # (b, n, d), or token ids (b, n)
        if out.is_floating_point():
            return out, None
        return self.embed_object_words(out[..., None])  # a word each

    def encode_image(self, pixels):
        """(b, 3, H, W) -> image_embeds (b, n, d), image_mask bool (b, n) or None (all there)."""
        return self.project(*self.encode_patches(pixels))

    def embed_object_words(self, object_tokens):
        """Each object's words (b, n, w), [PAD] for none -> their sums (b, n, d), image_mask (b, n).

        The language stage reads these in the place of the picture.
        """
        is_word = (object_tokens != PAD)[..., None]  # (b, n, w, 1)
        image_embeds = (self.decoder.tok_embed(object_tokens) * is_word).sum(2)
        return image_embeds, is_word.any(2)[..., 0]

    # ------------------------------------------------------------ training

    def forward(self, batch, text_only=False):
        """What a training step needs: each text token's loss (b, t) and the projector's aux_loss.

        text_only: in the place of the picture stand words that describe it.
        """
        if text_only:
            image_embeds, image_mask = self.embed_object_words(batch.object_tokens)
            aux_loss = torch.zeros((), device=image_embeds.device)
        else:
            image_embeds, image_mask = self.encode_image(batch.pixels)
            aux_loss = self.aux_loss(batch)
        return self.token_losses(image_embeds, image_mask, batch), aux_loss

    def token_losses(self, image_embeds, image_mask, batch):
        """The loss of each text token (b, t), natural logarithm, 0 where there is no label.

        The last image position predicts the first word.
        """
        n = image_embeds.shape[1]
        x = self.build_inputs_embeds(image_embeds, batch.input_ids, batch.position_ids)
        positions = self.decoder.number_row(n, image_mask, batch.position_ids, batch.blind)
        mask = packed_attention_mask(n, image_mask, batch.segment_ids, batch.blind)
        labelled = labelled_words(batch.labels)  # (b, k)
        # The row is [BOS], n image tokens, the words: position n + i predicts word i.
        hidden = self.decoder(x, positions, mask, keep=n + labelled)  # (b, k, d)
        logits = self.decoder.lm_head(hidden)  # (b, k, v)
        losses = F.cross_entropy(
            rearrange(logits.float(), "b k v -> b v k"),
            batch.labels.gather(1, labelled),
            ignore_index=IGNORE,
            reduction="none",
        )  # (b, k)
        return losses.new_zeros(batch.labels.shape).scatter(1, labelled, losses)

    def aux_loss(self, batch):
        """What the projector has to learn besides, about the pictures it saw last: a scalar."""
        if hasattr(self.projector, "aux_loss"):
            return self.projector.aux_loss(batch.object_tokens)
        return torch.zeros((), device=batch.input_ids.device)

    def build_inputs_embeds(self, image_embeds, input_ids, position_ids):
        """[BOS], image_embeds (b, n, d) and text (b, t) as one row: (b, 1 + n + t, d)."""
        input_ids, position_ids = F.pad(input_ids, (1, 0), value=BOS), F.pad(position_ids, (1, 0))
        previous = previous_words(input_ids, position_ids)
        words = self.decoder.embed(input_ids, position_ids, previous)  # (b, 1 + t, d)
        return torch.cat([words[:, :1], image_embeds, words[:, 1:]], dim=1)

    # ------------------------------------------------------------ generation

    @torch.no_grad()
    def prefill(self, image_embeds, prompts, image_mask=None):
        """Read pictures and prompts: image_embeds (b, n, d), prompts (b * q, p) right-padded.

        q prompts a picture, whose image tokens are read once (n = 0: no picture). Returns
            last_hidden (b * q, d)  at each prompt's end, where its first answer word is predicted
            kv_cache                keys and values of all that was read
            attention_mask (b * q, 1 + n + p)  False for padding, so that a row says the same alone
                                    and in a batch
            start (b * q, 1, 2)     the position at which each prompt begins
        """
        b, n, _ = image_embeds.shape
        r, p = prompts.shape
        device = image_embeds.device
        image_index = torch.arange(r, device=device) // (r // b)
        if image_mask is None:
            image_mask = torch.ones(b, n, dtype=torch.bool, device=device)

        # [BOS] and the image tokens, once for each picture.
        nothing = prompts.new_zeros(b, 0)
        x = self.build_inputs_embeds(image_embeds, nothing, nothing)  # (b, 1 + n, d)
        mask = packed_attention_mask(n, image_mask, nothing, nothing.bool())
        first = prompts.new_zeros(b, 1)  # a word
        positions = self.decoder.number_row(n, image_mask, first, first.bool())
        positions, start = positions[:, :-1], positions[image_index, -1:]
        kv_cache = self.decoder.init_kv_cache()
        last = torch.full((b, 1), n, device=device)  # where the first word is predicted
        hidden = self.decoder(x, positions, mask, kv_cache, keep=last)[image_index]  # (r, 1, d)
        for cache in kv_cache:
            cache.update({name: kept[image_index] for name, kept in cache.items()})

        # The prompts, each after its picture.
        is_word = prompts != PAD  # (r, p)
        is_image = F.pad(image_mask, (1, 0), value=True)[image_index]  # (r, 1 + n)
        attention_mask = torch.cat([is_image, is_word], dim=1)
        if p:
            square = torch.ones(1 + n + p, 1 + n + p, dtype=torch.bool, device=device)
            causal = square.tril()[1 + n :]  # (p, 1 + n + p)
            itself = torch.eye(1 + n + p, dtype=torch.bool, device=device)[1 + n :]  # no empty row
            positions = torch.arange(p, device=device).expand_as(prompts)
            words = self.decoder.embed(prompts, positions, previous_words(prompts, positions))
            mask = (attention_mask[:, None, None] & causal) | itself
            read = self.decoder(words, start + positions[..., None], mask, kv_cache)  # (r, p, d)
            hidden = torch.cat([hidden, read], dim=1)
        last_hidden = hidden[torch.arange(r, device=device), is_word.sum(1)]
        return last_hidden, kv_cache, attention_mask, start

    @torch.no_grad()
    def generate(
        self, image_embeds, prompts, *, max_new_tokens=None,
        image_mask=None, temperature=0.0, top_k=0, generator=None,
    ):  # fmt: skip
        """Words after each prompt, as in prefill -> tokens (b * q, max_new_tokens or fewer).

        Greedy at temperature 0, else sampled from the top_k (0: all). After [EOS] comes [PAD]. A
        row ends, too, where prompt and words have the decoder's max_length.
        """
        longest = self.decoder.max_length
        last_hidden, kv_cache, attention_mask, start = self.prefill(
            image_embeds, prompts, image_mask
        )
        length = (prompts != PAD).sum(1)  # (r,)
        finished = torch.zeros_like(length, dtype=torch.bool)
        rows = torch.arange(len(prompts), device=prompts.device)
        previous = F.pad(prompts, (1, 0), value=PAD)[rows, length]  # (r,)
        words = []
        for step in range(longest if max_new_tokens is None else max_new_tokens):
            logits = self.decoder.lm_head(last_hidden).float()  # (r, v)
            token = sample_token(logits, temperature, top_k, generator)
            token = token.masked_fill(finished, PAD)  # (r,)
            words.append(token)
            finished = finished | (token == EOS) | (length + step + 1 >= longest)
            if finished.all() or step + 1 == max_new_tokens:
                break
            attention_mask = F.pad(attention_mask, (0, 1), value=True)
            position = (length + step).clamp(max=longest - 1)  # beyond it all is finished
            x = self.decoder.embed(token[:, None], position[:, None], previous[:, None])
            previous, positions = token, start + position[:, None, None]
            mask = attention_mask[..., None, None, :]
            last_hidden = self.decoder(x, positions, mask, kv_cache)[:, 0]
        return torch.stack(words, dim=1)  # (r, steps)


def labelled_words(labels):
    """Which words have a label, in each row of (b, t): their numbers (b, k).

    k is the most that a row has; a row with fewer is filled up with words that have none.
    """
    is_labelled = labels != IGNORE
    order = (~is_labelled).int().argsort(dim=1, stable=True)
    return order[:, : max(int(is_labelled.sum(1).max()), 1)]


def previous_words(input_ids, position_ids):
    """The token before each (b, t) in its text, [PAD] before the first."""
    return words_before(input_ids) * (position_ids > 0)


def sample_token(logits, temperature, top_k, generator):
    """Logits (b, v) -> tokens (b,)."""
    if temperature == 0:
        return logits.argmax(-1)
    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]


def packed_attention_mask(n, image_mask, segment_ids, blind):
    """Who may look at whom in `[BOS] image text`: bool (b, 1, 1 + n + t, 1 + n + t).

    image_mask: (b, n), False for image tokens that are not there, or None. segment_ids: (b, t).
    blind: bool (b, t). For n = 3 of which h_3 is not there, a caption of two words and two
    questions of two, the second one blind (rows look at columns, x = may look):

                  BOS  h1 h2 h3   c1 c2   q1 a1   q2 a2
            BOS    x   .  .  .    .  .    .  .    .  .
            h1     x   x  .  .    .  .    .  .    .  .
            h2     x   x  x  .    .  .    .  .    .  .
            h3     x   x  x  x    .  .    .  .    .  .
            c1     x   x  x  .    x  .    .  .    .  .      segment 1 sees the picture and itself
            c2     x   x  x  .    x  x    .  .    .  .
            q1     x   x  x  .    .  .    x  .    .  .      segment 2 sees no segment 1
            a1     x   x  x  .    .  .    x  x    .  .
            q2     x   .  .  .    .  .    .  .    x  .      blind: no picture
            a2     x   .  .  .    .  .    .  .    x  x

    Everybody sees [BOS] and itself, so that no row is empty.
    """
    (b, t), device = segment_ids.shape, segment_ids.device
    size = 1 + n + t
    if image_mask is None:
        image_mask = torch.ones(b, n, dtype=torch.bool, device=device)
    is_text = torch.arange(size, device=device) > n  # (size,)
    segment = F.pad(segment_ids, (1 + n, 0))  # (b, size), 0 for [BOS] and image
    sees_segment = (segment[:, :, None] == segment[:, None, :]) & is_text
    is_readable = F.pad(image_mask, (1, t), value=False)  # (b, size)
    sees_image = is_readable[:, None, :] & ~F.pad(blind, (1 + n, 0))[:, :, None]
    is_start = torch.arange(size, device=device) == 0
    causal = torch.ones(size, size, dtype=torch.bool, device=device).tril()
    itself = torch.eye(size, dtype=torch.bool, device=device)
    return ((sees_segment | sees_image | is_start) & causal | itself)[:, None]
