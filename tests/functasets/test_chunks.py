"""Reading single chunks, past Zarr where that is possible."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest

from spatial_functa_pipeline.functasets.chunks import ChunkReader
from spatial_functa_pipeline.functasets.errors import DamagedShardError
from spatial_functa_pipeline.functasets.store import Functaset

STORED = [{}, {"storage_type": "float16"}, {"bits": 6}]


@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("chunk_rows", [1, 2, 4])
def test_a_chunk_is_its_rows(make_functaset, latents, stored, chunk_rows):
    functaset = make_functaset(latents, chunk_rows=chunk_rows, **stored)
    read = ChunkReader(functaset)
    for chunk in (0, 1, 10 // chunk_rows):
        rows = functaset.rows(chunk * chunk_rows, min((chunk + 1) * chunk_rows, 11))
        np.testing.assert_array_equal(read(chunk), rows)


@pytest.mark.parametrize("stored", STORED, ids=str)
def test_shards_are_read_without_zarr(make_functaset, latents, monkeypatch, stored):
    functaset = make_functaset(latents, **stored)
    monkeypatch.setattr(functaset, "rows", None)
    read = ChunkReader(functaset)
    for chunk in range(6):
        read(chunk)


@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_what_is_wrong_with_a_shard_is_left_to_zarr(make_functaset, latents, stored, damage):
    functaset = make_functaset(latents, **stored)
    file = Path(functaset.location.url) / "latents/c/1/0/0/0"
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:-9] if damage == "cut" else bytes([content[0] ^ 1, *content[1:]]))
    read = ChunkReader(functaset)
    assert len(read(0)) == 2
    with pytest.raises(DamagedShardError, match="shard 1 of array 'latents'"):
        read(2)


def test_threads_do_not_share_what_they_read(make_functaset):
    latents = np.random.default_rng(0).normal(size=(400, 2, 2, 3)).astype(np.float32)
    functaset = make_functaset(latents, bits=6, shard_rows=40, chunk_rows=4)
    expected, read = functaset.rows(0, 400), ChunkReader(functaset)

    def is_right(chunk: int) -> bool:
        return all((read(chunk) == expected[4 * chunk : 4 * chunk + 4]).all() for _ in range(20))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(is_right, range(100)))


def test_an_object_store_is_read_with_zarr(make_functaset, latents, tmp_path):
    make_functaset(latents)
    address = f"memory://{tmp_path.name}/copied.zarr"
    fsspec.filesystem("memory").put(str(tmp_path / "made.zarr"), f"{tmp_path.name}/copied.zarr", recursive=True)
    np.testing.assert_array_equal(ChunkReader(Functaset.open(address))(5), latents[10:])
