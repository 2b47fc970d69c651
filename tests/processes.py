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
        f"{PACKAGE}.settings",  # first: it says where the warnings of the others go
        *(
            ".".join((PACKAGE, *path.relative_to(SOURCE).with_suffix("").parts))
            for path in sorted(SOURCE.rglob("*.py"))
            if not path.stem.startswith("__")
        ),
        # What they import where it is used, since it takes seconds, and what Kedro's plugins import when it starts.
        "diffusers.models.unets.unet_2d",
        "diffusers.schedulers.scheduling_ddpm",
        "diffusers.schedulers.scheduling_dpmsolver_multistep",
        "distributed",
        "IPython",
        "kedro.framework.cli.cli",
        "kedro_mlflow.framework.cli.cli",
        "kedro_mlflow.framework.hooks.mlflow_hook",
        "kedro_telemetry.plugin",
        "kedro_viz.integrations.kedro.hooks",
        "kedro_viz.launchers.cli.main",
        "matplotlib.backends.backend_agg",
        "matplotlib.pyplot",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.tracking.request_header.registry",
        "pytest",
        "rich.live",
        "scipy.stats",
        "sqlalchemy.dialects.sqlite",
        "torch._dynamo",
        "torchvision.transforms.v2",
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
    _never_wait_for_the_disk()
    function(*arguments)


def _never_wait_for_the_disk() -> None:
    """What is written need not outlive the machine, as it has to elsewhere, only this process."""
    from sqlalchemy import Engine, event  # imported there already, and not needed in the tests' own process

    os.fsync = lambda file: None
    event.listen(Engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
