"""All scores together: each is that of its own function, and of the images it is meant to look at."""

import math

import pytest
import torch

from spatial_functa_pipeline.metrics.comparison import SCORES, FeatureSet, compare
from spatial_functa_pipeline.metrics.frechet import FeatureMoments, frechet_distance
from spatial_functa_pipeline.metrics.kid import kid_distance
from spatial_functa_pipeline.metrics.precision_recall import Manifold, manifold_scores


def gaussian(count, seed=0):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def moments_of(features):
    moments = FeatureMoments(features.shape[1])
    moments.update(features)
    return moments


def test_each_score_is_its_functions():
    x, y = gaussian(50), gaussian(70, seed=1) + 0.3
    found = compare(FeatureSet(x, pair_images=20), FeatureSet(y, pair_images=30))
    assert tuple(found) == SCORES
    assert found["frechet_distance"] == pytest.approx(frechet_distance(moments_of(x), moments_of(y)))
    assert found["kid"] == pytest.approx(kid_distance(x[:20], y[:30]))
    expected = manifold_scores(Manifold.of(x[:20]), Manifold.of(y[:30]))
    assert {name: found[name] for name in expected} == expected


def test_a_set_can_be_compared_again():
    x = FeatureSet(gaussian(40), 40)
    others = [FeatureSet(gaussian(40, seed=seed) + seed, 40) for seed in (1, 2)]
    first = [compare(x, other) for other in others]
    assert first == [compare(x, other) for other in others]
    assert first[0]["frechet_distance"] < first[1]["frechet_distance"]


@pytest.mark.parametrize(
    ("generated", "real", "missing"),
    [(20, 1, SCORES), (1, 20, SCORES), (20, 5, SCORES[2:]), (2, 2, SCORES[2:]), (6, 6, ())],
)
def test_a_score_that_a_set_is_too_small_for_is_nan(generated, real, missing):
    scores = compare(FeatureSet(gaussian(generated), 20), FeatureSet(gaussian(real, seed=1), 20))
    assert tuple(scores) == SCORES
    assert tuple(name for name, value in scores.items() if math.isnan(value)) == missing
