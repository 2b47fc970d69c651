import numpy as np
import pytest
import torch
from drawn import render

from spatial_functa_pipeline.evaluation.latent_figure import latent_statistics_figure


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
