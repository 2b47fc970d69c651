"""Whether the paper's claims hold, by the tables of the studies that have been run."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from spatial_functa_pipeline.config.claims import (
    BestAtRule,
    CorrelatesRule,
    LargerRule,
    Names,
    Rows,
    Rule,
    SmallerRule,
    WithinRule,
)

Row = Mapping[str, str]
"""One run, as `runs.csv` has it."""
Tables = Mapping[str, Sequence[Row]]
"""The runs of each study of one data set, by the study's name."""

_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Student's t for 95 % of both sides, by degrees of freedom from 1 on."""
_T_OF_MANY = 2.0
_ROUNDING = 1e-9
_FEWEST_ROWS = 4
"""That say anything about a rank correlation."""


class ClaimError(ValueError):
    """A rule does not fit a study's table."""


class Answer(StrEnum):
    """What a table says about a claim."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    CANNOT_BE_TOLD = "cannot be told"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Verdict:
    """An answer, and the numbers that it was read from.

    Attributes:
        answer: one of four.
        numbers: in words, a sentence each.
        measured_on: what the metrics were measured on.
    """

    answer: Answer
    numbers: tuple[str, ...] = ()
    measured_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A metric of one variant.

    Attributes:
        label: the variant's.
        row: its first run, for its parameters.
        values: seed → number.
        measured_on: what it was measured on, without the seed.
    """

    label: str
    row: Row
    values: Mapping[str, float]
    measured_on: str

    @property
    def mean(self) -> float:
        return float(np.mean([*self.values.values()]))

    @property
    def variance(self) -> float | None:
        """Over seeds; None for one seed."""
        return float(np.var([*self.values.values()], ddof=1)) if len(self.values) > 1 else None

    def __str__(self) -> str:
        """As in `0.8630 ± 0.0110 (2 seeds, 8x8x8, nearest)`."""
        spread = "" if self.variance is None else f" ± {sqrt(self.variance):.2g}"
        return f"{self.mean:.4g}{spread} ({seeds_in_words(len(self.values))}; {self.label})"


@dataclass(frozen=True)
class Estimate:
    """A difference with its 95 % interval.

    Attributes:
        centre: the difference.
        half: half of the interval; None where nothing says how far single runs scatter.
    """

    centre: float
    half: float | None

    def judge(self, low: float, high: float) -> Answer:
        """Whether it lies between `low` and `high`: it does if all of the interval does, it does not if none does."""
        if self.half is None:
            return Answer.CANNOT_BE_TOLD
        if low < self.centre - self.half and self.centre + self.half < high:
            return Answer.HOLDS
        if self.centre + self.half < low or self.centre - self.half > high:
            return Answer.DOES_NOT_HOLD
        return Answer.CANNOT_BE_TOLD

    def __str__(self) -> str:
        if self.half is None:
            return f"{self.centre:.3g}, of single runs whose spread is not known"
        return f"{self.centre:.3g} ± {self.half:.2g}"


def read_tables(folder: Path) -> Tables:
    """The studies of one data set, `data/09_studies/<data set>`; none if it has none."""
    found = {}
    for file in sorted(folder.glob("*/runs.csv")):
        with file.open(newline="") as opened:
            found[file.parent.name] = [row for row in csv.DictReader(opened) if row["state"] == "finished"]
    return found


def judge(rule: Rule, tables: Tables) -> Verdict:
    """What one data set's tables say.

    Raises:
        ClaimError: if a rule's `where` leaves several rows where one is meant.
    """
    try:
        match rule:
            case BestAtRule():
                return _judge_best(rule, tables)
            case CorrelatesRule():
                return _judge_correlation(rule, tables)
            case _:
                return _judge_comparison(rule, tables)
    except _NotMeasuredError as error:
        return Verdict(Answer.NOT_MEASURED, (str(error),))


class _NotMeasuredError(Exception):
    """A table, a metric or a row is not there."""


def _judge_comparison(rule: LargerRule | SmallerRule | WithinRule, tables: Tables) -> Verdict:
    pairs = _pairs(rule, tables)
    spread = _spread(rule.spread, rule.metric, tables)
    estimate = _difference(pairs, spread, by_seed=rule.by_seed, relative=rule.relative)
    low, high = {
        "larger": (rule.by, inf),
        "smaller": (-inf, -rule.by),
        "within": (-rule.by, rule.by),
    }[rule.kind]
    answer = estimate.judge(low, high)
    lines = [f"{first} against {second if isinstance(second, Measured) else f'{second:g}'}." for first, second in pairs]
    lines.append(_difference_in_words(estimate, len(pairs), rule.relative))
    if spread and any(len(side.values) < 2 for side in _measured(pairs)):
        lines.append(_borrowed(rule, spread))
    if rule.similar and (apart := _apart(rule, tables)):
        answer = Answer.CANNOT_BE_TOLD
        lines.append(apart)
    return Verdict(answer, tuple(lines), _on(_measured(pairs)))


