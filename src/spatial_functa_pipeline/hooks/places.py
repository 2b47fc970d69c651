"""What names a folder of outputs, written inside of it."""

import json
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog

from spatial_functa_pipeline.config_loader import ProjectConfigLoader

PARAMETERS_FILE = "parameters.json"


class PlaceHooks:
    """Writes `parameters.json` into each folder that changed parameters name: a long name is cut short."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the run's folders."""
        assert isinstance(context.config_loader, ProjectConfigLoader)
        self._places = context.config_loader.places

    @hook_impl
    def after_catalog_created(self, catalog: DataCatalog) -> None:
        """Keep the catalog, to find the files of what is saved."""
        self._catalog = catalog

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Write the file if it is not there yet."""
        path = getattr(self._catalog.get(dataset_name), "_filepath", None)
        if path is None or "://" in str(path):
            return
        for folder, parameters in self._places.folders.items():
            layer, inside, _ = str(path).partition(f"/{folder}/")
            file = Path(layer, folder, PARAMETERS_FILE)
            if inside and not file.exists():
                file.write_text(json.dumps(parameters, indent=2) + "\n")
