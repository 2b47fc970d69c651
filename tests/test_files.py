"""A file is replaced as a whole or not at all."""

import os

import pytest

from spatial_functa_pipeline.files import replace_durably


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_new_content_takes_the_place_of_the_old_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    for content in ("one", "two"):
        with replace_durably(path) as temporary:
            assert temporary.parent == path.parent
            temporary.write_text(content)
        assert path.read_text() == content
        assert names_in(path.parent) == ["file.txt"]


def test_after_an_error_the_file_is_as_it_was(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half():
        with replace_durably(path) as temporary:
            temporary.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file.txt"]


def test_two_writers_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "file.txt"
    with replace_durably(path) as first:
        first.write_text("first")
        with replace_durably(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_files_that_differ_in_their_ending_alone_have_other_temporary_files(tmp_path):
    with replace_durably(tmp_path / "a.pt") as one, replace_durably(tmp_path / "a.json") as other:
        assert one != other
        for path in (one, other):
            path.touch()


def test_the_content_is_on_disk_before_the_name_points_to_it(tmp_path, monkeypatch):
    path, synced = tmp_path / "file.txt", []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append((os.fstat(file).st_size, path.exists())))
    with replace_durably(path) as temporary:
        temporary.write_text("content")
    assert synced == [(7, False)]
