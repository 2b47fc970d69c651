import numpy as np
import pytest
import torch
from drawn import render

from spatial_functa_pipeline.evaluation import latent_figure
from spatial_functa_pipeline.evaluation.latent_figure import latent_histogram_figure, latent_statistics_figure
from spatial_functa_pipeline.functasets.distribution import LatentDistribution


def test_latent_statistics_are_bars_of_the_channels():
    mean, std = torch.tensor([0.1, -0.2, 0.0]), torch.tensor([1.0, 2.0, 3.0])
    figure = latent_statistics_figure(mean, std)
    for axis, values in zip(figure.axes, (mean, std), strict=True):
        np.testing.assert_allclose([bar.get_height() for bar in axis.patches], values, rtol=1e-6)
    assert figure.get_suptitle() == ""
    render(figure)


@pytest.mark.parametrize(("numbers", "words"), [(3, "the numbers of each cell"), (48, "all 48 numbers of a latent")])
def test_statistics_of_rotated_latents_say_so(numbers, words):
    figure = latent_statistics_figure(torch.zeros(3), torch.ones(3), rotated_numbers=numbers)
    assert figure.get_suptitle() == f"after a random rotation of {words}"


def test_latent_statistics_of_the_whole_array_are_refused():
    with pytest.raises(ValueError, match=r"\(c,\)"):
        latent_statistics_figure(torch.zeros(4, 4, 8), torch.zeros(4, 4, 8))


@pytest.mark.parametrize(("channels", "panels"), [(1, 1), (4, 4), (5, 2)])
def test_histograms_have_a_panel_for_each_of_a_few_channels(monkeypatch, channels, panels):
    monkeypatch.setattr(latent_figure, "_MOST_PANELS", 4)
    latents = np.random.default_rng(0).normal(size=(500, 1, channels))
    distribution = LatentDistribution.of(latents, np.zeros(channels), np.ones(channels))
    figure = latent_histogram_figure(distribution)
    assert len(figure.axes) == panels
    first, *_ = figure.axes[0].patches
    np.testing.assert_array_equal(np.nan_to_num(first.get_data().values), distribution.density[0])
    assert figure.axes[0].get_yscale() == "log"
    (normal,) = figure.axes[0].lines
    assert normal.get_ydata().max() == pytest.approx(1 / np.sqrt(2 * np.pi))
    render(figure)
