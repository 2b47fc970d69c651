"""How Kedro reads `conf/`: rows of presets, defaults, and each output's folder named by what it depends on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, Self, cast

import yaml
from kedro.config import OmegaConfigLoader
from omegaconf import OmegaConf

from spatial_functa_pipeline.config.places import Places
from spatial_functa_pipeline.config.presets import NoPresetError, apply_presets, has_row, missing_row, printed_keys
from spatial_functa_pipeline.config.recipe import left_open
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.hooks.conf_files import require_sound_files

KEDROS_DEFAULT_ENV = "local"
"""What kedro-mlflow's commands take where no environment is named. Unless the project has it, they mean the default one."""


class ProjectConfigLoader(OmegaConfigLoader):
    """Reads the parameters as nodes see them: `presets` applied, and every key that has a default there.

    The catalog has `${place:<blocks>}` (see `Places.of`), and `${parameter:<key>}`, the value of a parameter.

    Raises pydantic.ValidationError for parameters that are wrong, and NoPresetError for a recipe, say, that the data set does
    not have; `ParameterHooks` reads them first, and says which.
    """

    def __init__(self, conf_source: str | Path, env: str | None = None, *arguments: Any, **options: Any) -> None:
        if env == KEDROS_DEFAULT_ENV and not Path(conf_source, env).is_dir():
            env = None
        try:
            super().__init__(conf_source, env, *arguments, **options)
        except yaml.YAMLError:  # of globals.yml, which Kedro reads at once: no hook comes before it
            require_sound_files(self)
            raise

    def __getitem__(self, key: str) -> dict[str, Any]:
        """The configuration of one kind, as `parameters` or `catalog`."""
        if key == "parameters":
            return self.tree.model_dump(mode="json")
        if key == "catalog":
            OmegaConf.register_new_resolver("place", self.places.of, replace=True)
            tree = self.tree
            OmegaConf.register_new_resolver(
                "parameter", lambda key: reduce(getattr, key.split("."), tree), replace=True
            )
        return super().__getitem__(key)

    @cached_property
    def tree(self) -> PipelineParameters:
        """The parameters as one object."""
        written = self._written_parameters()
        if missing := missing_row(self._files, written):
            raise NoPresetError(*missing, self._environments_with(*missing))
        return PipelineParameters.model_validate(written)

    @property
    def left_open(self) -> dict[str, Any]:
        """What this run takes for settings that the paper does not print, by key."""
        return left_open(self.tree, printed_keys(self._files, self.runtime_params))

    @cached_property
    def places(self) -> Places:
        """The folders of this run's outputs."""
        return Places.of_run(self._parameters_of, self.runtime_params or {})

    def _environments_with(self, key: str, value: str) -> list[str]:
        """Those whose own parameters have a row for this value."""
        found = []
        for file in sorted(Path(self.conf_source).glob("*/parameters.yml")):
            written = OmegaConf.to_container(OmegaConf.load(file))
            if isinstance(written, dict) and has_row(cast(dict[str, Any], written), key, value):
                found.append(file.parent.name)
        return found

    @cached_property
    def _files(self) -> dict[str, Any]:
        """What the files and the command line say, and the rows of `presets`. Reading them takes most of the time here."""
        return super().__getitem__("parameters")

    def _written_parameters(self) -> dict[str, Any]:
        """What the files and the command line say, with the rows of `presets` that match."""
        return apply_presets(self._files, self.runtime_params)

    def _parameters_of(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What they would say, were these parameters given on the command line."""
        return self.with_parameters(given)._written_parameters()

    def with_parameters(self, given: Mapping[str, Any]) -> Self:
        """One of the same files, with other parameters, nested, on the command line."""
        return type(self)(
            self.conf_source,
            self.env,
            dict(given),
            config_patterns=self.config_patterns,
            base_env=self.base_env,
            default_run_env=self.default_run_env,
            merge_strategy=self.merge_strategy,
        )
