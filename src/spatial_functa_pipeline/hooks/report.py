"""`report.html`: after a run, a page of what is there of its variant."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from spatial_functa_pipeline.config_loader import ProjectConfigLoader
from spatial_functa_pipeline.hooks.summary import folders_of, options_of
from spatial_functa_pipeline.pipeline_registry import BASELINES, register_pipelines
from spatial_functa_pipeline.tracking import git_commit, log_report

if TYPE_CHECKING:  # they import torch and pandas, which take seconds
    from spatial_functa_pipeline.datasets.fingerprint import FingerprintMixin
    from spatial_functa_pipeline.reports.run import Section

REPORT = "report"
"""The page in the catalog; and what an entry's metadata have under this name is how the page shows it."""
_VERSIONS = ("spatial_functa_pipeline", "torch", "diffusers", "kedro", "zarr")


class ReportHooks:
    """After a run that has measured or drawn something: the page of all that is there and up to date, reused or new."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the parameters, and what names the run's folders."""
        assert isinstance(context.config_loader, ProjectConfigLoader)
        self._config = context.config_loader
        self._saved: set[str] = set()

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Keep what this run has made."""
        self._saved.add(dataset_name)

    @hook_impl(tryfirst=True)  # before MLflow's run ends
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Write the page, unless it shows all of it already."""
        shown = {name: dataset for name, dataset in reported(catalog).items() if dataset.exists()}
        if not shown.keys() & pipeline.all_outputs():
            return
        report = catalog.get(REPORT)
        report.made_from(shown)
        if self._saved & shown.keys() or not report.exists():
            report.save(self._page(run_params, catalog, shown))
        log_report(Path(report._filepath))

    def _page(self, run_params: dict[str, Any], catalog: DataCatalog, shown: Mapping[str, FingerprintMixin]) -> str:
        from spatial_functa_pipeline.datasets.reporting import MetricsDataset
        from spatial_functa_pipeline.evaluation.metrics import joined
        from spatial_functa_pipeline.reports.run import RunReport

        project = Path(run_params["project_path"])
        commit, places = git_commit(project), self._config.places
        stale = {name: dataset.staleness() for name, dataset in reported(catalog).items() if name not in shown}
        return RunReport(
            dataset=places.dataset,
            variant=places.variant,
            changed={change.key: change.value for change in places.changes},
            metrics=joined(*(one.load() for one in shown.values() if isinstance(one, MetricsDataset))),
            sections=_sections(shown),
            parameters=self._config["parameters"],
            about={
                "written": datetime.now().astimezone().isoformat(" ", "minutes"),
                "commit": commit.replace("+", ", with changes that are not committed"),
                "versions": ", ".join(
                    [f"Python {platform.python_version()}", *(f"{n} {version(n)}" for n in _VERSIONS)]
                ),
                "machine": platform.platform(),
                "made by earlier runs": ", ".join(name for name in shown if name not in self._saved) or "nothing",
            },
            commands=[*([f"git checkout {commit}"] if _is_whole(commit) else []), *_commands(run_params, shown)],
            files={str(folder): names for folder, names in folders_of(shown.values(), project).items()},
            left_out={name: "; ".join(reasons) for name, reasons in stale.items() if reasons},
        ).to_html()


def reported(catalog: DataCatalog) -> dict[str, FingerprintMixin]:
    """What the page may show, in the order of the catalog: metrics, and the entries whose metadata say how."""
    from spatial_functa_pipeline.datasets.reporting import FigureDataset, MetricsDataset, TableDataset

    entries = {name: catalog.get(name) for name in catalog}
    return {
        name: entry
        for name, entry in entries.items()
        if isinstance(entry, MetricsDataset)
        or (isinstance(entry, FigureDataset | TableDataset) and REPORT in (entry.metadata or {}))
    }


def _sections(shown: Mapping[str, Any]) -> list[Section]:
    """Pictures and tables by the section that their entry's metadata name."""
    from spatial_functa_pipeline.datasets.reporting import FigureDataset, TableDataset
    from spatial_functa_pipeline.reports.page import Picture, Sheet, in_words
    from spatial_functa_pipeline.reports.run import Section

    pictures: dict[str, list[Picture]] = {}
    tables: dict[str, list[Sheet]] = {}
    for name, entry in shown.items():
        how, title = (entry.metadata or {}).get(REPORT, {}), in_words(name).capitalize()
        if isinstance(entry, FigureDataset):
            picture = Picture(title, how["caption"], Path(entry._filepath).read_bytes())
            pictures.setdefault(how["section"], []).append(picture)
        elif isinstance(entry, TableDataset):
            tables.setdefault(how["section"], []).append(Sheet.of(title, how["caption"], entry.load()))
    titles = dict.fromkeys(
        entry.metadata[REPORT]["section"] for entry in shown.values() if REPORT in (entry.metadata or {})
    )
    return [Section(title, pictures.get(title, ()), tables.get(title, ())) for title in titles]


def _commands(run_params: dict[str, Any], shown: Mapping[str, Any]) -> list[str]:
    """What makes all that is shown: the flow, and each baseline of which something is."""
    pipelines, options = register_pipelines(), options_of(run_params)
    baselines = [name for name in BASELINES if shown.keys() & pipelines[name].all_outputs()]
    return [f"kedro run{options}", *(f"kedro run --pipeline={name}{options}" for name in baselines)]


def _is_whole(commit: str) -> bool:
    return len(commit) == 40
