"""`conf/base/claims.yml`: what the paper claims, and the rule by which a study's table says whether it holds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from spatial_functa_pipeline.config.block import Block

Names = str | list[str]
"""One name, or several of which the first counts that a table has: data sets differ in what they can measure."""


class Rows(Block):
    """Rows of a study's table."""

    study: str
    where: dict[str, Any] = Field(
        {},
        description="value of each varied parameter, or of `name`; of a list the first that any row has. null: not set there",
    )
    metric: Names | None = Field(None, description="null: the rule's")


class Similar(Block):
    """What both sides must have about equally, for the comparison to say anything."""

    metric: Names
    by: PositiveFloat = Field(description="the largest difference")


class _Rule(Block):
    metric: Names
    of: Rows
    spread: Rows | None = Field(
        None, description="a row that has several seeds: its deviation stands for that of rows with one"
    )

    @property
    def studies(self) -> list[str]:
        """The names of those whose tables it needs. Without that of `spread` it can be told less often."""
        parts = (getattr(self, name, None) for name in ("of", "than"))
        return [*dict.fromkeys(part.study for part in parts if isinstance(part, Rows))]


class _Comparison(_Rule):
    than: Rows | float
    paired: list[str] = Field([], description="rows of both sides are compared that have the same values of these")
    by_seed: bool = Field(False, description="the runs of a seed share so much that their differences are compared")
    relative: bool = Field(False, description="differences are shares of the second side's mean")
    similar: Similar | None = None

    @model_validator(mode="after")
    def _second_side_is_of_rows_where_it_must_be(self) -> _Comparison:
        if not isinstance(self.than, Rows) and (self.paired or self.by_seed or self.similar):
            raise ValueError("paired, by_seed and similar compare rows with rows: `than` is a number")
        return self


class LargerRule(_Comparison):
    """The first side's mean is larger, by more than `by`; below 0: it may be so much smaller."""

    kind: Literal["larger"]
    by: float = 0.0


class SmallerRule(_Comparison):
    """The first side's mean is smaller, by more than `by`; below 0: it may be so much larger."""

    kind: Literal["smaller"]
    by: float = 0.0


class WithinRule(_Comparison):
    """The two means differ by less than `by`."""

    kind: Literal["within"]
    by: PositiveFloat


class BestAtRule(_Rule):
    """The best value of a parameter lies in a range."""

    kind: Literal["best_at"]
    key: str = Field(description="the varied parameter")
    best: Literal["largest", "smallest"]
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _range_is_one(self) -> BestAtRule:
        if self.low is None and self.high is None:
            raise ValueError("best_at needs low, high or both: the range in which the best value is said to be")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")
        return self


class CorrelatesRule(_Rule):
    """Rows with a better value of one metric have a better value of the other."""

    kind: Literal["correlates"]
    with_metric: Names
    sign: Literal["positive", "negative"]
    at_least: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="of Spearman's rank correlation, which chance must also give in 5 % of all orders at most"
    )


Rule = Annotated[LargerRule | SmallerRule | WithinRule | BestAtRule | CorrelatesRule, Field(discriminator="kind")]


class Claim(Block):
    """One thing that the paper says."""

    claim: str
    source: str = Field(description="where it stands in the paper")
    paper: str = Field(description="the paper's numbers")
    environment: str = Field(description="that of the data set on which the paper says it")
    rule: Rule


class ClaimsConfig(Block):
    """All of them."""

    data_sets: dict[str, str] = Field(description="name → how a sentence calls it")
    claims: list[Claim]

    @model_validator(mode="after")
    def _claims_differ(self) -> ClaimsConfig:
        texts = [claim.claim for claim in self.claims]
        if twice := sorted({text for text in texts if texts.count(text) > 1}):
            raise ValueError(f"these claims stand twice: {'; '.join(twice)}")
        return self
