"""The Fréchet distance against closed forms and against scipy's general matrix square root."""

import numpy as np
import pytest
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from scipy.linalg import sqrtm

from spatial_functa_pipeline.metrics.frechet import FeatureMoments, frechet_distance


def moments_of(*batches):
    moments = FeatureMoments(batches[0].shape[1])
    for batch in batches:
        moments.update(batch)
    return moments


def white_samples(count, width, seed=0):
    """Samples whose mean is exactly 0 and whose covariance is exactly the identity."""
    x = torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    orthonormal, _ = torch.linalg.qr(x - x.mean(dim=0))
    return orthonormal * (count - 1) ** 0.5


def test_moments_agree_with_numpy_whatever_the_batches():
    features = torch.rand(101, 7, generator=torch.Generator().manual_seed(0)) + 3
    moments = moments_of(*features.split(10))
    assert moments.count == 101
    np.testing.assert_allclose(moments.mean(), features.double().mean(dim=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(features.double().numpy(), rowvar=False), rtol=1e-9)


def test_shifted_mean_of_equal_covariances():
    x = white_samples(50, 4)
    shift = torch.tensor([1.0, -2.0, 0.5, 0.0])
    assert frechet_distance(moments_of(x), moments_of(x + shift)) == pytest.approx(5.25, abs=1e-9)


def test_diagonal_covariances():
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 0.5])
    distance = frechet_distance(moments_of(white_samples(40, 3) * a), moments_of(white_samples(60, 3, seed=1) * b))
    assert distance == pytest.approx((a - b).square().sum().item(), abs=1e-9)


def test_correlated_covariances_agree_with_scipy():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 12)) @ generator.normal(size=(12, 12))
    y = generator.normal(size=(200, 12)) @ generator.normal(size=(12, 12)) + 0.3
    covariances = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    expected = (
        ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
        + np.trace(covariances[0] + covariances[1])
        - 2 * np.trace(sqrtm(covariances[0] @ covariances[1])).real
    )
    a, b = moments_of(torch.from_numpy(x)), moments_of(torch.from_numpy(y))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of scipy, about how pytorch-fid calls it
def test_it_is_what_pytorch_fid_computes_from_the_same_features():
    generator = np.random.default_rng(1)
    x = np.abs(generator.normal(size=(500, 40)) @ generator.normal(size=(40, 40))).astype(np.float32)
    y = np.abs(generator.normal(size=(400, 40)) @ generator.normal(size=(40, 40)) + 0.5).astype(np.float32)
    statistics = [(f.mean(axis=0), np.cov(f, rowvar=False)) for f in (x.astype(np.float64), y.astype(np.float64))]
    expected = calculate_frechet_distance(*statistics[0], *statistics[1])
    assert frechet_distance(moments_of(torch.from_numpy(x)), moments_of(torch.from_numpy(y))) == pytest.approx(
        expected, rel=1e-9
    )


def test_the_root_of_the_covariance_follows_new_features():
    moments = moments_of(white_samples(30, 3))
    torch.testing.assert_close(moments.covariance_root(), torch.eye(3, dtype=torch.float64))
    moments.update(5 * white_samples(30, 3, seed=1))
    root = moments.covariance_root()
    torch.testing.assert_close(root @ root, moments.covariance())


def test_equal_sets_of_deficient_rank_have_distance_zero():
    features = torch.rand(20, 100, generator=torch.Generator().manual_seed(0))
    distance = frechet_distance(moments_of(features), moments_of(features.flip(0)))
    assert 0 <= distance < 1e-9


def test_covariances_of_deficient_rank_in_orthogonal_subspaces():
    a, b = torch.zeros(30, 8, dtype=torch.float64), torch.zeros(30, 8, dtype=torch.float64)
    a[:, :3], b[:, 4:6] = 2 * white_samples(30, 3), 3 * white_samples(30, 2)
    assert frechet_distance(moments_of(a), moments_of(b)) == pytest.approx(3 * 4 + 2 * 9, abs=1e-9)


def test_different_widths_are_an_error():
    with pytest.raises(ValueError, match="widths 3 and 4"):
        frechet_distance(moments_of(torch.rand(5, 3)), moments_of(torch.rand(5, 4)))


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        frechet_distance(moments_of(torch.rand(1, 3)), moments_of(torch.rand(5, 3)))


def test_moments_of_nothing_are_an_error():
    with pytest.raises(ValueError, match="at least 1 images, got 0"):
        FeatureMoments(3).mean()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_an_error(value):
    with pytest.raises(ValueError, match="diverged"):
        moments_of(torch.tensor([[1.0, value]]))


@pytest.mark.parametrize("shape", [(4, 2), (3,), (4, 3, 1)])
def test_features_of_another_shape_are_an_error(shape):
    with pytest.raises(ValueError, match=r"expected features of shape \(B, 3\)"):
        FeatureMoments(3).update(torch.zeros(shape))
