"""The VLM: encode, project, fuse, decode. `[BOS] h_1 .. h_n words [EOS]`."""

import torch
import torch.nn.functional as F
from torch import nn

from data.tokenizer import BOS, EOS, PAD
from tinyvlm.layers import patch_centers, sincos_2d


class VLM(nn.Module):
    """Vision encoder -> projector -> decoder; LLaVA, Liu et al. (2023)."""

    def __init__(self, vision, projector, decoder):
        super().__init__()
        self.vision, self.projector, self.decoder = vision, projector, decoder
        # Contrastive training needs no places, so the encoder's tokens may have lost theirs: they get them back.
        pos_embed = sincos_2d(patch_centers(round(vision.num_tokens**0.5)), vision.dim)
        self.register_buffer("pos_embed", pos_embed, persistent=False)

    def encode_patches(self, pixels):
        """(b, 3, H, W) -> the encoder's tokens with their places (b, 196, vision dim)."""
        return self.vision(pixels)[0] + self.pos_embed

    def encode_image(self, pixels):
        """(b, 3, H, W) -> image tokens (b, n, d)."""
        return self.project(self.encode_patches(pixels))

    def project(self, tokens):
        """The encoder's tokens (b, 196, vision dim) -> image tokens (b, n, d). A projector that says words is read as words are."""
        said = self.projector(tokens)
        return said if said.is_floating_point() else self.embed_object_words(said[..., None])[0]

    def embed_object_words(self, object_tokens):
        """Phrases, one for each object, as bags of words (b, m, 5 at most) in the place of the image tokens: (b, m, d), there (b, m)."""
        spoken = (object_tokens != PAD)[..., None]
        return (self.decoder.tok_embed(object_tokens) * spoken).sum(2), spoken.any(2)[..., 0]

    def aux_loss(self, batch):
        """What the projector has to learn besides the decoder's loss, about the pictures it saw last: a scalar, 0 for most projectors."""
        has_one = hasattr(self.projector, "aux_loss")
        return self.projector.aux_loss(batch.object_tokens) if has_one else torch.zeros((), device=batch.input_ids.device)

    def build_inputs_embeds(self, image_embeds, text, position):
        """[BOS], prefix (b, n, d) and text (b, t) as one row of embeddings (b, 1 + n + t, d)."""
        words = self.decoder.embed(F.pad(text, (1, 0), value=BOS), F.pad(position, (1, 0)))
        return torch.cat([words[:, :1], image_embeds, words[:, 1:]], 1)

    def forward(self, batch, text_only=False):
        """What a training step needs: the loss of each text token (b, t), and the projector's lesson, a scalar.

        from_words: in the place of the picture stand words that describe it.
        """
        image_embeds, image_mask = self.embed_object_words(batch.object_tokens) if text_only else (self.encode_image(batch.pixels), None)
        return self.token_losses(image_embeds, image_mask, batch), torch.zeros((), device=image_embeds.device) if text_only else self.aux_loss(batch)

    def token_losses(self, image_embeds, image_mask, batch):
        """Loss for each text token (b, t), 0 where `batch.learn` is False: natural-log cross-entropy.

        prefix: (b, n, d) image tokens or words; there: (b, n) bool or None. The last prefix position predicts the first word.
        """
        x = self.build_inputs_embeds(image_embeds, batch.input_ids, batch.position_ids)
        mask = packed_attention_mask(image_embeds.shape[1], image_mask, batch.segment_ids, batch.blind)
        hidden = self.decoder(x, mask, skip_prefix=image_embeds.shape[1])[:, :-1]
        loss = torch.zeros(batch.input_ids.shape, device=x.device)
        logits = self.decoder.lm_head(hidden[batch.loss_mask])
        loss[batch.loss_mask] = F.cross_entropy(logits.float(), batch.input_ids[batch.loss_mask], reduction="none")
        return loss

    @torch.no_grad()
    def prefill(self, image_embeds, prompts):
        """Read pictures and prompts: prefix (b, n, d), prompts (b * q, p) right-padded, perhaps empty -> hidden (b * q, d), caches, seen.

        q prompts a picture, whose image tokens are read once (n = 0: no picture). hidden: at the end of each prompt, where its first answer
        word is predicted. caches: keys and values of all that was read. seen: (b * q, 1 + n + p) bool, False for padding, so that a row says the
        same alone and in a batch.
        """
        b, n, _ = image_embeds.shape
        rows, device = torch.arange(len(prompts), device=image_embeds.device), image_embeds.device
        image_index = rows // (len(prompts) // b)
        caches = self.decoder.init_kv_cache()
        start = self.build_inputs_embeds(image_embeds, prompts.new_zeros(b, 0), prompts.new_zeros(b, 0))
        last_hidden = self.decoder(start, torch.ones(1 + n, 1 + n, dtype=torch.bool, device=device).tril()[None, None], caches, skip_prefix=n)[image_index]
        for cache in caches:
            cache.update({name: kept[image_index] for name, kept in cache.items()})
        image_mask = prompts != PAD
        attention_mask = torch.cat([torch.ones(len(rows), 1 + n, dtype=torch.bool, device=device), image_mask], 1)
        p = prompts.shape[1]
        if p:
            causal = torch.ones(1 + n + p, 1 + n + p, dtype=torch.bool, device=device).tril()[1 + n :]
            itself = torch.eye(1 + n + p, dtype=torch.bool, device=device)[1 + n :]  # no row is empty, not even one of padding
            words = self.decoder.embed(prompts, torch.arange(p, device=device).expand_as(prompts))
            last_hidden = torch.cat([last_hidden, self.decoder(words, (attention_mask[:, None, None] & causal) | itself, caches)], 1)
        return last_hidden[rows, image_mask.sum(1)], caches, attention_mask

    @torch.no_grad()
    def generate(self, image_embeds, prompts, *, max_new_tokens, temperature=0.0, top_k=0, generator=None):
        """Words after each prompt: prefix (b, n, d), prompts (b * q, p) as in `listen` -> tokens (b * q, <= max_new).

        Greedy at temperature 0, else sampled from the top_k (0: all). What follows [EOS] is [PAD].
        """
        last_hidden, caches, attention_mask = self.prefill(image_embeds, prompts)
        length = (prompts != PAD).sum(1)
        words, finished = [], torch.zeros(len(prompts), dtype=torch.bool, device=image_embeds.device)
        for step in range(max_new_tokens):
            token = sample_token(self.decoder.lm_head(last_hidden).float(), temperature, top_k, generator).masked_fill(finished, PAD)
            words.append(token)
            finished = finished | (token == EOS)
            if finished.all() or step + 1 == max_new_tokens:
                break
            attention_mask = torch.cat([attention_mask, torch.ones_like(attention_mask[:, :1])], 1)
            x = self.decoder.embed(token[:, None], (length + step)[:, None])
            last_hidden = self.decoder(x, attention_mask[:, None, None], caches)[:, 0]
        return torch.stack(words, 1)


