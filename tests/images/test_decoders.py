"""Files to pixels: pictures of every mode, and IDX files."""

import numpy as np
import pytest
from idx_files import write_idx
from PIL import Image

from spatial_functa_pipeline.images.decoders import (
    ImageFiles,
    UndecodableImageError,
    brightest_of_sixteen_bits,
    decode_picture,
    read_idx,
)
from spatial_functa_pipeline.images.images import ImagesError


@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_idx_round_trip(tmp_path, shape, name):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    write_idx(tmp_path / name, array)
    np.testing.assert_array_equal(read_idx(tmp_path / name), array)


def test_a_broken_idx_file_is_named(tmp_path):
    array = np.zeros((2, 3), np.uint8)
    write_idx(tmp_path / "short", array, announced=(2, 4))
    with pytest.raises(ImagesError, match="short announces 2×4 bytes but holds 6"):
        read_idx(tmp_path / "short")

    (tmp_path / "header").write_bytes(b"\x00\x00\x08\x03\x00\x00")
    with pytest.raises(ImagesError, match="header ends within its header"):
        read_idx(tmp_path / "header")

    (tmp_path / "text").write_bytes(b"<html>")
    with pytest.raises(ImagesError, match="text is not an IDX file"):
        read_idx(tmp_path / "text")

    write_idx(tmp_path / "cut.gz", array)
    (tmp_path / "cut.gz").write_bytes((tmp_path / "cut.gz").read_bytes()[:-9])
    with pytest.raises(ImagesError, match=r"cut\.gz is truncated"):
        read_idx(tmp_path / "cut.gz")

    (tmp_path / "plain.gz").write_bytes(b"not zipped")
    with pytest.raises(ImagesError, match=r"plain\.gz is truncated or no gzip file"):
        read_idx(tmp_path / "plain.gz")


# Pictures. Each is saved, and read again, with pixels that are known.

GREY16 = np.array([[0, 128, 129], [257, 32_896, 65_535]], np.uint16)  # 65,535 / 255 = 257 to a level
GREY8 = np.array([[0, 0, 1], [1, 128, 255]], np.uint8)
COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)


def decoded(path, channels=3):
    return np.asarray(decode_picture(path, channels))


def as_colour(grey):
    return np.repeat(grey[..., None], 3, axis=-1)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.png", GREY16),  # I;16
        ("a.tif", GREY16),  # I;16
        ("b.tif", GREY16.astype(">u2")),  # I;16B
        ("a.tiff", GREY16.astype(np.int32)),  # I
        ("a.pgm", GREY16.astype(np.int32)),  # I
    ],
)
def test_sixteen_bits_of_grey_are_scaled_to_eight(tmp_path, name, pixels):
    Image.fromarray(pixels).save(tmp_path / name)
    np.testing.assert_array_equal(decoded(tmp_path / name, 1), GREY8)
    np.testing.assert_array_equal(decoded(tmp_path / name), as_colour(GREY8))


def test_the_mean_of_a_sixteen_bit_picture_is_kept(tmp_path):
    values = np.random.default_rng(0).integers(20_000, 58_000, (40, 50)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    read = ImageFiles(np.array([str(tmp_path / "a.png").encode()]), (40, 50), 1)(np.array([0]))
    assert read.mean() == pytest.approx(values.mean() / 257, abs=0.1)


def test_numbers_of_unknown_scale_are_refused(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UndecodableImageError, match=r"a\.tif \(its pixels are floats, whose scale is not known"):
        decoded(tmp_path / "a.tif")
    Image.fromarray(np.array([[0, 70_000]], np.int32)).save(tmp_path / "b.tif")
    with pytest.raises(UndecodableImageError, match=r"from 0 to 70000, beyond 16 bits"):
        decoded(tmp_path / "b.tif")


def test_grey_and_colour_become_what_is_asked_for(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "colour.png")
    np.testing.assert_array_equal(decoded(tmp_path / "colour.png"), COLOURS)
    luminance = [[76, 150], [29, 18]]  # ITU-R 601-2
    np.testing.assert_array_equal(decoded(tmp_path / "colour.png", 1), luminance)
    Image.fromarray(GREY8).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(decoded(tmp_path / "grey.png"), as_colour(GREY8))
    np.testing.assert_array_equal(decoded(tmp_path / "grey.png", 1), GREY8)


def test_one_bit_is_black_and_white(tmp_path):
    bits = np.array([[True, False], [False, True]])
    Image.fromarray(bits).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded(tmp_path / "a.png", 1), 255 * bits)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp"])
