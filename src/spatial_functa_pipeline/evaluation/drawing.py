"""What the figures share. All are matplotlib objects without any global state.

Images are channel-last `(B, *resolution, channels)`, uint8 or floats in [0, 1], one- or two-dimensional: the former
(audio) are drawn as lines. Values outside [0, 1] are clipped for display only.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log2
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from spatial_functa_pipeline.images.pixels import unit_images

INK = "#3b6ea5"
WARM = "#d08a3e"
MUTED = "#666666"
DARK = "#222222"
MAX_ROWS = 20
"""A figure shows at most so many classes, spread evenly over those there are."""


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` of the indices 0 … `count` − 1, spread evenly over all of them."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def array(images: Tensor) -> np.ndarray:
    return unit_images(images).detach().cpu().numpy()


def image_grid(rows: int, columns: int, label_inches: float, panel_inches: float = 1.05) -> tuple[Figure, np.ndarray]:
    """A figure and its `(rows, columns)` axes without ticks, with room for row labels on the left."""
    size = (label_inches + panel_inches * columns, 0.4 + panel_inches * rows)
    layout = ConstrainedLayoutEngine(compress=True, w_pad=0.04, h_pad=0.02, wspace=0, hspace=0)
    figure = Figure(figsize=size, layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axis in grid.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, grid


def panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of so many small panels of this size in inches, in rows of a power of two, with axes in common."""
    columns = 2 ** ceil(log2(max(2, count)) / 2)
    rows = ceil(count / columns)
    figure = Figure(figsize=(0.8 + columns * width, 0.9 + rows * height))
    margins = {"left": 0.7 / figure.get_figwidth(), "bottom": 0.5 / figure.get_figheight()}
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(**margins, right=0.995, top=1 - 0.45 / figure.get_figheight(), wspace=0.08, hspace=0.32)
    for axis in grid.flat[count:]:
        axis.remove()
    for axis in grid.flat[max(0, count - columns) : count]:
        axis.tick_params(labelbottom=True)  # above a gap in the last row
    return figure, list(grid.flat[:count])


def notice(text: str) -> Figure:
    """In the place of a figure that cannot be drawn: why."""
    figure = Figure(figsize=(6, 1))
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=10, color=MUTED)
    return figure


def label_row(axis: Axes, name: str) -> None:
    axis.set_ylabel(name, rotation="horizontal", ha="right", va="center", fontsize=9)


def can_show(shape: Sequence[int]) -> bool:
    """Whether `show` draws an image of this shape `(*resolution, channels)`."""
    return len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3))


def show(axis: Axes, image: np.ndarray) -> None:
    """Draw `(*resolution, channels)`: lines in one dimension, else a picture, gray if it has one channel."""
    if not can_show(image.shape):
        raise ValueError(f"can draw images (n, channels), (H, W, 1) and (H, W, 3), not {image.shape}")
    image = image.clip(0, 1)
    if image.ndim == 2:
        axis.plot(image, linewidth=0.8)
        axis.set_ylim(-0.05, 1.05)
    else:
        axis.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)


def show_difference(axis: Axes, difference: np.ndarray, limit: float, **options: Any) -> None:
    """Draw `(*resolution, channels)` on a scale of −limit … limit: lines, or a picture, in which 0 is white; or gray if it is
    of three channels, which are then the colours. `options` are those of matplotlib's `imshow`.
    """
    scaled = (difference / (limit or 1)).clip(-1, 1)
    if scaled.ndim == 2:
        axis.plot(scaled, linewidth=0.8)
        axis.set_ylim(-1.05, 1.05)
    elif scaled.shape[-1] == 3:
        axis.imshow(0.5 + 0.5 * scaled, **options)
    else:
        axis.imshow(scaled[..., 0], cmap="RdBu_r", vmin=-1, vmax=1, **options)


def style(axis: Axes) -> None:
    axis.grid(axis="y", linewidth=0.4, alpha=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
