"""Figures of the latents' statistics and distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.evaluation.drawing import INK, MUTED, WARM, panels, style
from spatial_functa_pipeline.functasets.distribution import EDGES, LatentDistribution

_MOST_PANELS = 16
"""Of more channels the histograms are drawn into one another."""


def latent_statistics_figure(mean: Tensor, std: Tensor) -> Figure:
    """Mean and standard deviation of each latent channel, over images and cells (Fig. 8).

    Args:
        mean: `(c,)`.
        std: `(c,)`.

    Raises ValueError for other shapes.
    """
    if mean.ndim != 1 or mean.shape != std.shape:
        raise ValueError(f"needs mean and std of shape (c,), got {tuple(mean.shape)} and {tuple(std.shape)}")
    figure = Figure(figsize=(8, 2.8), layout="constrained")
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
    density, kurtosis = distribution.density, distribution.excess_kurtosis
    if len(density) <= _MOST_PANELS:
        figure, axes = panels(len(density), 1.9, 1.5)
        for channel, axis in enumerate(axes):
            _draw_histogram(axis, density[channel], color=INK, fill=True, alpha=0.7)
            axis.set_title(f"{channel}: excess kurtosis {kurtosis[channel]:.2f}", fontsize=8, color=MUTED, pad=2)
        figure.supxlabel("standard deviations from the mean; line: a normal distribution", fontsize=9)
        figure.supylabel("density", fontsize=9)
    else:
        figure = Figure(figsize=(9.5, 3.4), layout="constrained")
        axes = figure.subplots(1, 2)
        for row in density:
            _draw_histogram(axes[0], row, color=INK, linewidth=0.5, alpha=max(0.1, 8 / len(density)))
        _draw_histogram(axes[0], density.mean(axis=0), color="black", linewidth=1.4)
        axes[0].set_xlabel("standard deviations from the mean; black: mean of the channels", fontsize=9)
        axes[0].set_ylabel("density; orange: a normal distribution", fontsize=9)
        axes[1].bar(range(len(kurtosis)), np.nan_to_num(kurtosis), color=INK, width=0.9)
        axes[1].axhline(0, color=WARM, linewidth=1.2)
        axes[1].set_xlabel("latent channel", fontsize=9)
        axes[1].set_ylabel("excess kurtosis", fontsize=9)
        style(axes[1])
        axes = axes[:1]
    reached = np.abs(EDGES)[np.flatnonzero(distribution.histogram.any(axis=0))].max()
    least = density[density > 0].min()
    axes[0].set(xlim=(-reached - 0.5, reached + 0.5), ylim=(least / 2, 2 * density.max()))
    return figure


def _draw_histogram(axis: Axes, density: np.ndarray, **how: Any) -> None:
    """One on a logarithmic scale, and the normal density."""
    axis.stairs(np.where(density > 0, density, np.nan), EDGES, baseline=None if "fill" not in how else 1e-30, **how)
    axis.plot(EDGES, np.exp(-(EDGES**2) / 2) / np.sqrt(2 * np.pi), color=WARM, linewidth=1)
    axis.set_yscale("log")
    style(axis)
