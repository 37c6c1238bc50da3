"""Half of the image tokens dropped where a trained VLM answers: DROPPING, chosen by `--drop`.

FastV, Chen et al., "An image is worth 1/2 tokens after layer 2" (2024): the first two blocks of the
decoder read all, and those after them only the image tokens that the end of the prompt has looked
at most (as in the authors' code; their text takes the mean over all tokens). Training shows all of
them, so a trained model can be asked both ways. What is dropped is hidden here and not left out,
which costs more than all do: this shows what is lost, not what is won.
"""

import torch
import torch.nn.functional as F

from data.tokenizer import PAD
from tinyvlm.vlm import VLM, packed_attention_mask

BLOCKS = 2  # that read all image tokens
KEPT = 0.5  # share of the image tokens that the others read


class ByAttention(VLM):
    """Kept is what the prompt's last token looks at most in block 2, mean of the heads.

    ValueError if the decoder has no block after these.
    """

    def __init__(self, vision, projector, decoder):
        super().__init__(vision, projector, decoder)
        if len(decoder.blocks) <= BLOCKS:
            raise ValueError(f"image tokens are dropped after block {BLOCKS}, and there is no more")

    def rank(self, x, positions, mask, last, n):
        """The row before block 2 (r, 1 + n + p, d) -> how much each image token counts (r, n)."""
        block, angles = self.decoder.blocks[BLOCKS - 1], self.decoder.angles(positions)
        looks = block.attention.weights(block.norm_attention(x), mask=mask, angles=angles)
        at_last = torch.take_along_dim(looks, last[:, None, :, None], 2)  # (r, h, 1, 1 + n + p)
        return at_last.mean(1)[:, 0, 1 : 1 + n]

    @torch.no_grad()
    def prefill(self, image_embeds, prompts, image_mask=None):
        """As VLM.prefill, but attention_mask (depth, b * q, 1 + n + p) says what each block reads.

        Each prompt reads its picture by itself, for it decides what is dropped.
        """
        (b, n, _), (r, p) = image_embeds.shape, prompts.shape
        image_index = torch.arange(r, device=prompts.device) // (r // b)
        if image_mask is None:
            image_mask = torch.ones(b, n, dtype=torch.bool, device=prompts.device)
        image_embeds, image_mask = image_embeds[image_index], image_mask[image_index]
        is_word = prompts != PAD  # (r, p)
        count = torch.arange(p + 1, device=prompts.device).expand(r, -1)
        x = self.build_inputs_embeds(image_embeds, prompts, count[:, :p])  # (r, 1 + n + p, d)
        positions = self.decoder.number_row(n, image_mask, count, torch.zeros_like(count).bool())
        positions, start = positions[:, :-1], positions[:, 1 + n : 2 + n]
        mask = packed_attention_mask(n, image_mask, is_word.long(), torch.zeros_like(is_word))
        last = n + is_word.sum(1, keepdim=True)  # (r, 1)

        before = x
        for block in self.decoder.blocks[: BLOCKS - 1]:
            before = block(before, mask=mask, angles=self.decoder.angles(positions))
        rank = self.rank(before, positions, mask, last, n)  # (r, n)
        # Where there are no words the first one is predicted at the last image token, which stays
        # if it is there.
        predicts = F.pad(~is_word.any(1, keepdim=True), (n - 1, 0), value=False)
        is_kept = keep_best(rank.masked_fill(predicts, float("inf")), image_mask)
        read = [image_mask] * BLOCKS + [is_kept] * (len(self.decoder.blocks) - BLOCKS)
        attention_mask = torch.stack([self.of_row(images, is_word) for images in read])
        itself = torch.eye(1 + n + p, dtype=torch.bool, device=prompts.device)
        masks = mask & attention_mask[:, :, None, None] | itself  # (depth, r, 1, 1 + n + p, same)
        kv_cache = self.decoder.init_kv_cache()
        last_hidden = self.decoder(x, positions, masks, kv_cache, keep=last)[:, 0]
        return last_hidden, kv_cache, attention_mask, start

    @staticmethod
    def of_row(is_read, is_word):
        """Image tokens (r, n) and words (r, p) that may be read -> those of the row, with [BOS]."""
        return torch.cat([F.pad(is_read, (1, 0), value=True), is_word], dim=1)


class AtRandom(ByAttention):
    """Kept is a half that each seed draws once for all pictures: what ranking by attention has to
    beat."""

    def __init__(self, vision, projector, decoder, seed=0):
        super().__init__(vision, projector, decoder)
        self.seed = seed

    def rank(self, x, positions, mask, last, n):
        drawn = torch.rand(n, generator=torch.Generator().manual_seed(self.seed))
        return drawn.to(x.device).expand(len(x), n)


def keep_best(rank, image_mask):
    """The better half of the image tokens that are there, rounded up: bool (r, n)."""
    order = rank.masked_fill(~image_mask, -1).argsort(dim=1, descending=True, stable=True)
    place = order.argsort(dim=1)  # 0 for the best
    kept = (image_mask.sum(1, keepdim=True) * KEPT).ceil()
    return image_mask & (place < kept)


DROPPING = {"none": VLM, "attention": ByAttention, "random": AtRandom}
