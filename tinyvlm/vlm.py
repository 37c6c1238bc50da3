"""The VLM: encode, project, fuse, decode. `[BOS] h_1 .. h_n words [EOS]`."""

import torch
import torch.nn.functional as F
from torch import nn

from data.tokenizer import BOS, EOS, PAD
from tinyvlm.layers import grid_points, sine_cosine


class VLM(nn.Module):
    """Vision encoder -> projector -> decoder; LLaVA, Liu et al. (2023)."""

    def __init__(self, vision, projector, decoder):
        super().__init__()
        self.vision, self.projector, self.decoder = vision, projector, decoder
        # Contrastive training needs no places, so the encoder's tokens may have lost theirs: they get them back.
        place = sine_cosine(grid_points(round(vision.num_tokens**0.5)), vision.dim)
        self.register_buffer("place", place, persistent=False)

    def look(self, pixels):
        """(b, 3, H, W) -> the encoder's tokens with their places (b, 196, vision dim)."""
        return self.vision(pixels)[0] + self.place

    def see(self, pixels):
        """(b, 3, H, W) -> image tokens (b, n, d)."""
        return self.project(self.look(pixels))

    def project(self, tokens):
        """The encoder's tokens (b, 196, vision dim) -> image tokens (b, n, d). A projector that says words is read as words are."""
        said = self.projector(tokens)
        return said if said.is_floating_point() else self.read(said[..., None])[0]

    def read(self, description):
        """Phrases, one for each object, as bags of words (b, m, 5 at most) in the place of the image tokens: (b, m, d), there (b, m)."""
        spoken = (description != PAD)[..., None]
        return (self.decoder.token(description) * spoken).sum(2), spoken.any(2)[..., 0]

    def lesson(self, batch):
        """What the projector has to learn besides the decoder's loss, about the pictures it saw last: a scalar, 0 for most projectors."""
        has_one = hasattr(self.projector, "lesson")
        return self.projector.lesson(batch.description) if has_one else torch.zeros((), device=batch.text.device)

    def fuse(self, prefix, text, position):
        """[BOS], prefix (b, n, d) and text (b, t) as one row of embeddings (b, 1 + n + t, d)."""
        words = self.decoder.embed(F.pad(text, (1, 0), value=BOS), F.pad(position, (1, 0)))
        return torch.cat([words[:, :1], prefix, words[:, 1:]], 1)

    def forward(self, batch, from_words=False):
        """What a training step needs: the loss of each text token (b, t), and the projector's lesson, a scalar.

        from_words: in the place of the picture stand words that describe it.
        """
        prefix, there = self.read(batch.description) if from_words else (self.see(batch.pixels), None)
        return self.losses(prefix, there, batch), torch.zeros((), device=prefix.device) if from_words else self.lesson(batch)

    def losses(self, prefix, there, batch):
        """Loss for each text token (b, t), 0 where `batch.learn` is False: natural-log cross-entropy.

        prefix: (b, n, d) image tokens or words; there: (b, n) bool or None. The last prefix position predicts the first word.
        """
        x = self.fuse(prefix, batch.text, batch.position)
        mask = fusion_mask(prefix.shape[1], there, batch.segment, batch.blind)
        hidden = self.decoder(x, mask, wanted=prefix.shape[1])[:, :-1]
        loss = torch.zeros(batch.text.shape, device=x.device)
        logits = self.decoder.head(hidden[batch.learn])
        loss[batch.learn] = F.cross_entropy(logits.float(), batch.text[batch.learn], reduction="none")
        return loss

    @torch.no_grad()
    def listen(self, prefix, prompts):
        """Read pictures and prompts: prefix (b, n, d), prompts (b * q, p) right-padded, perhaps empty -> hidden (b * q, d), caches, seen.

        q prompts a picture, whose image tokens are read once (n = 0: no picture). hidden: at the end of each prompt, where its first answer
        word is predicted. caches: keys and values of all that was read. seen: (b * q, 1 + n + p) bool, False for padding, so that a row says the
        same alone and in a batch.
        """
        b, n, _ = prefix.shape
        rows, device = torch.arange(len(prompts), device=prefix.device), prefix.device
        picture = rows // (len(prompts) // b)
        caches = self.decoder.new_caches()
        start = self.fuse(prefix, prompts.new_zeros(b, 0), prompts.new_zeros(b, 0))
        last = self.decoder(start, torch.ones(1 + n, 1 + n, dtype=torch.bool, device=device).tril()[None, None], caches, wanted=n)[picture]
        for cache in caches:
            cache.update({name: kept[picture] for name, kept in cache.items()})
        there = prompts != PAD
        seen = torch.cat([torch.ones(len(rows), 1 + n, dtype=torch.bool, device=device), there], 1)
        p = prompts.shape[1]
        if p:
            causal = torch.ones(1 + n + p, 1 + n + p, dtype=torch.bool, device=device).tril()[1 + n :]
            itself = torch.eye(1 + n + p, dtype=torch.bool, device=device)[1 + n :]  # no row is empty, not even one of padding
            words = self.decoder.embed(prompts, torch.arange(p, device=device).expand_as(prompts))
            last = torch.cat([last, self.decoder(words, (seen[:, None, None] & causal) | itself, caches)], 1)
        return last[rows, there.sum(1)], caches, seen

    @torch.no_grad()
    def generate(self, prefix, prompts, *, max_new, temperature=0.0, top_k=0, generator=None):
        """Words after each prompt: prefix (b, n, d), prompts (b * q, p) as in `listen` -> tokens (b * q, <= max_new).

        Greedy at temperature 0, else sampled from the top_k (0: all). What follows [EOS] is [PAD].
        """
        last, caches, seen = self.listen(prefix, prompts)
        length = (prompts != PAD).sum(1)
        words, ended = [], torch.zeros(len(prompts), dtype=torch.bool, device=prefix.device)
        for step in range(max_new):
            token = choose(self.decoder.head(last).float(), temperature, top_k, generator).masked_fill(ended, PAD)
            words.append(token)
            ended = ended | (token == EOS)
            if ended.all() or step + 1 == max_new:
                break
            seen = torch.cat([seen, torch.ones_like(seen[:, :1])], 1)
            x = self.decoder.embed(token[:, None], (length + step)[:, None])
            last = self.decoder(x, seen[:, None, None], caches)[:, 0]
        return torch.stack(words, 1)


