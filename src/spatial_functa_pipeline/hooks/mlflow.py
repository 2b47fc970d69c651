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

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.framework.project import settings
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro_mlflow.framework.hooks.mlflow_hook import MlflowHook
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

from spatial_functa_pipeline.config_loader import ProjectConfigLoader
from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.hooks.freshness import outdated_outputs
from spatial_functa_pipeline.hooks.one_writer import locked
from spatial_functa_pipeline.hooks.parameters import plain_value
from spatial_functa_pipeline.pipeline_registry import all_pipelines
from spatial_functa_pipeline.tracking import (
    RESULTS,
    end_abandoned_runs,
    git_commit,
    log_data_set,
    log_model,
    metric_key,
    prepare_experiment,
    tags_of_the_study,
)


class MlflowHooks(MlflowHook):
    """kedro-mlflow, with typed parameters logged flat, tags for the variant, and metrics and figures logged as saved."""

    def __init__(self) -> None:
        super().__init__()
        self._undo: list[Callable[[], Any]] = []
        self._unlogged: dict[str, Any] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Open the store, and keep what the run's outputs are named by.

        A new store makes its tables, and the experiment, here: two first runs at once would get into each other's way.
        """
        with locked(Path(context.project_path), "mlflow"):
            super().after_context_created(context)
        assert isinstance(context.config_loader, ProjectConfigLoader)
        self._places = context.config_loader.places

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        """Keep the catalog, to find the files of what is saved."""
        self.catalog = catalog
        self._saved: set[str] = set()
        self._data_sets: set[str] = set()
        self._parameters: set[str] = set()

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Start the run, unless there is nothing to do, and tag it with what a user compares runs by."""
        if run_params.get("only_missing_outputs") and not outdated_outputs(pipeline, catalog):
            self._is_mlflow_enabled = False
            return
        super().before_pipeline_run(run_params=run_params, pipeline=pipeline, catalog=catalog)
        import mlflow

        run = mlflow.active_run()
        if run is None:
            return
        end_abandoned_runs(run.info.experiment_id)
        prepare_experiment(run.info.experiment_id)
        self._end_with_the_process()
        tags = {
            name: catalog.load(f"params:{name}") for name in ("dataset", "latent_shape", "interpolation", "encoder")
        }
        chosen = (run_params.get(what) for what in ("pipeline_names", "tags", "node_names", "from_nodes"))
        what = "+".join(next(filter(None, chosen), ["all"]))
        mlflow.set_tags(
            {
                **tags,
                "variant": self._places.name,
                **{f"changed.{change.key}": change.value for change in self._places.changes},
                "environment": run_params.get("env") or settings.CONFIG_LOADER_ARGS["default_run_env"],
                "git_commit": git_commit(Path(run_params["project_path"])),
                "process": f"{socket.gethostname()}:{os.getpid()}",
                "mlflow.runName": f"{self._places.name} {what}",
                **tags_of_the_study(),
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
    def after_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Log the metrics of what the run has reused, so that its row has no holes; end it as finished."""
        import mlflow

        if mlflow.active_run() is not None:
            self._log_reused()
        super().after_pipeline_run(run_params=run_params, pipeline=pipeline, catalog=catalog)
        self._leave_the_process()

    @hook_impl
    def on_pipeline_error(
        self, error: Exception, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog
    ) -> None:
        """End the run as failed."""
        super().on_pipeline_error(error=error, run_params=run_params, pipeline=pipeline, catalog=catalog)
        self._leave_the_process()

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog, inputs: dict[str, Any], is_async: bool) -> None:
        """Log the data sets that the node reads, and its parameters, pydantic models as plain dictionaries."""
        import mlflow

        self._log_data_sets(inputs)
        inputs = {name: plain_value(value) for name, value in inputs.items()}
        super().before_node_run(node=node, catalog=catalog, inputs=inputs, is_async=is_async)
        unlogged, self._unlogged = self._unlogged, {}
        if unlogged:
            mlflow.log_params(unlogged)

    def _log_param(self, name: str, value: Any) -> None:
        """Keep what this run has not logged yet for `before_node_run`, which logs it at once: each call writes to disk."""
        if name in self._parameters:
            return
        self._parameters.add(name)
        if len(str(value)) > MAX_PARAM_VAL_LENGTH:
            super()._log_param(name, value)  # as mlflow.yml says of long ones
        else:
            self._unlogged[name] = value

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        """Metrics as metrics; figures, metric files and tables (but for histories, which are curves) as artifacts."""
        import mlflow

        from spatial_functa_pipeline.datasets.reporting import (  # they import torch, which takes seconds
            FigureDataset,
            HistoryDataset,
            MetricsDataset,
            TableDataset,
        )

        if mlflow.active_run() is None:
            return
        self._saved.add(dataset_name)
        dataset = self.catalog.get(dataset_name)
        match dataset:
            case MetricsDataset():
                _log_metrics(data)
            case HistoryDataset():
                self._log_training(node)
        for kind, folder in ((FigureDataset, "figures"), (MetricsDataset, "metrics"), (TableDataset, "tables")):
            if type(dataset) is kind:
                mlflow.log_artifact(str(dataset._filepath), folder)

    def _log_data_sets(self, inputs: dict[str, Any]) -> None:
        """Images and functasets that this run reads and has not made itself, each once."""
        import mlflow

        from spatial_functa_pipeline.functasets.store import Functaset
        from spatial_functa_pipeline.images.digest import describe_images
        from spatial_functa_pipeline.images.images import Images

        for name, data in inputs.items():
            if not isinstance(data, Images | Functaset) or name in self._saved | self._data_sets:
                continue
            self._data_sets.add(name)
            if mlflow.active_run() is None:
                return
            fingerprint = describe_images(data)["digest"] if isinstance(data, Images) else data.header.fingerprint
            source = str(getattr(self.catalog.get(name), "_filepath", name))
            digest = short_digest([fingerprint.encode()])  # MLflow takes 36 characters at most
            log_data_set(f"{self._places.dataset}/{name}", digest, len(data), source, _context(name))

    def _log_training(self, node: Node, *, reused: bool = False) -> None:
        """Size, duration and model of the training that is `node`; its weights are saved before its history."""
        import mlflow

        from spatial_functa_pipeline.datasets.reporting import HistoryDataset
        from spatial_functa_pipeline.datasets.weights import WeightsDataset

        outputs = {name: self.catalog.get(name) for name in node.outputs}
        weights = {name: dataset for name, dataset in outputs.items() if isinstance(dataset, WeightsDataset)}
        histories = [dataset for dataset in outputs.values() if isinstance(dataset, HistoryDataset)]
        for (name, dataset), history in zip(weights.items(), histories, strict=True):
            table = history.load()
            if len(table) and dataset.exists():  # there is nothing to train for Inception's features
                mlflow.log_metric(metric_key(name, "seconds"), table["seconds"].iloc[-1])
                if (parameters := dataset.read_config().get("parameters")) is not None:  # older files do not say
                    mlflow.log_metric(metric_key(name, "parameters"), parameters)
                log_model(name, dataset._filepath, dataset.content_digest(), parameters, reused=reused)

    def _log_reused(self) -> None:
        """Metrics that other runs have made, as they are on disk, with the tag `reused` to tell them."""
        import mlflow

        from spatial_functa_pipeline.datasets.reporting import HistoryDataset, MetricsDataset

        reused = []
        for node in all_pipelines().nodes:
            outputs = {name: self.catalog.get(name) for name in node.outputs if name not in self._saved}
            measured = [
                name for name, dataset in outputs.items() if isinstance(dataset, MetricsDataset | HistoryDataset)
            ]
            for name in filter(self.catalog.exists, measured):
                reused.append(name)
                if isinstance(outputs[name], MetricsDataset):
                    _log_metrics(self.catalog.load(name))
                else:
                    self._log_training(node, reused=True)
        if reused:
            mlflow.set_tag("reused", ", ".join(reused))


def _log_metrics(metrics: dict[str, Any]) -> None:
    import mlflow

    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    mlflow.log_metrics({metric_key(RESULTS, name): value for name, value in numbers.items()})


def _context(name: str) -> str:
    """What a data set is used for, in MLflow's words, by its name in the catalog."""
    split = name.partition("_")[0]
    return {"train": "training"}.get(split, split)