def _borrowed(rule: Rule, spread: Measured) -> str:
    assert rule.spread is not None
    return f"The spread of single runs is that of {spread} in the study {rule.spread.study}."


def _difference_in_words(estimate: Estimate, pairs: int, relative: bool) -> str:
    mean = "Mean difference" if pairs > 1 else "Difference"
    return f"{mean}{' as a share of the second' if relative else ''}: {estimate}."


def _apart(rule: LargerRule | SmallerRule | WithinRule, tables: Tables) -> str:
    """Why the two sides are not alike enough to be compared; empty if they are."""
    assert rule.similar is not None
    similar = rule.similar
    alike = rule.model_copy(
        update={
            "metric": similar.metric,
            "of": rule.of.model_copy(update={"metric": None}),
            "than": rule.than.model_copy(update={"metric": None}) if isinstance(rule.than, Rows) else rule.than,
        }
    )
    for first, second in _pairs(alike, tables):
        assert isinstance(second, Measured)
        if (difference := abs(first.mean - second.mean)) > similar.by:
            return (
                f"Its {_words(similar.metric)} is not similar: {first.mean:.4g} against {second.mean:.4g}, "
                f"{difference:.2g} apart where {similar.by:g} is the most."
            )
    return ""


def _judge_best(rule: BestAtRule, tables: Tables) -> Verdict:
    rows = _select(rule.of, rule.metric, tables)
    low, high = (-inf if rule.low is None else rule.low), (inf if rule.high is None else rule.high)
    sides: dict[bool, list[Measured]] = {True: [], False: []}
    for row in rows:
        sides[low <= float(row.row[rule.key]) <= high].append(row)
    if not sides[True] or not sides[False]:
        raise _NotMeasuredError(f"no value of {rule.key} {'in' if sides[False] else 'outside of'} the range was tried")
    sign = 1 if rule.best == "largest" else -1
    inside, outside = (max(sides[side], key=lambda row: sign * row.mean) for side in (True, False))
    spread = _spread(rule.spread, rule.metric, tables)
    estimate = _difference([(inside, outside)], spread)
    answer = Estimate(sign * estimate.centre, estimate.half).judge(0, inf)
    lines = [f"Best in the range: {inside}.", f"Best outside of it: {outside}.", f"Difference: {estimate}."]
    if spread and min(len(inside.values), len(outside.values)) < 2:
        lines.append(_borrowed(rule, spread))
    return Verdict(answer, tuple(lines), _on([inside, outside]))


