"""A run of a study: one variant with one seed, and what was measured of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spatial_functa_pipeline.config.places import flatten
from spatial_functa_pipeline.config.study import StudyConfig, StudyVariant
from spatial_functa_pipeline.digest import short_digest

FINISHED = "finished"
_LONGEST = 100
"""Characters of a file's name, without its ending."""


@dataclass(frozen=True)
class StudyRun:
    """One variant with one seed.

    Attributes:
        variant: the row of the table that it belongs to.
        seed: of all its random numbers.
    """

    variant: StudyVariant
    seed: int

    @property
    def name(self) -> str:
        """As in `MLP, latent_shape=1x1x512, seed=0`."""
        return f"{self.variant.label}, seed={self.seed}"

    @property
    def file_name(self) -> str:
        """The name with nothing in it that a file's name should not have; different runs have different ones."""
        plain = re.sub(r"[^A-Za-z0-9_.=,+-]+", "-", self.name.replace(", ", ","))
        if plain == self.name.replace(", ", ",") and len(plain) <= _LONGEST:
            return plain
        return f"{plain[: _LONGEST - 9].strip('-')}-{short_digest([self.name.encode()])[:8]}"

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All that is given to it, by dotted keys: the variant's, then `given`, then its seed."""
        return {**dict(flatten(self.variant.parameters)), **dict(flatten(given)), "seed": self.seed}


@dataclass(frozen=True)
class MeasuredRun:
    """What became of a run.

    Attributes:
        run: which one.
        state: `finished`, or why there are no metrics, in a few words.
        metrics: name → value, of those that its outputs have.
        details: name → what it was measured on.
        seconds: that it took to make its outputs and all that they are made from; None if that is not known.
        folder: where the first of its outputs is.
    """

    run: StudyRun
    state: str = FINISHED
    metrics: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    folder: str = ""


def runs_of(study: StudyConfig) -> list[StudyRun]:
    """All variants with the first seed, then with the next: a table is complete early, and its deviations come later."""
    return [StudyRun(variant, seed) for seed in study.seeds for variant in study.all_variants]


def missing_metrics(study: StudyConfig, runs: Iterable[MeasuredRun]) -> tuple[list[str], list[str]]:
    """Metrics that the study measures and no finished run has, and the names of all that there are."""
    known = {name for run in runs for name in run.metrics}
    return [name for name in study.measure if name not in known], sorted(known)
