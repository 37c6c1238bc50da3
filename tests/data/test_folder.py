"""Pictures of the user's: all of it is seen, nothing is guessed, what is no picture is named."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.folder import UnreadablePicture, list_pictures, read_picture


def saved(picture, path):
    picture.save(path)
    return path


def test_a_picture_that_is_no_square_keeps_its_sides(tmp_path):
    picture = Image.new("RGB", (600, 200), (30, 30, 30))
    picture.paste((255, 0, 0), (0, 0, 30, 200))  # at its very left
    found = read_picture(saved(picture, tmp_path / "wide.png"), 56)
    assert found.pixels.shape == (3, 56, 56) and found.content.shape == (3, 19, 56)
    assert found.pixels[0, 28, 0] > 200 and found.pixels[0, 0, 0] == 40  # its side, the border
    assert "600 x 200" in found.note and "56 x 19" in found.note
    tall = read_picture(saved(picture.rotate(90, expand=True), tmp_path / "tall.png"), 56)
    assert tall.content.shape == (3, 56, 19)
    square = read_picture(saved(Image.new("RGB", (90, 90)), tmp_path / "square.png"), 56)
    assert square.note == "" and torch.equal(square.pixels, square.content)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "I;16", "I", "F", "CMYK"])
def test_every_kind_of_picture_becomes_bytes(mode, tmp_path):
    ending = "tiff" if mode in ("CMYK", "I;16", "I", "F") else "png"
    picture = Image.new(mode, (40, 40))
    found = read_picture(saved(picture, tmp_path / f"x.{ending}"), 28)
    assert found.pixels.dtype == torch.uint8 and found.pixels.shape == (3, 28, 28)


def test_twelve_bits_in_sixteen_are_not_black(tmp_path):
    ramp = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (64, 1))
    grey = read_picture(saved(Image.fromarray(ramp), tmp_path / "twelve.png"), 64)
    assert grey.pixels.max() == 255 and 100 < grey.pixels.float().mean() < 150
    deep = np.stack([ramp] * 3, -1)
    write_png_of_sixteen_bits(deep, tmp_path / "deep.png")
    with pytest.raises(UnreadablePicture, match="16 bits"):
        read_picture(tmp_path / "deep.png", 64)


def write_png_of_sixteen_bits(values, path):
    """A colour PNG of 16 bits, which pillow reads but does not write."""
    import struct
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    saved(Image.fromarray(np.full((9, 9), np.nan, np.float32)), tmp_path / "nan.tiff")
    saved(Image.new("1", (9000, 8000)), tmp_path / "huge.png")
    named = {
        "text.png": "cannot be read", "empty.png": "cannot be read", "none.png": "no picture",
        "nan.tiff": "not finite", "huge.png": "64 megapixels",
    }  # fmt: skip
    for name, what in named.items():
        with pytest.raises(UnreadablePicture, match=what):
            read_picture(tmp_path / name, 56)


def test_folders_give_their_pictures_by_name(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in list_pictures([tmp_path, "x.png"])] == ["a.JPG", "b.png", "x.png"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UnreadablePicture, match="holds no picture"):
        list_pictures([tmp_path / "none"])
