"""`conf/<environment>/studies/<name>.yml`: what is compared, over which seeds, and how it is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from spatial_functa_pipeline.config.block import Block

Parameters = dict[str, Any]
"""Values by key, as in `{"diffusion.normalisation.gamma": 2.5}`."""


@dataclass(frozen=True)
class StudyVariant:
    """One row of a study's table: one set of parameters, run with each seed.

    Attributes:
        name: as it is written; None if its values alone name it.
        point: the values that tell it from others of its name: on the grid and, without a name, its own set.
        parameters: all that is given to its runs but the seed: the study's `set`, its own, and its point.
        outputs: entries of the catalog that its runs make.
    """

    name: str | None
    point: Parameters
    parameters: Parameters
    outputs: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its name and its point, as in `MLP, latent_shape=1x1x512`."""
        return ", ".join(filter(None, [self.name, *(f"{key}={in_words(value)}" for key, value in self.point.items())]))


def in_words(value: Any) -> str:
    """A value as YAML has it: `null`, `true`, `[1, 2]`."""
    return value if isinstance(value, str) else json.dumps(value)


class VariantsConfig(Block):
    """Variants that are written together: one set of parameters, or one for each point of a grid."""

    name: str | None = Field(None, description="in tables and figures; null: the values that are varied")
    set: Parameters = Field({}, description="parameters of these variants")
    vary: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        {}, description="a grid: values for each key; every combination is a variant"
    )
    outputs: Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="what is made of these variants, as where the paper's table has blanks; null: as the study says",
    )

    @model_validator(mode="after")
    def _can_be_called(self) -> VariantsConfig:
        if not (self.name or self.set or self.vary):
            raise ValueError("a variant of the study's own values needs a name")
        return self

    def points(self) -> Iterator[Parameters]:
        """Of the variants, in the order of the grid: see `StudyVariant`."""
        own = {} if self.name else self.set
        for values in product(*self.vary.values()):
            yield {**own, **dict(zip(self.vary, values, strict=True))}


class StudyFigureConfig(Block):
    """How a study's table is drawn: one panel for each metric."""

    kind: Literal["bars", "lines"]
    metrics: list[str] = Field([], description="one panel each; none named: all that are measured")
    x: str | None = Field(None, description="the varied key along the horizontal axis; null: the variants")
    by: str | None = Field(None, description="the varied key, or `name`, that tells the lines or groups of bars apart")
    log_x: bool = False
    log_y: bool = False


class StudyConfig(Block):
    """A comparison: variants × seeds, each run by what is missing of it, then a table and a figure."""

    title: str
    about: str = Field(
        "", description="what is asked, where it stands in the paper, and what is smaller here than there"
    )
    set: Parameters = Field({}, description="parameters of all variants")
    vary: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field({}, description="a grid of unnamed variants")
    variants: list[VariantsConfig] = Field([], description="further variants, beside those of the grid")
    seeds: list[int] = Field(
        [0], min_length=1, description="each variant is run with each; tables have mean and deviation"
    )
    outputs: Annotated[list[str], Field(min_length=1)] = Field(description="entries of the catalog that are made")
    measure: Annotated[list[str], Field(min_length=1)] = Field(description="metrics that the table has")
    figure: StudyFigureConfig | None = None

    @cached_property
    def all_variants(self) -> tuple[StudyVariant, ...]:
        """Those of the study's own grid, then those of `variants`, in the order in which they are written."""
        rows = [VariantsConfig(vary=self.vary)] if self.vary else []
        return tuple(
            StudyVariant(row.name, point, {**self.set, **row.set, **point}, tuple(row.outputs or self.outputs))
            for row in (*rows, *self.variants)
            for point in row.points()
        )

    @property
    def varied(self) -> list[str]:
        """The parameters in which variants differ, in the order in which they are written."""
        variants, absent = self.all_variants, object()
        keys = dict.fromkeys(key for variant in variants for key in variant.parameters)
        return [key for key in keys if len({repr(one.parameters.get(key, absent)) for one in variants}) > 1]

    @property
    def all_outputs(self) -> list[str]:
        """What any of the variants makes, in the order in which it is written."""
        return [*dict.fromkeys(output for variant in self.all_variants for output in variant.outputs)]

    @property
    def points(self) -> list[str]:
        """The parameters that stand in the labels of variants, in the order in which they are written."""
        return [*dict.fromkeys(key for variant in self.all_variants for key in variant.point)]

    @property
    def keys(self) -> list[str]:
        """All parameters that it names, in the order in which they are written."""
        named = (self.set, self.vary, *(part for row in self.variants for part in (row.set, row.vary)))
        return [*dict.fromkeys(key for part in named for key in part)]

    @model_validator(mode="after")
    def _variants_differ(self) -> StudyConfig:
        labels = [variant.label for variant in self.all_variants]
        if not labels:
            raise ValueError("a study compares variants: give vary, variants, or both")
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"two variants are called the same, {', '.join(twice)}: give them names")
        return self

    @model_validator(mode="after")
    def _seeds_are_seeds(self) -> StudyConfig:
        if "seed" in self.keys:
            raise ValueError("seed is no parameter of a variant here: seeds has those that each variant is run with")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a seed stands twice in seeds: {self.seeds}")
        return self

    @model_validator(mode="after")
    def _figure_shows_what_there_is(self) -> StudyConfig:
        if self.figure is None:
            return self
        if unknown := [metric for metric in self.figure.metrics if metric not in self.measure]:
            raise ValueError(f"figure.metrics has {', '.join(unknown)}: measure does not name it")
        for place, key, known in (
            ("x", self.figure.x, self.varied),
            ("by", self.figure.by, [*self.varied, "name"]),
        ):
            if key is not None and key not in known:
                raise ValueError(f"figure.{place} is {key}, in which no two variants differ: choose {', '.join(known)}")
        return self
