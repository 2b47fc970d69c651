"""All scores together: each is that of its own function, and of the images it is meant to look at."""

import math
import weakref

import pytest
import torch

from spatial_functa_pipeline.metrics.comparison import SCORES, FeatureSet, compare
from spatial_functa_pipeline.metrics.frechet import FeatureMoments, frechet_distance
from spatial_functa_pipeline.metrics.kid import kid_distance
from spatial_functa_pipeline.metrics.precision_recall import Manifold, manifold_scores


def gaussian(count, seed=0):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


class Identity:
    """Features that are given already."""

    name, width = "identity", 6

    def __call__(self, features):
        return features.float()


def feature_set(features, pairs):
    return FeatureSet.of(Identity(), features.split(7), pairs)


def moments_of(features):
    moments = FeatureMoments(features.shape[1])
    moments.update(features)
    return moments


def test_each_score_is_its_functions():
    x, y = gaussian(50), gaussian(70, seed=1) + 0.3
    found = compare(feature_set(x, 20), feature_set(y, 30))
    assert tuple(found) == SCORES
    assert found["frechet_distance"].value == pytest.approx(frechet_distance(moments_of(x), moments_of(y)))
    assert found["kid"].value == pytest.approx(kid_distance(x[:20], y[:30]))
    expected = manifold_scores(Manifold.of(x[:20]), Manifold.of(y[:30]))
    assert {name: found[name] for name in expected} == expected


def test_a_set_can_be_compared_again():
    x = feature_set(gaussian(40), 40)
    others = [feature_set(gaussian(40, seed=seed) + seed, 40) for seed in (1, 2)]
    first = [compare(x, other, 10, 3) for other in others]
    assert first == [compare(x, other, 10, 3) for other in others]
    assert all(estimate.variance > 0 for scores in first[:1] for estimate in scores.values())
    assert first[0]["frechet_distance"].value < first[1]["frechet_distance"].value


@pytest.mark.parametrize(
    ("generated", "real", "missing"),
    [(20, 1, SCORES), (1, 20, SCORES), (20, 5, SCORES[2:]), (2, 2, SCORES[2:]), (6, 6, ())],
)
def test_a_score_that_a_set_is_too_small_for_is_nan(generated, real, missing):
    scores = compare(feature_set(gaussian(generated), 20), feature_set(gaussian(real, seed=1), 20))
    assert tuple(scores) == SCORES
    assert tuple(name for name, value in scores.items() if math.isnan(value.value)) == missing


def test_of_many_images_the_features_of_few_are_kept():
    """The moments are those of all; what is kept does not grow with the number of images."""
    features = gaussian(60)
    found = feature_set(features, pairs=10)
    assert len(found) == 60
    assert torch.equal(found.paired, features[:10])
    assert found.paired.untyped_storage().nbytes() == 10 * 6 * 4  # no view that keeps a larger batch
    torch.testing.assert_close(found.moments.covariance(), moments_of(features).covariance())
    assert len(found.with_pairs(4).paired) == 4
    assert len(found.with_pairs(4)) == 60


def test_batches_beyond_the_pairs_are_let_go():
    extracted, alive = [], []

    class Watched(Identity):
        def __call__(self, features):
            result = features.clone()
            extracted.append(weakref.ref(result.untyped_storage()))
            return result

    def batches():
        for batch in gaussian(600).split(6):
            alive.append(sum(storage() is not None for storage in extracted))
            yield batch

    FeatureSet.of(Watched(), batches(), pairs=6)
    assert len(extracted) == 100
    assert max(alive) <= 2


def test_moments_that_were_stored_are_the_same():
    moments = moments_of(gaussian(30))
    again = FeatureMoments.from_tensors({name: tensor.clone() for name, tensor in moments.tensors().items()})
    assert again.count == 30
    assert torch.equal(again.mean(), moments.mean())
    assert torch.equal(again.covariance(), moments.covariance())
    again.update(gaussian(3))
    assert moments.count == 30
    assert not torch.equal(again.mean(), moments.mean())
