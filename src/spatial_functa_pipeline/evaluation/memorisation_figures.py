"""Figures of the search for copies of training images."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, repeat

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.evaluation.drawing import (
    INK,
    MAX_ROWS,
    MUTED,
    WARM,
    array,
    image_grid,
    label_row,
    show,
    spread,
    style,
)
from spatial_functa_pipeline.metrics.memorisation import EVERY_CLASS
from spatial_functa_pipeline.metrics.neighbours import Neighbours

_BINS = 40


def neighbour_figure(
    images: Mapping[str, Tensor], nearest: Mapping[str, Tensor], found: Mapping[str, Neighbours]
) -> Figure:
    """Images over their nearest training images, a block of rows for each set, a column for each image (Fig. 5).

    Args:
        images: name of the set → `(B, *resolution, channels)`; the sets have the same B.
        nearest: name of the set → the training images `(B, k, *resolution, channels)`, the nearest first.
        found: name of the set → the distances of these, written above the nearest.
    """
    columns = len(next(iter(images.values())))
    neighbours = next(iter(nearest.values())).shape[1]
    figure, grid = image_grid(len(images) * (1 + neighbours), columns, label_inches=1.5)
    for block, name in enumerate(images):
        top, *below = grid[block * (1 + neighbours) : (block + 1) * (1 + neighbours)]
        label_row(top[0], name)
        for axis, image in zip(top, array(images[name]), strict=True):
            show(axis, image)
        for rank, axes in enumerate(below):
            label_row(axes[0], f"training image {rank + 1}")
            for axis, image in zip(axes, array(nearest[name][:, rank]), strict=True):
                show(axis, image)
        for axis, distance in zip(below[0], found[name].distances[:, 0], strict=True):
            axis.set_title(f"{distance:.3f}", fontsize=8, color=MUTED, pad=2)
    return figure


def memorisation_figure(distances: Mapping[str, np.ndarray], table: pd.DataFrame) -> Figure:
    """Distances to the nearest training image on the left, and on the right how many different ones were found.

    Args:
        distances: name of the set of images → `(N,)`.
        table: of `memorisation_table`. Its classes are drawn, at most `MAX_ROWS` of them spread over all, or, where there
            are none, the whole sets.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    bins = np.linspace(0, max(values.max() for values in distances.values()) or 1, _BINS)
    colours = chain((WARM, INK), repeat(MUTED))
    for (name, values), colour in zip(distances.items(), colours, strict=False):
        left.hist(
            values, bins, density=True, histtype="step", linewidth=1.5, color=colour, label=name.replace("_", " ")
        )
    left.set_xlabel("distance to the nearest training image (root mean square)")
    left.set_ylabel("density")
    left.legend(fontsize=8, frameon=False)

    rows = table[table["images"] == next(iter(distances))]
    by_class = rows[rows["class"] != EVERY_CLASS]
    rows = by_class if len(by_class) else rows
    rows = rows.iloc[spread(len(rows), MAX_ROWS)]
    heights = np.arange(len(rows))
    right.barh(heights, rows["distinct"], color=WARM, height=0.7, label="found")
    right.errorbar(
        rows["expected"], heights, xerr=2 * rows["expected_std"], fmt="|", color="black", markersize=12,
        label="i.i.d. draws, ± 2 σ",
    )  # fmt: skip
    right.set_yticks(heights, rows["class"])
    right.invert_yaxis()
    right.set_xlabel("different training images nearest to samples")
    right.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    for axis in (left, right):
        style(axis)
    return figure
