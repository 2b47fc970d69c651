"""Quantised latents: their error, their size, and that damage to them is noticed as well."""

import numpy as np
import pytest

from spatial_functa_pipeline.functasets.errors import DamagedShardError
from spatial_functa_pipeline.functasets.quantisation import MISSING, bits_of, dequantise, quantise
from spatial_functa_pipeline.functasets.statistics import compute_statistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import write

BITS = range(2, 9)


@pytest.fixture
def many() -> np.ndarray:
    """1,000 latents of 2×2×8 with a range of its own in each dimension, one of which never varies."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(1000, 2, 2, 8)) * rng.uniform(0.1, 3, size=(2, 2, 8)) + rng.normal(size=(2, 2, 8))
    latents[:, 0, 1, 2] = 0.7
    return latents.astype(np.float32)


def test_bits_are_read_from_the_storage_type():
    assert [bits_of(f"uint{bits}") for bits in BITS] == list(BITS)
    assert bits_of("float32") is bits_of("float16") is None


@pytest.mark.parametrize("bits", BITS)
def test_the_error_is_at_most_half_a_level_of_each_dimensions_range(many, bits):
    codes, low, high = quantise(many, bits)
    levels = min(2**bits, 255)
    restored = dequantise(codes, low, high, bits)
    assert codes.max() == levels - 1 < MISSING
    half = (high - low) / (levels - 1) / 2
    assert (abs(restored - many) <= half * (1 + 1e-4) + 1e-6).all()
    assert (restored[:, 0, 1, 2] == np.float32(0.7)).all()
    np.testing.assert_allclose(restored.min(axis=0), low, rtol=1e-6)
    np.testing.assert_allclose(restored.max(axis=0), high, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("memory_limit", [0, 2**30])
@pytest.mark.parametrize("bits", [2, 6, 8])
def test_a_store_gives_each_shards_rows_with_its_own_ranges(tmp_path, make_plan, many, bits, memory_limit):
    plan = make_plan(many, originals=1000, storage_type=f"uint{bits}", shard_rows=300, chunk_rows=100)
    write(tmp_path / "f.zarr", plan)
    functaset = Functaset.open(tmp_path / "f.zarr", memory_limit)
    expected = np.concatenate(
        [dequantise(*quantise(many[start : start + 300], bits), bits) for start in range(0, 1000, 300)]
    )
    np.testing.assert_array_equal(functaset.rows(250, 950), expected[250:950])
    indices = np.random.default_rng(1).permutation(1000)[:70]
    np.testing.assert_array_equal(functaset.batch(indices).numpy(), expected[indices])
    np.testing.assert_allclose(
        compute_statistics(functaset).moments["array"].mean, expected.astype(np.float64).mean(axis=0), rtol=1e-6
    )


def test_bytes_on_disk_follow_the_bits(tmp_path, make_plan):
    latents = np.random.default_rng(0).normal(size=(2048, 4, 4, 8)).astype(np.float32)
    sizes = {}
    for kind in ("float32", "float16", *(f"uint{bits}" for bits in BITS)):
        write(tmp_path / kind, make_plan(latents, storage_type=kind, shard_rows=1024, chunk_rows=256))
        files = (tmp_path / kind / "latents").rglob("*")
        sizes[kind] = sum(file.stat().st_size for file in files if file.is_file()) * 8 / latents.size
    assert sizes["float32"] == pytest.approx(32, rel=0.01)
    assert sizes["float16"] == pytest.approx(16, rel=0.01)
    for bits in BITS:  # compression takes a little less than b for values that are not spread evenly
        assert bits * 0.75 < sizes[f"uint{bits}"] < bits * 1.1


@pytest.mark.parametrize("array", ["latents", "low", "high"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_noticed_and_mended(tmp_path, make_plan, many, array, damage):
    path, plan = tmp_path / "f.zarr", make_plan(many, storage_type="uint8", shard_rows=300, chunk_rows=100)
    write(path, plan)
    file = path / array / "c/1/0/0/0"
    before = file.read_bytes()
    if damage == "remove":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(before[:-9])
    else:
        file.write_bytes(bytes([*before[:7], before[7] ^ 1, *before[8:]]))
    with pytest.raises(DamagedShardError, match=f"shard 1 of array '{array}'"):
        Functaset.open(path).rows(0, 1000)
    plan.encode.calls.clear()
    write(path, plan)
    assert plan.encode.calls == [(300, 600)]
    assert file.read_bytes() == before


def test_a_missing_chunk_of_eight_bit_codes_is_not_taken_for_values(tmp_path, make_plan, many):
    """All 8-bit codes but one stand for values: the one left over is what Zarr reads where there is nothing."""
    write(tmp_path / "f.zarr", make_plan(many, storage_type="uint8", shard_rows=1000, chunk_rows=100))
    functaset = Functaset.open(tmp_path / "f.zarr")
    assert functaset._group["latents"].fill_value == MISSING
    assert (functaset._group["latents"][:] != MISSING).all()
