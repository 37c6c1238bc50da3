"""Pictures of the user's: all of it is seen, nothing is guessed, what is no picture is named."""

import struct
from zlib import compress, crc32

import numpy as np
import pytest
import torch
from PIL import Image

from data.folder import UnreadablePicture, list_pictures, read_picture


def pixels_of(path, size):
    return read_picture(path, size).pixels[None]


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


def test_of_a_strip_that_would_be_a_line_nothing_could_be_seen(tmp_path):
    with pytest.raises(UnreadablePicture, match="2000 x 17, is no more than a line"):
        read_picture(saved(Image.new("RGB", (2000, 17)), tmp_path / "strip.png"), 56)
    seen = read_picture(saved(Image.new("RGB", (2000, 20)), tmp_path / "b.png"), 56)
    assert seen.content.shape == (3, 1, 56)


def test_of_a_moving_picture_the_first_frame_is_seen_and_a_note_says_so(tmp_path):
    frames = [Image.new("RGB", (56, 56), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    found = read_picture(tmp_path / "a.gif", 56)
    assert "first frame" in found.note and found.pixels[0].min() > 200 > found.pixels[2].max()
    assert read_picture(saved(frames[0], tmp_path / "still.gif"), 56).note == ""


def save_picture(path, values):
    """values: an array, or a PIL image."""
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(path)
    return str(path)


@pytest.mark.parametrize(
    "mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F", "YCbCr"]
)
def test_every_kind_of_picture_is_read(mode, tmp_path):
    tiff = mode in ("CMYK", "I;16", "I", "F", "YCbCr")
    path = save_picture(
        tmp_path / f"picture.{'tiff' if tiff else 'png'}", Image.new(mode, (90, 40))
    )
    pixels = pixels_of(path, 56)
    assert pixels.shape == (1, 3, 56, 56) and pixels.dtype == torch.uint8


def test_a_picture_of_the_right_size_is_read_bit_by_bit(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    pixels = pixels_of(save_picture(tmp_path / "a.png", values), 56)
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), values)


RAMP = np.linspace(0, 1, 56 * 56).reshape(56, 56)


@pytest.mark.parametrize(
    "values",
    [
        (RAMP * 4095).astype(np.uint16),  # 12 bits in 16
        (RAMP * 65535).astype(np.uint16),
        (RAMP * 4095).astype(np.int32),
        (RAMP * (2**31 - 1)).astype(np.int32),
        RAMP.astype(np.float32),
        (1000 * RAMP).astype(np.float32),
        (RAMP * 2 - 1).astype(np.float32),  # from -1 to 1
    ],
    ids=["12 of 16 bits", "16 bits", "12 of 32 bits", "31 bits", "to 1", "to 1000", "from -1"],
)
def test_the_scale_of_values_is_that_of_the_picture_and_not_of_its_type(values, tmp_path):
    pixels = pixels_of(save_picture(tmp_path / "a.tiff", values), 56)[0].long()
    assert torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[0], pixels[2])
    wanted = torch.from_numpy(RAMP * 255)
    assert (pixels[0] - wanted).abs().max() <= 1  # neither black nor white, nor wrapped around


def png(bits, kind, rows):
    """A PNG file made by hand: PIL writes none of 16 bits a colour. kind 2 is RGB, 6 is RGBA."""

    def part(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))

    size = struct.pack(">IIBBBBB", 56, len(rows), bits, kind, 0, 0, 0)
    parts = part(b"IHDR", size) + part(b"IDAT", compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + parts + part(b"IEND", b"")


@pytest.mark.parametrize("kind, channels", [(2, 3), (6, 4)])
def test_sixteen_bits_a_colour_are_refused_where_half_of_them_would_be_lost(
    kind, channels, tmp_path
):
    """12 bits in 16, of which 8 would be left: nearly black."""
    for bits, row in ((8, bytes([200]) * 56 * channels), (16, b"\x0f\xff" * 56 * channels)):
        (tmp_path / f"{bits}.png").write_bytes(png(bits, kind, [row] * 56))
    assert pixels_of(str(tmp_path / "8.png"), 56).shape == (1, 3, 56, 56)
    with pytest.raises(UnreadablePicture, match="16 bits a colour.* save it with 8 bits"):
        pixels_of(str(tmp_path / "16.png"), 56)


def test_a_black_picture_stays_black(tmp_path):
    for values in (np.zeros((56, 56), np.float32), np.zeros((56, 56), np.uint16)):
        assert not pixels_of(save_picture(tmp_path / "a.tiff", values), 56).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_picture_with_values_that_are_not_finite_is_refused(bad, tmp_path):
    values = RAMP.astype(np.float32)
    values[3, 4] = bad
    path = save_picture(tmp_path / "a.tiff", values)
    with pytest.raises(UnreadablePicture, match="a.tiff has values that are not finite"):
        pixels_of(path, 56)


def test_what_is_transparent_shows_the_backdrop(tmp_path):
    clear = np.zeros((56, 56, 4), np.uint8)
    clear[..., 0], clear[:28, :, 3] = 255, 255  # red, its lower half transparent
    pixels = pixels_of(save_picture(tmp_path / "a.png", clear), 56)[0, :, :, 0]
    assert pixels[:, 0].tolist() == [255, 0, 0] and pixels[:, -1].tolist() == [40, 40, 40]
    palette = Image.new("P", (56, 56))
    palette.save(tmp_path / "p.png", transparency=0)
    assert (pixels_of(str(tmp_path / "p.png"), 56) == 40).all()


def test_a_picture_that_a_camera_turned_is_turned_back(tmp_path):
    values = np.zeros((56, 56, 3), np.uint8)
    values[:28] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    pixels = pixels_of(str(tmp_path / "a.png"), 56)[0, 0]
    assert (pixels[:, 28:] == 255).all() and not pixels[:, :28].any()


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.new("1", (9000, 8000)).save(tmp_path / "huge.png")
    Image.new("RGB", (90, 40), "red").save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    limit = Image.MAX_IMAGE_PIXELS
    for name, said in (
        ("none.png", "there is no picture .*none.png"),
        ("text.png", "text.png cannot be read as a picture"),
        ("empty.png", "empty.png cannot be read"),
        ("huge.png", "64 megapixels"),
        ("cut.png", "cut.png cannot be read"),
        ("", "cannot be read"),  # the folder
    ):
        with pytest.raises(UnreadablePicture, match=said):
            pixels_of(str(tmp_path / name), 56)
    assert limit == Image.MAX_IMAGE_PIXELS  # which belongs to whoever calls


def test_folders_give_their_pictures_by_name(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in list_pictures([tmp_path, "x.png"])] == ["a.JPG", "b.png", "x.png"]
    (tmp_path / "none").mkdir()
    with pytest.raises(UnreadablePicture, match="holds no picture"):
        list_pictures([tmp_path / "none"])
