import numpy as np
import pytest
import torch
from drawn import pictures, render

from spatial_functa_pipeline.evaluation.reconstruction_figure import ERROR_GAIN, reconstruction_figure


@pytest.mark.parametrize("channels", [1, 3])
def test_reconstructions_and_their_errors(channels):
    originals = torch.full((4, 6, 6, channels), 102, dtype=torch.uint8)  # 0.4
    reconstructions = torch.full((4, 6, 6, channels), 0.4) + torch.tensor([0, 0.01, -0.02, 3.0]).view(4, 1, 1, 1)
    figure = reconstruction_figure(originals, reconstructions, torch.tensor([100, 40, 33.98, -9.5]))
    shown = [picture.mean() for picture in pictures(figure)]
    np.testing.assert_allclose(shown[:4], 0.4, rtol=1e-5)
    np.testing.assert_allclose(shown[4:8], [0.4, 0.41, 0.38, 1.0], rtol=1e-5)
    np.testing.assert_allclose(shown[8:], [0, 0.01 * ERROR_GAIN, 0.02 * ERROR_GAIN, 1], atol=1e-5)
    assert [axis.get_title() for axis in figure.axes[:4]] == ["100.0 dB", "40.0 dB", "34.0 dB", "-9.5 dB"]
    assert [figure.axes[row].get_ylabel() for row in (0, 4, 8)] == ["original", "reconstruction", "|error| × 10"]
    render(figure)


def test_one_dimensional_data_are_lines():
    signals = torch.rand(2, 50, 1)
    figure = reconstruction_figure(signals, signals, torch.tensor([40.0, 41.0]))
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), signals[1, :, 0])
    render(figure)


def test_three_dimensional_data_are_refused():
    with pytest.raises(ValueError, match=r"not \(4, 4, 4, 1\)"):
        reconstruction_figure(torch.zeros(2, 4, 4, 4, 1), torch.zeros(2, 4, 4, 4, 1), torch.zeros(2))


@pytest.mark.parametrize(("images", "values"), [(3, 2), (2, 3)])
def test_reconstructions_must_fit_their_originals(images, values):
    with pytest.raises(ValueError, match="as many"):
        reconstruction_figure(torch.zeros(2, 4, 4, 1), torch.zeros(images, 4, 4, 1), torch.zeros(values))
