import numpy as np
import pytest
import torch

from spatial_functa_pipeline.functasets.chunks import ChunkReader
from spatial_functa_pipeline.functasets.distribution import EDGES, LatentDistribution, compute_distribution
from spatial_functa_pipeline.functasets.rotation import rotated
from spatial_functa_pipeline.functasets.scheduling import SYNCHRONOUS, Scheduling
from spatial_functa_pipeline.functasets.statistics import compute_statistics


def of(numbers):
    """The distribution of one channel of these numbers."""
    latents = np.asarray(numbers, np.float64).reshape(-1, 1, 1)
    return LatentDistribution.of(latents, latents.mean((0, 1)), latents.std((0, 1)))


@pytest.fixture
def skewed() -> np.ndarray:
    """29 latents of 2×3×4 whose channels differ in mean, scale and shape."""
    rng = np.random.default_rng(3)
    return (rng.normal(size=4) + rng.uniform(0.01, 2, size=4) * rng.gamma(0.7, size=(29, 2, 3, 4))).astype(np.float32)


@pytest.mark.parametrize(
    ("draw", "kurtosis", "skewness"),
    [
        (lambda rng: rng.normal(3, 0.1, size=400_000), 0, 0),
        (lambda rng: rng.uniform(size=400_000), -1.2, 0),
        (lambda rng: rng.laplace(size=400_000), 3, 0),
        (lambda rng: rng.exponential(size=400_000), 6, 2),
    ],
    ids=["normal", "uniform", "Laplace", "exponential"],
)
def test_known_distributions_have_their_kurtosis_and_skewness(draw, kurtosis, skewness):
    found = of(draw(np.random.default_rng(0)))
    assert found.excess_kurtosis[0] == pytest.approx(kurtosis, abs=0.02 + 0.05 * abs(kurtosis))
    assert found.skewness[0] == pytest.approx(skewness, abs=0.03 + 0.02 * skewness)


def test_two_values_have_the_least_kurtosis_there_is():
    assert of([0, 1, 0, 1]).excess_kurtosis.tolist() == pytest.approx([-2])


def test_one_pass_finds_what_all_latents_at_once_have(make_functaset, skewed):
    functaset = make_functaset(skewed)
    found = compute_distribution(functaset, compute_statistics(functaset))
    channels = skewed.reshape(-1, 4).astype(np.float64)
    x = (channels - channels.mean(axis=0)) / channels.std(axis=0)
    np.testing.assert_allclose(found.excess_kurtosis, (x**4).mean(axis=0) - 3, rtol=1e-9)
    np.testing.assert_allclose(found.skewness, (x**3).mean(axis=0), rtol=1e-9)
    for channel in range(4):
        np.testing.assert_array_equal(found.histogram[channel], np.histogram(x[:, channel], EDGES)[0])
    assert (found.count, found.numbers.tolist()) == (29, [29 * 6] * 4)
    np.testing.assert_allclose((found.density * np.diff(EDGES)).sum(axis=1), 1)


def test_moments_of_other_latents_shift_the_histogram_and_not_the_kurtosis():
    latents = np.random.default_rng(1).gamma(1.0, size=(50, 2, 3))
    own = LatentDistribution.of(latents, latents.mean((0, 1)), latents.std((0, 1)))
    other = LatentDistribution.of(latents, np.full(3, 0.5), np.full(3, 2.0))
    np.testing.assert_allclose(other.excess_kurtosis, own.excess_kurtosis, rtol=1e-9)
    np.testing.assert_allclose(other.skewness, own.skewness, rtol=1e-9)
    assert (other.histogram != own.histogram).any()


def test_what_lies_beyond_the_bins_is_in_the_outermost():
    latents = np.array([-1000.0, 0.0, 1000.0, -12.0]).reshape(-1, 1, 1)
    found = LatentDistribution.of(latents, np.zeros(1), np.ones(1))
    assert found.histogram[0, [0, -1]].tolist() == [2, 1]
    assert found.histogram.sum() == 4


