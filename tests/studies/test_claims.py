"""Each kind of rule on tables that are made up, its borderlines included."""

import csv

import pytest

from spatial_functa_pipeline.config.claims import Claim
from spatial_functa_pipeline.config.study import StudyConfig
from spatial_functa_pipeline.studies.claims import (
    Answer,
    ClaimError,
    Estimate,
    judge,
    rank_correlation,
    read_tables,
    share_of_orders,
    student_t,
)

HOLDS, DOES_NOT_HOLD, CANNOT_BE_TOLD, NOT_MEASURED = Answer


def runs(**variants):
    """A study's runs: variant → values of the metric, by seed; `shape` is what is varied, `metric` what was measured."""
    return [
        {
            "variant": name,
            "shape": name,
            "seed": str(seed),
            "state": "finished",
            "metric": repr(value),
            "metric_measured_on": f"9 images, seed {seed}, dB",
        }
        for name, values in variants.items()
        for seed, value in enumerate(values)
    ]


def rule(kind, **options):
    written = {"kind": kind, "metric": "metric", "of": {"study": "s", "where": {"shape": "a"}}, **options}
    return Claim(claim="c", source="s", paper="p", environment="e", rule=written).rule


OTHER = {"study": "s", "where": {"shape": "b"}}


def verdict(kind, table, **options):
    return judge(rule(kind, **options), {"s": table})


@pytest.mark.parametrize(
    ("centre", "half", "expected"),
    [
        (1.0, 0.5, HOLDS),
        (1.0, 1.0, CANNOT_BE_TOLD),  # it touches the border
        (0.5, 1.0, CANNOT_BE_TOLD),
        (-1.0, 1.0, CANNOT_BE_TOLD),
        (-1.0, 0.5, DOES_NOT_HOLD),
        (2.0, 0.0, CANNOT_BE_TOLD),  # exactly the other border
        (2.5, 0.25, DOES_NOT_HOLD),
        (1.0, None, CANNOT_BE_TOLD),
    ],
)
def test_an_interval_is_inside_outside_or_neither(centre, half, expected):
    assert Estimate(centre, half).judge(0, 2) == expected


# With two seeds a side, 0.1 apart: variance 0.005 each, 2 degrees of freedom, so that the interval is ± 4.30 · √0.005.
CLOSE = 0.304


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("apart", "expected"), [(CLOSE + 0.002, HOLDS), (CLOSE - 0.002, CANNOT_BE_TOLD), (-CLOSE - 0.002, DOES_NOT_HOLD)]
)
def test_larger_and_smaller(sign, apart, expected):
    table = runs(a=[sign * apart, sign * apart + 0.1], b=[0.0, 0.1])
    assert verdict("larger" if sign > 0 else "smaller", table, than=OTHER).answer == expected


@pytest.mark.parametrize(("by", "expected"), [(0.99, HOLDS), (1.0, CANNOT_BE_TOLD), (1.01, DOES_NOT_HOLD)])
def test_larger_by_an_amount(by, expected):
    table = runs(a=[2.0, 2.0], b=[1.0, 1.0])
    assert verdict("larger", table, than=OTHER, by=by).answer == expected
    table = runs(a=[1.0, 1.0], b=[2.0, 2.0])
    assert verdict("smaller", table, than=OTHER, by=by).answer == expected


@pytest.mark.parametrize(("by", "expected"), [(-1.01, HOLDS), (-1.0, CANNOT_BE_TOLD), (-0.99, DOES_NOT_HOLD)])
def test_hardly_worse_is_enough_below_0(by, expected):
    table = runs(a=[1.0, 1.0], b=[2.0, 2.0])
    assert verdict("larger", table, than=OTHER, by=by).answer == expected
    table = runs(a=[2.0, 2.0], b=[1.0, 1.0])
    assert verdict("smaller", table, than=OTHER, by=by).answer == expected


