"""The page of the paper's claims: each with its rule in words, and what every data set's tables say."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spatial_functa_pipeline.config.claims import (
    BestAtRule,
    Claim,
    ClaimsConfig,
    CorrelatesRule,
    LargerRule,
    Names,
    Rows,
    Rule,
    SmallerRule,
    WithinRule,
)
from spatial_functa_pipeline.studies.claims import Answer, Tables, Verdict, judge

_WIDTH = 120

_HOW_TO_READ = """\
## How to read it

- **holds**: by the rule that stands beside the claim, on the data set that is named, and no further.
  What holds on a small data set need not hold on the paper's, and the other way round.
- **does not hold**: by the same rule.
- **cannot be told**: the 95 % interval of the difference is not clear of the rule's border.
  So it is, too, where the sides are not similar that must be, and where single runs have no known spread.
  A further seed in the study's `seeds` gives one.
- **not measured**: the command that measures it stands beside it.
  So it is, too, where a study has been changed since it was run.

A difference is given with its 95 % interval: Student's t times the standard error over seeds.
Its degrees of freedom are those of Welch and Satterthwaite, rounded down.
It holds if all of the interval fits the rule, and does not hold if none of it does.
With two seeds a side the interval is wide: 4.3 to 12.7 standard errors.
Where a row has one seed, the deviation of another row stands for its own, and is named.
A rank correlation has no interval: it counts if at most 5 % of all orders of the rows are as strongly correlated.
Where a rule says "paired", the differences of rows that are alike but for the sides are averaged.
What "similar", "about" and "markedly" mean as numbers is ours; the paper's numbers are quoted as they stand there.
"""


@dataclass(frozen=True)
class Environment:
    """Where studies can be run.

    Attributes:
        name: of the folder in conf/.
        dataset: the name of its data set.
        studies: the names of its studies.
        tables: of those that have been run.
        changed: those that have been run, but were written otherwise then.
    """

    name: str
    dataset: str
    studies: frozenset[str]
    tables: Tables
    changed: frozenset[str] = frozenset()


def ledger(
    config: ClaimsConfig, environments: Sequence[Environment], made_by: str, command: Callable[[str, Environment], str]
) -> str:
    """The page, as Markdown.

    Args:
        config: the claims.
        environments: all in which studies can be run.
        made_by: sentences that say where the page comes from.
        command: what runs a study, by its name, in an environment.
    """
    found = [(claim, verdicts(claim, environments)) for claim in config.claims]
    parts = [
        "# The paper's claims: which hold",
        made_by,
        _HOW_TO_READ,
        _summary(found, config.data_sets),
        "## Each claim",
    ]
    for number, (claim, answers) in enumerate(found, 1):
        lines = [f"### {number}. {claim.claim.rstrip('.')}"]
        lines.append(_wrapped(f"The paper ({claim.source}): {claim.paper}."))
        lines.append(_wrapped(f"Rule: {rule_in_words(claim.rule)}"))
        lines += [_section(claim, one, answer, config.data_sets, command) for one, answer in answers]
        parts.append("\n\n".join(lines))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def verdicts(claim: Claim, environments: Sequence[Environment]) -> list[tuple[Environment, Verdict]]:
    """Of the paper's data set first, then of each other that has been measured."""
    own = [one for one in environments if one.name == claim.environment]
    others = [one for one in environments if one not in own]
    found = [(one, judge(claim.rule, one.tables)) for one in (*own, *others)]
    return [(one, answer) for one, answer in found if one in own or answer.answer != Answer.NOT_MEASURED]


def _summary(found: Sequence[tuple[Claim, list[tuple[Environment, Verdict]]]], names: Mapping[str, str]) -> str:
    lines = ["## Summary", "", "| | claim | on the paper's data | on other data |", "| ---: | --- | --- | --- |"]
    for number, (claim, answers) in enumerate(found, 1):
        cells: dict[bool, list[str]] = {True: [], False: []}
        for one, answer in answers:
            words = f"{_bold(answer.answer)} on {_called(one.dataset, names)}"
            cells[one.name == claim.environment].append(words)
        lines.append(f"| {number} | {claim.claim} | {'; '.join(cells[True])} | {'; '.join(cells[False])} |")
    return "\n".join(lines)


def _bold(answer: Answer) -> str:
    return str(answer) if answer == Answer.NOT_MEASURED else f"**{answer}**"