def test_a_channel_that_never_varies_has_no_kurtosis(make_functaset, skewed):
    skewed[..., 1] = 0.1
    functaset = make_functaset(skewed)
    found = compute_distribution(functaset, compute_statistics(functaset))
    assert np.isnan(found.excess_kurtosis).tolist() == np.isnan(found.skewness).tolist() == [False, True, False, False]
    assert found.histogram[1].max() == found.numbers[1]


@pytest.mark.parametrize("scheduling", [Scheduling("threads", 2)])
def test_the_bits_are_the_same_whoever_reads(make_functaset, skewed, scheduling):
    functaset = make_functaset(skewed)
    one, other = (
        compute_distribution(functaset, compute_statistics(functaset), how) for how in (SYNCHRONOUS, scheduling)
    )
    np.testing.assert_array_equal(one.sums, other.sums)
    np.testing.assert_array_equal(one.histogram, other.histogram)


def test_augmented_copies_do_not_count(make_functaset, skewed):
    functaset = make_functaset(skewed, originals=21)
    found = compute_distribution(functaset, compute_statistics(functaset))
    assert found.count == 21
    x = skewed[:21].reshape(-1, 4).astype(np.float64)
    kurtosis = ((x - x.mean(axis=0)) ** 4).mean(axis=0) / x.var(axis=0) ** 2 - 3
    np.testing.assert_allclose(found.excess_kurtosis, kurtosis, rtol=1e-9)


@pytest.mark.parametrize(
    ("at_most", "chunks"), [(1, [0]), (5, [0, 5, 10]), (8, [0, 3, 7, 11]), (1000, list(range(15)))]
)
def test_some_latents_are_whole_chunks_spread_over_all(make_functaset, monkeypatch, skewed, at_most, chunks):
    """Neighbouring rows may all be of one class."""
    functaset, read, found = make_functaset(skewed), ChunkReader.__call__, []
    statistics = compute_statistics(functaset)
    moments = statistics.moments["vector"]
    monkeypatch.setattr(ChunkReader, "__call__", lambda self, chunk: found.append(chunk) or read(self, chunk))
    distribution = compute_distribution(functaset, statistics, at_most=at_most)
    assert found == chunks
    rows = np.concatenate([skewed[2 * chunk : 2 * chunk + 2] for chunk in chunks])
    assert distribution.count == len(rows)
    expected = LatentDistribution.of(rows, moments.mean.numpy(), moments.std.numpy())
    np.testing.assert_array_equal(distribution.histogram, expected.histogram)
    np.testing.assert_allclose(distribution.sums, expected.sums, atol=1e-9)


def test_float16_latents_are_summed_in_float64(make_functaset):
    rng = np.random.default_rng(0)
    latents = (1 + 0.01 * rng.laplace(size=(200, 1, 1, 1))).astype(np.float32)
    functaset = make_functaset(latents, storage_type="float16", shard_rows=100, chunk_rows=50)
    stored = torch.from_numpy(latents.astype(np.float16).astype(np.float64)).flatten()
    x = (stored - stored.mean()) / stored.std(correction=0)
    found = compute_distribution(functaset, compute_statistics(functaset))
    assert found.excess_kurtosis[0] == pytest.approx((x**4).mean().item() - 3, rel=1e-9)


@pytest.mark.parametrize("kind", ["within_cells", "whole"])
def test_of_rotated_latents_it_is_that_of_the_rotated(make_functaset, skewed, kind):
    functaset = make_functaset(skewed)
    statistics = compute_statistics(functaset, rotation=kind)
    found = compute_distribution(functaset, statistics)
    x = rotated(torch.from_numpy(skewed).double(), statistics.rotation.double()).reshape(-1, 4)
    x = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    np.testing.assert_allclose(found.excess_kurtosis, (x**4).mean(dim=0) - 3, rtol=1e-6)
    assert found.sums[0] == pytest.approx(0, abs=1e-6)  # the moments are those of the rotated, too
