"""Pictures of the user's: files and folders to pixels, with a note on what was lost on the way."""

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

MAX_PIXELS = 64_000_000  # of a picture
BACKDROP = (40, 40, 40)  # what stands around a picture, and shows through a transparent one
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


class UnreadablePicture(ValueError):
    """A file is no picture that can be used. The text is "WHAT; WHAT TO DO"."""


def list_pictures(paths):
    """Files and folders -> files, those of a folder by name. UnreadablePicture if it has none."""
    files = []
    for path in map(Path, paths):
        if not os.path.isdir(path):  # False for a name that no file could have, too
            files.append(path)
            continue
        found = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS)
        if not found:
            hint = f"put files there that end in {', '.join(ENDINGS)}"
            raise UnreadablePicture(f"the folder {path} holds no picture; {hint}")
        files += found
    return files


@dataclass
class UserPicture:
    """pixels: uint8 (3, size, size), all of the picture, with a dark border where it is no square.

    content: uint8 (3, h, w), the same without the border. note: "" or what is not seen of it, or
    seen smaller.
    """

    path: Path
    pixels: torch.Tensor
    content: torch.Tensor
    note: str


def read_picture(path, size):
    """A picture file -> UserPicture. Raises UnreadablePicture.

    Where a value has more than 8 bits, or is a float, the largest one in the picture is white.
    """
    from PIL import ImageOps

    picture = open_rgb(path)
    shape = f"{picture.width} x {picture.height}"
    content = ImageOps.contain(picture, (size, size))
    if 0 in content.size:
        what = f"{path}, {shape}, is no more than a line in {size} x {size} pixels"
        raise UnreadablePicture(f"{what}; cut out a part of it")
    whole = ImageOps.pad(picture, (size, size), color=BACKDROP)
    notes = ["of a moving picture the first frame is seen"] * picture.info.get("moves", False)
    if picture.width != picture.height:
        notes.append(
            f"{shape} is no square: the model sees all of it,"
            f" {content.width} x {content.height} of {size} x {size} pixels, in a dark border"
        )
    return UserPicture(Path(path), to_tensor(whole), to_tensor(content), "; ".join(notes))


def to_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def open_rgb(path):
    """A picture file -> a picture of 8 bits, red green blue. Raises UnreadablePicture."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    too_large = UnreadablePicture(
        f"{path} is too large; give a picture of at most {MAX_PIXELS // 1_000_000} megapixels"
    )
    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if file.width * file.height > MAX_PIXELS:  # before a pixel is read
                raise too_large
            if any(";16" in str(tile) for tile in file.tile) and not file.mode.startswith("I"):
                what = f"{path} has 16 bits a colour, of which half would be lost"
                raise UnreadablePicture(f"{what}; save it with 8 bits")
            picture = to_rgb(ImageOps.exif_transpose(file), path)
            picture.info["moves"] = getattr(file, "is_animated", False)
            return picture
    except UnreadablePicture:
        raise
    except Image.DecompressionBombError:
        raise too_large
    except FileNotFoundError:
        raise UnreadablePicture(f"there is no picture {path}; check the name")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        what = f"{path} cannot be read as a picture ({type(error).__name__})"
        raise UnreadablePicture(f"{what}; give a PNG or JPEG file")


def to_rgb(picture, path):
    """A picture of any mode -> RGB, 8 bits; what is transparent shows the backdrop."""
    from PIL import Image

    if picture.mode.startswith(("I", "F")):
        picture = Image.fromarray(to_bytes(np.asarray(picture), path))
    if "A" in picture.mode or "transparency" in picture.info:
        backdrop = Image.new("RGBA", picture.size, (*BACKDROP, 255))
        picture = Image.alpha_composite(backdrop, picture.convert("RGBA"))
    return picture.convert("RGB")


def to_bytes(values, path):
    """Integers of more than 8 bits, or floats, as uint8, by their own range.

    How many of the bits are used stands in no file: 12 bits in 16 are as frequent as 16. Raises
    UnreadablePicture for nan and infinity.
    """
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise UnreadablePicture(f"{path} has values that are not finite; give a PNG or JPEG file")
    low, high = min(values.min(), 0.0), values.max()
    return ((values - low) / max(high - low, 1e-12) * 255 + 0.5).astype(np.uint8)