def test_a_palette_gives_its_colours(tmp_path, name):
    picture = Image.fromarray(COLOURS).quantize(8)
    assert picture.mode == "P"
    picture.save(tmp_path / name)
    np.testing.assert_allclose(decoded(tmp_path / name), COLOURS, atol=4)


def test_a_transparent_palette_entry_is_white(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([200, 0, 0, 0, 0, 200])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), [[[255] * 3, [0, 0, 200]]])


def test_alpha_is_composited_on_white(tmp_path):
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [0, 0, 0, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), [[[200, 100, 0], [255] * 3, [204] * 3]])
    grey = np.array([[[100, 255], [100, 0], [0, 51]]], np.uint8)
    Image.fromarray(grey, "LA").save(tmp_path / "b.png")
    np.testing.assert_array_equal(decoded(tmp_path / "b.png", 1), [[100, 255, 204]])


def test_a_colour_that_stands_for_transparent_is_white(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png", transparency=(0, 0, 255))
    np.testing.assert_array_equal(decoded(tmp_path / "a.png")[1], [[255, 255, 255], [10, 20, 30]])


def test_cmyk_becomes_colour(tmp_path):
    inks = np.array([[[0, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]]], np.uint8)  # paper, magenta and yellow, black
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.tif")
    np.testing.assert_array_equal(decoded(tmp_path / "a.tif"), [[[255] * 3, [255, 0, 0], [0] * 3]])


@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (3, 2), (6, 1), (8, 3)])
def test_a_picture_stands_as_its_exif_orientation_says(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = np.zeros((30, 40, 3), np.uint8)
    picture[:10, :20] = 255  # upper left
    Image.fromarray(np.rot90(picture, turned)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), picture)


def test_an_animation_is_its_first_picture(tmp_path):
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert (decoded(tmp_path / "a.gif") == [255, 0, 0]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_files_have_the_channels_that_were_asked_for(tmp_path, channels):
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    read = ImageFiles(np.array([str(tmp_path / "a.png").encode()]), (2, 2), channels)
    assert read(np.array([0, 0])).shape == (2, 2, 2, channels)


def test_white_says_which_grey_value_of_sixteen_bits_becomes_white(tmp_path):
    """Scans of 12 bits in files of 16."""
    path = tmp_path / "scan.png"
    Image.fromarray(np.array([[0, 2048, 4095, 5000]], np.uint16)).save(path)
    assert np.asarray(decode_picture(path, 1, white=4095)).tolist() == [[0, 128, 255, 255]]
    assert np.asarray(decode_picture(path, 1)).max() == 19
    found = ImageFiles(np.array([bytes(path)]), (1, 4), 1, white=4095)(np.array([0]))
    assert found.max() == 255


def test_the_brightest_grey_value_is_of_the_files_that_hold_sixteen_bits(tmp_path):
    for name, value, kind in (("a", 300, np.uint16), ("b", 700, np.uint16), ("c", 255, np.uint8)):
        Image.fromarray(np.full((2, 2), value, kind)).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_text("broken")
    paths = np.array([bytes(tmp_path / f"{name}.png") for name in "abcd"])
    assert brightest_of_sixteen_bits(paths) == 700
    assert brightest_of_sixteen_bits(paths[2:]) is None
