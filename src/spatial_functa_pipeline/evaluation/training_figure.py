"""Figure of the trainings' histories."""

from __future__ import annotations

from itertools import zip_longest

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spatial_functa_pipeline.evaluation.drawing import INK, style

_PANELS_PER_ROW = 4


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


def _measured(name: str, history: pd.DataFrame) -> dict[str, pd.Series]:
    """The metrics of a history that have a value, each as its measured values over steps."""
    if "step" not in history:
        raise ValueError(f"the history of {name} has no column 'step', only {list(history.columns)}")
    metrics = {str(metric): values.dropna() for metric, values in history.set_index("step").items()}
    return {metric: values for metric, values in metrics.items() if len(values)}


def _draw_metric(axis: Axes, metric: str, values: pd.Series) -> None:
    axis.plot(values.index, values, color=INK, linewidth=1.2, marker="o" if len(values) <= 25 else None, markersize=3)
    if values.min() > 0 and values.max() > 100 * values.min():
        axis.set_yscale("log")
    axis.set_title(metric.replace("_", " "), fontsize=10)
    axis.set_xlabel("step")
    style(axis)
