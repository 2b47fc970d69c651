import math

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.statistics import LatentStatistics, Moments, compute_statistics

AXES = {"scalar": (0, 1, 2, 3), "vector": (0, 1, 2), "array": (0,)}
KINDS = list(AXES)


@pytest.fixture
def raw() -> torch.Tensor:
    """40 latents of 2×2×3 with a mean and a scale of their own in each element."""
    rng = np.random.default_rng(5)
    mean, scale = rng.normal(size=(2, 2, 3)), rng.uniform(0.01, 1, size=(2, 2, 3))
    return torch.from_numpy((mean + scale * rng.normal(size=(40, 2, 2, 3))).astype(np.float32))


@pytest.fixture
def stats(make_functaset, raw):
    return compute_statistics(make_functaset(raw.numpy(), shard_rows=40, chunk_rows=20))


def test_equation_1_by_hand():
    moments = Moments(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 4.0]), largest=torch.tensor([3.0, 5.0]))
    scalar = Moments(torch.tensor(0.0), torch.tensor(1.0), largest=torch.tensor(9.0))
    statistics = LatentStatistics(7, {"scalar": scalar, "vector": moments, "array": moments})
    normaliser = Normaliser.from_statistics(statistics, "vector", gamma=2.0)
    latent = torch.tensor([[[2.0, 6.0]]])
    assert torch.equal(normaliser(latent), torch.tensor([[[1.0, 1.0]]]))
    assert torch.equal(normaliser.inverse(torch.tensor([[[1.0, 1.0]]])), latent)
    assert normaliser.clip_range.tolist() == [1.5, 2.5]


@pytest.mark.parametrize("gamma", [1.0, 2.5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_training_set_gets_mean_0_and_deviation_one_over_gamma(raw, stats, kind, gamma):
    normaliser = Normaliser.from_statistics(stats, kind, gamma)
    normalised = normaliser(raw).double()
    torch.testing.assert_close(
        normalised.mean(AXES[kind]), torch.zeros_like(normalised.mean(AXES[kind])), atol=1e-6, rtol=0
    )
    std = normalised.std(AXES[kind], correction=0)
    torch.testing.assert_close(std, torch.full_like(std, 1 / gamma), atol=0, rtol=1e-5)
    largest = normalised.abs().amax(AXES[kind])
    torch.testing.assert_close(largest, normaliser.clip_range.double(), atol=0, rtol=1e-5)
    assert normaliser.clip_range.shape == normaliser.mean.shape


def test_a_number_that_hardly_varies_does_not_widen_the_range_of_others(make_functaset):
    """Of 8,000 latents one alone differs in one number: its range is 89 deviations, the others' are a Gaussian's."""
    latents = np.random.default_rng(0).normal(size=(8000, 2, 1, 1)).astype(np.float32)
    latents[:, 1] = 0.1
    latents[123, 1] = 0.2
    statistics = compute_statistics(make_functaset(latents, shard_rows=2000, chunk_rows=500))
    ordinary, rare = Normaliser.from_statistics(statistics, "array").clip_range.flatten().tolist()
    assert rare == pytest.approx(math.sqrt(8000), rel=0.01)
    assert ordinary < 5


@pytest.mark.parametrize("kind", KINDS)
def test_inverse_undoes_each_kind(raw, stats, kind):
    normaliser = Normaliser.from_statistics(stats, kind, gamma=2.5)
    torch.testing.assert_close(normaliser.inverse(normaliser(raw)), raw, atol=1e-6, rtol=1e-6)


def test_by_scale_divides_without_centring(raw):
    normaliser = Normaliser.by_scale(0.03)
    torch.testing.assert_close(normaliser(raw), raw / 0.03)
    torch.testing.assert_close(normaliser.inverse(normaliser(raw)), raw)
    assert normaliser.clip_range.item() == math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_float32(raw, stats, kind, dtype):
    normaliser = Normaliser.from_statistics(stats, kind)
    given = raw.to(dtype)
    assert normaliser(given).dtype == normaliser.inverse(given).dtype == torch.float32
    torch.testing.assert_close(normaliser(given), normaliser(given.float()))


@pytest.mark.parametrize("kind", ["vector", "array"])
def test_an_element_that_never_varies_becomes_0_and_is_scaled_like_the_rest(make_functaset, raw, kind):
    raw[..., 1] = 0.25
    statistics = compute_statistics(make_functaset(raw.numpy()))
    normaliser = Normaliser.from_statistics(statistics, kind, gamma=2.0)
    normalised = normaliser(raw)
    assert not normalised[..., 1].any()
    assert normalised.isfinite().all()
    torch.testing.assert_close(normaliser.inverse(normalised), raw, atol=1e-6, rtol=1e-6)
    scalar_std = statistics.moments["scalar"].std
    torch.testing.assert_close(
        normaliser.scale[..., 1].double(), (2 * scalar_std).expand(normaliser.scale[..., 1].shape)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_without_any_variation_is_only_centred(make_functaset, kind):
    latents = np.full((5, 2, 2, 3), 0.5, np.float32)
    normaliser = Normaliser.from_statistics(compute_statistics(make_functaset(latents)), kind, gamma=3.0)
    assert torch.equal(normaliser.scale, torch.full_like(normaliser.scale, 3.0))
    assert not normaliser(torch.from_numpy(latents)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_its_state_is_all_of_it(raw, stats, kind):
    normaliser = Normaliser.from_statistics(stats, kind, gamma=2.5)
    state = normaliser.state_dict()
    assert {name: tensor.dtype for name, tensor in state.items()} == dict.fromkeys(
        ("mean", "scale", "clip_range"), torch.float32
    )
    restored = Normaliser(**state)
    assert torch.equal(restored(raw), normaliser(raw))
    assert torch.equal(restored.clip_range, normaliser.clip_range)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_scale_that_is_not_positive_is_refused(scale):
    with pytest.raises(ValueError, match="must be positive"):
        Normaliser.by_scale(scale)
