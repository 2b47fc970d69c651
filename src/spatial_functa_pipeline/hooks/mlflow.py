"""One MLflow run for one `kedro run`."""

import atexit
import os
import signal
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.framework.project import settings
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook

from spatial_functa_pipeline.hooks.freshness import outdated_outputs
from spatial_functa_pipeline.hooks.parameters import plain
from spatial_functa_pipeline.tracking import _git_commit, end_abandoned_runs


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
                "environment": run_params.get("env") or settings.CONFIG_LOADER_ARGS["default_run_env"],
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

        from spatial_functa_pipeline.training.interruption import stop_process

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

        from spatial_functa_pipeline.datasets.reporting import CSVDataset, JSONDataset, MatplotlibDataset

        if mlflow.active_run() is None:
            return
        dataset = self.catalog.get(dataset_name)
        if isinstance(dataset, JSONDataset) and dataset_name.endswith("_metrics"):
            mlflow.log_metrics({name: value for name, value in data.items() if isinstance(value, int | float)})
        for kind, folder in ((MatplotlibDataset, "figures"), (JSONDataset, "metrics"), (CSVDataset, "tables")):
            if isinstance(dataset, kind) and not dataset_name.endswith("_history"):
                mlflow.log_artifact(str(dataset._filepath), folder)
