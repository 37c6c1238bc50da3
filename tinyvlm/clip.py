"""CLIP: two towers, unit vectors, one temperature; a bias where the loss asks for one."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tinyvlm.layers import Head


class CLIP(nn.Module):
    """Vision encoder | text encoder -> one space; Radford et al., "Learning transferable visual
    models from natural language supervision" (2021).

    pool_dim: the tokens are made so wide before their maximum is taken, for a maximum of few
    numbers forgets what belongs to what; 0: the encoder's own pooled vector is read. bias: what the
    logits' bias starts from, for a loss that needs one; None: there is none. temperature: what
    cosines are divided by in the loss, at the start or, where it is not learned, always.
    """

    def __init__(
        self, vision, text, embed_dim, pool_dim=0, bias=None,
        temperature=0.07, learn_temperature=True,
    ):  # fmt: skip
        super().__init__()
        self.vision, self.text = vision, text
        # Drawn first: the same numbers, whatever the pictures' side is made of.
        self.text_proj = Head(text.dim, embed_dim, bias=False)
        self.widen = nn.Linear(vision.dim, pool_dim) if pool_dim else None
        self.image_proj = Head(pool_dim or vision.pooled_dim, embed_dim, bias=False)
        start = torch.tensor(math.log(1 / temperature))
        self.logit_scale = nn.Parameter(start, requires_grad=learn_temperature)
        self.logit_bias = None if bias is None else nn.Parameter(torch.tensor(bias))

    @property
    def scale(self):
        """1 / temperature; clamp_logit_scale keeps it at 100 or less."""
        return self.logit_scale.exp()

    @torch.no_grad()
    def clamp_logit_scale(self):
        """Cap the parameter and not its use, so that its gradient never dies."""
        self.logit_scale.clamp_(max=math.log(100))

    def forward(self, pixels, tokens, micro_batch=0):
        """What a training step needs: image vectors (b, embed_dim), text vectors (k b, embed_dim),
        the scale and the bias (or None).

        micro_batch: so many pictures at a time, whose activations are forgotten and computed again
        for the gradient, so that the memory is that of a small batch and the loss that of a large
        one; GradCache, Gao et al. (2021). 0: all at once.
        """
        if not micro_batch:
            return *self.encode_both(pixels, tokens), self.scale, self.logit_bias
        pieces = zip(
            pixels.split(micro_batch),
            tokens.split(micro_batch * len(tokens) // len(pixels)),
            strict=True,
        )
        pairs = [checkpoint(self.encode_both, *piece, use_reentrant=False) for piece in pieces]
        image, text = (torch.cat(vectors) for vectors in zip(*pairs, strict=True))
        return image, text, self.scale, self.logit_bias

    def encode_both(self, pixels, tokens):
        return self.encode_image(pixels), self.encode_text(tokens)

    def encode_image(self, pixels):
        """(b, 3, H, W) -> unit vectors (b, embed_dim)."""
        return self.embed_patches(*self.vision(pixels))

    def embed_patches(self, tokens, pooled):
        """What the encoder gives, (b, n, d) and (b, pooled_dim) -> unit vectors (b, embed_dim)."""
        if self.widen is not None:
            pooled = (
                self.widen(tokens).max(1).values
            )  # (b, pool_dim), whose gradient is faster than amax's
        return F.normalize(self.image_proj(pooled), dim=-1)  # (b, embed_dim)

    def encode_text(self, tokens):
        """(b, t) -> unit vectors (b, embed_dim)."""
        pooled = self.text(tokens)  # (b, text dim)
        return F.normalize(self.text_proj(pooled), dim=-1)  # (b, embed_dim)
