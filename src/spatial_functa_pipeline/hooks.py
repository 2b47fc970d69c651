"""Kedro hooks: parameters checked at the start, fingerprints, MLflow, and the summary at the end."""

import atexit
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import FrameType
from typing import Any

import click
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError
from pydantic import BaseModel, ValidationError

from .config import RESULT_NEUTRAL, PipelineParameters, RuntimeConfig

logger = logging.getLogger(__name__)


def plain(value: Any) -> Any:
    """A parameter as numbers, strings, lists and dicts: what was a pydantic model becomes a dict."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def flatten(value: Any, name: str) -> dict[str, Any]:
    """`{"a": {"b": 1}}` named `p` → `{"p.a.b": 1}`."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: leaf for part, sub in value.items() for key, leaf in flatten(sub, f"{name}.{part}").items()}


class ParameterHooks:
    """Checks the whole tree of parameters, also across its blocks, before anything else happens."""

    @hook_impl(tryfirst=True)
    def after_context_created(self, context: KedroContext) -> None:
        """Make `${project_path:…}` known to the configuration; check the parameters.

        Raises click.ClickException, which the command line shows without a traceback, with one line for each wrong parameter.
        """
        OmegaConf.register_new_resolver(
            "project_path", lambda path: str(Path(context.project_path) / path), replace=True
        )
        try:
            PipelineParameters.model_validate(context.config_loader["parameters"])
        except InterpolationResolutionError as error:
            raise click.ClickException(f"Nothing was run, since a parameter refers to nothing: {error}") from error
        except ValidationError as error:
            lines = []
            for problem in error.errors():
                place = ".".join(map(str, problem["loc"])) or "parameters"
                value = f" (got {problem['input']!r})" if not isinstance(problem["input"], dict) else ""
                lines.append(f"  {place}: {problem['msg'].removeprefix('Value error, ')}{value}")
            raise click.ClickException("Nothing was run, since parameters are wrong:\n" + "\n".join(lines)) from error


def outdated_outputs(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, str]:
    """The pipeline's persisted outputs that have to be made, in the order of its nodes, and why.

    `--only-missing-outputs` runs exactly the nodes that make them (and those without any output, which are listed too).
    """
    found: dict[str, str] = {}
    for node in pipeline.nodes:
        if not node.outputs:
            found[node.name] = "has no output"
        for name in node.outputs:
            dataset = catalog.get(name)
            if dataset is None or getattr(dataset, "_EPHEMERAL", False) or dataset.exists():
                continue
            found[name] = dataset.outdated() if hasattr(dataset, "outdated") else "missing"
    return found


class FreshnessHooks:
    """Tells each dataset its expected fingerprint; removes checkpoints once their training's result is stored."""

    @hook_impl
    def after_catalog_created(self, catalog: CatalogProtocol, parameters: dict[str, Any]) -> None:
        """Follow the fingerprints from the raw images through all pipelines."""
        from .datasets.fingerprint import Fingerprint, FingerprintMixin
        from .pipeline_registry import register_pipelines

        self.catalog = catalog
        self.unsaved: dict[str, set[str]] = {}
        # Kedro validates, and fills with defaults, only the parameters of the pipelines that were asked for.
        tree = PipelineParameters.model_validate(parameters["parameters"])
        made: dict[str, Fingerprint] = {}
        for node in register_pipelines()["__default__"].nodes:
            values: dict[str, Any] = {}
            for name in node.inputs:
                if name.startswith("params:") and name != "params:runtime":
                    key = name.removeprefix("params:")
                    flat = flatten(plain(attrgetter(key)(tree)), key)
                    values |= {key: value for key, value in flat.items() if key.split(".")[-1] not in RESULT_NEUTRAL}
                elif hasattr(dataset := catalog.get(name), "fingerprint_config"):
                    made[name] = Fingerprint(name, flatten(dataset.fingerprint_config(), name))
            inputs = {name: made[name] for name in node.inputs if name in made}
            upstream: dict[str, Any] = {}
            for before in inputs.values():
                upstream |= before.upstream | before.parameters
            fingerprint = Fingerprint(node.name, values, {name: inputs[name].digest for name in inputs}, upstream)
            sources = {name: dataset for name in inputs if isinstance(dataset := catalog.get(name), FingerprintMixin)}
            for name in node.outputs:
                made[name] = fingerprint
                if isinstance(dataset := catalog.get(name), FingerprintMixin):
                    dataset.expected, dataset.sources = fingerprint, sources

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """With `--only-missing-outputs`: say what will be made, and why. Without: refuse to replace functasets unasked."""
        from .datasets.functaset import FunctasetDataset

        functasets = {
            name: dataset
            for name in pipeline.all_outputs()
            if isinstance(dataset := catalog.get(name), FunctasetDataset)
        }
        for dataset in functasets.values():
            dataset.replace_stale = bool(run_params.get("only_missing_outputs"))
        if not run_params.get("only_missing_outputs"):
            runtime = RuntimeConfig.model_validate(catalog.load("params:runtime"))
            stale = {name: dataset.staleness() for name, dataset in functasets.items() if not runtime.replace_stale}
            if lines := [f"  {name}: {'; '.join(reasons)}" for name, reasons in stale.items() if reasons]:
                raise click.ClickException(
                    "Nothing was run, since it would replace what other parameters or files have made:\n"
                    + "\n".join(lines)
                    + "\nTo replace it, add --only-missing-outputs, or --params runtime.replace_stale=true"
                )
            return
        outdated = outdated_outputs(pipeline, catalog)
        for name, reason in outdated.items():
            logger.info("To be made: %s (%s)", name, reason)
        if not outdated:
            logger.info("Nothing to do: everything is up to date")

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """A checkpoint lives until all outputs of its node are on disk."""
        from .training.checkpoint import Checkpoint

        unsaved = self.unsaved.setdefault(node.name, set(node.outputs))
        unsaved.discard(dataset_name)
        for name in node.inputs if not unsaved else ():
            if name.endswith("_checkpoint"):
                checkpoint: Checkpoint = self.catalog.load(name)
                checkpoint.delete()


