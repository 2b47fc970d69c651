"""All files of a folder decoded once, and remembered."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from spatial_functa_pipeline.images import checking
from spatial_functa_pipeline.images.checking import BrokenImagesError, check_files

COUNT = 150  # three parts


@pytest.fixture
def paths(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(COUNT):
        Image.fromarray(np.full((20, 20), number, np.uint8)).save(folder / f"{number:03}.png")
    return np.array(sorted(os.fsencode(path) for path in folder.iterdir()))


@pytest.fixture
def decoded(monkeypatch):
    """The files that were decoded."""
    seen = []
    decode = checking.decode_picture
    monkeypatch.setattr(checking, "decode_picture", lambda path: seen.append(path) or decode(path))
    return seen


def check(paths, tmp_path, **options):
    check_files(paths, tmp_path / "data" / "checked_files", progress=False, **options)


def truncate(path):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 30)


def test_every_file_is_decoded_once_for_all_runs(paths, tmp_path, decoded):
    check(paths, tmp_path)
    assert sorted(decoded) == sorted(paths)
    decoded.clear()
    check(paths[::-1], tmp_path)
    check(paths[:5], tmp_path)
    assert decoded == []


def test_a_file_that_has_changed_is_decoded_again(paths, tmp_path, decoded):
    check(paths, tmp_path)
    decoded.clear()
    Image.new("L", (30, 30)).save(os.fsdecode(paths[3]))
    check(paths, tmp_path)
    assert decoded == [paths[3]]


def test_all_broken_files_are_named_at_once(paths, tmp_path, decoded):
    for number in (0, 70, 149):
        truncate(paths[number])
    with pytest.raises(BrokenImagesError) as error:
        check(paths, tmp_path)
    lines = str(error.value).splitlines()
    assert lines[0] == "3 of 150 image files cannot be decoded:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [os.fsdecode(paths[n]) for n in (0, 70, 149)]
    assert "truncated" in lines[1]
    assert pickle.loads(pickle.dumps(error.value)).reasons == error.value.reasons
    decoded.clear()
    with pytest.raises(BrokenImagesError, match="3 of 150"):
        check(paths, tmp_path)
    assert sorted(decoded) == sorted(paths[[0, 70, 149]])  # the others were good


def test_of_many_broken_files_ten_are_named(paths, tmp_path):
    for path in paths[:12]:
        truncate(path)
    with pytest.raises(BrokenImagesError) as error:
        check(paths, tmp_path)
    lines = str(error.value).splitlines()
    assert (len(lines), lines[-1]) == (12, "    and 2 more")


@pytest.mark.parametrize("what", ["link", "text", "folder"])
def test_what_is_no_picture_is_named(paths, tmp_path, what):
    path = os.fsdecode(paths[2])
    os.unlink(path)
    if what == "link":
        os.symlink("nowhere", path)
    elif what == "text":
        with open(path, "w") as file:
            file.write("<html>")
    else:
        os.mkdir(path)
    with pytest.raises(BrokenImagesError, match=r"1 of 150 (?s:.)*002\.png"):
        check(paths, tmp_path)


def test_an_interrupted_check_goes_on(paths, tmp_path, decoded, monkeypatch):
    decode = checking.decode_picture

    def interrupted(path):
        if path == paths[140]:
            raise KeyboardInterrupt
        return decode(path)

    with monkeypatch.context() as patch:
        patch.setattr(checking, "decode_picture", interrupted)
        with pytest.raises(KeyboardInterrupt):
            check(paths, tmp_path)
    decoded.clear()
    check(paths, tmp_path)
    assert decoded == paths[128:].tolist()  # two parts had been finished


def test_a_record_that_was_cut_short_is_of_use(paths, tmp_path, decoded):
    check(paths, tmp_path)
    truncated = tmp_path / "data" / "checked_files"
    assert truncated.stat().st_size == 8 * COUNT
    os.truncate(truncated, 8 * COUNT - 3)
    decoded.clear()
    check(paths, tmp_path)
    assert decoded == [paths[-1]]
    decoded.clear()
    check(paths, tmp_path)
    assert decoded == []


@pytest.mark.slow
def test_processes_find_the_same(paths, tmp_path):
    truncate(paths[77])
    with pytest.raises(BrokenImagesError, match=r"1 of 150 (?s:.)*077\.png"):
        check(paths, tmp_path, num_workers=2)
    assert (tmp_path / "data" / "checked_files").stat().st_size == 8 * (COUNT - 1)
