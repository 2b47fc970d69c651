"""How Kedro reads `conf/`: rows of presets, defaults, and each output's folder named by what it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf

from spatial_functa_pipeline.config.places import Places
from spatial_functa_pipeline.config.presets import apply_presets
from spatial_functa_pipeline.config.tree import PipelineParameters

KEDROS_DEFAULT_ENV = "local"
"""What kedro-mlflow's commands take where no environment is named. Unless the project has it, they mean the default one."""


class ProjectConfigLoader(OmegaConfigLoader):
    """Reads the parameters as nodes see them: `presets` applied, and every key that has a default there.

    The catalog has `${place:<blocks>}`: see `Places.of`.

    Raises pydantic.ValidationError for parameters that are wrong; `ParameterHooks` reads them first, and says which.
    """

    def __init__(self, conf_source: str | Path, env: str | None = None, *arguments: Any, **options: Any) -> None:
        if env == KEDROS_DEFAULT_ENV and not Path(conf_source, env).is_dir():
            env = None
        super().__init__(conf_source, env, *arguments, **options)

    def __getitem__(self, key: str) -> dict[str, Any]:
        """The configuration of one kind, as `parameters` or `catalog`."""
        if key == "parameters":
            return PipelineParameters.model_validate(self._written_parameters()).model_dump(mode="json")
        if key == "catalog":
            OmegaConf.register_new_resolver("place", self.places.of, replace=True)
        return super().__getitem__(key)

    @cached_property
    def places(self) -> Places:
        """The folders of this run's outputs."""
        return Places.of_run(self._parameters_of, self.runtime_params or {})

    def _written_parameters(self) -> dict[str, Any]:
        """What the files and the command line say, with the rows of `presets` that match."""
        return apply_presets(super().__getitem__("parameters"), self.runtime_params)

    def _parameters_of(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What they would say, were these parameters given on the command line."""
        loader = type(self)(
            self.conf_source,
            self.env,
            dict(given),
            config_patterns=self.config_patterns,
            base_env=self.base_env,
            default_run_env=self.default_run_env,
            merge_strategy=self.merge_strategy,
        )
        return loader._written_parameters()