@pytest.mark.parametrize(
    ("apart", "by", "expected"),
    [
        (0.0, CLOSE + 0.002, HOLDS),
        (0.0, CLOSE - 0.002, CANNOT_BE_TOLD),
        (1.0, 1.0 - CLOSE - 0.002, DOES_NOT_HOLD),
        (-1.0, 1.0 - CLOSE - 0.002, DOES_NOT_HOLD),
        (1.0, 1.0 - CLOSE + 0.002, CANNOT_BE_TOLD),
    ],
)
def test_within(apart, by, expected):
    assert verdict("within", runs(a=[apart, apart + 0.1], b=[0.0, 0.1]), than=OTHER, by=by).answer == expected


def test_a_share_of_the_second_side():
    table = runs(a=[110.0, 110.0], b=[100.0, 100.0])
    assert verdict("within", table, than=OTHER, by=0.11, relative=True).answer == HOLDS
    assert verdict("within", table, than=OTHER, by=0.09, relative=True).answer == DOES_NOT_HOLD


def test_single_runs_say_nothing_without_a_known_spread():
    table = runs(a=[3.0], b=[1.0])
    found = verdict("larger", table, than=OTHER)
    assert found.answer == CANNOT_BE_TOLD
    assert "spread is not known" in " ".join(found.numbers)


def test_another_rows_deviation_stands_for_that_of_single_runs():
    """Variance 0.5 of three seeds: ± 4.30 · √(2 · 0.5) for a difference of two single runs."""
    spread = {"study": "s", "where": {"shape": "c"}}
    for apart, expected in ((4.31, HOLDS), (4.29, CANNOT_BE_TOLD), (-4.31, DOES_NOT_HOLD)):
        table = runs(a=[apart], b=[0.0], c=[1.0, 1.0, 1.0 + 1.5**0.5])
        found = verdict("larger", table, than=OTHER, spread=spread)
        assert found.answer == expected
        assert "in the study s" in found.numbers[-1]


def test_a_spread_of_one_seed_is_none():
    spread = {"study": "s", "where": {"shape": "c"}}
    assert verdict("larger", runs(a=[9.0], b=[0.0], c=[1.0]), than=OTHER, spread=spread).answer == CANNOT_BE_TOLD


def test_a_number_has_no_spread():
    for value, expected in ((0.61, HOLDS), (0.4, DOES_NOT_HOLD)):
        assert verdict("larger", runs(a=[value, value]), than=0.5).answer == expected
    assert verdict("larger", runs(a=[0.5, 0.5]), than=0.5).answer == CANNOT_BE_TOLD


def test_seed_by_seed_what_the_seeds_share_does_not_count():
    table = runs(a=[1.1, 5.1, 9.1], b=[1.0, 5.0, 9.0])
    assert verdict("larger", table, than=OTHER).answer == CANNOT_BE_TOLD
    assert verdict("larger", table, than=OTHER, by_seed=True).answer == HOLDS


def test_rows_are_paired_by_what_they_share():
    table = [
        {**row, "cells": cells, "variant": f"{row['variant']}{cells}"}
        for cells, shift in (("4", 0.0), ("8", 100.0))
        for row in runs(a=[shift + 1.0, shift + 1.2], b=[shift, shift + 0.2])
    ]
    table += [{**row, "cells": "1"} for row in runs(a=[-9.0, -9.0])]  # without a partner
    found = verdict("larger", table, than=OTHER, paired=["cells"])
    assert found.answer == HOLDS
    assert found.numbers[-1].startswith("Mean difference: 1 ±")
    with pytest.raises(ClaimError, match="3 rows of s fit"):
        verdict("larger", table, than=OTHER)


@pytest.mark.parametrize(("psnr", "expected"), [(31.0, HOLDS), (31.2, CANNOT_BE_TOLD)])
def test_sides_that_are_not_similar_cannot_be_told(psnr, expected):
    table = [
        {**row, "psnr": "30.0" if row["variant"] == "a" else str(psnr)} for row in runs(a=[2.0, 2.0], b=[1.0, 1.0])
    ]
    found = verdict("larger", table, than=OTHER, similar={"metric": "psnr", "by": 1.1})
    assert found.answer == expected


