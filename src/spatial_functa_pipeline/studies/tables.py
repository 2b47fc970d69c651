"""A study's tables: each run, and for each variant the mean and the deviation over its seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from spatial_functa_pipeline.config.study import StudyConfig
from spatial_functa_pipeline.studies.runs import FINISHED, MeasuredRun

VARIANT, NAME, SEED = "variant", "name", "seed"
ON = "_measured_on"
MEAN, STD, COUNT = "_mean", "_std", "_n"
"""Endings of a metric's columns. The deviation is that of a sample, n − 1 in its denominator; of one run there is none."""


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
            **{key: cell(one.run.variant.parameters.get(key)) for key in keys},
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
    """The study for a reader: what is asked, the table, what was measured on what, what failed, how to make it again."""
    parts = [f"# {study.title}", study.about.strip(), "\n".join(table_lines(study, results))]
    parts.append("\n".join(legend(study, runs)))
    if failed := without_results(runs):
        parts.append("\n".join(["Without results:", "", *(f"- {line}" for line in failed)]))
    parts.append(f"Made by `{command}`.")
    return "\n\n".join(filter(None, parts)) + "\n"


def cell(value: Any) -> Any:
    """A parameter's value in a table: what is no number or text is written as JSON."""
    return value if isinstance(value, str | int | float) and not isinstance(value, bool) else json.dumps(value)


def in_words(name: str) -> str:
    """A metric's or a parameter's name for a reader."""
    return name.rpartition(".")[2].replace("_", " ")


def table_lines(study: StudyConfig, results: pd.DataFrame) -> list[str]:
    """The table of the variants as lines of Markdown, from the `results_table`."""
    header, *rows = table_cells(study, results)
    return [_line(header), _line(["---", *["---:"] * (len(header) - 1)]), *map(_line, rows)]


def table_cells(study: StudyConfig, results: pd.DataFrame) -> list[list[str]]:
    """The table of the variants for a reader, its header first: variant, each metric as mean ± deviation, seeds."""
    rows = [["variant", *map(in_words, study.measure), "seeds"]]
    for _, row in results.iterrows():
        numbers = [_number(row, metric, len(study.seeds)) for metric in study.measure]
        rows.append([row[VARIANT], *numbers, str(row["runs"])])
    return rows


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(text.replace('|', '∣') for text in cells)} |"


def _number(row: Any, metric: str, seeds: int) -> str:
    """As in `31.42 ± 0.11`, with the number of seeds where it is not that of all."""
    mean, deviation, count = (row[f"{metric}{ending}"] for ending in (MEAN, STD, COUNT))
    if count == 0:
        return "–"
    text = f"{mean:.4g}" if pd.isna(deviation) else f"{mean:.4g} ± {deviation:.2g}"
    return text if count in (seeds, row["runs"]) else f"{text} (n = {count})"


def without_results(runs: pd.DataFrame) -> list[str]:
    """The runs that are not finished, each with why."""
    return [
        f"{row[VARIANT]}, seed={row[SEED]}: {row['state']}" for _, row in runs[runs["state"] != FINISHED].iterrows()
    ]


def legend(study: StudyConfig, runs: pd.DataFrame) -> list[str]:
    """What the table's numbers are, and what each metric was measured on."""
    lines = ["Mean ± sample deviation over seeds." if len(study.seeds) > 1 else "One seed: no deviations."]
    for metric in study.measure:
        if on := [*dict.fromkeys(runs[f"{metric}{ON}"].dropna())]:
            lines.append(f"`{metric}` was measured on {'; or on '.join(on)}.")
    return lines