def _judge_correlation(rule: CorrelatesRule, tables: Tables) -> Verdict:
    first = {row.label: row for row in _select(rule.of, rule.metric, tables)}
    second = {row.label: row for row in _select(rule.of, rule.with_metric, tables)}
    both = [label for label in first if label in second]
    if len(both) < _FEWEST_ROWS:
        return Verdict(Answer.CANNOT_BE_TOLD, (f"{len(both)} rows have both metrics; {_FEWEST_ROWS} is the fewest.",))
    found = rank_correlation([first[label].mean for label in both], [second[label].mean for label in both])
    signed = found if rule.sign == "positive" else -found
    answer = Answer.CANNOT_BE_TOLD
    if signed >= rule.at_least - _ROUNDING:
        answer = Answer.HOLDS
    elif signed <= _ROUNDING:
        answer = Answer.DOES_NOT_HOLD
    line = (
        f"Rank correlation of {_words(rule.metric)} with {_words(rule.with_metric)} over {len(both)} rows: {found:.2f}."
    )
    return Verdict(answer, (line,), _on([first[label] for label in both]))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: the correlation of ranks, of which equal values share the mean. 0 if one side is constant."""
    x, y = (_ranks(np.asarray(values, float)) for values in (first, second))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """0 for the smallest."""
    return (values[:, None] > values).sum(1) + ((values[:, None] == values).sum(1) - 1) / 2


def _pairs(rule: LargerRule | SmallerRule | WithinRule, tables: Tables) -> list[tuple[Measured, Measured | float]]:
    """What is compared with what: one row with one, or each with that which has the same values of `paired`."""
    first = _select(rule.of, rule.metric, tables)
    if not isinstance(rule.than, Rows):
        return [(_only(first, rule.of), rule.than)]
    second = _select(rule.than, rule.metric, tables)
    if not rule.paired:
        return [(_only(first, rule.of), _only(second, rule.than))]

    def key(row: Measured) -> tuple[str, ...]:
        return tuple(row.row.get(name, _NULL) for name in rule.paired)

    others: dict[tuple[str, ...], list[Measured]] = {}
    for row in second:
        others.setdefault(key(row), []).append(row)
    pairs: list[tuple[Measured, Measured | float]] = [
        (row, _only(others[key(row)], rule.than)) for row in first if key(row) in others
    ]
    if not pairs:
        raise _NotMeasuredError(f"no two rows have the same {', '.join(rule.paired)}")
    return pairs


def _difference(
    pairs: Sequence[tuple[Measured, Measured | float]],
    spread: Measured | None,
    *,
    by_seed: bool = False,
    relative: bool = False,
) -> Estimate:
    """Mean of the pairs' differences. The interval is Student's t times the standard error over seeds."""
    if by_seed and (found := _differences_by_seed(pairs, relative)) is not None:
        return found
    differences, variance, freedom, borrowed = [], 0.0, 0, False
    for first, second in pairs:
        scale = (abs(second.mean) if isinstance(second, Measured) else abs(second)) if relative else 1.0
        other = second.mean if isinstance(second, Measured) else second
        differences.append((first.mean - other) / scale)
        for side in _measured([(first, second)]):
            own = side.variance
            if own is None:
                if spread is None or spread.variance is None:
                    variance = inf
                    continue
                own, borrowed = spread.variance, True
            else:
                freedom += len(side.values) - 1
            variance += own / len(side.values) / scale**2
    if borrowed and spread:
        freedom += len(spread.values) - 1
    half = None if variance == inf else student_t(freedom) * sqrt(variance) / len(pairs)
    return Estimate(float(np.mean(differences)), half)


def _differences_by_seed(pairs: Sequence[tuple[Measured, Measured | float]], relative: bool) -> Estimate | None:
    """Of runs with the same seed; None if fewer than two seeds are on both sides of all pairs."""
    found = []
    for first, second in pairs:
        assert isinstance(second, Measured)
        scale = abs(second.mean) if relative else 1.0
        seeds = [seed for seed in first.values if seed in second.values]
        if len(seeds) < 2:
            return None
        found += [(first.values[seed] - second.values[seed]) / scale for seed in seeds]
    centre = float(np.mean(found))
    return Estimate(centre, student_t(len(found) - 1) * float(np.std(found, ddof=1)) / sqrt(len(found)))


def student_t(freedom: int) -> float:
    """The quantile that 95 % of both sides lie within; of more than ten degrees of freedom roughly."""
    return _T[freedom - 1] if 0 < freedom <= len(_T) else _T_OF_MANY


def _spread(rows: Rows | None, metric: Names, tables: Tables) -> Measured | None:
    """The row whose deviation stands for that of single runs, if it was measured with several seeds."""
    if rows is None:
        return None
    try:
        found = _only(_select(rows, metric, tables), rows)
    except _NotMeasuredError:
        return None
    return found if found.variance is not None else None


_NULL = "null"
_ON = "_measured_on"


def _select(rows: Rows, metric: Names, tables: Tables) -> list[Measured]:
    """The variants that fit, each with its metric. Raises _NotMeasuredError if there is none."""
    table = tables.get(rows.study)
    if not table:
        raise _NotMeasuredError(f"the study {rows.study} has no table")
    names = _listed(rows.metric or metric)
    name = next((one for one in names if any(row.get(one) for row in table)), None)
    if name is None:
        raise _NotMeasuredError(f"the table of {rows.study} has no {' or '.join(names)}")
    chosen = [row for row in table if row.get(name)]
    for key, values in rows.where.items():
        for value in values if isinstance(values, list) else [values]:
            if fitting := [row for row in chosen if _is(row.get(key, _NULL), value)]:
                chosen = fitting
                break
        else:
            raise _NotMeasuredError(f"the table of {rows.study} has no row where {key} is {_listed_in_words(values)}")
    grouped: dict[str, list[Row]] = {}
    for row in chosen:
        grouped.setdefault(row["variant"], []).append(row)
    return [
        Measured(
            label,
            runs[0],
            {run["seed"]: float(run[name]) for run in runs},
            re.sub(r",? seed \d+", "", runs[0].get(f"{name}{_ON}", "")),
        )
        for label, runs in grouped.items()
    ]


def _is(text: str, value: Any) -> bool:
    """Whether a cell of a table holds a value."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(text) == value
        except ValueError:
            return False
    if value is None:
        return text in ("", _NULL)
    return text == (value if isinstance(value, str) else json.dumps(value))


def _only(rows: Sequence[Measured], asked: Rows) -> Measured:
    """The one row that is meant."""
    if len(rows) > 1:
        labels = "; ".join(row.label for row in rows)
        raise ClaimError(f"{len(rows)} rows of {asked.study} fit where {asked.where}, one is meant: {labels}")
    return rows[0]


def _measured(pairs: Sequence[tuple[Measured, Measured | float]]) -> list[Measured]:
    return [side for pair in pairs for side in pair if isinstance(side, Measured)]


def _on(rows: Sequence[Measured]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.measured_on for row in rows if row.measured_on))


def _listed(names: Names) -> list[str]:
    return [names] if isinstance(names, str) else names


def _listed_in_words(values: Any) -> str:
    return " or ".join(map(str, values if isinstance(values, list) else [values]))


def _words(metric: Names) -> str:
    return " or ".join(f"`{name}`" for name in _listed(metric))


def seeds_in_words(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"