class MlflowHooks(MlflowHook):
    """kedro-mlflow, with typed parameters logged flat, tags for the variant, and metrics and figures logged as saved."""

    def __init__(self) -> None:
        super().__init__()
        self._undo: list[Callable[[], Any]] = []

    @hook_impl
    def after_catalog_created(self, catalog: CatalogProtocol) -> None:
        """Keep the catalog, to find the files of what is saved."""
        self.catalog = catalog

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Start the run, unless there is nothing to do, and tag it with what a user compares runs by."""
        if run_params.get("only_missing_outputs") and not outdated_outputs(pipeline, catalog):
            self._is_mlflow_enabled = False
            return
        super().before_pipeline_run(run_params=run_params, pipeline=pipeline, catalog=catalog)
        import mlflow

        if mlflow.active_run() is None:
            return
        end_abandoned_runs(mlflow.active_run().info.experiment_id)
        self._end_with_the_process()
        tags = {name: catalog.load(f"params:{name}") for name in ("dataset", "latent_shape", "interpolation")}
        what = "+".join(run_params.get("pipeline_names") or ["all"])
        mlflow.set_tags(
            {
                **tags,
                "environment": run_params.get("env") or "base",
                "git_commit": _git_commit(Path(run_params["project_path"])),
                "process": f"{socket.gethostname()}:{os.getpid()}",
                "mlflow.runName": f"{tags['dataset']} {tags['latent_shape']}-{tags['interpolation']} {what}",
            }
        )

    def _end_with_the_process(self) -> None:
        """From now on, Ctrl-C and SIGTERM end the MLflow run as killed: Kedro calls no hook on either.

        Without it MLflow would end the run as finished on Ctrl-C, and SIGTERM would leave it running for ever. Does nothing
        on SIGTERM where somebody handles it already, or outside the main thread.
        """
        import mlflow

        from .training.interruption import stop_process

        process = os.getpid()

        def end_run() -> None:
            if os.getpid() == process and mlflow.active_run():
                mlflow.end_run("KILLED")

        def stop(number: int, frame: FrameType | None) -> None:
            if os.getpid() != process:  # a forked child, which inherits this handler: end it as it would have ended
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            stop_process(number)

        atexit.register(end_run)
        self._undo = [partial(atexit.unregister, end_run)]
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, stop)
            self._undo.append(partial(signal.signal, signal.SIGTERM, signal.SIG_DFL))

    def _leave_the_process(self) -> None:
        """The MLflow run is over: take back `_end_with_the_process`."""
        while self._undo:
            self._undo.pop()()

    @hook_impl
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """End the run as finished."""
        super().after_pipeline_run(run_params=run_params, pipeline=pipeline, catalog=catalog)
        self._leave_the_process()

    @hook_impl
    def on_pipeline_error(
        self, error: Exception, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol
    ) -> None:
        """End the run as failed."""
        super().on_pipeline_error(error=error, run_params=run_params, pipeline=pipeline, catalog=catalog)
        self._leave_the_process()

    @hook_impl
    def before_node_run(self, node: Node, catalog: CatalogProtocol, inputs: dict[str, Any], is_async: bool) -> None:
        """Log the node's parameters, pydantic models as plain dictionaries."""
        inputs = {name: plain(value) for name, value in inputs.items()}
        super().before_node_run(node=node, catalog=catalog, inputs=inputs, is_async=is_async)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Metrics as metrics; figures, metric files and tables (but for histories, which are curves) as artifacts."""
        import mlflow

        from .datasets.reporting import CSVDataset, JSONDataset, MatplotlibDataset

        if mlflow.active_run() is None:
            return
        dataset = self.catalog.get(dataset_name)
        if isinstance(dataset, JSONDataset) and dataset_name.endswith("_metrics"):
            mlflow.log_metrics({name: value for name, value in data.items() if isinstance(value, int | float)})
        for kind, folder in ((MatplotlibDataset, "figures"), (JSONDataset, "metrics"), (CSVDataset, "tables")):
            if isinstance(dataset, kind) and not dataset_name.endswith("_history"):
                mlflow.log_artifact(str(dataset._filepath), folder)


def end_abandoned_runs(experiment_id: str) -> None:
    """Mark as killed the runs of this machine whose process is gone: `kill -9` or a crash gave it no time to do so."""
    import mlflow

    client, host = mlflow.MlflowClient(), socket.gethostname()
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        where, _, process = run.data.tags.get("process", "").rpartition(":")
        if where == host and not _is_alive(int(process)):
            logger.warning(
                "The MLflow run %s was abandoned by process %s: it is marked as killed", run.info.run_id, process
            )
            client.set_terminated(run.info.run_id, "KILLED")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True


def _git_commit(project_path: Path) -> str:
    """The commit that is checked out, `+` appended if files differ from it, or `none` outside a git checkout."""
    try:
        import git
    except ImportError:  # GitPython raises it where there is no git
        return "unknown"
    try:
        repository = git.Repo(project_path, search_parent_directories=True)
        return repository.head.commit.hexsha + ("+" if repository.is_dirty() else "")
    except (git.InvalidGitRepositoryError, ValueError):  # ValueError: a repository without a commit
        return "none"
    except git.GitError:  # a checkout that git refuses to read, as another user's
        return "unknown"


class SummaryHooks:
    """After a run that ended in metrics: a table of them, where the pictures are, and what to try next."""

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol, run_params: dict[str, Any]) -> None:
        """Print the summary if this run made `metrics`."""
        if "metrics" not in pipeline.outputs():
            return
        from rich.console import Console
        from rich.table import Column, Table

        metrics = catalog.load("metrics")
        details = metrics.pop("details")
        memorisation = catalog.load("memorisation_metrics")
        title = " ".join(str(catalog.load(f"params:{name}")) for name in ("dataset", "latent_shape", "interpolation"))
        table = Table(Column("metric", no_wrap=True), "value", "measured on", title=title, title_justify="left")
        for name, value in metrics.items():
            if name.endswith(("_against_train", "_test_images")) or (name in memorisation and name != "near_copies"):
                continue  # in the file, beside what they are compared with
            table.add_row(name, f"{value:.4g}", details.get(name, ""))
        folder = Path(str(catalog.get("metrics")._filepath)).parent
        if folder.is_relative_to(run_params["project_path"]):
            folder = folder.relative_to(run_params["project_path"])
        env = f" --env {run_params['env']}" if run_params.get("env") else ""
        console = Console()
        console.print(table)
        console.print(f"Pictures, tables and metrics: [bold]{folder}[/bold]", soft_wrap=True)
        console.print("Next (in the environment: [bold]source .venv/bin/activate[/bold]):")
        for command, why in (
            ("kedro viz run", "the pipelines, with these figures in them"),
            ("kedro mlflow ui", "this run beside others"),
            (f"kedro run{env} --params latent_shape=4x4x32", "another latent shape, beside this one"),
        ):
            console.print(f"  [bold]{command:<48}[/bold] {why}", soft_wrap=True)
