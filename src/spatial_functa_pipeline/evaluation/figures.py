"""Figures of the evaluation, as matplotlib objects without any global state.

Images are channel-last `(B, *resolution, channels)`, uint8 or floats in [0, 1], one- or two-dimensional: the former
(audio) are drawn as lines. Values outside [0, 1] are clipped for display only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.images.pixels import unit_images

ERROR_GAIN = 10
"""Errors are drawn this many times larger: without it those of a good field cannot be seen."""

MAX_ROWS = 20
"""A sample figure shows at most so many classes, spread evenly over those there are."""

PER_CLASS = 8
"""Samples of each class in a sample figure."""

_PANELS_PER_ROW = 4
_INK = "#3b6ea5"
_MUTED = "#666666"


def reconstruction_figure(originals: Tensor, reconstructions: Tensor, psnr: Tensor) -> Figure:
    """Originals over their reconstructions over the absolute error (times `ERROR_GAIN`), one column for each image.

    Args:
        originals: `(B, *resolution, channels)`.
        reconstructions: of the same shape.
        psnr: `(B,)` in dB, written above the columns.

    Raises ValueError if the three do not belong together, or for images of three or more dimensions.
    """
    if originals.shape != reconstructions.shape or psnr.shape != originals.shape[:1]:
        raise ValueError(
            "needs as many reconstructions and PSNRs as originals, got shapes "
            f"{tuple(originals.shape)}, {tuple(reconstructions.shape)} and {tuple(psnr.shape)}"
        )
    above, below = _array(originals), _array(reconstructions)
    rows = {
        "original": above,
        "reconstruction": below,
        f"|error| × {ERROR_GAIN}": ERROR_GAIN * np.abs(above - below),
    }
    figure, grid = _image_grid(len(rows), len(originals), label_inches=1.1)
    for axes, (name, images) in zip(grid, rows.items(), strict=True):
        _label_row(axes[0], name)
        for axis, image in zip(axes, images, strict=True):
            _show(axis, image)
    for axis, value in zip(grid[0], psnr.tolist(), strict=True):
        axis.set_title(f"{value:.1f} dB", fontsize=9)
    return figure


def samples_to_draw(labels: np.ndarray) -> np.ndarray:
    """Rows `(≤ MAX_ROWS · PER_CLASS,)` for `sample_figure`: the first of each class, of classes spread over all."""
    classes = np.unique(labels)
    if len(classes) == 1:
        return np.arange(min(len(labels), MAX_ROWS * PER_CLASS))
    spread = np.linspace(0, len(classes) - 1, min(len(classes), MAX_ROWS)).round().astype(int)
    return np.concatenate([np.flatnonzero(labels == label)[:PER_CLASS] for label in classes[spread]])


def sample_figure(images: Tensor, labels: Tensor | None, classes: Sequence[str], per_class: int = PER_CLASS) -> Figure:
    """Samples, a row for each class with its name; the first `per_class` of each, uncurated.

    Args:
        images: `(B, *resolution, channels)`.
        labels: `(B,)`, indices into `classes`; None for the samples of an unconditional model, which fill the rows in
            their order.
        classes: names of the classes.
        per_class: columns.

    Raises ValueError if there are no images, the labels do not fit, or for images of three or more dimensions.
    """
    if not len(images):
        raise ValueError("there are no samples to draw")
    if labels is None:
        rows = [("", indices) for indices in np.split(np.arange(len(images)), range(per_class, len(images), per_class))]
    else:
        rows = _rows_of_classes(labels, classes, len(images), per_class)
    total = len(rows)
    rows = [rows[i] for i in np.linspace(0, total - 1, min(total, MAX_ROWS)).round().astype(int)]

    label_inches = 0.3 + 0.075 * max(len(name) for name, _ in rows)
    figure, grid = _image_grid(len(rows), max(len(indices) for _, indices in rows), label_inches)
    for axes, (name, indices) in zip(grid, rows, strict=True):
        _label_row(axes[0], name)
        for axis, index in zip_longest(axes, indices):
            if index is None:
                axis.axis("off")  # a class with fewer samples than columns
            else:
                _show(axis, _array(images[index]))
    if total > MAX_ROWS:
        figure.supxlabel(f"{MAX_ROWS} of {total:,} {'rows' if labels is None else 'classes'}", color=_MUTED, fontsize=9)
    return figure


def resolution_figure(renderings: Sequence[Tensor]) -> Figure:
    """The same latents decoded at several resolutions, a row for each, at one size: the field is continuous.

    Args:
        renderings: each `(B, *resolution, channels)`, of the same B latents, usually the resolution that the field was
            trained at first and a multiple of it next.

    Raises ValueError if their numbers of images differ, or for images of three or more dimensions.
    """
    if len({len(images) for images in renderings}) != 1:
        raise ValueError(f"needs as many images at each resolution, got {[len(images) for images in renderings]}")
    figure, grid = _image_grid(len(renderings), len(renderings[0]), label_inches=0.9, panel_inches=1.6)
    for axes, images in zip(grid, renderings, strict=True):
        _label_row(axes[0], "×".join(map(str, images.shape[1:-1])))
        for axis, image in zip(axes, _array(images), strict=True):
            _show(axis, image)
    return figure


def training_curves(histories: dict[str, pd.DataFrame]) -> Figure:
    """The metrics of each training over its steps: a block of panels for each history, a panel for each metric.

    Args:
        histories: name of the training → table with a column `step`; every other column is a metric, NaN at the steps
            where it was not measured. A metric without any value has no panel. Positive metrics which span more than
            two decades are drawn on a logarithmic scale.

    Raises ValueError if a history has no column `step`, or there is nothing to draw.
    """
    blocks = {name: _measured(name, history) for name, history in histories.items()}
    blocks = {name: metrics for name, metrics in blocks.items() if metrics}
    if not blocks:
        raise ValueError(f"no history has a value to draw, among {list(histories)}")
    columns = min(_PANELS_PER_ROW, max(map(len, blocks.values())))
    heights = [-(-len(metrics) // columns) for metrics in blocks.values()]

    figure = Figure(figsize=(3.2 * columns, 2.3 * sum(heights) + 0.4 * len(blocks)), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, height, (name, metrics) in zip(parts, heights, blocks.items(), strict=True):
        part.suptitle(name.replace("_", " "), x=0.01, ha="left", fontweight="bold", fontsize=11)
        for axis, metric in zip_longest(part.subplots(height, columns, squeeze=False).flat, metrics):
            if metric is None:
                axis.axis("off")
            else:
                _draw_metric(axis, metric, metrics[metric])
    return figure


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
        axis.bar(range(len(values)), values.tolist(), color=_INK, width=0.8)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("latent channel")
        axis.xaxis.get_major_locator().set_params(integer=True)
        _style(axis)
    return figure


def _array(images: Tensor) -> np.ndarray:
    return unit_images(images).detach().cpu().numpy()


def _image_grid(rows: int, columns: int, label_inches: float, panel_inches: float = 1.05) -> tuple[Figure, np.ndarray]:
    """A figure and its `(rows, columns)` axes without ticks, with room for row labels on the left."""
    size = (label_inches + panel_inches * columns, 0.4 + panel_inches * rows)
    figure = Figure(figsize=size, layout="compressed")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.02, wspace=0, hspace=0)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axis in grid.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    return figure, grid


def _label_row(axis: Axes, name: str) -> None:
    axis.set_ylabel(name, rotation="horizontal", ha="right", va="center", fontsize=9)


def _show(axis: Axes, image: np.ndarray) -> None:
    """Draw `(*resolution, channels)`: lines in one dimension, else a picture, gray if it has one channel."""
    image = image.clip(0, 1)
    if image.ndim == 2:
        axis.plot(image, linewidth=0.8)
        axis.set_ylim(-0.05, 1.05)
    elif image.ndim == 3 and image.shape[-1] in (1, 3):
        axis.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1)
    else:
        raise ValueError(f"can draw images (n, channels), (H, W, 1) and (H, W, 3), not {image.shape}")


def _rows_of_classes(
    labels: Tensor, classes: Sequence[str], images: int, per_class: int
) -> list[tuple[str, np.ndarray]]:
    """Name and image indices of each class that occurs."""
    labels = labels.cpu().numpy()
    if labels.shape != (images,) or labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"needs a label in 0..{len(classes) - 1} for each of {images} images, got {labels.shape} in "
            f"{labels.min()}..{labels.max()}"
        )
    return [(classes[label], np.flatnonzero(labels == label)[:per_class]) for label in np.unique(labels)]


def _measured(name: str, history: pd.DataFrame) -> dict[str, pd.Series]:
    """The metrics of a history that have a value, each as its measured values over steps."""
    if "step" not in history:
        raise ValueError(f"the history of {name} has no column 'step', only {list(history.columns)}")
    metrics = {metric: values.dropna() for metric, values in history.set_index("step").items()}
    return {metric: values for metric, values in metrics.items() if len(values)}


def _draw_metric(axis: Axes, metric: str, values: pd.Series) -> None:
    axis.plot(values.index, values, color=_INK, linewidth=1.2, marker="o" if len(values) <= 25 else None, markersize=3)
    if values.min() > 0 and values.max() > 100 * values.min():
        axis.set_yscale("log")
    axis.set_title(metric.replace("_", " "), fontsize=10)
    axis.set_xlabel("step")
    _style(axis)


def _style(axis: Axes) -> None:
    axis.grid(axis="y", linewidth=0.4, alpha=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
