"""The pictures that sample.py shows: the test split's, or the user's own."""

import dataclasses

import torch

from data.folder import UnreadablePicture, list_pictures, read_picture
from tinyvlm.training.config import UserError


@dataclasses.dataclass
class Shown:
    """pixels: (b, 3, H, W). names, notes: a name and a list of notes each.

    pictures: Pictures of the test split, which know the truth, or None for the user's own.
    """

    pixels: torch.Tensor
    names: list
    notes: list
    pictures: object = None


def open_pictures(config, page, data, device):
    """The user's pictures, or some of the test split: Shown. UserError for what is no picture, or
    would be overwritten by the page."""
    if not config.image:
        pictures = data.split("test").pictures(config.items, config.start)
        names = [f"test picture {i}" for i in pictures.indices]
        return Shown(pictures.pixels(), names, [[] for _ in names], pictures)
    try:
        files = list_pictures(config.image)
        if page.resolve() in {file.resolve() for file in files}:
            raise UserError(f"--out {page} is one of the pictures; give another name")
        found = [read_picture(file, data.image_size) for file in files]
    except UnreadablePicture as error:
        raise UserError(str(error))
    notes = [[p.note, data.describe_shift(p.content)] for p in found]
    pixels = torch.stack([p.pixels for p in found]).to(device)
    names = [str(p.path) for p in found]
    return Shown(pixels, names, [[note for note in own if note] for own in notes])
