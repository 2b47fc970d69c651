"""What a run that ended in metrics says at its end."""

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from spatial_functa_pipeline.config.places import flatten
from spatial_functa_pipeline.tracking import newest_runs_page


def options_of(run_params: Mapping[str, Any], **other: Any) -> str:
    """The `--env` and `--params` of a run, with other values for some parameters, to be added to a command."""
    env, given = run_params.get("env"), dict(flatten(run_params.get("runtime_params") or {})) | other
    params = ",".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in given.items())
    return "".join(
        f" {option} {shlex.quote(value)}" for option, value in (("--env", env), ("--params", params)) if value
    )


class SummaryHooks:
    """After a run that ended in metrics: a table of them, where the pictures are, and what to try next."""

    @hook_impl(trylast=True)
    def after_context_created(self, context: Any) -> None:
        """Keep where kedro-mlflow, whose hook has run before, serves MLflow's pages."""
        ui = context.mlflow.ui
        self._mlflow_address = f"{ui.host}:{ui.port}"

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog, run_params: dict[str, Any]) -> None:
        """Print the summary if this run made `metrics`."""
        if "metrics" not in pipeline.outputs():
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Column, Table

        metrics = catalog.load("metrics")
        details, intervals = metrics.pop("details"), metrics.pop("intervals", {})
        variant = metrics.pop("variant", "")
        memorisation = catalog.load("memorisation_metrics")
        table = Table(
            Column("metric", no_wrap=True), "value", "95 %", "measured on", title=variant, title_justify="left"
        )
        for name, value in metrics.items():
            if name in memorisation and name != "near_copies":
                continue  # in the file, beside what they are compared with
            if name.endswith("_to_train") and not name.startswith(("fid_", "frechet_distance_")):
                continue  # in the file; of the other scores those to the test images are shown
            low_high = "–".join(f"{bound:.3g}" for bound in intervals.get(name, ()))
            table.add_row(name, f"{value:.4g}", low_high, details.get(name, ""))
        console = Console()
        console.print(table)
        for folder, contents in report_folders(pipeline, catalog, Path(run_params["project_path"])).items():
            console.print(f"[bold]{folder}[/bold]: {', '.join(contents)}", soft_wrap=True)
        report: Any = catalog.get("report")
        console.print(f"[bold]report[/bold]: {Path(report._filepath).as_uri()}", soft_wrap=True)
        link = newest_runs_page()
        console.print("Next (in the environment: [bold]source .venv/bin/activate[/bold]):")
        for command, why in (
            (f"kedro viz run{options_of(run_params)}", "the pipelines, with these figures in them"),
            ("kedro mlflow ui", "this run beside others" + (f": http://{self._mlflow_address}/{link}" if link else "")),
            ("kedro variants", "what runs have left on disk"),
            (
                f"kedro run{options_of(run_params, seed=catalog.load('params:seed') + 1)}",
                "another seed, beside this one",
            ),
        ):
            console.print(f"  [bold]{escape(command):<48}[/bold] {why}", soft_wrap=True)


def report_folders(pipeline: Pipeline, catalog: DataCatalog, project: Path) -> dict[Path, list[str]]:
    """Where the run's pictures, tables and metrics are, the metrics of all first: folder → names of files.

    They lie in one folder, unless changed parameters name another for some of them.
    """
    from spatial_functa_pipeline.datasets.reporting import (
        FigureDataset,
        HistoryDataset,
        MetricsDataset,
        TableDataset,
    )

    names = sorted(pipeline.all_outputs(), key=lambda name: (name != "metrics", name))
    entries = map(catalog.get, names)
    return folders_of(
        (
            entry
            for entry in entries
            if isinstance(entry, FigureDataset | MetricsDataset | TableDataset)
            and not isinstance(entry, HistoryDataset)  # beside the weights
        ),
        project,
    )


def folders_of(entries: Iterable[Any], project: Path) -> dict[Path, list[str]]:
    """Where the files of these entries of the catalog are, below the project: folder → names of files."""
    folders: dict[Path, list[str]] = {}
    for entry in entries:
        file = Path(str(entry._filepath))
        folder = file.parent.relative_to(project) if file.is_relative_to(project) else file.parent
        folders.setdefault(folder, []).append(file.name)
    return folders
