"""`report.html`: after a run, a page of what is there of its variant."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from kedro.framework.cli.utils import _split_params
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from spatial_functa_pipeline.config_loader import ProjectConfigLoader
from spatial_functa_pipeline.hooks.summary import folders_of, options_of
from spatial_functa_pipeline.tracking import git_commit, log_report

if TYPE_CHECKING:  # they import torch and pandas, which take seconds
    from spatial_functa_pipeline.reports.run import Section

REPORT = "report"
"""The page in the catalog; and what an entry's metadata have under this name is how the page shows it."""


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
        entries = reported(catalog, self._config["catalog"])  # whose order the sections have
        shown = {name: dataset for name, dataset in entries.items() if dataset.exists()}
        if not shown.keys() & pipeline.all_outputs():
            return
        report: Any = catalog.get(REPORT)
        report.made_from(shown)
        if self._saved & shown.keys() or not report.exists():
            report.save(self._page(run_params, shown, {name: entries[name] for name in entries.keys() - shown.keys()}))
        log_report(Path(report._filepath))

    def _page(
        self,
        run_params: dict[str, Any],
        shown: Mapping[str, Any],
        others: Mapping[str, Any],
    ) -> str:
        from spatial_functa_pipeline.datasets.reporting import MetricsDataset
        from spatial_functa_pipeline.evaluation.metrics import joined
        from spatial_functa_pipeline.reports.page import checkout, facts
        from spatial_functa_pipeline.reports.run import RunReport

        project = Path(run_params["project_path"])
        commit, places = git_commit(project), self._config.places
        reused = [name for name in shown if name not in self._saved]
        stale = {name: others[name].staleness() for name in sorted(others)}
        return RunReport(
            dataset=places.dataset,
            variant=places.variant,
            changed={change.key: change.value for change in places.changes},
            metrics=joined(*(one.load() for one in shown.values() if isinstance(one, MetricsDataset))),
            sections=_sections(shown),
            parameters=self._config["parameters"],
            about={**facts(commit), "made by earlier runs": ", ".join(reused) or "nothing"},
            commands=[*checkout(commit), *_commands(run_params)],
            files={str(folder): names for folder, names in folders_of(shown.values(), project).items()},
            left_out={name: "; ".join(reasons) for name, reasons in stale.items() if reasons},
        ).to_html()


def reported(catalog: DataCatalog, names: Iterable[str]) -> dict[str, Any]:
    """Those of the entries that the page may show: metrics, and what has metadata that say how."""
    from spatial_functa_pipeline.datasets.reporting import FigureDataset, MetricsDataset, TableDataset

    entries = {name: catalog.get(name) for name in names}
    return {
        name: entry
        for name, entry in entries.items()
        if isinstance(entry, MetricsDataset)
        or (isinstance(entry, FigureDataset | TableDataset) and REPORT in (entry.metadata or {}))
    }


def _sections(shown: Mapping[str, Any]) -> list[Section]:
    """Pictures and tables by the section that their entry's metadata name."""
    from spatial_functa_pipeline.datasets.reporting import FigureDataset
    from spatial_functa_pipeline.reports.page import Picture, Sheet, in_words
    from spatial_functa_pipeline.reports.run import Section

    found: dict[str, tuple[list[Picture], list[Sheet]]] = {}
    for name, entry in shown.items():
        if how := (entry.metadata or {}).get(REPORT):
            title, caption = in_words(name).capitalize(), how["caption"]
            pictures, tables = found.setdefault(how["section"], ([], []))
            if isinstance(entry, FigureDataset):
                pictures.append(Picture(title, caption, Path(entry._filepath).read_bytes()))
            else:
                tables.append(Sheet.of(title, caption, entry.load()))
    return [Section(title, *parts) for title, parts in found.items()]


def _commands(run_params: Mapping[str, Any]) -> list[str]:
    """What makes all that is shown."""
    options, *file = _options(run_params)
    return [*file, f"kedro run{options}"]


def _options(run_params: Mapping[str, Any]) -> list[str]:
    """`--env` and `--params`; or, if a value is one that `--params` cannot say, `--config` and the lines that make its file."""
    options, given = options_of(run_params), run_params.get("runtime_params") or {}
    if not given or _as_kedro_reads(shlex.split(options)[-1]) == given:
        return [options]
    chosen = {"env": run_params.get("env"), "params": given}
    lines = yaml.safe_dump({"run": {name: value for name, value in chosen.items() if value}}).splitlines()
    return [" --config run.yml", "cat > run.yml << END", *lines, "END"]


def _as_kedro_reads(params: str) -> dict[str, Any] | None:
    """What `--params` makes of a text; None if it takes it for none."""
    try:
        return _split_params(click.Context(click.Command("run")), click.Option(["--params"]), params)
    except click.UsageError:
        return None
