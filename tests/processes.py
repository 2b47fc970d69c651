"""Processes that tests start, and may kill.

They are forked from one that has imported what `kedro` and trainings import, which spares each the seconds that this takes.
"""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

PACKAGE = "spatial_functa_pipeline"
SOURCE = Path(__file__).parents[1] / "src" / PACKAGE

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        f"{PACKAGE}.settings",
        *(f"{PACKAGE}.pipelines.{path.parent.name}.pipeline" for path in SOURCE.glob("pipelines/*/pipeline.py")),
        *(f"{PACKAGE}.datasets.{path.stem}" for path in SOURCE.glob("datasets/*.py")),
        "kedro.framework.cli.cli",
        "kedro_mlflow.framework.cli.cli",
        "kedro_viz.launchers.cli.main",
        "matplotlib.pyplot",
        "mlflow.store.tracking.sqlalchemy_store",
        "pytest",
        "rich.table",
        "torch._dynamo",
    ]
)


def start(function: Callable[..., Any], *arguments: Any, output: str | Path = os.devnull) -> ForkServerProcess:
    """`function(*arguments)` in a process of its own, which prints into the file `output`."""
    process = _SERVER.Process(target=_printing, args=(str(output), function, arguments))
    process.start()
    return process


def _printing(output: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    function(*arguments)