def over(values, deviation=0.01):
    """A study over a parameter, two seeds each."""
    return [
        {**row, "x": str(x), "variant": f"x={x}"}
        for x, value in values.items()
        for row in runs(a=[value - deviation, value + deviation])
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({1: 9.0, 4: 5.0, 5: 6.0, 8: 7.0}, HOLDS),
        ({1: 4.0, 4: 5.0, 5: 6.0, 8: 7.0}, DOES_NOT_HOLD),
        ({1: 9.0, 4: 5.0, 5: 6.0, 8: 5.0}, CANNOT_BE_TOLD),
        ({1: 9.0, 4: 5.0, 5: 6.0, 8: 5.06}, CANNOT_BE_TOLD),  # within ± 4.30 · √(2 · 0.0002 / 2)
        ({1: 9.0, 4: 5.0, 5: 6.0, 8: 5.07}, HOLDS),
        ({1: 9.0, 8: 7.0}, NOT_MEASURED),
        ({4: 5.0, 5: 7.0}, NOT_MEASURED),
    ],
)
@pytest.mark.parametrize("best", ["smallest", "largest"])
def test_best_at(values, expected, best):
    table = over(values if best == "smallest" else {x: -value for x, value in values.items()})
    options = {"of": {"study": "s"}, "key": "x", "best": best, "low": 4.0, "high": 5.0}
    assert verdict("best_at", table, **options).answer == expected


def test_best_at_takes_half_open_ranges():
    table = over({1: 9.0, 3: 5.0, 7: 5.5})
    options = {"of": {"study": "s"}, "key": "x", "best": "smallest"}
    assert verdict("best_at", table, **options, low=3.0).answer == HOLDS
    assert verdict("best_at", table, **options, high=1.0).answer == DOES_NOT_HOLD


@pytest.mark.parametrize(
    ("others", "sign", "expected"),
    [
        ([1, 2, 3, 4, 5], "positive", HOLDS),
        ([1, 2, 3, 5, 4], "positive", HOLDS),  # 0.9
        ([2, 1, 3, 5, 4], "positive", CANNOT_BE_TOLD),  # 0.8, which 8 of 120 orders reach
        ([1, 2, 3, 4], "positive", HOLDS),  # 1 of 24
        ([1, 2, 4, 3], "positive", CANNOT_BE_TOLD),  # 0.8, which 4 of 24 reach
        ([2, 4, 3, 1], "positive", CANNOT_BE_TOLD),  # the other sign, but weakly
        ([2, 3, 1, 5, 4], "positive", CANNOT_BE_TOLD),  # 0.6
        ([3, 3, 3, 3, 3], "positive", CANNOT_BE_TOLD),  # 0
        ([2, 1, 4, 3, 6, 5, 8, 7, 10], "positive", HOLDS),  # too many for all orders
        ([5, 1, 8, 3, 2, 7, 4, 6, 9], "positive", CANNOT_BE_TOLD),
        ([1, 2, 3, 4, 5], "negative", DOES_NOT_HOLD),
        ([5, 4, 3, 2, 1], "negative", HOLDS),
        ([1, 2, 3], "positive", CANNOT_BE_TOLD),
    ],
)
def test_correlates(others, sign, expected):
    table = [
        {**row, "other": str(other), "variant": f"{row['variant']}{number}"}
        for number, other in enumerate(others)
        for row in runs(a=[float(number)])
    ]
    assert verdict("correlates", table, of={"study": "s"}, with_metric="other", sign=sign).answer == expected


def test_rank_correlation_shares_the_ranks_of_equal_values():
    assert rank_correlation([1, 2, 2, 9], [1, 2, 3, 4]) == pytest.approx(0.9486832980505138)
    assert rank_correlation([1, 10, 100], [3, 2, 1]) == pytest.approx(-1.0)


def test_students_t():
    """As in printed tables."""
    found = [round(student_t(freedom), 3) for freedom in (1, 2, 3, 10, 11, 30, 1000)]
    assert found == [12.706, 4.303, 3.182, 2.228, 2.201, 2.042, 1.962]


def half_of(found):
    return float(found.numbers[1].rpartition("± ")[2].rstrip("."))


def test_unequal_deviations_have_fewer_degrees_of_freedom():
    """Standard errors 1 and 0.01: of 2 seeds each, 1.0002 degrees of freedom rather than 2."""
    found = verdict("larger", runs(a=[0.0, 2.0], b=[0.0, 0.02]), than=OTHER)
    assert half_of(found) == pytest.approx(12.706, abs=0.5)


