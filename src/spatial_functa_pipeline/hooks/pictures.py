"""Folders of pictures looked through, once, before the first node of a run reads them."""

import logging
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from spatial_functa_pipeline.config.runtime import RuntimeConfig

logger = logging.getLogger(__name__)

CHECKED_FILES = "data/02_intermediate/{dataset}/checked_files"
"""Below the project: remembers which files of a data set can be decoded."""


class PictureHooks:
    """Says what a folder has beside pictures, and stops the run if some of these cannot be decoded."""

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        """Keep where the project is, and what its nodes may read."""
        self._project = Path(run_params["project_path"])
        self._readers = {node.name: set(node.inputs) for node in pipeline.nodes}
        self._done = False

    @hook_impl
    def before_node_run(self, node: Node, catalog: DataCatalog) -> None:
        """All folders of the run, at the first node that reads from one: also those that only later nodes read.

        Raises BrokenImagesError. A node that is not run, being up to date, needs no pictures.
        """
        from spatial_functa_pipeline.datasets.images import ImageFolderDataset

        def folders(names: set[str]) -> list[ImageFolderDataset]:
            return [data for name in sorted(names) if isinstance(data := catalog.get(name), ImageFolderDataset)]

        if self._done or not folders(set(node.inputs)):
            return
        self._done = True
        runtime = RuntimeConfig.model_validate(catalog.load("params:runtime"))
        record = self._project / CHECKED_FILES.format(dataset=catalog.load("params:dataset"))
        # Several splits read one folder.
        distinct = {data.folder: data for data in folders(set().union(*self._readers.values()))}
        for data in distinct.values():
            data.look_through(record, runtime.num_workers, runtime.progress)
