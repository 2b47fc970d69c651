"""What names a folder of outputs, written inside of it."""

import json
from collections.abc import Iterable
from pathlib import Path

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline.node import Node

from spatial_functa_pipeline.config.places import PARAMETERS_FILE
from spatial_functa_pipeline.config_loader import ProjectConfigLoader
from spatial_functa_pipeline.files import replace_durably


class PlaceHooks:
    """Writes `parameters.json` into each folder that changed parameters name: a long name is cut short."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the run's folders."""
        assert isinstance(context.config_loader, ProjectConfigLoader)
        self._places = context.config_loader.places

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        """Keep the catalog, to find the files of what is made."""
        self._catalog = catalog

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        """For the folder of a training's checkpoint, which may be all that comes to be there."""
        from spatial_functa_pipeline.datasets.weights import CheckpointDataset  # it imports torch, which takes seconds

        self._write(name for name in node.inputs if isinstance(self._catalog.get(name), CheckpointDataset))

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """For the folder of an output."""
        self._write([dataset_name])

    def _write(self, names: Iterable[str]) -> None:
        for name in names:
            path = str(getattr(self._catalog.get(name), "_filepath", ""))
            for folder, parameters in self._places.folders.items():
                layer, inside, _ = path.partition(f"/{folder}/")
                file = Path(layer, folder, PARAMETERS_FILE)
                if inside and "://" not in path and not file.exists():
                    with replace_durably(file) as temporary:
                        temporary.write_text(json.dumps(parameters, indent=2) + "\n")
