"""A study's figure: a panel for each metric, bars or lines, with the deviation over seeds and each seed as a dot."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spatial_functa_pipeline.config.study import StudyConfig, StudyFigureConfig
from spatial_functa_pipeline.evaluation.drawing import INK, MUTED, WARM, style
from spatial_functa_pipeline.studies.tables import COUNT, MEAN, NAME, STD, VARIANT, in_words

_PANELS = 3
"""Panels in a line."""
_COLOURS = (INK, WARM, "#5b9a68", "#9a5b8f", "#8c6d46", MUTED, "#46878c", "#b04a4a")
_MARKERS = "osD^vP*X"


def study_figure(study: StudyConfig, runs: pd.DataFrame, results: pd.DataFrame) -> Figure:
    """The figure that the study asks for, of its two tables (see `tables`).

    Raises ValueError if it asks for none, or if none of its metrics was measured.
    """
    config = study.figure
    if config is None:
        raise ValueError(f"the study {study.title} asks for no figure")
    metrics = [metric for metric in config.metrics or study.measure if results[f"{metric}{COUNT}"].any()]
    if not metrics:
        raise ValueError("nothing was measured that could be drawn")
    groups = _groups(config, results)
    categories = _categories(config, results)
    columns = min(len(metrics), _PANELS)
    lines = ceil(len(metrics) / columns)
    height = 2.9 if config.kind == "lines" else 1.1 + 0.24 * len(categories) * (len(groups) + 0.6)
    figure = Figure(figsize=(max(4.6, 3.7 * columns), 0.5 + max(height, 1.8) * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=config.kind == "bars")
    draw = _draw_bars if config.kind == "bars" else _draw_lines
    for axis, metric in zip(axes.flat, metrics, strict=False):
        draw(axis, config, metric, categories, groups, runs)
        axis.set_title(in_words(metric), fontsize=10)
    for axis in axes.flat[len(metrics) :]:
        axis.remove()
    if config.kind == "bars":
        axes[0, 0].invert_yaxis()  # shared by all panels
    if len(groups) > 1:
        handles, labels = axes[0, 0].get_legend_handles_labels()
        title = None if config.by in (None, NAME) else in_words(str(config.by))
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(len(labels), 4),
            fontsize=9,
            frameon=False,
            title=title,
        )
    return figure


def _groups(config: StudyFigureConfig, results: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    """Lines, or bars of one colour, by their labels."""
    if config.by is None:
        return {"": results}
    named = results.assign(**{config.by: results[config.by].fillna("–")})
    return dict(iter(named.groupby(config.by, sort=False)))


def _categories(config: StudyFigureConfig, results: pd.DataFrame) -> list[Any]:
    """What stands along the axis, in the order of the table."""
    return [*dict.fromkeys(_position(config, row) for _, row in results.iterrows())]


def _position(config: StudyFigureConfig, row: Any) -> Any:
    """Where a row of a table stands: at its value, or, without an axis' key, at its name without what the colour says."""
    if config.x is not None:
        return row[config.x]
    if config.by is None:
        return row[VARIANT]
    if config.by == NAME:
        return row[VARIANT].removeprefix(str(row[NAME])).removeprefix(", ")
    return ", ".join(part for part in row[VARIANT].split(", ") if part != f"{config.by}={row[config.by]}")


def _seeds(runs: pd.DataFrame, variant: str, metric: str) -> pd.Series:
    return runs.loc[runs[VARIANT] == variant, metric].dropna()


def _draw_bars(
    axis: Axes,
    config: StudyFigureConfig,
    metric: str,
    categories: list[Any],
    groups: dict[Any, pd.DataFrame],
    runs: pd.DataFrame,
) -> None:
    """Lying bars, whose names have room on the left."""
    thickness = 0.8 / len(groups)
    for number, (label, rows) in enumerate(groups.items()):
        rows = rows[rows[f"{metric}{COUNT}"] > 0]
        shift = (number - (len(groups) - 1) / 2) * thickness
        heights = [categories.index(_position(config, row)) + shift for _, row in rows.iterrows()]
        means, deviations = rows[f"{metric}{MEAN}"].to_numpy(), rows[f"{metric}{STD}"].fillna(0.0).to_numpy()
        axis.barh(
            heights, means, height=0.9 * thickness, color=_COLOURS[number % len(_COLOURS)], alpha=0.85, label=str(label)
        )
        for height, mean, deviation, variant in zip(heights, means, deviations, rows[VARIANT], strict=True):
            seeds = _seeds(runs, variant, metric)
            if len(seeds) > 1:
                axis.errorbar(mean, height, xerr=deviation, color="black", linewidth=1, capsize=2.5)
                axis.plot(
                    seeds, np.full(len(seeds), height), ".", color="black", alpha=0.45, markersize=4, linestyle="none"
                )
            end = max([mean + deviation, *seeds])
            axis.annotate(
                f"{mean:.4g}",
                (end, height),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
                color="#333333",
            )
    if config.log_x or config.log_y:
        axis.set_xscale("log")
    axis.margins(x=0.22)
    axis.set_yticks(range(len(categories)), [str(category) for category in categories])
    axis.set_ylim(-0.6, len(categories) - 0.4)
    if config.x is not None:
        axis.set_ylabel(in_words(config.x), fontsize=9)
    axis.label_outer()
    style(axis)
    axis.grid(visible=False, axis="y")
    axis.grid(axis="x", linewidth=0.4, alpha=0.6)


def _draw_lines(
    axis: Axes,
    config: StudyFigureConfig,
    metric: str,
    categories: list[Any],
    groups: dict[Any, pd.DataFrame],
    runs: pd.DataFrame,
) -> None:
    """Over numbers at their places, over anything else at equal distances."""
    numeric = config.x is not None and all(isinstance(category, int | float) for category in categories)
    for number, (label, rows) in enumerate(groups.items()):
        rows = rows[rows[f"{metric}{COUNT}"] > 0]
        places = [_position(config, row) for _, row in rows.iterrows()]
        at = np.array(places if numeric else [categories.index(place) for place in places], dtype=float)
        order = np.argsort(at, kind="stable")
        colour = _COLOURS[number % len(_COLOURS)]
        axis.errorbar(
            at[order],
            rows[f"{metric}{MEAN}"].to_numpy()[order],
            yerr=rows[f"{metric}{STD}"].fillna(0.0).to_numpy()[order],
            color=colour,
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=4.5,
            linewidth=1.4,
            capsize=2.5,
            label=str(label),
        )
        for place, variant in zip(at, rows[VARIANT], strict=True):
            if len(seeds := _seeds(runs, variant, metric)) > 1:
                axis.plot(np.full(len(seeds), place), seeds, ".", color=colour, alpha=0.45, markersize=4)
    if config.log_y:
        axis.set_yscale("log")
    if not numeric:
        axis.set_xticks(range(len(categories)), [str(category) for category in categories])
        if max(len(str(category)) for category in categories) * len(categories) > 36:
            axis.tick_params(axis="x", rotation=30)
            for text in axis.get_xticklabels():
                text.set_horizontalalignment("right")
    elif config.log_x:
        axis.set_xscale("log")
        axis.set_xticks(categories, [f"{category:g}" for category in categories])
        axis.minorticks_off()
    if config.x is not None:
        axis.set_xlabel(in_words(config.x), fontsize=9)
    style(axis)
