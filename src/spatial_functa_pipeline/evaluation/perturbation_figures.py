"""Figures of perturbed latents (Fig. 4, 12, 13). Images of three dimensions have no pictures, but have all numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, log2
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from spatial_functa_pipeline.evaluation.drawing import (
    INK,
    MUTED,
    WARM,
    array,
    can_show,
    image_grid,
    label_row,
    notice,
    panels,
    show,
    show_difference,
    spread,
    style,
)

_MOST_PANELS = 64
_MOST_NUMBERED = 128
"""Patterns of more channels are drawn without their numbers."""
_OF_THE_COLOURS = 0.98
"""Share of the differences within the scale of colours: a few pixels at edges would leave all others pale."""
_ZOOM = 3
"""Cells along each axis of an enlarged part."""


def dimension_figure(pictures: Tensor, changes: Mapping[str, Tensor]) -> Figure:
    """Unperturbed pictures, and for each change the perturbed ones over their absolute error, a column each (Fig. 4).

    Args:
        pictures: `(B, *resolution, channels)`.
        changes: name of the perturbation → the differences that it makes, like `pictures`.
    """
    if not can_show(pictures.shape[1:]):
        return _no_pictures(pictures.shape[1:])
    figure, grid = image_grid(1 + 2 * len(changes), len(pictures), label_inches=1.5)
    label_row(grid[0, 0], "unperturbed")
    for axis, image in zip(grid[0], array(pictures), strict=True):
        show(axis, image)
    for (name, differences), above, below in zip(changes.items(), grid[1::2], grid[2::2], strict=True):
        errors = array(differences.abs().mean(dim=-1, keepdim=True))
        label_row(above[0], name)
        label_row(below[0], f"absolute error,\n0 … {errors.max():.2g}")
        for axis, image in zip(above, array(pictures + differences), strict=True):
            show(axis, image)
        for axis, error in zip(below, errors / (errors.max() or 1), strict=True):
            _show_heat(axis, error)
    return figure


def channel_figure(pictures: Tensor, differences: Tensor, grid: Sequence[int], name: str) -> Figure:
    """Pictures, the same perturbed, and the difference; below each an enlarged part of it (Fig. 12).

    Args:
        pictures: `(B, *resolution, channels)`.
        differences: of the perturbed ones.
        grid: cells along each axis, whose borders are drawn in the enlarged differences.
        name: of the perturbation.
    """
    if not can_show(pictures.shape[1:]):
        return _no_pictures(pictures.shape[1:])
    sides = [n // s for n, s in zip(pictures.shape[1:-1], grid, strict=True)]
    starts = [side * max(0, (cells - _ZOOM) // 2) for side, cells in zip(sides, grid, strict=True)]
    part = tuple(slice(start, start + _ZOOM * side) for start, side in zip(starts, sides, strict=True))
    figure, axes = image_grid(2 * len(pictures), 3, label_inches=1.1, panel_inches=1.8)
    limit = np.quantile(array(differences.abs()), _OF_THE_COLOURS).item()
    titles = ("unperturbed", name, f"difference, ±{limit:.2g}")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    for index, (image, difference) in enumerate(zip(array(pictures), array(differences), strict=True)):
        for row, where in ((axes[2 * index], ...), (axes[2 * index + 1], part)):
            label_row(row[0], "enlarged" if where is part else f"image {index}")
            show(row[0], image[where])
            show(row[1], (image + difference)[where])
            show_difference(row[2], difference[where], limit)
        _draw_borders(axes[2 * index + 1][2], difference[part].shape[:-1], sides)
    return figure


def pattern_figure(patterns: Tensor, strength: float) -> Figure:
    """What each channel adds to a cell, all channels side by side, each on a symmetric scale of its own.

    Args:
        patterns: mean differences of a cell, `(c, *cell, channels)`.
        strength: that makes them, in standard deviations.
    """
    drawn = array(patterns)
    limits = np.abs(drawn).reshape(len(drawn), -1).max(axis=1)
    if not can_show(drawn.shape[1:]):
        return _no_pictures(drawn.shape[1:])
    if drawn.ndim == 3:
        shown = spread(len(drawn), _MOST_PANELS)
        figure, axes = panels(len(shown), 1.1, 0.8)
        for axis, channel in zip(axes, shown, strict=True):
            show_difference(axis, drawn[channel], limits[channel])
            axis.set_title(f"{channel}: ±{limits[channel]:.2g}", fontsize=7, color=MUTED, pad=2)
            style(axis)
        figure.supylabel("difference ÷ the largest", fontsize=9)
        figure.supxlabel(f"place in the cell{_of(len(shown), len(drawn))}", fontsize=9)
        return figure
    columns = 2 ** ceil(log2(max(2, len(drawn))) / 2)
    rows, inches = ceil(len(drawn) / columns), min(1.2, 10 / columns)
    height, gap = drawn.shape[1] / drawn.shape[2], 0.2 / inches if len(drawn) <= _MOST_NUMBERED else 0.06
    figure = Figure(figsize=(columns * inches, 0.4 + rows * (height + gap) * inches), layout="constrained")
    axis = figure.subplots()
    for channel, (pattern, limit) in enumerate(zip(drawn, limits, strict=True)):
        left, top = 1.06 * (channel % columns), (height + gap) * (channel // columns)
        show_difference(axis, pattern, limit, extent=(left, left + 1, top + height, top))
        if len(drawn) <= _MOST_NUMBERED:
            label = f"{channel}: ±{limit:.2g}" if inches >= 0.9 else f"{channel}"
            axis.text(left, top - 0.02, label, fontsize=7, color=MUTED, va="bottom")
    axis.set(xlim=(-0.03, 1.06 * columns), ylim=(rows * (height + gap) - gap + 0.03, -gap), aspect="equal")
    axis.axis("off")
    title = f"a cell's difference, each channel +{strength:g} σ\nwithin ± its largest: {limits.min():.2g} to {limits.max():.2g}"
    axis.set_title(title, fontsize=9, loc="left")
    return figure


def strength_figure(strengths: Tensor, errors: Tensor, slope: Tensor, r2: Tensor) -> Figure:
    """RMSE against the strength of the perturbation, a panel for each channel, and the line in proportion to it (Fig. 13).

    Args:
        strengths: `(n,)`, of both signs.
        errors: `(c, n)`.
        slope: of the lines, `(c,)`.
        r2: how well they fit, `(c,)`.
    """
    shown = spread(len(errors), _MOST_PANELS)
    figure, axes = panels(len(shown), 1.25, 1.1)
    largest = strengths.max().item()
    for axis, channel in zip(axes, shown, strict=True):
        line = slope[channel].item() * largest
        axis.plot([-largest, 0, largest], [line, 0, line], color=WARM, linewidth=1)
        axis.plot(strengths.numpy(), errors[channel].numpy(), "o", color=INK, markersize=2.5)
        axis.set_title(f"{channel}: R² {r2[channel]:.3f}", fontsize=7, color=MUTED, pad=2)
        style(axis)
        axis.tick_params(labelsize=6)
    axes[0].set_ylim(bottom=0)
    figure.supxlabel(f"strength of the perturbation{_of(len(shown), len(errors))}", fontsize=9)
    figure.supylabel("RMSE of a cell", fontsize=9)
    return figure


def locality_figure(
    energy: Tensor, grid: Sequence[int], cell: Sequence[int], by_distance: Tensor, area: Tensor
) -> Figure:
    """Where the energy of a perturbation of one cell goes: in the picture, by distance in cells, and how large its area is.

    Args:
        energy: share of each pixel, `(*resolution,)`, mean over channels.
        grid: cells along each axis.
        cell: the perturbed one.
        by_distance: share at each distance, `(c, K)`.
        area: share of the picture, `(c,)`.
    """
    figure = Figure(figsize=(10, 3), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_energy(left, energy.numpy(), grid, cell)
    shares = by_distance.nanmean(dim=0).numpy()
    middle.bar(range(len(shares)), shares, color=INK, width=0.8)
    for distance, share in enumerate(shares):
        middle.annotate(f"{share:.2g}", (distance, share), ha="center", va="bottom", fontsize=7)
    middle.set_xlabel("distance from the perturbed cell, in cells", fontsize=9)
    middle.set_ylabel("share of the energy", fontsize=9)
    middle.set_ylim(0, 1.08)
    middle.set_xlim(-0.6, max(2, len(shares)) - 0.4)
    middle.xaxis.get_major_locator().set_params(integer=True)
    right.hist(area[~area.isnan()].numpy(), np.geomspace(1 / energy.numel(), 1, 41), color=INK)
    right.axvline(1 / np.prod(grid), color=WARM, linewidth=1.2, label="one cell")
    right.set_xscale("log")
    right.set_xlabel("area of the perturbation, share of the picture", fontsize=9)
    right.set_ylabel("channels", fontsize=9)
    right.yaxis.get_major_locator().set_params(integer=True)
    right.legend(fontsize=8, frameon=False)
    for axis in (middle, right):
        style(axis)
    return figure


def _draw_energy(axis: Axes, energy: np.ndarray, grid: Sequence[int], cell: Sequence[int]) -> None:
    """The map of energies on a logarithmic scale, with the perturbed cell outlined."""
    sides = [n // s for n, s in zip(energy.shape, grid, strict=True)]
    axis.set_title("energy, mean over channels", fontsize=9)
    largest = np.nanmax(energy)
    if energy.ndim == 1:
        axis.semilogy(energy.clip(largest * 1e-6), color=INK, linewidth=1)
        axis.axvspan(cell[0] * sides[0] - 0.5, (cell[0] + 1) * sides[0] - 0.5, color=WARM, alpha=0.25)
        axis.set_xlabel("pixel")
        style(axis)
    elif energy.ndim == 2:
        norm = LogNorm(largest * 1e-6, largest, clip=True)
        shown = axis.imshow(energy, norm=norm, cmap="magma")
        axis.figure.colorbar(shown, ax=axis, shrink=0.8).ax.tick_params(labelsize=7)
        corner = (cell[1] * sides[1] - 0.5, cell[0] * sides[0] - 0.5)
        axis.add_patch(Rectangle(corner, sides[1], sides[0], fill=False, edgecolor="white", linewidth=1))
        axis.set(xticks=[], yticks=[])
    else:
        axis.text(0.5, 0.5, "no picture of three dimensions", ha="center", fontsize=9, color=MUTED)
        axis.axis("off")


def _show_heat(axis: Axes, values: np.ndarray) -> None:
    """Draw `(*resolution, 1)` in [0, 1], larger is brighter."""
    if values.ndim == 2:
        show(axis, values)
    else:
        axis.imshow(values[..., 0], cmap="magma", vmin=0, vmax=1)


def _draw_borders(axis: Axes, pixels: Sequence[int], sides: Sequence[int]) -> None:
    """Thin lines between the cells of an enlarged part; the last axis of the image is the horizontal one."""
    how: dict[str, Any] = {"color": "black", "linewidth": 0.4, "alpha": 0.6}
    for place in range(sides[-1], pixels[-1], sides[-1]):
        axis.axvline(place - 0.5, **how)
    if len(pixels) == 2:
        for place in range(sides[0], pixels[0], sides[0]):
            axis.axhline(place - 0.5, **how)


def _of(shown: int, count: int) -> str:
    return "" if shown == count else f" ({shown} of {count} channels)"


def _no_pictures(shape: Sequence[int]) -> Figure:
    return notice(
        f"there are no pictures of {'×'.join(map(str, shape))} pixels and channels; the tables have all numbers"
    )
