"""The report of a study, from what its runs have left in their places."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import yaml

from spatial_functa_pipeline.hooks.report import REPORT, reported
from spatial_functa_pipeline.reports.page import Picture, checkout, facts, in_words
from spatial_functa_pipeline.reports.study import StudyReport
from spatial_functa_pipeline.tracking import git_commit

if TYPE_CHECKING:
    import pandas as pd

    from spatial_functa_pipeline.studies.runs import MeasuredRun
    from spatial_functa_pipeline.study_plan import PlannedRun, StudyPlan


def study_page(
    plan: StudyPlan, measured: Sequence[MeasuredRun], runs: pd.DataFrame, results: pd.DataFrame, figure: Path | None
) -> str:
    """`report.html` of a study, to be written into its folder.

    Args:
        plan: the study, and its runs' catalogs.
        measured: what became of the runs.
        runs, results: its tables.
        figure: the file of its figure, if it has one.
    """
    commit = git_commit(plan.project)
    pages = {planned.run.name: Path(planned.place(REPORT)) for planned in plan.runs}
    return StudyReport(
        study=plan.study,
        dataset=plan.dataset,
        measured=measured,
        runs=runs,
        results=results,
        figure=None if figure is None else Picture("Results of the study", "", figure.read_bytes()),
        pictures=_pictures(plan),
        links={run: quote(os.path.relpath(page, plan.folder)) for run, page in pages.items() if page.exists()},
        about=facts(commit),
        commands=[*checkout(commit), plan.command],
        definition=yaml.safe_dump(plan.study.model_dump(mode="json"), sort_keys=False),
    ).to_html()


def _pictures(plan: StudyPlan) -> dict[str, list[Picture]]:
    """The key pictures of each variant that there are and are up to date, of its first seed that has some."""
    found: dict[str, list[Picture]] = {}
    for planned in plan.runs:
        if not found.get(planned.run.variant.label):
            found[planned.run.variant.label] = _key_pictures(planned)
    return found


def _key_pictures(planned: PlannedRun) -> list[Picture]:
    entries = reported(planned.catalog, sorted(planned.catalog))
    how = {name: (entry.metadata or {}).get(REPORT, {}) for name, entry in entries.items()}
    return [
        Picture(in_words(name).capitalize(), how[name]["caption"], Path(entry._filepath).read_bytes())
        for name, entry in entries.items()
        if how[name].get("key") and entry.exists()
    ]
