"""Parameters checked at the start, and what the paper leaves open of them."""

import json
import logging
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError
from pydantic import BaseModel, ValidationError

from spatial_functa_pipeline.config.presets import NoPresetError
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.config_loader import ProjectConfigLoader
from spatial_functa_pipeline.fields.latent_shape import LatentShape

logger = logging.getLogger(__name__)


def plain_value(value: Any) -> Any:
    """A parameter as numbers, strings, lists and dicts: what was a pydantic model becomes a dict."""
    if isinstance(value, LatentShape):
        return str(value)
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def problem_lines(error: ValidationError, whole: str = "parameters") -> list[str]:
    """A line for each wrong value: where it stands (`whole` is the place of all), what is wrong, and what it is."""
    lines = []
    for problem in error.errors():
        place = ".".join(map(str, problem["loc"])) or whole
        value = f" (got {problem['input']!r})" if not isinstance(problem["input"], dict) else ""
        lines.append(f"{place}: {problem['msg'].removeprefix('Value error, ')}{value}")
    return lines


def settings_by_block(flat: Mapping[str, Any]) -> list[str]:
    """A line for each block of parameters, as `diffusion.unet: head_dim=64`, of dotted keys and their values."""

    def block(key: str) -> str:
        return key.rpartition(".")[0]

    return [
        f"{name or 'of all'}: " + ", ".join(f"{key.rpartition('.')[2]}={json.dumps(flat[key])}" for key in keys)
        for name, keys in groupby(sorted(flat, key=lambda key: (block(key), key)), key=block)
    ]


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
        except NoPresetError as error:
            raise click.ClickException(f"Nothing was run: {error}") from error
        except InterpolationResolutionError as error:
            raise click.ClickException(f"Nothing was run, since a parameter refers to nothing: {error}") from error
        except ValidationError as error:
            lines = "".join(f"\n  {line}" for line in problem_lines(error))
            raise click.ClickException(f"Nothing was run, since parameters are wrong:{lines}") from error


class LeftOpenHooks:
    """Lists what the paper leaves open, before a check that stops the run: whoever prepares one can read it at once."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep what reads the parameters."""
        self._config_loader = context.config_loader

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self) -> None:
        """With `recipe=as_printed`: say what the paper does not print, and what is taken for it."""
        loader = self._config_loader
        if isinstance(loader, ProjectConfigLoader) and loader.tree.recipe == "as_printed":
            given = [str(change) for change in loader.places.changes if change.key != "recipe"]
            lines = [*settings_by_block(loader.left_open), *([f"given: {', '.join(given)}"] if given else [])]
            logger.info(
                "The paper leaves these settings open; this run takes\n%s", "\n".join(f"  {line}" for line in lines)
            )
