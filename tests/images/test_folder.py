"""Folders of pictures: what is one, of which class, and in which order."""

import os

import numpy as np
import pytest
from PIL import Image

from spatial_functa_pipeline.images.folder import PictureFolder, is_picture


@pytest.fixture
def picture(tmp_path):
    """`picture("cat/1.png")` makes a file."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(path)
        return tmp_path

    return make


def names(folder):
    return [os.fsdecode(path) for path in folder.paths]


def test_subfolders_are_classes_with_all_that_is_below_them(picture):
    folder = PictureFolder.scan(picture("dog/b.png", "cat/deep/er/c.JPG", "dog/a.png"))
    assert folder.classes == ("cat", "dog")
    assert names(folder) == ["cat/deep/er/c.JPG", "dog/a.png", "dog/b.png"]
    assert folder.labels.tolist() == [0, 1, 1]
    assert folder.left_out == ()
    assert all(os.path.isfile(path) for path in folder.full_paths())


@pytest.mark.parametrize("others", [(), (".thumbs/a.png",), ("notes/x",)])
def test_a_folder_without_class_folders_is_one_class(picture, others):
    root = picture("b.png", "a.png", *[name for name in others if name.endswith("png")])
    (root / "notes").mkdir(exist_ok=True)
    folder = PictureFolder.scan(root)
    assert (folder.classes, names(folder), folder.labels.tolist()) == (("all",), ["a.png", "b.png"], [0, 0])


def test_what_is_hidden_is_not_there(picture):
    folder = PictureFolder.scan(picture(".thumbs/a.png", "cat/a.png", "cat/.a.png", "cat/.thumbs/b.png", ".b.png"))
    assert (folder.classes, names(folder), folder.left_out) == (("cat",), ["cat/a.png"], ())


def test_what_is_left_out_is_counted_and_named(picture):
    root = picture("cat/a.png", "dog/a.png", "beside.png", "too.png")
    (root / "empty").mkdir()
    for name in ("cat/1.heic", "dog/2.HEIC", "cat/notes.txt", "dog/LICENSE", "readme.txt"):
        (root / name).write_text("no picture")
    folder = PictureFolder.scan(root)
    assert names(folder) == ["cat/a.png", "dog/a.png"]
    assert folder.left_out == (
        "1 file without a suffix",
        "2 .heic files",
        "2 .txt files",
        "the folder empty, without a picture",
        "2 pictures beside the class folders, as beside.png",
    )


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.TIFF", "a.bmp", "a.jp2", "b/c.ppm", "a.tga", "a.jfif", "a.psd"])
def test_what_pillow_decodes_is_a_picture(name):
    assert is_picture(name)


@pytest.mark.parametrize("name", ["a.heic", "a.pdf", "a.mpg", "a.h5", "a.eps", "a.wmf", "a.txt", "a", "png"])
def test_other_files_are_none(name):
    assert not is_picture(name)


def ordered(root, seed=0):
    folder = PictureFolder.scan(root)
    return [names(folder)[row] for row in folder.shuffled(seed)]


def test_a_picture_that_goes_moves_no_other(picture):
    root = picture(*[f"{'ab'[i % 2]}/{i}.png" for i in range(30)])
    before = ordered(root)
    assert sorted(before) == names(PictureFolder.scan(root)) != before
    gone = before[7]
    (root / gone).unlink()
    assert ordered(root) == [name for name in before if name != gone]


def test_the_order_depends_on_the_seed_and_not_on_the_place(picture, tmp_path):
    root = picture(*[f"a/{i}.png" for i in range(20)])
    orders = [ordered(root, seed) for seed in range(3)]
    assert len({tuple(order) for order in orders}) == 3
    root.rename(tmp_path.with_name("elsewhere"))
    assert ordered(tmp_path.with_name("elsewhere")) == orders[0]


def test_any_range_is_a_fair_sample_of_the_classes(picture):
    root = picture(*[f"{'ab'[i // 100]}/{i}.png" for i in range(200)])
    folder = PictureFolder.scan(root)
    first = folder.labels[folder.shuffled(0)[:100]]
    assert 35 <= first.sum() <= 65
    assert np.array_equal(np.sort(folder.shuffled(0)), np.arange(200))