def choose(logits, temperature, top_k, generator):
    """Logits (b, v) -> tokens (b,)."""
    if temperature == 0:
        return logits.argmax(-1)
    if top_k:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]


def fusion_mask(n, there, segment, blind):
    """Who may look at whom in `[BOS] prefix text`: bool (b, 1, 1 + n + t, 1 + n + t).

    Causal; a segment (b, t) of the text sees the start, the prefix and itself; where `blind` (b, t) it does not see
    the prefix. Everybody sees [BOS] and itself, so that no row is empty.
    """
    b, t = segment.shape
    if there is None:
        there = torch.ones(b, n, dtype=torch.bool, device=segment.device)
    number = F.pad(segment, (1 + n, 0))  # 0: start and prefix
    same = number[:, :, None] == number[:, None, :]
    is_start = torch.arange(1 + n + t, device=segment.device) == 0
    readable = F.pad(there, (1, t), value=False)[:, None, :] & ~F.pad(blind, (1 + n, 0))[:, :, None]
    mask = (same & ~is_prefix(n, t, segment.device)) | readable | is_start
    causal = torch.ones(1 + n + t, 1 + n + t, dtype=torch.bool, device=segment.device).tril()
    diagonal = torch.eye(1 + n + t, dtype=torch.bool, device=segment.device)
    return ((mask & causal) | diagonal)[:, None]


def is_prefix(n, t, device):
    k = torch.arange(1 + n + t, device=device)
    return (k > 0) & (k <= n)
