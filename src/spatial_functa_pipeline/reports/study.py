"""The report of one study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spatial_functa_pipeline.config.study import StudyConfig
from spatial_functa_pipeline.reports.page import Picture, Sheet, number, render
from spatial_functa_pipeline.studies.progress import duration
from spatial_functa_pipeline.studies.runs import MeasuredRun
from spatial_functa_pipeline.studies.tables import measured_on, spread, table_cells, without_results

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StudyReport:
    """What is shown of a study.

    Attributes:
        study: what it asks.
        dataset: name of the data set.
        measured: what became of its runs.
        runs: the `runs_table` of them.
        results: the `results_table` of that.
        figure: of its results; None if it has none.
        pictures: key pictures by the variant's label, those that there are.
        links: from a run's name to its own report, relative to the page.
        about: further facts, as versions, each by its name.
        commands: what a reader types to make it again, one a line.
        definition: the study, as its file says it.
    """

    study: StudyConfig
    dataset: str
    measured: Sequence[MeasuredRun]
    runs: pd.DataFrame
    results: pd.DataFrame
    figure: Picture | None
    pictures: Mapping[str, Sequence[Picture]]
    links: Mapping[str, str]
    about: Mapping[str, str]
    commands: Sequence[str]
    definition: str

    def to_html(self) -> str:
        """The page, self-contained but for the links."""
        header, *rows = table_cells(self.study, self.results)
        numbers = len(self.study.measure) + 1
        numeric = (*[False] * (len(header) - numbers), *[True] * numbers)
        return render(
            "study.html",
            report=self,
            results=Sheet("Results", "", tuple(header), tuple(map(tuple, rows)), numeric),
            legend=[spread(self.study), *measured_on(self.study, self.runs)],
            failed=without_results(self.runs),
            variants=list(self._variants()),
        )

    def _variants(self) -> Iterator[dict[str, Any]]:
        """For each variant what the page has of it, by name."""
        first: dict[bytes, str] = {}
        for variant in self.study.all_variants:
            pictures = self.pictures.get(variant.label, ())
            new = [one for one in pictures if one.png not in first]
            yield {
                "label": variant.label,
                "parameters": variant.parameters,
                "pictures": new,
                "shared": {one.name: first[one.png] for one in pictures if one.png in first},
                "runs": [self._run(one) for one in self.measured if one.run.variant.label == variant.label],
            }
            first |= {one.png: variant.label for one in new}

    def _run(self, one: MeasuredRun) -> dict[str, Any]:
        return {
            "seed": one.run.seed,
            "state": one.state,
            "numbers": [number(one.metrics.get(metric)) for metric in self.study.measure],
            "time": "" if one.seconds is None else duration(one.seconds),
            "link": self.links.get(one.run.name),
        }
