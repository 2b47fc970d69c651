"""What names a folder of outputs, written inside of it."""

import json
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
    def before_node_run(self, node: Node, catalog: DataCatalog) -> None:
        """Write the file where it is not yet, before the node begins: a node that is interrupted leaves a checkpoint."""
        for name in (*node.inputs, *node.outputs):  # a checkpoint is an input
            path = str(getattr(catalog.get(name), "_filepath", ""))
            if "://" not in path:
                self._describe_folder_of(path)

    def _describe_folder_of(self, path: str) -> None:
        for folder, parameters in self._places.folders.items():
            layer, inside, _ = path.partition(f"/{folder}/")
            file = Path(layer, folder, PARAMETERS_FILE)
            if inside and not file.exists():
                with replace_durably(file) as temporary:
                    temporary.write_text(json.dumps(parameters, indent=2) + "\n")
