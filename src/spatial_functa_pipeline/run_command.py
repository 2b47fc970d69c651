"""`kedro run` of this project: Kedro's own, but an error that we know ends it as one message, not as a traceback."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from typing import Any

import click
from kedro.framework.cli import project
from kedro.io import DatasetError

from spatial_functa_pipeline.pipeline_registry import PIPELINES

PACKAGE = __name__.partition(".")[0]


def known_error(error: BaseException | None) -> BaseException | None:
    """What explains itself of an error and its causes; None if its place in the code is all that is known of it.

    That is an error of a class of this project, else the innermost of what one of its datasets says, or Kedro of the
    pipeline that was asked for or of an entry in the catalog.
    """
    known = None
    while error is not None:
        if type(error).__module__.partition(".")[0] == PACKAGE:
            return error
        if _explains_itself(error):
            known = error
        error = error.__cause__
    return known


def _explains_itself(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    place = str(frames[-1].f_globals.get("__name__", "")) if frames else ""
    if isinstance(error, DatasetError):
        of_an_entry = place.startswith("kedro.io") and frames[-1].f_code.co_name == "from_config"
        return place.startswith(PACKAGE) or of_an_entry
    return place.startswith("kedro.pipeline")


def _require_pipelines(names: Iterable[str | None]) -> None:
    """Raises click.ClickException if a name is no pipeline's."""
    known = [*PIPELINES, "__default__"]
    if unknown := [name for name in names if name and name not in known]:
        raise click.ClickException(
            f"Nothing was run: there is no pipeline {', '.join(unknown)}; there are: {', '.join(known)}"
        )


class ProjectCommand(click.Command):
    """A command whose output any terminal takes: one that knows only ASCII must not end it by a `×`."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Let the streams replace what they cannot encode, then go on as click does."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        return super().make_context(*arguments, **options)


class RunCommand(ProjectCommand):
    """`kedro run` with `--verbose`, which brings the traceback back."""

    def invoke(self, context: click.Context) -> Any:
        """Run. Raises click.ClickException, with the message alone, for an error that `known_error` knows."""
        verbose = context.params.pop("verbose")
        _require_pipelines([context.params.get("pipeline"), *(context.params.get("pipelines") or ())])
        try:
            return super().invoke(context)
        except click.ClickException:  # a message already
            raise
        except Exception as error:
            if verbose or (known := known_error(error)) is None:
                raise
            notes = [note for one in {known: None, error: None} for note in getattr(one, "__notes__", ())]
            raise click.ClickException("\n".join([str(known).strip(), *notes, "(--verbose shows where)"])) from error


run = RunCommand(
    "run",
    callback=project.run.callback,
    params=[
        *project.run.params,
        click.Option(["--verbose", "-v"], is_flag=True, help="Show the whole traceback of an error."),
    ],
    help=project.run.help,
)