def _section(
    claim: Claim,
    one: Environment,
    verdict: Verdict,
    names: Mapping[str, str],
    command: Callable[[str, Environment], str],
) -> str:
    where = f"- {_bold(verdict.answer)} on {_called(one.dataset, names)}"
    where += ", the paper's data set" if one.name == claim.environment else ""
    if verdict.answer == Answer.NOT_MEASURED:
        missing = [study for study in claim.rule.studies if study not in one.tables]
        commands = " and ".join(
            f"{'the study has changed, run it again: ' if study in one.changed else ''}`{command(study, one)}`"
            for study in missing
        )
        return _wrapped(f"{where}: {commands or '; '.join(verdict.numbers)}.", then="  ")
    lines = [f"{where}.", *verdict.numbers]
    if verdict.measured_on:
        lines.append(f"Measured on {'; on '.join(verdict.measured_on)}.")
    return "\n".join(_wrapped(line, "" if number == 0 else "  ", "  ") for number, line in enumerate(lines))


def _called(dataset: str, names: Mapping[str, str]) -> str:
    return names.get(dataset, f"`{dataset}`")


def _wrapped(text: str, first: str = "", then: str = "") -> str:
    """In lines of the page's width; what is in backticks stays whole."""
    whole = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\0"), text)
    lines = textwrap.fill(
        whole, _WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    )
    return lines.replace("\0", " ")


def rule_in_words(rule: Rule) -> str:
    """One or more sentences that say what the rule computes."""
    match rule:
        case BestAtRule():
            words = (
                f"of all values of {_key(rule.key)}, {_range(rule)} has the {rule.best} {_metric(rule.metric)}"
                f" ({_rows(rule.of)}); the rows with the best mean in that range and"
                " outside of it are compared, as if these two had not been chosen among several."
            )
        case CorrelatesRule():
            words = (
                f"the rank correlation of {_metric(rule.metric)} with {_metric(rule.with_metric)} over the rows"
                f" ({_rows(rule.of)}) is {'' if rule.sign == 'positive' else '−'}{rule.at_least:g} or"
                f" {'more' if rule.sign == 'positive' else 'less'}; it does not hold if it has the other sign. Neither is"
                " said if chance gives one as strong in more than 5 % of all orders."
            )
        case _:
            words = _comparison_in_words(rule)
    if rule.spread:
        words += f" Spread of single runs: that of {_rows(rule.spread)}."
    return words


def _comparison_in_words(rule: LargerRule | SmallerRule | WithinRule) -> str:
    amount = f"{100 * abs(rule.by):g} %" if rule.relative else f"{abs(rule.by):g}"
    second = f"that of ({_rows(rule.than)})" if isinstance(rule.than, Rows) else f"{rule.than:g}"
    if isinstance(rule.than, Rows) and rule.than.metric:
        second = f"{_metric(rule.than.metric)} of ({_rows(rule.than)})"
    if isinstance(rule, WithinRule):
        relation = f"differs by less than {amount} from"
    else:
        other = {"larger": "smaller", "smaller": "larger"}[rule.kind]
        more = f" by more than {amount}" if rule.by > 0 else f", or {other} by less than {amount}," if rule.by else ""
        relation = f"is {rule.kind}{more} than"
    words = f"{_metric(rule.of.metric or rule.metric)} of ({_rows(rule.of)}) {relation} {second}"
    if rule.paired:
        words += f", paired by {', '.join(map(_key, rule.paired))}"
    if rule.by_seed:
        words += ", compared seed by seed"
    if rule.similar:
        words += f"; {_metric(rule.similar.metric)} of both is at most {rule.similar.by:g} apart"
    return words + "."


def _range(rule: BestAtRule) -> str:
    if rule.low is None:
        return f"one of at most {rule.high:g}"
    if rule.high is None:
        return f"one of {rule.low:g} or more"
    return f"one from {rule.low:g} to {rule.high:g}"


def _rows(rows: Rows) -> str:
    where = [f"{_key(key)} {_values(value)}" for key, value in rows.where.items()]
    return ", ".join([f"study {rows.study}", *where])


def _values(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    return ", else ".join(
        "not set" if one is None else str(one).lower() if isinstance(one, bool) else str(one) for one in values
    )


def _metric(metric: Names) -> str:
    return " or ".join(f"`{name}`" for name in ([metric] if isinstance(metric, str) else metric))


def _key(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ")