def sample_token(logits, temperature, top_k, generator):
    """Logits (b, v) -> tokens (b,)."""
    if temperature == 0:
        return logits.argmax(-1)
    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]


def packed_attention_mask(n, image_mask, segment, blind):
    """Who may look at whom in `[BOS] prefix text`: bool (b, 1, 1 + n + t, 1 + n + t).

    Causal; a segment (b, t) of the text sees the start, the prefix and itself; where `blind` (b, t) it does not see
    the prefix. Everybody sees [BOS] and itself, so that no row is empty.
    """
    b, t = segment.shape
    if image_mask is None:
        image_mask = torch.ones(b, n, dtype=torch.bool, device=segment.device)
    number = F.pad(segment, (1 + n, 0))  # 0: start and prefix
    same = number[:, :, None] == number[:, None, :]
    is_start = torch.arange(1 + n + t, device=segment.device) == 0
    readable = F.pad(image_mask, (1, t), value=False)[:, None, :] & ~F.pad(blind, (1 + n, 0))[:, :, None]
    mask = (same & ~is_image_position(n, t, segment.device)) | readable | is_start
    causal = torch.ones(1 + n + t, 1 + n + t, dtype=torch.bool, device=segment.device).tril()
    diagonal = torch.eye(1 + n + t, dtype=torch.bool, device=segment.device)
    return ((mask & causal) | diagonal)[:, None]


def is_image_position(n, t, device):
    k = torch.arange(1 + n + t, device=device)
    return (k > 0) & (k <= n)
