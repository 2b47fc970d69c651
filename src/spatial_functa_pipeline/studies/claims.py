"""Whether the paper's claims hold, by the tables of the studies that have been run."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import permutations
from math import cos, inf, pi, sin, sqrt, tan
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

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
from spatial_functa_pipeline.config.study import StudyConfig

Row = Mapping[str, str]
"""One run, as `runs.csv` has it."""
Tables = Mapping[str, Sequence[Row]]
"""The runs of each study of one data set, by the study's name."""

_ROUNDING = 1e-9
_FEWEST_ROWS = 4
"""Of fewer rows, any order is as likely by chance as 1 in 6, or more."""
_BY_CHANCE = 0.05
_MOST_ROWS_IN_ALL_ORDERS = 8
_DRAWN_ORDERS = 40_000
_WORDS = {"title", "about", "figure"}
"""What of a study changes none of its numbers."""


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


def read_tables(folder: Path, studies: Mapping[str, StudyConfig]) -> tuple[Tables, frozenset[str]]:
    """The tables of one data set, and the studies whose tables are out of date.

    Args:
        folder: `data/09_studies/<data set>`; it need not be there.
        studies: by name, as they are written now. What has been run of another study of that name is out of date.
    """
    found, changed = {}, set()
    for name, study in studies.items():
        file = folder / name / "runs.csv"
        if not file.exists():
            continue
        if not _is_of(study, file.with_name("study.yml")):
            changed.add(name)
            continue
        with file.open(newline="") as opened:
            found[name] = [row for row in csv.DictReader(opened) if row["state"] == "finished"]
    return found, frozenset(changed)


def _is_of(study: StudyConfig, record: Path) -> bool:
    """Whether the study that stands beside a table compares the same."""
    try:
        recorded = StudyConfig.model_validate(yaml.safe_load(record.read_text()))
    except (OSError, yaml.YAMLError, ValidationError):
        return False
    return recorded.model_dump(mode="json", exclude=_WORDS) == study.model_dump(mode="json", exclude=_WORDS)


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
    chance = share_of_orders([first[label].mean for label in both], [second[label].mean for label in both])
    signed = found if rule.sign == "positive" else -found
    answer = Answer.CANNOT_BE_TOLD
    if chance <= _BY_CHANCE and signed >= rule.at_least - _ROUNDING:
        answer = Answer.HOLDS
    elif chance <= _BY_CHANCE and signed < 0:
        answer = Answer.DOES_NOT_HOLD
    line = (
        f"Rank correlation of {_words(rule.metric)} with {_words(rule.with_metric)} over {len(both)} rows: {found:.2f}; "
        f"of random orders {100 * chance:.2g} % are as strongly correlated with that sign."
    )
    return Verdict(answer, (line,), _on([first[label] for label in both]))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: the correlation of ranks, of which equal values share the mean. 0 if one side is constant."""
    x, y = (_ranks(np.asarray(values, float)) for values in (first, second))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def share_of_orders(first: Sequence[float], second: Sequence[float]) -> float:
    """How likely chance gives a rank correlation as strong, of the same sign: a one-sided permutation test.

    Of all orders of up to 8 values, else of 40,000 that are drawn, always the same.
    """
    x, y = (_ranks(np.asarray(values, float)) for values in (first, second))
    x, y = x - x.mean(), y - y.mean()
    if len(x) <= _MOST_ROWS_IN_ALL_ORDERS:
        orders, found = np.array([*permutations(range(len(x)))]), 0
    else:  # the order that was found is one of them
        orders = np.random.default_rng(0).random((_DRAWN_ORDERS, len(x))).argsort(1)
        found = 1
    strength = x @ y
    as_strong = np.count_nonzero(np.sign(strength) * (y[orders] @ x) >= abs(strength) - _ROUNDING)
    return (as_strong + found) / (len(orders) + found)


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
    differences, known = [], True
    parts: dict[tuple[Any, ...], tuple[float, int]] = {}  # of the variance, by the row whose deviation it is from
    for first, second in pairs:
        scale = (abs(second.mean) if isinstance(second, Measured) else abs(second)) if relative else 1.0
        other = second.mean if isinstance(second, Measured) else second
        differences.append((first.mean - other) / scale)
        for side in _measured([(first, second)]):
            source = side if side.variance is not None else spread
            if source is None or source.variance is None:
                known = False
                continue
            key = (source.label, *source.values.items())
            before, _ = parts.get(key, (0.0, 0))
            parts[key] = (before + source.variance / len(side.values) / scale**2, len(source.values) - 1)
    half = _half([*parts.values()]) / len(pairs) if known else None
    return Estimate(float(np.mean(differences)), half)


def _half(parts: Sequence[tuple[float, int]]) -> float:
    """Half of the interval of a sum whose variance has these parts, each with its degrees of freedom (Welch, Satterthwaite)."""
    variance = sum(part for part, _ in parts)
    if not variance:
        return 0.0
    freedom = variance**2 / sum(part**2 / freedom for part, freedom in parts)
    return student_t(max(1, int(freedom + _ROUNDING))) * sqrt(variance)


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


@cache
def student_t(freedom: int) -> float:
    """Student's t, which 95 % lie within on both sides, of whole degrees of freedom from 1 on."""
    low, high = 0.0, pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_within(middle, freedom) < 0.95 else (low, middle)
    return sqrt(freedom) * tan(low)


def _share_within(angle: float, freedom: int) -> float:
    """The probability of |t| < √freedom · tan(angle) (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    odd = freedom % 2
    term, total = (cos(angle) if odd else 1.0), 0.0
    for power in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cos(angle) ** 2 * (power - 1) / power
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


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
