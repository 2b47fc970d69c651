"""Fingerprints for every dataset, and what `--only-missing-outputs` makes again."""

import logging
import time
from operator import attrgetter
from typing import Any

import click
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from spatial_functa_pipeline.config.block import RESULT_NEUTRAL
from spatial_functa_pipeline.config.places import flatten
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.hooks.parameters import plain_value

logger = logging.getLogger(__name__)


def outdated_outputs(pipeline: Pipeline, catalog: DataCatalog) -> dict[str, str]:
    """The pipeline's persisted outputs that have to be made, in the order of its nodes, and why.

    `--only-missing-outputs` runs exactly the nodes that make them (and those without any output, which are listed too).
    """
    from spatial_functa_pipeline.datasets.fingerprint import FingerprintMixin

    found: dict[str, str] = {}
    for node in pipeline.nodes:
        if not node.outputs:
            found[node.name] = "has no output"
        for name in node.outputs:
            dataset = catalog.get(name)
            if dataset is None or getattr(dataset, "_EPHEMERAL", False) or dataset.exists():
                continue
            found[name] = dataset.outdated() if isinstance(dataset, FingerprintMixin) else "missing"
    return found


class FreshnessHooks:
    """Tells each dataset its expected fingerprint; removes checkpoints once their training's result is stored."""

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog, parameters: dict[str, Any]) -> None:
        """Follow the fingerprints from the raw images through all pipelines."""
        from spatial_functa_pipeline.datasets.image_folder import ImageFolderDataset

        with ImageFolderDataset.one_walk():
            self._follow_fingerprints(catalog, parameters)

    def _follow_fingerprints(self, catalog: DataCatalog, parameters: dict[str, Any]) -> None:
        from spatial_functa_pipeline.datasets.fingerprint import Fingerprint, FingerprintMixin
        from spatial_functa_pipeline.datasets.images import ImagesDataset
        from spatial_functa_pipeline.pipeline_registry import all_pipelines

        self.catalog = catalog
        self.unsaved: dict[str, set[str]] = {}
        # Kedro validates, and fills with defaults, only the parameters of the pipelines that were asked for.
        tree = PipelineParameters.model_validate(parameters["parameters"])
        made: dict[str, Fingerprint] = {}
        for node in all_pipelines().nodes:
            values: dict[str, Any] = {}
            for name in node.inputs:
                if name.startswith("params:") and name != "params:runtime":
                    key = name.removeprefix("params:")
                    flat = dict(flatten({key: plain_value(attrgetter(key)(tree))}))
                    values |= {key: value for key, value in flat.items() if key.split(".")[-1] not in RESULT_NEUTRAL}
                elif isinstance(dataset := catalog.get(name), ImagesDataset):
                    made[name] = Fingerprint(name, dict(flatten({name: dataset.fingerprint_config()})))
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
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """With `--only-missing-outputs`: say what will be made, and why. Without: refuse to replace functasets unasked."""
        from spatial_functa_pipeline.datasets.functaset import FunctasetDataset

        functasets = {
            name: dataset
            for name in pipeline.all_outputs()
            if isinstance(dataset := catalog.get(name), FunctasetDataset)
        }
        only_missing = bool(run_params.get("only_missing_outputs"))
        runtime = RuntimeConfig.model_validate(catalog.load("params:runtime"))
        for dataset in functasets.values():
            dataset.replace_stale = only_missing or runtime.replace_stale
        if not only_missing:
            stale = {name: dataset.staleness() for name, dataset in functasets.items() if not dataset.replace_stale}
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
    def before_node_run(self, node: Node, catalog: DataCatalog) -> None:
        """From now on it takes time to make its outputs: their records say how much."""
        from spatial_functa_pipeline.datasets.fingerprint import FingerprintMixin

        begun = time.monotonic()
        for dataset in map(catalog.get, node.outputs):
            if isinstance(dataset, FingerprintMixin):
                dataset.begun = begun

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """A checkpoint lives until all outputs of its node are on disk."""
        from spatial_functa_pipeline.datasets.weights import CheckpointDataset

        unsaved = self.unsaved.setdefault(node.name, set(node.outputs))
        unsaved.discard(dataset_name)
        for name in node.inputs if not unsaved else ():
            if isinstance(dataset := self.catalog.get(name), CheckpointDataset):
                dataset.load().delete()
