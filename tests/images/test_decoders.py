"""IDX files."""

import numpy as np
import pytest
from idx_files import write_idx

from spatial_functa_pipeline.images.decoders import read_idx
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
