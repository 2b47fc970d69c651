"""Figures of what was generated: scores beside their reference points, and the search for copies of training images."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, repeat

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.evaluation.figures import (
    _INK,
    _MUTED,
    MAX_ROWS,
    _array,
    _image_grid,
    _label_row,
    _show,
    _style,
)
from spatial_functa_pipeline.metrics.comparison import SCORES
from spatial_functa_pipeline.metrics.memorisation import EVERY_CLASS
from spatial_functa_pipeline.metrics.neighbours import Neighbours

_COLOURS = {"test": _INK, "train": "#d08a3e"}
_BINS = 40


def score_figure(table: pd.DataFrame) -> Figure:
    """A panel for each score, a bar for each set of images and each real set it was compared with, with its value.

    Args:
        table: columns `images`, `against` (`test` or `train`) and the `SCORES`; other columns are not drawn.
    """
    names = list(dict.fromkeys(table["images"]))
    figure = Figure(figsize=(11, 1.4 + 0.75 * len(names)), layout="constrained")
    axes = figure.subplots(2, 3, sharey=True)
    for axis, score in zip(axes.flat, SCORES, strict=True):
        for number, (against, colour) in enumerate(_COLOURS.items()):
            rows = table[table["against"] == against]
            heights = [names.index(name) + 0.38 * (number - 0.5) for name in rows["images"]]
            bars = axis.barh(heights, rows[score], height=0.36, color=colour, label=f"against {against} images")
            axis.bar_label(bars, [f"{value:.3g}" for value in rows[score]], fontsize=7, padding=2)
        if score == "frechet_distance" and (table[score] > 0).all() and table[score].max() > 100 * table[score].min():
            axis.set_xscale("log")
        axis.margins(x=0.2)
        if table[score].min() < 0:
            axis.set_xlim(left=min(1.3 * table[score].min(), -0.25 * table[score].max()))  # room for the labels
        axis.set_title(score.replace("_", " "), fontsize=10)
        axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        _style(axis)
        axis.grid(visible=False, axis="y")
    axes[0, 0].invert_yaxis()  # shared by all panels
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9, frameon=False
    )
    return figure


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
    figure, grid = _image_grid(len(images) * (1 + neighbours), columns, label_inches=1.5)
    for block, name in enumerate(images):
        top, *below = grid[block * (1 + neighbours) : (block + 1) * (1 + neighbours)]
        _label_row(top[0], name)
        for axis, image in zip(top, _array(images[name]), strict=True):
            _show(axis, image)
        for rank, axes in enumerate(below):
            _label_row(axes[0], f"training image {rank + 1}")
            for axis, image in zip(axes, _array(nearest[name][:, rank]), strict=True):
                _show(axis, image)
        for axis, distance in zip(below[0], found[name].distances[:, 0], strict=True):
            axis.set_title(f"{distance:.3f}", fontsize=8, color=_MUTED, pad=2)
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
    colours = chain((_COLOURS["train"], _INK), repeat(_MUTED))
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
    rows = rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).round().astype(int)]
    heights = np.arange(len(rows))
    right.barh(heights, rows["distinct"], color=_COLOURS["train"], height=0.7, label="found")
    right.errorbar(
        rows["expected"], heights, xerr=2 * rows["expected_std"], fmt="|", color="black", markersize=12,
        label="i.i.d. draws, ± 2 σ",
    )  # fmt: skip
    right.set_yticks(heights, rows["class"])
    right.invert_yaxis()
    right.set_xlabel("different training images nearest to samples")
    right.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    for axis in (left, right):
        _style(axis)
    return figure
