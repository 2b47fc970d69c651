"""Parameters checked at the start."""

from pathlib import Path
from typing import Any

import click
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError
from pydantic import BaseModel, ValidationError

from spatial_functa_pipeline.config.tree import PipelineParameters


def plain_value(value: Any) -> Any:
    """A parameter as numbers, strings, lists and dicts: what was a pydantic model becomes a dict."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


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
