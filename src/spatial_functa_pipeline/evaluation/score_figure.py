"""Figure of the scores of what was generated, beside their reference points."""

from __future__ import annotations

from math import ceil, isnan

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spatial_functa_pipeline.evaluation.drawing import DARK, INK, WARM, style
from spatial_functa_pipeline.metrics.comparison import SCORES

_COLOURS = {"test": INK, "train": WARM}
_PANELS = 3
"""Panels in a line."""


def score_figure(table: pd.DataFrame) -> Figure:
    """A panel for each score, a bar for each set of images and each real set it was compared with, with its value.

    A line over a bar is the 95 % interval, where it is known.

    Args:
        table: columns `images`, `against` (`test` or `train`), the `SCORES`, and `<score>_low` and `<score>_high` of each;
            other columns are not drawn.
    """
    names = list(dict.fromkeys(table["images"]))
    lines = ceil(len(SCORES) / _PANELS)
    figure = Figure(figsize=(11, 1.4 + 0.375 * lines * len(names)), layout="constrained")
    axes = figure.subplots(lines, _PANELS, sharey=True)
    for axis in axes.flat[len(SCORES) :]:
        axis.remove()
    for axis, score in zip(axes.flat, SCORES, strict=False):
        for number, (against, colour) in enumerate(_COLOURS.items()):
            rows = table[table["against"] == against]
            heights = [names.index(name) + 0.38 * (number - 0.5) for name in rows["images"]]
            low, high = (rows[f"{score}_{bound}"].fillna(rows[score]) for bound in ("low", "high"))
            bars = axis.barh(
                *(heights, rows[score], 0.36),
                xerr=np.stack([rows[score] - low, high - rows[score]]),
                error_kw={"ecolor": DARK, "elinewidth": 1},
                color=colour,
                label=f"against {against} images",
            )
            axis.bar_label(
                bars, ["" if isnan(value) else f"{value:.3g}" for value in rows[score]], fontsize=7, padding=2
            )
        if score == "frechet_distance" and (table[score] > 0).all() and table[score].max() > 100 * table[score].min():
            axis.set_xscale("log")
        axis.margins(x=0.2)
        if table[score].min() < 0:
            axis.set_xlim(left=min(1.3 * table[score].min(), -0.3 * table[score].max()))  # room for the labels
        axis.set_title(score.replace("_", " "), fontsize=10)
        axis.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
        style(axis)
        axis.grid(visible=False, axis="y")
    axes[0, 0].invert_yaxis()  # shared by all panels
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9, frameon=False
    )
    return figure