def test_a_deviation_that_stands_for_both_rows_counts_once():
    """Row c's own variance of 0.5, of 2 seeds, and as much for row a: one estimate, with one degree of freedom."""
    rows = {"than": {"study": "s", "where": {"shape": "c"}}, "spread": {"study": "s", "where": {"shape": "c"}}}
    found = verdict("larger", runs(a=[9.0], c=[0.0, 1.0]), **rows)
    assert half_of(found) == pytest.approx(12.706 * (0.5 + 0.25) ** 0.5, abs=0.5)
    assert found.answer == CANNOT_BE_TOLD


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1 / 24),
        ([1, 2, 3, 4], [4, 3, 2, 1], 1 / 24),  # of the sign that was found
        ([1, 2, 3, 4, 5], [1, 2, 3, 5, 4], 5 / 120),
        ([1, 2, 3, 4], [1, 1, 1, 1], 1.0),
    ],
)
def test_share_of_orders_counts_all_that_are_as_strong(first, second, expected):
    assert share_of_orders(first, second) == pytest.approx(expected)


def test_orders_of_many_rows_are_drawn():
    scattered = [5, 1, 8, 3, 2, 7, 4, 6, 9]
    assert share_of_orders(range(9), range(9)) == pytest.approx(1 / 40_001)
    assert share_of_orders(range(9), scattered) == share_of_orders(range(9), scattered) > 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"of": {"study": "absent"}},
        {"metric": "absent"},
        {"of": {"study": "s", "where": {"shape": "absent"}}},
        {"than": {"study": "s", "where": {"absent": 1}}},
    ],
)
def test_what_is_not_there_is_not_measured(options):
    table = runs(a=[1.0, 1.0], b=[0.0, 0.0])
    assert verdict("larger", table, **{"than": OTHER, **options}).answer == NOT_MEASURED


def test_the_first_that_is_there_counts():
    table = runs(a=[1.0, 1.0], b=[0.0, 0.0])
    of = {"study": "s", "where": {"shape": ["absent", "a", "b"], "other": ["x", None]}}
    assert verdict("larger", table, metric=["absent", "metric"], of=of, than=OTHER).answer == HOLDS


def test_numbers_say_seeds_spread_and_what_they_were_measured_on():
    found = verdict("larger", runs(a=[2.0, 2.2], b=[1.0]), than=OTHER)
    assert found.numbers[0] == "2.1 ± 0.14 (2 seeds; a) against 1 (1 seed; b)."
    assert found.measured_on == ("9 images, dB",)


def test_values_are_compared_as_tables_have_them(tmp_path):
    """As `to_csv` writes them: numbers with a point, what is no number as JSON, and what is not set as `null`."""
    rows = [
        {"variant": str(number), "state": state, "seed": 0, "x": value, "metric": number}
        for number, (value, state) in enumerate(
            [("2.5", "finished"), ("null", "finished"), ("true", "finished"), ("6", "finished"), ("6", "failed")]
        )
    ]
    file = tmp_path / "s/runs.csv"
    file.parent.mkdir()
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    study = StudyConfig.model_validate({"title": "t", "vary": {"x": [1]}, "outputs": ["o"], "measure": ["metric"]})
    assert read_tables(tmp_path, {"s": study}) == ({}, {"s"})  # nothing says what was run
    record = file.with_name("study.yml")
    record.write_text("title: t\nvary: {x: [1, 2]}\noutputs: [o]\nmeasure: [metric]\n")
    assert read_tables(tmp_path, {"s": study}) == ({}, {"s"})
    record.write_text("title: other\nvary: {x: [1]}\noutputs: [o]\nmeasure: [metric]\n")
    tables, changed = read_tables(tmp_path, {"s": study, "never_run": study})
    assert not changed
    assert len(tables["s"]) == 4  # what failed is no row
    for value, number in ((2.5, 0), (None, 1), (True, 2), (6, 3), (6.0, 3)):
        of = {"study": "s", "where": {"x": value}}
        assert judge(rule("larger", of=of, than=0.0), tables).numbers[0].startswith(f"{number} (1 seed; {number})")
