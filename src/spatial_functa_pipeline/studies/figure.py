"""A study's figure: a panel for each metric, bars or lines, with the deviation over seeds and each seed as a dot."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spatial_functa_pipeline.config.study import StudyConfig, StudyFigureConfig, StudyVariant, in_words
from spatial_functa_pipeline.evaluation.drawing import INK, MUTED, WARM, style
from spatial_functa_pipeline.studies.tables import COUNT, MEAN, NAME, STD, VARIANT, rounded, short_names

_PANELS = 3
"""Panels in a line."""
_COLOURS = (INK, WARM, "#5b9a68", "#9a5b8f", "#8c6d46", MUTED, "#46878c", "#b04a4a")
_MARKERS = "osD^vP*X"
_LONGEST_LINE = 36
"""Characters below a panel of lines, before the words are turned."""


@dataclass(frozen=True)
class _Point:
    """A variant in a panel.

    Attributes:
        category: where it stands along the axis.
        group: its line, or the colour of its bar.
        mean, deviation: over seeds; the deviation of one seed is 0.
        seeds: what each of them has.
    """

    category: Any
    group: str
    mean: float
    deviation: float
    seeds: np.ndarray


def drawable(study: StudyConfig, results: pd.DataFrame) -> list[str]:
    """The metrics that the study wants to be drawn and that were measured at all."""
    wanted = (study.figure.metrics or study.measure) if study.figure else []
    return [metric for metric in wanted if results[f"{metric}{COUNT}"].any()]


def study_figure(study: StudyConfig, runs: pd.DataFrame, results: pd.DataFrame) -> Figure:
    """The figure that the study asks for, of its two tables (see `tables`). Raises ValueError if nothing is `drawable`."""
    config, metrics = study.figure, drawable(study, results)
    if config is None or not metrics:
        raise ValueError("there is nothing to be drawn")
    categories = [*dict.fromkeys(_category(config, variant) for variant in study.all_variants)]
    categories = _along_the_axis(categories) if config.kind == "lines" else categories
    groups = [*dict.fromkeys(_group(config, variant) for variant in study.all_variants)]
    columns = 2 if len(metrics) == 4 else min(len(metrics), _PANELS)
    lines = ceil(len(metrics) / columns)
    height = 2.9 if config.kind == "lines" else max(1.8, 1.1 + 0.24 * len(categories) * (len(groups) + 0.6))
    figure = Figure(figsize=(max(4.6, 3.7 * columns), 0.5 + height * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=config.kind == "bars")
    draw = _draw_bars if config.kind == "bars" else _draw_lines
    for axis, metric in zip(axes.flat, metrics, strict=False):
        draw(axis, config, _points(study, config, metric, runs, results), categories, groups)
        axis.set_title(metric.replace("_", " "), fontsize=10)
    for axis in axes.flat[len(metrics) :]:
        axis.remove()
    if config.kind == "bars":
        axes[0, 0].invert_yaxis()  # shared by all panels
    if len(groups) > 1:
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=min(len(groups), 4),
            fontsize=9,
            frameon=False,
            title=None if config.by in (None, NAME) else _short(config.by),
        )
    return figure


def _short(key: str) -> str:
    return short_names([key])[key]


def _category(config: StudyFigureConfig, variant: StudyVariant) -> Any:
    """Its value of the axis' key, or, without one, its name without what the colour says."""
    if config.x is not None:
        value = variant.parameters.get(config.x)
        return value if type(value) in (int, float) else in_words(value)
    name = None if config.by == NAME else variant.name
    point = {key: value for key, value in variant.point.items() if key != config.by}
    return StudyVariant(name, point, {}).label


def _along_the_axis(categories: list[Any]) -> list[Any]:
    """Numbers from small to large, then all else in the study's order: a null stands for no limit at all."""
    return sorted(categories, key=lambda one: (0, one) if _is_number(one) else (1, 0))


def _is_number(category: Any) -> bool:
    return isinstance(category, int | float)


def _group(config: StudyFigureConfig, variant: StudyVariant) -> str:
    if config.by is None:
        return ""
    return variant.name or "–" if config.by == NAME else in_words(variant.parameters.get(config.by))


