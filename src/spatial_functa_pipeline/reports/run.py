"""The report of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spatial_functa_pipeline.config.places import flatten
from spatial_functa_pipeline.evaluation.metrics import Metrics
from spatial_functa_pipeline.reports.comparisons import comparisons, intervals_in_words
from spatial_functa_pipeline.reports.page import Picture, Sheet, render


@dataclass(frozen=True)
class Section:
    """Pictures and tables under one heading."""

    title: str
    pictures: Sequence[Picture] = ()
    tables: Sequence[Sheet] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to measure, as with the accuracy of a single class: its pictures say no more."""
        return not any(one.rows for one in self.tables) if self.tables else not self.pictures

    @property
    def anchor(self) -> str:
        """Its name in addresses."""
        return self.title.lower().replace(" ", "-")


@dataclass(frozen=True)
class RunReport:
    """What is shown of a run.

    Attributes:
        dataset: its name.
        variant: latent shape and interpolation.
        changed: the parameters that name the run's folder, with their values.
        metrics: all of them.
        sections: pictures and tables, in the order in which they are shown; empty ones are left out.
        parameters: the whole tree.
        about: further facts, as versions, each by its name.
        commands: what a reader types to make it again, one a line.
        files: where pictures, tables and metrics lie: folder → names.
        left_out: what is on disk, but was made from something else than what is now: name → reason.
    """

    dataset: str
    variant: str
    changed: Mapping[str, Any]
    metrics: Metrics
    sections: Sequence[Section]
    parameters: Mapping[str, Any]
    about: Mapping[str, str]
    commands: Sequence[str]
    files: Mapping[str, Sequence[str]]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def to_html(self) -> str:
        """The page, self-contained."""
        numbers = {name: value for name, value in self.metrics.items() if isinstance(value, int | float)}
        return render(
            "run.html",
            report=self,
            comparisons=list(comparisons(self.metrics)),
            numbers=numbers,
            intervals=intervals_in_words(self.metrics),
            sections=[section for section in self.sections if not section.is_empty],
            blocks=_blocks(self.parameters),
        )


def _blocks(tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Parameters by block, flat inside of it; those of no block under an empty name, first."""
    single = {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    return {"": single} | {key: dict(flatten(value)) for key, value in tree.items() if isinstance(value, Mapping)}
