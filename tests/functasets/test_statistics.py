import json
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.config.normalization_stats import NormalizationStatsConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.chunks import ChunkReader
from spatial_functa_pipeline.functasets.errors import DamagedShardError
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.scheduling import Scheduling
from spatial_functa_pipeline.functasets.statistics import LatentStatistics, compute_statistics
from spatial_functa_pipeline.pipelines.normalization_stats.nodes import compute_latent_statistics

AXES = {"scalar": None, "vector": (0, 1, 2), "array": (0,)}


@pytest.fixture
def uneven_latents() -> np.ndarray:
    """29 latents of 2×3×4 whose elements differ in mean and scale, as meta-learned ones do."""
    rng = np.random.default_rng(3)
    mean, scale = rng.normal(size=(2, 3, 4)), rng.uniform(0.001, 2, size=(2, 3, 4))
    return (mean + scale * rng.standard_t(df=3, size=(29, 2, 3, 4))).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["scalar", "vector", "array"])
def test_statistics_are_those_of_the_stored_latents(make_functaset, uneven_latents, dtype, kind):
    result = compute_statistics(make_functaset(uneven_latents, storage_type=dtype))
    stored = uneven_latents.astype(dtype).astype(np.float64)
    mean, std = stored.mean(axis=AXES[kind]), stored.std(axis=AXES[kind])
    moments = result.moments[kind]
    assert moments.mean.dtype == moments.std.dtype == torch.float64
    np.testing.assert_allclose(moments.mean.numpy(), mean, rtol=1e-9)
    np.testing.assert_allclose(moments.std.numpy(), std, rtol=1e-9)
    np.testing.assert_allclose(moments.largest, np.abs((stored - mean) / std).max(axis=AXES[kind]), rtol=1e-9)
    assert result.count == 29


def test_augmented_copies_do_not_count(make_functaset, uneven_latents):
    """They have black borders and worse, and would spread what Eq. 1 is to normalise."""
    uneven_latents[20:] *= 100
    result = compute_statistics(make_functaset(uneven_latents, originals=20))
    assert result.count == 20
    np.testing.assert_allclose(
        result.moments["array"].std, uneven_latents[:20].astype(np.float64).std(axis=0), rtol=1e-9
    )
    assert (result.moments["array"].largest < 20).all()


def test_a_large_mean_does_not_swallow_a_small_deviation(make_functaset):
    """The textbook E[z²] − E[z]² loses this deviation, even in float64."""
    latents = np.full((12, 1, 1, 2), 1e6, np.float32)
    latents[::2] += 0.0625
    std = compute_statistics(make_functaset(latents)).moments["array"].std
    np.testing.assert_allclose(std.numpy(), 0.03125, rtol=1e-6)


def test_each_chunk_is_read_once(make_functaset, monkeypatch, uneven_latents):
    functaset, read, chunks = make_functaset(uneven_latents, originals=25), ChunkReader.__call__, []
    monkeypatch.setattr(ChunkReader, "__call__", lambda self, chunk: chunks.append(chunk) or read(self, chunk))
    compute_statistics(functaset)
    assert chunks == list(range(13))  # those of the copies are not read


@pytest.mark.parametrize("rotation", [None, "whole"])
@pytest.mark.parametrize("scheduler", ["threads", pytest.param("processes", marks=pytest.mark.slow)])
def test_the_bits_are_the_same_whoever_reads(make_functaset, uneven_latents, scheduler, rotation, request):
    if scheduler == "processes":
        request.getfixturevalue("forked_workers")
    functaset, config = make_functaset(uneven_latents), NormalizationStatsConfig(rotation=rotation)
    made = [
        compute_latent_statistics(functaset, config, RuntimeConfig(scheduler=who, workers=workers)).digest
        for who, workers in (("synchronous", None), (scheduler, 1), (scheduler, 2))
    ]
    assert len(set(made)) == 1


def test_the_bits_are_the_same_in_whatever_order_shards_are_done(make_functaset, monkeypatch, uneven_latents):
    functaset = make_functaset(uneven_latents)
    tensors, _ = compute_statistics(functaset).to_tensors()
    run, order = Scheduling.run, []

    def backwards(self, task, items):
        order.extend(reversed(items))
        return run(self, task, order)

    monkeypatch.setattr(Scheduling, "run", backwards)
    again, _ = compute_statistics(functaset).to_tensors()
    assert order == [7, 6, 5, 4, 3, 2, 1, 0]
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())


