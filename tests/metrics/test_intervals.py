"""Intervals of the scores: what an image contributes, and how often they hold the expected score."""

import math

import pytest
import torch

from spatial_functa_pipeline.metrics.comparison import FeatureSet, bounds, compare
from spatial_functa_pipeline.metrics.frechet import FeatureMoments, frechet_distance, frechet_estimate
from spatial_functa_pipeline.metrics.intervals import Estimate, random_halves, variance_of_contributions
from spatial_functa_pipeline.metrics.kid import kid_distance, kid_estimate, similarity_between, similarity_within


def gaussian(count, width=4, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, width, dtype=torch.float64, generator=generator)


def moments_of(features):
    moments = FeatureMoments(features.shape[1])
    moments.update(features)
    return moments


def variance_by_leaving_one_out(score, x, y):
    """The jackknife written out."""
    total = 0.0
    for side in (0, 1):
        sets = (x, y)
        count = len(sets[side])
        rest = [torch.cat([sets[side][:i], sets[side][i + 1 :]]) for i in range(count)]
        scores = torch.tensor([score(*((one, y) if side == 0 else (x, one))) for one in rest])
        total += (count - 1) / count * (scores - scores.mean()).square().sum().item()
    return total


def of_moments(x, y):
    return frechet_distance(moments_of(x), moments_of(y))


def test_the_distances_variance_is_that_of_leaving_one_image_out():
    x, y = gaussian(300), gaussian(250, seed=1, scale=1.3) + 0.2
    found = frechet_estimate(moments_of(x), moments_of(y), x, y)
    assert found.value == pytest.approx(of_moments(x, y), rel=1e-9)
    assert found.variance == pytest.approx(variance_by_leaving_one_out(of_moments, x, y), rel=0.05)


def test_kids_variance_is_that_of_leaving_one_image_out():
    x, y = gaussian(120), gaussian(100, seed=1) + 0.7
    found = kid_estimate(similarity_within(x), similarity_within(y), *similarity_between(x, y))
    assert found.value == pytest.approx(kid_distance(x, y))
    assert found.variance == pytest.approx(variance_by_leaving_one_out(kid_distance, x, y), rel=0.05)


def test_the_distance_of_means_has_the_variance_of_theory():
    """Equal covariances σ²I and a shift δ: the distance is about |δ|², its variance 4|δ|² σ² (1/N + 1/M)."""
    x, y = gaussian(4000), gaussian(2000, seed=1) + torch.tensor([3.0, 0, 0, 0])
    variance = frechet_estimate(moments_of(x), moments_of(y), x, y).variance
    assert variance == pytest.approx(4 * 9 * (1 / 4000 + 1 / 2000), rel=0.1)


def test_some_images_speak_for_all():
    x, y = gaussian(4000), gaussian(4000, seed=1, scale=1.2)
    a, b = moments_of(x), moments_of(y)
    assert frechet_estimate(a, b, x[:800], y[:800]).variance == pytest.approx(
        frechet_estimate(a, b, x, y).variance, rel=0.15
    )


def test_fewer_images_than_features_have_a_finite_interval():
    x, y = gaussian(20, 30), gaussian(25, 30, seed=1)
    found = frechet_estimate(moments_of(x), moments_of(y), x, y)
    assert found.value == pytest.approx(of_moments(x, y), rel=1e-9)
    assert 0 < found.variance < found.value**2


@pytest.mark.parametrize(("count", "half"), [(12, 6), (13, 6)])
def test_halves_are_halves_of_their_own_and_follow_the_seed(count, half):
    halves = random_halves(count, 400, torch.Generator().manual_seed(0))
    assert (halves.sum(dim=1) == half).all()
    assert len(halves.unique(dim=0)) > 200
    assert halves.double().mean(dim=0).sub(half / count).abs().max() < 0.1
    assert torch.equal(halves, random_halves(count, 400, torch.Generator().manual_seed(0)))


def test_the_spread_over_halves_is_that_of_a_mean():
    values = gaussian(500, 1)[:, 0]
    halves = random_halves(500, 2000, torch.Generator().manual_seed(0)).double()
    assert ((halves @ values) / 250).var().item() == pytest.approx(values.var().item() / 500, rel=0.12)


def test_an_interval_ends_where_the_score_does():
    assert Estimate(0.5, 0.01).interval() == pytest.approx((0.5 - 0.196, 0.5 + 0.196), abs=1e-4)
    assert bounds("recall", Estimate(0.95, 0.01)) == pytest.approx((0.754, 1), abs=1e-3)
    assert bounds("frechet_distance", Estimate(0.1, 0.01)) == pytest.approx((0, 0.296), abs=1e-3)
    assert bounds("kid", Estimate(0.0, 0.01))[0] < 0
    assert all(map(math.isnan, bounds("recall", Estimate(0.5))))
    assert variance_of_contributions((torch.tensor([0.0, 2.0]), 4), (torch.tensor([1.0, 1.0]), 9)) == 0.5


def test_intervals_hold_the_expected_scores_of_gaussians():
    """About 95 of 100 do; those of kinds that resemble each other are rather too wide."""
    generator = torch.Generator().manual_seed(0)

    def drawn(scale):
        features = scale * torch.randn(80, 6, generator=generator)
        return FeatureSet(moments_of(features), features)

    found = [compare(drawn(1.5), drawn(1.0), 15, seed) for seed in range(50)]
    for score in found[0]:
        expected = sum(one[score].value for one in found) / len(found)
        held = [low <= expected <= high for low, high in (bounds(score, one[score]) for one in found)]
        assert sum(held) / len(held) > 0.88, score
        estimated = sum(one[score].variance for one in found) / len(found)
        true = torch.tensor([one[score].value for one in found]).var().item()
        assert 0.6 < estimated / true < 2.5, score
