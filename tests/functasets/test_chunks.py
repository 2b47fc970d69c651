"""Reading single chunks, past Zarr where that is possible."""

import fsspec
import numpy as np
import pytest

from spatial_functa_pipeline.functasets.chunks import ChunkReader
from spatial_functa_pipeline.functasets.store import Functaset


@pytest.mark.parametrize("storage_type", ["float32", "float16", "uint6"])
@pytest.mark.parametrize("chunk_rows", [1, 2, 4])
def test_a_chunk_is_its_rows(make_functaset, latents, storage_type, chunk_rows):
    functaset = make_functaset(latents, storage_type=storage_type, chunk_rows=chunk_rows)
    read = ChunkReader(functaset)
    for chunk in (0, 1, 10 // chunk_rows):
        rows = functaset.rows(chunk * chunk_rows, min((chunk + 1) * chunk_rows, 11))
        np.testing.assert_array_equal(read(chunk), rows)


@pytest.mark.parametrize(("storage_type", "zarr_reads"), [("float32", 0), ("float16", 0), ("uint6", 6)])
def test_plain_shards_are_read_without_zarr(make_functaset, latents, monkeypatch, storage_type, zarr_reads):
    functaset, asked = make_functaset(latents, storage_type=storage_type), []
    rows = functaset.rows
    monkeypatch.setattr(functaset, "rows", lambda *bounds: (asked.append(bounds), rows(*bounds))[1])
    read = ChunkReader(functaset)
    for chunk in range(6):
        read(chunk)
    assert len(asked) == zarr_reads


def test_an_object_store_is_read_with_zarr(make_functaset, latents, tmp_path):
    make_functaset(latents)
    address = f"memory://{tmp_path.name}/copied.zarr"
    fsspec.filesystem("memory").put(str(tmp_path / "made.zarr"), f"{tmp_path.name}/copied.zarr", recursive=True)
    np.testing.assert_array_equal(ChunkReader(Functaset.open(address))(5), latents[10:])
