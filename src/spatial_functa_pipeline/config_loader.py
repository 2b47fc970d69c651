"""How Kedro reads `conf/`: each output's folder is named by what it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf

from spatial_functa_pipeline.config.places import Places


class ProjectConfigLoader(OmegaConfigLoader):
    """Kedro's loader, with `${place:<blocks>}` in the catalog: see `Places.of`."""

    def __getitem__(self, key: str) -> dict[str, Any]:
        """The configuration of one kind, as `parameters` or `catalog`."""
        if key == "catalog":
            OmegaConf.register_new_resolver("place", self.places.of, replace=True)
        return super().__getitem__(key)

    @cached_property
    def places(self) -> Places:
        """The folders of this run's outputs."""
        return Places.of_run(self._parameters, self.runtime_params or {})

    def _parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, were these given on the command line."""
        loader = type(self)(
            self.conf_source,
            self.env,
            dict(given),
            config_patterns=self.config_patterns,
            base_env=self.base_env,
            default_run_env=self.default_run_env,
            merge_strategy=self.merge_strategy,
        )
        return loader["parameters"]
