"""The figures show what they were given; looking good is for the eye."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot

from spatial_functa_pipeline.evaluation.figures import (
    ERROR_GAIN,
    MAX_ROWS,
    latent_statistics_figure,
    reconstruction_figure,
    resolution_figure,
    sample_figure,
    training_curves,
)


def render(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=40)
    assert buffer.getvalue().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []


def pictures(figure):
    """Pictures of a figure, row by row; None where there is none."""
    return [axis.images[0].get_array() if axis.images else None for axis in figure.axes]


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


def test_samples_stand_in_the_row_of_their_class():
    labels = torch.tensor([2, 0, 2, 0, 2])
    images = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 4, 4, 3)
    figure = sample_figure(images, labels, ["shirt", "coat", "bag"], per_class=3)
    shown = [None if picture is None else picture.mean() for picture in pictures(figure)]
    assert shown[2] is None
    np.testing.assert_allclose(shown[:2] + shown[3:], [0.25, 0.75, 0, 0.5, 1], rtol=1e-6)
    assert [figure.axes[row].get_ylabel() for row in (0, 3)] == ["shirt", "bag"]
    render(figure)


def test_a_row_has_no_more_than_per_class_samples():
    figure = sample_figure(torch.rand(30, 4, 4, 1), torch.arange(30) % 2, ["a", "b"], per_class=5)
    assert len(figure.axes) == 10


def test_many_classes_do_not_explode():
    names = [f"class {i}" for i in range(1000)]
    figure = sample_figure(torch.rand(1000, 2, 2, 1), torch.arange(1000), names)
    assert len(figure.axes) == MAX_ROWS
    assert figure.axes[0].get_ylabel() == "class 0"
    assert figure.axes[-1].get_ylabel() == "class 999"
    assert figure.get_supxlabel() == f"{MAX_ROWS} of 1,000 classes"


def test_unconditional_samples_fill_the_rows():
    figure = sample_figure(torch.rand(10, 4, 4, 1), None, [], per_class=4)
    assert [picture is not None for picture in pictures(figure)] == [True] * 10 + [False] * 2
    render(figure)


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0], [0]])
def test_labels_must_fit_images_and_classes(labels):
    with pytest.raises(ValueError, match=r"0\.\.1 for each of 2 images"):
        sample_figure(torch.rand(2, 4, 4, 1), torch.tensor(labels), ["a", "b"])


def test_no_samples_are_an_error():
    with pytest.raises(ValueError, match="no samples"):
        sample_figure(torch.rand(0, 4, 4, 1), torch.zeros(0, dtype=torch.int64), ["a"])


def test_resolutions_stand_above_each_other_at_their_own_pixels():
    coarse, fine = torch.rand(3, 8, 8, 1), torch.rand(3, 32, 32, 1)
    figure = resolution_figure([coarse, fine])
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == ["8×8", "32×32"]
    shown = [axis.get_images()[0].get_array().shape for axis in figure.axes]
    assert shown == [(8, 8)] * 3 + [(32, 32)] * 3
    np.testing.assert_allclose(figure.axes[3].get_images()[0].get_array(), fine[0, ..., 0])
    figure.draw_without_rendering()
    sizes = {round(axis.get_window_extent().width) for axis in figure.axes}
    assert max(sizes) - min(sizes) <= 1
    with pytest.raises(ValueError, match=r"as many images at each resolution, got \[3, 2\]"):
        resolution_figure([coarse, fine[:2]])


def test_training_curves_leave_out_what_was_not_measured():
    field = pd.DataFrame(
        {
            "step": [0, 10, 20, 30],
            "loss": [1.0, 0.1, 0.01, 0.001],
            "validation_psnr": [np.nan, 20.0, np.nan, 25.0],
            "never": [np.nan] * 4,
        }
    )
    figure = training_curves({"meta_learning": field, "diffusion": field[["step", "loss"]]})
    meta_learning, diffusion = figure.subfigs
    assert [part.get_suptitle() for part in figure.subfigs] == ["meta learning", "diffusion"]
    assert [axis.get_title() for axis in meta_learning.axes] == ["loss", "validation psnr"]
    assert [axis.get_title() for axis in diffusion.axes if axis.axison] == ["loss"]
    loss, psnr = meta_learning.axes
    np.testing.assert_array_equal(psnr.lines[0].get_xydata(), [[10, 20], [30, 25]])
    assert (loss.get_yscale(), psnr.get_yscale()) == ("log", "linear")
    render(figure)


def test_many_metrics_wrap_into_rows():
    history = pd.DataFrame({"step": [1, 2], **{f"metric_{i}": [1.0, 2.0] for i in range(6)}})
    (block,) = training_curves({"classification": history}).subfigs
    titles = [axis.get_title() for axis in block.axes if axis.axison]
    assert titles == [f"metric {i}" for i in range(6)]
    assert len(block.axes) == 8


@pytest.mark.parametrize("histories", [{}, {"field": pd.DataFrame({"step": [1], "loss": [np.nan]})}])
def test_nothing_to_draw_is_an_error(histories):
    with pytest.raises(ValueError, match="no history has a value"):
        training_curves(histories)


def test_a_history_without_steps_is_an_error():
    with pytest.raises(ValueError, match="history of field has no column 'step'"):
        training_curves({"field": pd.DataFrame({"loss": [1.0]})})


def test_latent_statistics_are_bars_of_the_channels():
    mean, std = torch.tensor([0.1, -0.2, 0.0]), torch.tensor([1.0, 2.0, 3.0])
    figure = latent_statistics_figure(mean, std)
    for axis, values in zip(figure.axes, (mean, std), strict=True):
        np.testing.assert_allclose([bar.get_height() for bar in axis.patches], values, rtol=1e-6)
    render(figure)


def test_latent_statistics_of_the_whole_array_are_refused():
    with pytest.raises(ValueError, match=r"\(c,\)"):
        latent_statistics_figure(torch.zeros(4, 4, 8), torch.zeros(4, 4, 8))