def _points(
    study: StudyConfig, config: StudyFigureConfig, metric: str, runs: pd.DataFrame, results: pd.DataFrame
) -> list[_Point]:
    """The variants that have the metric, in the study's order."""
    points = []
    for variant, (_, row) in zip(study.all_variants, results.iterrows(), strict=True):
        if row[f"{metric}{COUNT}"]:
            deviation = row[f"{metric}{STD}"]
            points.append(
                _Point(
                    _category(config, variant),
                    _group(config, variant),
                    row[f"{metric}{MEAN}"],
                    0.0 if pd.isna(deviation) else deviation,
                    runs.loc[runs[VARIANT] == variant.label, metric].dropna().to_numpy(),
                )
            )
    return points


def _draw_bars(
    axis: Axes, config: StudyFigureConfig, points: list[_Point], categories: list[Any], groups: list[str]
) -> None:
    """Lying bars, whose names have room on the left."""
    thickness = 0.8 / len(groups)
    for number, group in enumerate(groups):
        shift = (number - (len(groups) - 1) / 2) * thickness
        for point in (point for point in points if point.group == group):
            place = categories.index(point.category) + shift
            axis.barh(place, point.mean, 0.9 * thickness, color=_colour(number), alpha=0.85)
            if len(point.seeds) > 1:
                axis.errorbar(point.mean, place, xerr=point.deviation, color="black", linewidth=1, capsize=2.5)
                axis.plot(point.seeds, np.full(len(point.seeds), place), ".", color="black", alpha=0.45, markersize=4)
            end = max([point.mean + point.deviation, *point.seeds])
            text = rounded(point.mean, point.deviation)
            axis.annotate(text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=7.5)
        axis.barh(np.nan, np.nan, color=_colour(number), alpha=0.85, label=group)  # for the legend, whatever is missing
    if config.log_y:  # the values lie along x here
        axis.set_xscale("log")
    axis.margins(x=0.22)
    axis.set_yticks(range(len(categories)), [str(category) for category in categories])
    axis.set_ylim(-0.6, len(categories) - 0.4)
    if config.x is not None:
        axis.set_ylabel(_short(config.x), fontsize=9)
    axis.label_outer()
    style(axis)
    axis.grid(visible=False, axis="y")
    axis.grid(axis="x", linewidth=0.4, alpha=0.6)


def _draw_lines(
    axis: Axes, config: StudyFigureConfig, points: list[_Point], categories: list[Any], groups: list[str]
) -> None:
    """Over numbers at their places, over anything else at equal distances."""
    numeric = all(map(_is_number, categories))
    places = {category: category if numeric else number for number, category in enumerate(categories)}
    for number, group in enumerate(groups):
        line = sorted((point for point in points if point.group == group), key=lambda point: places[point.category])
        at = [places[point.category] for point in line]
        form: dict[str, Any] = {
            "color": _colour(number),
            "marker": _MARKERS[number % len(_MARKERS)],
            "markersize": 4.5,
            "linewidth": 1.4,
        }
        axis.plot(at, [point.mean for point in line], label=group, **form)
        for place, point in zip(at, line, strict=True):
            if len(point.seeds) > 1:
                axis.errorbar(place, point.mean, point.deviation, color=_colour(number), linewidth=1.2, capsize=2.5)
                axis.plot(
                    np.full(len(point.seeds), place), point.seeds, ".", color=_colour(number), alpha=0.45, markersize=4
                )
    if config.log_y:
        axis.set_yscale("log")
    if not numeric:
        axis.set_xticks(range(len(categories)), [str(category) for category in categories])
        if max(len(str(category)) for category in categories) * len(categories) > _LONGEST_LINE:
            axis.tick_params(axis="x", rotation=30)
            for text in axis.get_xticklabels():
                text.set_horizontalalignment("right")
    elif config.log_x:
        axis.set_xscale("log")
        axis.set_xticks(categories, [f"{category:g}" for category in categories])
        axis.minorticks_off()
    if config.x is not None:
        axis.set_xlabel(_short(config.x), fontsize=9)
    style(axis)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
