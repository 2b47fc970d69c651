"""Codes: their error, their size on disk, and that damage to them is noticed as well."""

import numpy as np
import pytest

from spatial_functa_pipeline.functasets.errors import DamagedShardError
from spatial_functa_pipeline.functasets.quantisation import MISSING, Quantiser, Ranges
from spatial_functa_pipeline.functasets.statistics import compute_statistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import write

BITS = range(1, 9)


@pytest.fixture
def many() -> np.ndarray:
    """1,000 latents of 2×2×8 with a range of its own in each dimension, one of which never varies."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(1000, 2, 2, 8)) * rng.uniform(0.1, 3, size=(2, 2, 8)) + rng.normal(size=(2, 2, 8))
    latents[:, 0, 1, 2] = 0.7
    return latents.astype(np.float32)


@pytest.mark.parametrize("bits", BITS)
def test_all_bins_are_of_one_width_and_stand_for_their_centres(many, bits):
    """C.4.4: 2^b uniform bins for each latent dimension."""
    ranges = Ranges.of(many)
    quantiser = Quantiser(ranges, bits)
    codes = quantiser.codes(many)
    varying = ranges.high > ranges.low
    assert codes.dtype == np.uint8
    assert (codes.min(axis=0) == 0).all()
    assert (codes.max(axis=0)[varying] == 2**bits - 1).all()
    restored = quantiser.latents(codes)
    assert restored.dtype == np.float32
    assert (restored[:, 0, 1, 2] == np.float32(0.7)).all()
    half = (ranges.high - ranges.low) / 2**bits / 2
    assert (abs(restored - many) <= half * (1 + 1e-4) + 1e-6).all()
    np.testing.assert_allclose(restored.min(axis=0), ranges.low + half, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(restored.max(axis=0), ranges.high - half, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(quantiser.codes(restored), codes)


def test_what_is_beyond_the_range_counts_to_the_last_bin():
    quantiser = Quantiser(Ranges(np.float32([-1, 0]), np.float32([1, 4])), 2)
    codes = quantiser.codes(np.float32([[-9, -9], [9, 9], [-0.6, 1.1], [1, 4], [-1, 0], [1e30, -1e30]]))
    assert codes.tolist() == [[0, 0], [3, 3], [0, 1], [3, 3], [0, 0], [3, 0]]
    np.testing.assert_allclose(quantiser.latents(codes)[:3], [[-0.75, 0.5], [0.75, 3.5], [-0.75, 1.5]])


@pytest.mark.parametrize("bits", [0, 9])
def test_a_code_is_one_byte(bits):
    with pytest.raises(ValueError, match="1 to 8 bits"):
        Quantiser(Ranges.of(np.zeros((1, 2))), bits)


@pytest.mark.parametrize("memory_limit", [0, 2**30])
@pytest.mark.parametrize("bits", [1, 6, 8])
def test_a_store_has_one_range_for_all_shards(tmp_path, make_plan, many, bits, memory_limit):
    write(tmp_path / "f.zarr", make_plan(many, originals=1000, bits=bits, shard_rows=300, chunk_rows=100))
    functaset = Functaset.open(tmp_path / "f.zarr", memory_limit)
    quantiser = Quantiser(Ranges.of(many), bits)
    expected = quantiser.latents(quantiser.codes(many))
    np.testing.assert_array_equal(functaset.ranges.low, many.min(axis=0))
    np.testing.assert_array_equal(functaset.ranges.high, many.max(axis=0))
    np.testing.assert_array_equal(functaset.rows(250, 950), expected[250:950])
    indices = np.random.default_rng(1).permutation(1000)[:70]
    np.testing.assert_array_equal(functaset.batch(indices).numpy(), expected[indices])
    np.testing.assert_allclose(
        compute_statistics(functaset).moments["array"].mean, expected.astype(np.float64).mean(axis=0), rtol=1e-6
    )


def test_bytes_on_disk_follow_the_bits(tmp_path, make_plan):
    latents = np.random.default_rng(0).normal(size=(2048, 4, 4, 8)).astype(np.float32)
    sizes = {}
    stored = {"float32": {}, "float16": {"storage_type": "float16"}, **{bits: {"bits": bits} for bits in BITS}}
    for kind, how in stored.items():
        write(tmp_path / str(kind), make_plan(latents, shard_rows=1024, chunk_rows=256, **how))
        files = (tmp_path / str(kind) / "latents").rglob("*")
        sizes[kind] = sum(file.stat().st_size for file in files if file.is_file()) * 8 / latents.size
    assert sizes["float32"] == pytest.approx(32, rel=0.01)
    assert sizes["float16"] == pytest.approx(16, rel=0.01)
    for bits in BITS[1:]:  # compression takes a little less than b for values that are not spread evenly
        assert bits * 0.75 < sizes[bits] < bits * 1.1
    assert sizes[1] < 1.7


@pytest.mark.parametrize("bits", [6, 8])
@pytest.mark.parametrize("file", ["latents/c/1/0/0/0", "ranges/c/0/0/0/0"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_noticed_and_mended(tmp_path, make_plan, many, bits, file, damage):
    path, plan = tmp_path / "f.zarr", make_plan(many, bits=bits, shard_rows=300, chunk_rows=100)
    write(path, plan)
    before = (path / file).read_bytes()
    if damage == "remove":
        (path / file).unlink()
    elif damage == "cut":
        (path / file).write_bytes(before[:-9])
    else:
        (path / file).write_bytes(bytes([*before[:7], before[7] ^ 1, *before[8:]]))
    array = file.split("/")[0]
    with pytest.raises(DamagedShardError, match=f"array '{array}'") as error:
        Functaset.open(path).rows(0, 1000)
    assert error.value.quantised
    plan.encode.calls.clear()
    write(path, plan)
    assert plan.encode.calls == ([(300, 600)] if array == "latents" else [])
    assert (path / file).read_bytes() == before


def test_the_last_of_256_bins_is_not_taken_for_a_missing_chunk(tmp_path, make_plan):
    """Its code is what Zarr reads where there is nothing; a chunk of it alone is one that Zarr does not write."""
    latents = np.ones((12, 2, 2, 3), np.float32)
    latents[8:] = 0
    write(tmp_path / "f.zarr", make_plan(latents, originals=12, bits=8))
    functaset = Functaset.open(tmp_path / "f.zarr", memory_limit=0)
    assert functaset._group["latents"].fill_value == MISSING
    np.testing.assert_allclose(functaset.rows(0, 12), latents, atol=1 / 500)
    np.testing.assert_allclose(functaset.batch([0, 11, 4]).numpy(), latents[[0, 11, 4]], atol=1 / 500)
    (tmp_path / "f.zarr/latents/c/1/0/0/0").unlink()
    with pytest.raises(DamagedShardError, match="shard 1 of array 'latents'"):
        functaset.rows(0, 12)