def test_threads_read_at_the_same_time(make_functaset, monkeypatch, uneven_latents):
    """Two shards meet: with one reader the first would wait in vain."""
    functaset, read, meeting = make_functaset(uneven_latents), ChunkReader.__call__, Barrier(2, timeout=20)

    def meet(self, chunk):
        if chunk in (0, 2):
            meeting.wait()
        return read(self, chunk)

    monkeypatch.setattr(ChunkReader, "__call__", meet)
    assert compute_statistics(functaset, Scheduling("threads", 2)).count == 29


def test_a_damaged_shard_stops_the_threads(make_functaset, uneven_latents):
    functaset = make_functaset(uneven_latents)
    (file,) = (path for path in Path(functaset.location.local).glob("latents/c/3/**/*") if path.is_file())
    content = file.read_bytes()
    file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(DamagedShardError, match="shard 3"):
        compute_statistics(functaset, Scheduling("threads", 2))


def test_an_element_that_never_varies_has_a_deviation_of_exactly_zero(make_functaset, uneven_latents):
    uneven_latents[..., 1] = 0.1
    uneven_latents[:, 0, 2, 3] = -0.3
    moments = compute_statistics(make_functaset(uneven_latents)).moments
    dead = np.zeros((2, 3, 4), bool)
    dead[..., 1] = dead[0, 2, 3] = True
    np.testing.assert_array_equal(moments["array"].std.numpy() == 0, dead)
    np.testing.assert_array_equal(moments["vector"].std.numpy() == 0, [False, True, False, False])
    assert all(moments[kind].largest.isfinite().all() for kind in AXES)
    np.testing.assert_array_equal(moments["array"].largest.numpy() == 0, dead)


def test_one_row_has_no_deviation_between_examples(make_functaset, latents):
    moments = compute_statistics(make_functaset(latents[:1])).moments
    assert not moments["array"].std.any()
    assert not moments["array"].largest.any()
    np.testing.assert_allclose(moments["scalar"].std, latents[0].astype(np.float64).std(), rtol=1e-9)


def test_tensors_and_metadata_hold_everything(make_functaset, uneven_latents):
    result = compute_statistics(make_functaset(uneven_latents))
    tensors, metadata = result.to_tensors()
    shapes = {"scalar": (), "vector": (4,), "array": (2, 3, 4)}
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        f"{kind}_{name}": shape for kind, shape in shapes.items() for name in ("mean", "std", "largest")
    }
    restored = LatentStatistics.from_tensors(tensors, json.loads(json.dumps(metadata)))
    assert (restored.count, restored.rotation) == (result.count, None)
    for kind, moments in result.moments.items():
        assert torch.equal(restored.moments[kind].mean, moments.mean)
        assert torch.equal(restored.moments[kind].std, moments.std)
        assert torch.equal(restored.moments[kind].largest, moments.largest)


def test_numbers_of_several_scales_are_normalised_by_their_channel(make_functaset):
    """Kept as a vector, coarse first: 1×1 with two channels, then 2×2 with one."""
    rng, shape = np.random.default_rng(0), LatentShape.parse("1x1x2+2x2x1")
    latents = (rng.normal(size=6) + rng.uniform(0.1, 2, size=6) * rng.normal(size=(29, 6))).astype(np.float32)
    functaset = make_functaset(latents, latent_shape=shape)
    assert functaset.latent_shape == shape
    np.testing.assert_array_equal(functaset.rows(3, 20), latents[3:20])
    found = compute_statistics(functaset)
    kept = LatentStatistics.from_tensors(*found.to_tensors())
    fine = latents[:, 2:].astype(np.float64)
    np.testing.assert_allclose(kept.moments["vector"].mean[:2], latents[:, :2].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(kept.moments["vector"].mean[2], fine.mean(), rtol=1e-9)
    np.testing.assert_allclose(kept.moments["vector"].std[2], fine.std(), rtol=1e-9)
    assert kept.moments["array"].mean.shape == (6,)
    for kind, groups in {
        "scalar": [range(6)],
        "vector": [[0], [1], range(2, 6)],
        "array": [[i] for i in range(6)],
    }.items():
        normaliser = Normaliser.from_statistics(kept, kind)
        normalised = normaliser(torch.from_numpy(latents))
        for group in groups:
            values = normalised[:, list(group)]
            assert values.mean().item() == pytest.approx(0, abs=1e-5)
            assert values.std(correction=0).item() == pytest.approx(1, rel=1e-5)
            assert values.abs().max().item() == pytest.approx(
                normaliser.clip_range.expand(6)[group[0]].item(), rel=1e-5
            )
        torch.testing.assert_close(normaliser.inverse(normalised), torch.from_numpy(latents), atol=1e-5, rtol=1e-4)
    turned = compute_statistics(functaset, rotation="whole")
    assert turned.rotation.shape == (6, 6)
