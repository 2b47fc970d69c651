import numpy as np
import pytest

from spatial_functa_pipeline.evaluation.latents import analyse_latents
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.scheduling import SYNCHRONOUS
from spatial_functa_pipeline.functasets.statistics import compute_statistics


def analysed(functaset, at_most=1000):
    return analyse_latents(functaset, compute_statistics(functaset), at_most, 4, SYNCHRONOUS)


def test_the_metric_is_the_mean_of_the_tables_kurtosis(make_functaset):
    latents = np.random.default_rng(0).laplace(size=(60, 2, 2, 3)).astype(np.float32)
    latents[..., 1] = 2.0  # never varies
    metrics, table, figure = analysed(make_functaset(latents))
    varying = table["excess_kurtosis"][[0, 2]]
    assert metrics["latent_kurtosis"] == pytest.approx(varying.mean())
    assert np.isnan(table["excess_kurtosis"][1])
    assert metrics["details"]["latent_kurtosis"] == (
        f"60 training latents, seed 4: excess (0: normal), mean of 2 channels, {varying.min():.3g} to {varying.max():.3g}"
    )
    assert len(figure.axes) == 3


def test_the_table_counts_what_lies_far_out(make_functaset):
    latents = np.zeros((100, 1, 1, 1), np.float32)
    latents[:4] = [[[[1.0]]], [[[-1.0]]], [[[1.0]]], [[[-1.0]]]]  # σ = 0.2
    _, table, _ = analysed(make_functaset(latents))
    assert table["beyond_3_std"][0] == 0.04
    assert table["largest"][0] == pytest.approx(5)
    assert table["skewness"][0] == pytest.approx(0, abs=1e-9)


def test_some_of_the_latents_are_named_as_such(make_functaset):
    metrics, *_ = analysed(make_functaset(np.random.default_rng(0).normal(size=(60, 1, 1, 3)).astype(np.float32)), 10)
    assert metrics["details"]["latent_kurtosis"].startswith("10 of 60 training latents")


def test_latents_that_never_vary_have_no_metric(make_functaset):
    metrics, _, _ = analysed(make_functaset(np.ones((10, 1, 1, 3), np.float32)))
    assert metrics == {"details": {}}


def test_channels_of_several_scales_are_those_of_all(make_functaset):
    rng, shape = np.random.default_rng(0), LatentShape.parse("1x1x2+2x2x1")
    latents = rng.normal(size=(60, 6)).astype(np.float32)
    latents[:, 2:] = 5 + latents[:, 2:] ** 3
    metrics, table, figure = analysed(make_functaset(latents, latent_shape=shape))
    assert table["scale"].tolist() == ["1x1x2", "1x1x2", "2x2x1"]
    np.testing.assert_allclose(
        table["mean"], [latents[:, 0].mean(), latents[:, 1].mean(), latents[:, 2:].mean()], rtol=1e-5
    )
    x = (latents[:, 2:] - latents[:, 2:].mean(dtype=np.float64)) / latents[:, 2:].std(dtype=np.float64)
    assert table["excess_kurtosis"][2] == pytest.approx((x**4).mean() - 3, rel=1e-4)
    assert table["beyond_3_std"][2] == pytest.approx((np.abs(x) > 3).mean())
    assert "3 channels" in metrics["details"]["latent_kurtosis"]
    assert len(figure.axes) == 3
