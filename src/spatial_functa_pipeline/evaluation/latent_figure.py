"""Figures of the latents' statistics and distribution."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.evaluation.drawing import INK, MUTED, WARM, panels, style
from spatial_functa_pipeline.functasets.distribution import EDGES, LatentDistribution

_CENTRES = (EDGES[:-1] + EDGES[1:]) / 2
_MOST_PANELS = 16
"""Of more channels the histograms are drawn into one another."""


def latent_statistics_figure(mean: Tensor, std: Tensor, rotated_numbers: int | None = None) -> Figure:
    """Mean and standard deviation of each latent channel, over images and cells (Fig. 8).

    Args:
        mean: `(c,)`.
        std: `(c,)`.
        rotated_numbers: how many numbers of a latent were rotated together before; None: none were.

    Raises ValueError for other shapes.
    """
    if mean.ndim != 1 or mean.shape != std.shape:
        raise ValueError(f"needs mean and std of shape (c,), got {tuple(mean.shape)} and {tuple(std.shape)}")
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    if rotated_numbers is not None:
        what = (
            "the numbers of each cell" if rotated_numbers == len(mean) else f"all {rotated_numbers} numbers of a latent"
        )
        figure.suptitle(f"after a random rotation of {what}", fontsize=10)
    for axis, values, title in zip(figure.subplots(1, 2), (mean, std), ("mean", "standard deviation"), strict=True):
        axis.bar(range(len(values)), values.tolist(), color=INK, width=0.8)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("latent channel")
        axis.xaxis.get_major_locator().set_params(integer=True)
        style(axis)
    return figure


def latent_histogram_figure(distribution: LatentDistribution) -> Figure:
    """Histograms of the channels beside the normal density of their mean and deviation, which heavy tails exceed (App. C.4.1).

    A panel for each channel; of many channels one panel with all of them and their mean, and their kurtosis beside it.
    """
    many = len(distribution.histogram) > _MOST_PANELS
    figure, axis = _of_all(distribution) if many else _of_each(distribution)
    density = distribution.density
    reached = np.abs(_CENTRES[distribution.histogram.any(axis=0)]).max() + 0.5
    axis.set(xlim=(-reached, reached), ylim=(density[density > 0].min() / 2, 2 * density.max()))
    return figure


def _of_each(distribution: LatentDistribution) -> tuple[Figure, Axes]:
    """A panel for each channel, and one of these, whose limits are those of all."""
    figure, axes = panels(len(distribution.histogram), 1.9, 1.5)
    values = zip(axes, distribution.density, distribution.excess_kurtosis, strict=True)
    for channel, (axis, density, kurtosis) in enumerate(values):
        axis.stairs(density, EDGES, fill=True, color=INK, alpha=0.7)
        _draw_normal(axis)
        axis.set_title(f"{channel}: excess kurtosis {kurtosis:.2f}", fontsize=8, color=MUTED, pad=2)
    figure.supxlabel("standard deviations from the mean; line: a normal distribution", fontsize=9)
    figure.supylabel("density", fontsize=9)
    return figure, axes[0]


def _of_all(distribution: LatentDistribution) -> tuple[Figure, Axes]:
    """All channels in one panel, which is returned too, and their kurtosis in another."""
    figure = Figure(figsize=(9.5, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    density, kurtosis = distribution.density, distribution.excess_kurtosis
    opacity = min(1.0, max(0.1, 8 / len(density)))
    for row in density:
        left.stairs(np.where(row > 0, row, np.nan), EDGES, baseline=None, color=INK, linewidth=0.5, alpha=opacity)
    left.stairs(density.mean(axis=0), EDGES, baseline=None, color="black", linewidth=1.4, label="mean of the channels")
    _draw_normal(left)
    left.set_xlabel("standard deviations from the mean", fontsize=9)
    left.set_ylabel("density", fontsize=9)
    left.legend(fontsize=8, frameon=False, loc="upper right")
    right.bar(range(len(kurtosis)), np.nan_to_num(kurtosis), color=INK, width=0.9)
    right.axhline(0, color=WARM, linewidth=1.2)
    right.set_xlabel("latent channel", fontsize=9)
    right.set_ylabel("excess kurtosis", fontsize=9)
    style(right)
    return figure, left


def _draw_normal(axis: Axes) -> None:
    """The normal density, on a logarithmic scale."""
    axis.plot(EDGES, np.exp(-(EDGES**2) / 2) / np.sqrt(2 * np.pi), color=WARM, linewidth=1, label="normal distribution")
    axis.set_yscale("log")
    style(axis)
