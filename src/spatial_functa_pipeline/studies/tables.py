"""A study's tables: each run, and for each variant the mean and the deviation over its seeds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import floor, isfinite, log10
from typing import Any

import pandas as pd

from spatial_functa_pipeline.config.study import StudyConfig, in_words
from spatial_functa_pipeline.studies.runs import FINISHED, MeasuredRun

VARIANT, NAME, SEED = "variant", "name", "seed"
ON = "_measured_on"
MEAN, STD, COUNT = "_mean", "_std", "_n"
"""Endings of a metric's columns. The deviation is that of a sample, n − 1 in its denominator; of one run there is none."""
_A_NUMBER = re.compile(r"(\d+(?:,\d{3})*(?:\.\d+)?)")
_MOST_NUMBERS = 8
"""Listed in one place of a sentence; of more there are the lowest and the highest."""


def runs_table(study: StudyConfig, runs: Sequence[MeasuredRun]) -> pd.DataFrame:
    """A row for each run.

    Columns: `variant`, `name` (as it is written in the study), `seed`, each varied parameter, `state` (`finished`, or why there
    is nothing), each metric and, as `<metric>_measured_on`, what it was measured on; `seconds` that it took to make its outputs
    and all that they are made from, where that is known; `folder`.
    """
    keys = study.varied
    rows = [
        {
            VARIANT: one.run.variant.label,
            NAME: one.run.variant.name,
            SEED: one.run.seed,
            **{key: _cell(one.run.variant.parameters.get(key)) for key in keys},
            "state": one.state,
            **{metric: one.metrics.get(metric) for metric in study.measure},
            **{f"{metric}{ON}": one.details.get(metric) for metric in study.measure},
            "seconds": one.seconds,
            "folder": one.folder,
        }
        for one in runs
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(study.measure, float))


def results_table(study: StudyConfig, runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each variant, in the study's order, from the `runs_table`.

    Columns: `variant`, `name`, each varied parameter, `runs` (those that are finished), and for each metric `<metric>_mean`,
    `<metric>_std`, `<metric>_n` over those seeds that have it.
    """
    rows = []
    for _, group in runs.groupby(VARIANT, sort=False):
        row = {name: group.iloc[0][name] for name in (VARIANT, NAME, *study.varied)}
        row["runs"] = int((group["state"] == FINISHED).sum())
        for metric in study.measure:
            values = group[metric].dropna()
            row |= {
                f"{metric}{MEAN}": values.mean(),
                f"{metric}{STD}": values.std(ddof=1),
                f"{metric}{COUNT}": len(values),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def markdown(study: StudyConfig, runs: pd.DataFrame, results: pd.DataFrame, command: str) -> str:
    """The study for a reader: what is asked, the table, what was measured on what, what is missing, how to make it again."""
    missing = without_results(runs)
    parts = [f"# {study.title}", study.about.strip()]
    if missing:
        parts.append(f"**Incomplete**: {len(missing)} of {len(runs)} runs have no results; they are named below.")
    parts += ["\n".join(table_lines(study, results)), spread(study), _list(measured_on(study, runs))]
    if missing:
        parts += ["Without results:", _list(missing)]
    parts.append(f"Made by `{command}`.")
    return "\n\n".join(filter(None, parts)) + "\n"


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """For a reader: as much of the end of each dotted key as tells it from the others, as in `latent shape`."""
    parts = {key: key.split(".") for key in keys}

    def shortest(key: str) -> str:
        ends = (parts[key][-length:] for length in range(1, len(parts[key]) + 1))
        alone = (end for end in ends if sum(other[-len(end) :] == end for other in parts.values()) == 1)
        return " ".join(next(alone, parts[key])).replace("_", " ")

    return {key: shortest(key) for key in parts}


def rounded(mean: float, deviation: float) -> str:
    """A mean to the second digit of its deviation; to four digits where there is none."""
    if not (isfinite(deviation) and deviation > 0 and isfinite(mean)):
        return f"{mean:.4g}"
    return f"{mean:.{max(0, 1 - floor(log10(deviation)))}f}"


def table_lines(study: StudyConfig, results: pd.DataFrame) -> list[str]:
    """The table of the variants as lines of Markdown, from the `results_table`."""
    header, *rows = table_cells(study, results)
    rules = ["---"] * (len(header) - len(study.measure) - 1) + ["---:"] * (len(study.measure) + 1)
    return [_line(header), _line(rules), *map(_line, rows)]


def table_cells(study: StudyConfig, results: pd.DataFrame) -> list[list[str]]:
    """The table of the variants for a reader, its header first: name and point, mean ± deviation of each metric, seeds."""
    named, points = results[NAME].notna().any(), short_names(study.points)
    metrics = [metric.replace("_", " ") for metric in study.measure]
    lines = [[*(["variant"] if named else []), *points.values(), *metrics, "seeds"]]
    for variant, (_, row) in zip(study.all_variants, results.iterrows(), strict=True):
        names = [variant.name or "", *(in_words(variant.parameters.get(key, "")) for key in points)]
        numbers = [_number(row, metric, len(study.seeds)) for metric in study.measure]
        lines.append([*names[not named :], *numbers, str(row["runs"])])
    return lines


def _cell(value: Any) -> Any:
    """A parameter's value in a file: what is no number or text is written as in YAML."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else in_words(value)


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(text.replace('|', '∣') for text in cells)} |"


def _number(row: Any, metric: str, seeds: int) -> str:
    """As in `31.42 ± 0.11`, with the number of seeds where it is not that of all."""
    mean, deviation, count = (row[f"{metric}{ending}"] for ending in (MEAN, STD, COUNT))
    if count == 0:
        return "–"
    text = rounded(mean, deviation) + ("" if pd.isna(deviation) else f" ± {rounded(deviation, deviation)}")
    return text if count in (seeds, row["runs"]) else f"{text} (n = {count})"


def without_results(runs: pd.DataFrame) -> list[str]:
    """The runs that are not finished, each with why."""
    unfinished = runs[runs["state"] != FINISHED]
    return [f"{row[VARIANT]}, seed={row[SEED]}: {row['state']}" for _, row in unfinished.iterrows()]


def measured_on(study: StudyConfig, runs: pd.DataFrame) -> list[str]:
    """A line for each metric that was measured.

    What differs between runs in its numbers alone is said once, as in `guidance 1.0/2.0/4.0`; the `runs_table` has each.
    """
    found = {metric: _said_once(runs[f"{metric}{ON}"].dropna()) for metric in study.measure}
    return [f"{metric}: measured on {'; or on '.join(on)}" for metric, on in found.items() if on]


def _said_once(texts: Iterable[str]) -> list[str]:
    """Each text, those that have the same words in one."""
    alike: dict[tuple[str, ...], list[list[str]]] = {}
    for text in dict.fromkeys(texts):
        parts = _A_NUMBER.split(text)  # words and numbers by turns
        alike.setdefault(tuple(parts[::2]), []).append(parts)
    return ["".join(map(_together, zip(*group, strict=True))) for group in alike.values()]


def _together(parts: Iterable[str]) -> str:
    """What stands in one place of several texts."""
    different = [*dict.fromkeys(parts)]
    if len(different) <= _MOST_NUMBERS:
        return "/".join(different)
    ordered = sorted(different, key=lambda number: float(number.replace(",", "")))
    return f"{ordered[0]} … {ordered[-1]}"


def spread(study: StudyConfig) -> str:
    """What stands behind the ± of the table."""
    return "Mean ± sample deviation over seeds." if len(study.seeds) > 1 else "One seed: no deviations."
