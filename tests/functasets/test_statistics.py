import json

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.functasets import statistics
from spatial_functa_pipeline.functasets.statistics import LatentStatistics, compute_statistics

AXES = {"scalar": None, "vector": (0, 1, 2), "array": (0,)}


@pytest.fixture
def uneven_latents() -> np.ndarray:
    """29 latents of 2×3×4 whose elements differ in mean and scale, as meta-learned ones do."""
    rng = np.random.default_rng(3)
    mean, scale = rng.normal(size=(2, 3, 4)), rng.uniform(0.001, 2, size=(2, 3, 4))
    return (mean + scale * rng.standard_t(df=3, size=(29, 2, 3, 4))).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["scalar", "vector", "array"])
def test_statistics_are_those_of_the_stored_latents(make_functaset, monkeypatch, uneven_latents, dtype, kind):
    monkeypatch.setattr(statistics, "_BLOCK_BYTES", 1)  # one chunk a block: 15 blocks, the last of one row
    result = compute_statistics(make_functaset(uneven_latents, storage_type=dtype))
    stored = uneven_latents.astype(dtype).astype(np.float64)
    mean, std = stored.mean(axis=AXES[kind]), stored.std(axis=AXES[kind])
    moments = result.moments[kind]
    assert moments.mean.dtype == moments.std.dtype == torch.float64
    np.testing.assert_allclose(moments.mean.numpy(), mean, rtol=1e-9)
    np.testing.assert_allclose(moments.std.numpy(), std, rtol=1e-9)
    assert moments.largest == pytest.approx(np.abs((stored - mean) / std).max(), rel=1e-12)
    assert result.count == 29


def test_augmented_copies_do_not_count(make_functaset, uneven_latents):
    """They have black borders and worse, and would spread what Eq. 1 is to normalise."""
    uneven_latents[20:] *= 100
    result = compute_statistics(make_functaset(uneven_latents, originals=20))
    assert result.count == 20
    np.testing.assert_allclose(
        result.moments["array"].std, uneven_latents[:20].astype(np.float64).std(axis=0), rtol=1e-9
    )
    assert result.moments["array"].largest < 20


def test_a_large_mean_does_not_swallow_a_small_deviation(make_functaset, monkeypatch):
    """The textbook E[z²] − E[z]² loses this deviation, even in float64."""
    monkeypatch.setattr(statistics, "_BLOCK_BYTES", 1)
    latents = np.full((12, 1, 1, 2), 1e6, np.float32)
    latents[::2] += 0.0625
    std = compute_statistics(make_functaset(latents)).moments["array"].std
    np.testing.assert_allclose(std.numpy(), 0.03125, rtol=1e-6)


def test_each_row_is_read_once(make_functaset, monkeypatch, uneven_latents):
    monkeypatch.setattr(statistics, "_BLOCK_BYTES", 1)
    functaset = make_functaset(uneven_latents)
    rows, reads = functaset.rows, []
    monkeypatch.setattr(functaset, "rows", lambda start, stop: reads.append((start, stop)) or rows(start, stop))
    compute_statistics(functaset)
    assert sorted(reads) == [(start, min(start + 2, 29)) for start in range(0, 29, 2)]


def test_an_element_that_never_varies_has_a_deviation_of_exactly_zero(make_functaset, uneven_latents):
    uneven_latents[..., 1] = 0.1
    uneven_latents[:, 0, 2, 3] = -0.3
    moments = compute_statistics(make_functaset(uneven_latents)).moments
    dead = np.zeros((2, 3, 4), bool)
    dead[..., 1] = dead[0, 2, 3] = True
    np.testing.assert_array_equal(moments["array"].std.numpy() == 0, dead)
    np.testing.assert_array_equal(moments["vector"].std.numpy() == 0, [False, True, False, False])
    assert all(np.isfinite(moments[kind].largest) for kind in AXES)


def test_one_row_has_no_deviation_between_examples(make_functaset, latents):
    moments = compute_statistics(make_functaset(latents[:1])).moments
    assert not moments["array"].std.any()
    assert moments["array"].largest == 0
    np.testing.assert_allclose(moments["scalar"].std, latents[0].astype(np.float64).std(), rtol=1e-9)


def test_tensors_and_metadata_hold_everything(make_functaset, uneven_latents):
    result = compute_statistics(make_functaset(uneven_latents))
    tensors, metadata = result.to_tensors()
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "scalar_mean": (),
        "scalar_std": (),
        "vector_mean": (4,),
        "vector_std": (4,),
        "array_mean": (2, 3, 4),
        "array_std": (2, 3, 4),
    }
    restored = LatentStatistics.from_tensors(tensors, json.loads(json.dumps(metadata)))
    assert restored.count == result.count
    for kind, moments in result.moments.items():
        assert torch.equal(restored.moments[kind].mean, moments.mean)
        assert torch.equal(restored.moments[kind].std, moments.std)
        assert restored.moments[kind].largest == moments.largest
