"""Kedro hooks: parameters checked at the start, fingerprints, MLflow, and the summary at the end."""

import atexit
import logging
from operator import attrgetter
from pathlib import Path
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

from .config import RESULT_NEUTRAL, PipelineParameters

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
        digests: dict[str, str] = {}
        for node in register_pipelines()["__default__"].nodes:
            values: dict[str, Any] = {}
            for name in node.inputs:
                if name.startswith("params:") and name != "params:runtime":
                    key = name.removeprefix("params:")
                    flat = flatten(plain(attrgetter(key)(tree)), key)
                    values |= {key: value for key, value in flat.items() if key.split(".")[-1] not in RESULT_NEUTRAL}
                elif hasattr(dataset := catalog.get(name), "fingerprint_config"):
                    digests[name] = Fingerprint(name, flatten(dataset.fingerprint_config(), name)).digest
            inputs = {name: digests[name] for name in node.inputs if name in digests}
            fingerprint = Fingerprint(node.name, values, inputs)
            for name in node.outputs:
                digests[name] = fingerprint.digest
                if isinstance(dataset := catalog.get(name), FingerprintMixin):
                    dataset.expected = fingerprint

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

    @hook_impl
    def after_catalog_created(self, catalog: CatalogProtocol) -> None:
        """Keep the catalog, to find the files of what is saved."""
        self.catalog = catalog

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Start the run and tag it with what a user compares runs by."""
        super().before_pipeline_run(run_params=run_params, pipeline=pipeline, catalog=catalog)
        import mlflow

        if mlflow.active_run() is None:
            return
        # Kedro calls no hook on Ctrl-C; without this MLflow would end the run as finished.
        atexit.register(lambda: mlflow.active_run() and mlflow.end_run("KILLED"))
        tags = {name: catalog.load(f"params:{name}") for name in ("dataset", "latent_shape", "interpolation")}
        what = "+".join(run_params.get("pipeline_names") or ["all"])
        mlflow.set_tags(
            {
                **tags,
                "environment": run_params.get("env") or "base",
                "git_commit": _git_commit(Path(run_params["project_path"])),
                "mlflow.runName": f"{tags['dataset']} {tags['latent_shape']}-{tags['interpolation']} {what}",
            }
        )

    @hook_impl
    def before_node_run(self, node: Node, catalog: CatalogProtocol, inputs: dict[str, Any], is_async: bool) -> None:
        """Log the node's parameters, pydantic models as plain dictionaries."""
        inputs = {name: plain(value) for name, value in inputs.items()}
        super().before_node_run(node=node, catalog=catalog, inputs=inputs, is_async=is_async)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Metrics as metrics, figures and metric files as artifacts."""
        import mlflow

        from .datasets.reporting import JSONDataset, MatplotlibDataset

        if mlflow.active_run() is None:
            return
        dataset = self.catalog.get(dataset_name)
        if isinstance(dataset, JSONDataset) and dataset_name.endswith("_metrics"):
            mlflow.log_metrics({name: value for name, value in data.items() if isinstance(value, int | float)})
        if isinstance(dataset, MatplotlibDataset | JSONDataset):
            mlflow.log_artifact(
                str(dataset._filepath), "figures" if isinstance(dataset, MatplotlibDataset) else "metrics"
            )


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
        title = " ".join(str(catalog.load(f"params:{name}")) for name in ("dataset", "latent_shape", "interpolation"))
        table = Table(Column("metric", no_wrap=True), "value", "measured on", title=title, title_justify="left")
        for name, value in metrics.items():
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
