"""`conf/<environment>/searches/<name>.yml`: among which values the best are looked for, and by which metric."""

from __future__ import annotations

import re
from itertools import product
from math import prod
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from spatial_functa_pipeline.config.block import Block
from spatial_functa_pipeline.config.study import Parameters

_OF_SAMPLES = re.compile(
    "(fid|frechet_distance|kid|precision|recall|density|coverage)(_convnet|_inception_[0-9a-f]{8})?_to_train"
)
"""A score of the samples. Other names say before `_to_` what is scored, as `fid_reconstructions_to_train` of test images."""


class RangeConfig(Block):
    """All numbers between two."""

    low: float
    high: float
    log: bool = Field(False, description="by their logarithm")
    step: PositiveFloat | None = Field(None, description="only low, low + step, …; null: any")
    integer: bool = Field(False, description="whole numbers only")

    @model_validator(mode="after")
    def _range_is_one(self) -> RangeConfig:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs numbers above 0, low is {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.integer and any(value is not None and value % 1 for value in (self.low, self.high, self.step)):
            raise ValueError("integer needs whole numbers for low, high and step")
        return self


class SearchConfig(Block):
    """A search for the best parameters: each trial is run by what is missing of it, as a variant of a study is."""

    title: str
    about: str = Field("", description="where it stands in the paper, and what is smaller or other here than there")
    set: Parameters = Field({}, description="parameters of all trials")
    space: Annotated[dict[str, RangeConfig | Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)] = Field(
        description="for each key the values to choose from, or a range"
    )
    metric: str = Field(
        description="what is best: `validation_…`, of a training's history, or a score of samples, as `fid_to_train`"
    )
    output: str = Field(description="the entry of the catalog that has it: a history or metrics")
    take: Literal["best", "last"] = Field(
        "best", description="of a history: the best value, where a training keeps its best weights, or the last"
    )
    direction: Literal["maximise", "minimise"]
    sampler: Literal["grid", "tpe", "random"] = Field(
        "tpe", description="grid: all points in turn; random: any; tpe: optuna's, which learns from the trials so far"
    )
    trials: PositiveInt | None = Field(None, description="how many are to end; null: all points of the grid")
    sampler_seed: int = Field(
        0, description="of what random and tpe draw; the trials' own seed is the parameter `seed`"
    )

    @property
    def points(self) -> list[Parameters] | None:
        """Of the grid, in order, the last key the fastest; None if there is a range."""
        if not all(isinstance(values, list) for values in self.space.values()):
            return None
        return [dict(zip(self.space, values, strict=True)) for values in product(*self.space.values())]

    @property
    def size(self) -> int | None:
        """Number of points of the grid; None if there is a range."""
        lists = [values for values in self.space.values() if isinstance(values, list)]
        return prod(map(len, lists)) if len(lists) == len(self.space) else None

    @property
    def keys(self) -> list[str]:
        """All parameters that it names."""
        return [*dict.fromkeys([*self.set, *self.space])]

    @model_validator(mode="after")
    def _metric_is_not_of_the_test_set(self) -> SearchConfig:
        if not (self.metric.startswith("validation_") or _OF_SAMPLES.fullmatch(self.metric)):
            raise ValueError(
                f"metric is {self.metric}, which is measured on test images: what is chosen by it would fit them. "
                "Take one that begins with validation_, or a score of samples to the training images, as fid_to_train"
            )
        return self

    @model_validator(mode="after")
    def _sampler_fits_the_space(self) -> SearchConfig:
        if self.size is None and self.sampler == "grid":
            raise ValueError("sampler grid needs lists of values, but space has a range: choose tpe or random")
        if self.size is None and self.trials is None:
            raise ValueError("space has a range, which never ends: say how many trials")
        if both := sorted(set(self.set) & set(self.space)):
            raise ValueError(f"{', '.join(both)} stands in set and in space")
        return self
