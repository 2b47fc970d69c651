"""Figures of samples: by class, and at several resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.evaluation.decoding import decode
from spatial_functa_pipeline.evaluation.drawing import MAX_ROWS, MUTED, array, image_grid, label_row, show, spread
from spatial_functa_pipeline.evaluation.samples import classes_of
from spatial_functa_pipeline.fields.encoder import Encoder
from spatial_functa_pipeline.functasets.store import Functaset

PER_CLASS = 8
"""Samples of each class in a sample figure."""

_ENLARGEMENT = 4


def draw_samples(samples: Functaset, encoder: Encoder, classes: Sequence[str], enlarged: int) -> tuple[Figure, Figure]:
    """The first samples of each class; `enlarged` of them in a figure of their own.

    There they are also at `_ENLARGEMENT` times the encoder's resolution, if it decodes at any.
    """
    shown = samples_to_draw(samples.labels)
    # Spread over the rows of the figure, hence over the classes.
    latents = samples.batch(shown[spread(len(shown), enlarged)])
    trained = encoder.spec.resolution
    finer = [tuple(_ENLARGEMENT * side for side in trained)] if encoder.any_resolution else []
    renderings = [decode(encoder, latents, resolution) for resolution in (trained, *finer)]
    labels = classes_of(samples.labels)
    images = decode(encoder, samples.batch(shown))
    by_class = sample_figure(images, None if labels is None else torch.from_numpy(labels[shown]), classes)
    return by_class, resolution_figure(renderings)


def samples_to_draw(labels: np.ndarray) -> np.ndarray:
    """Rows `(≤ MAX_ROWS · PER_CLASS,)` for `sample_figure`: the first of each class, of classes spread over all."""
    classes = np.unique(labels)
    if len(classes) == 1:
        return np.arange(min(len(labels), MAX_ROWS * PER_CLASS))
    drawn = classes[spread(len(classes), MAX_ROWS)]
    return np.concatenate([np.flatnonzero(labels == label)[:PER_CLASS] for label in drawn])


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
    rows = [rows[i] for i in spread(total, MAX_ROWS)]

    label_inches = 0.3 + 0.075 * max(len(name) for name, _ in rows)
    figure, grid = image_grid(len(rows), max(len(indices) for _, indices in rows), label_inches)
    for axes, (name, indices) in zip(grid, rows, strict=True):
        label_row(axes[0], name)
        for axis, index in zip_longest(axes, indices):
            if index is None:
                axis.axis("off")  # a class with fewer samples than columns
            else:
                show(axis, array(images[index]))
    if total > MAX_ROWS:
        figure.supxlabel(f"{MAX_ROWS} of {total:,} {'rows' if labels is None else 'classes'}", color=MUTED, fontsize=9)
    return figure


def resolution_figure(renderings: Sequence[Tensor]) -> Figure:
    """The same latents decoded at several resolutions, a row for each, at one size.

    With `nearest` the field is continuous within a cell, and across borders if cells overlap (`field.overlap`); with
    `linear` an enlargement is blocky.

    Args:
        renderings: each `(B, *resolution, channels)`, of the same B latents, usually the resolution that the field was
            trained at first and a multiple of it next.

    Raises ValueError if their numbers of images differ, or for images of three or more dimensions.
    """
    if len({len(images) for images in renderings}) != 1:
        raise ValueError(f"needs as many images at each resolution, got {[len(images) for images in renderings]}")
    figure, grid = image_grid(len(renderings), len(renderings[0]), label_inches=0.9, panel_inches=1.6)
    for axes, images in zip(grid, renderings, strict=True):
        label_row(axes[0], "×".join(map(str, images.shape[1:-1])))
        for axis, image in zip(axes, array(images), strict=True):
            show(axis, image)
    return figure


def _rows_of_classes(
    labels: Tensor, classes: Sequence[str], images: int, per_class: int
) -> list[tuple[str, np.ndarray]]:
    """Name and image indices of each class that occurs."""
    found = labels.cpu().numpy()
    if found.shape != (images,) or found.min() < 0 or found.max() >= len(classes):
        raise ValueError(
            f"needs a label in 0..{len(classes) - 1} for each of {images} images, got {found.shape} in "
            f"{found.min()}..{found.max()}"
        )
    return [(classes[label], np.flatnonzero(found == label)[:per_class]) for label in np.unique(found)]
