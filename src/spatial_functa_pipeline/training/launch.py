"""Several processes for one training: launched inside the node that asks for them, so that one run stays one run.

The launching process waits, relays Ctrl-C and SIGTERM, and hands back what the training returned. torch's elastic
launcher starts the others and ends them all when one of them dies.
"""

import io
import logging
import multiprocessing
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_int
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar, cast

import torch

from spatial_functa_pipeline.compute import DeviceError, resolve_device
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.training.interruption import stop_process
from spatial_functa_pipeline.training.launched import Outcome, Settings, left_error, work
from spatial_functa_pipeline.training.ranks import this_process
from spatial_functa_pipeline.training.run import TrainingRun

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_MEETING_SECONDS = 600
_SHUTDOWN_SECONDS = 10


class ProcessDiedError(RuntimeError):
    """One of the processes of a training failed or was killed."""


class MachinesDidNotMeetError(RuntimeError):
    """The machines of a training have waited for each other in vain."""


def several_processes(train: Callable[P, R]) -> Callable[P, R]:
    """Let `train`, a function of a module, be run by as many processes as its keyword argument `run` asks for.

    All of its arguments and its result must be picklable then. In each process `train` finds its own rank with
    `ranks.this_process`; what it returns must not depend on that, nor may the order of its collective operations.

    Raises:
        ProcessDiedError: a process failed or was killed; the checkpoint is kept. Its cause is the process's error, if that
            can be handed over.
        DeviceError: there are not that many devices.
        MachinesDidNotMeetError: they have waited for each other in vain.
        TrainingDivergedError, UnreadableImageError, KeyboardInterrupt, SystemExit: as `Training.train` does.
    """

    @wraps(train)
    def train_together(*args: P.args, **kwargs: P.kwargs) -> R:
        run = cast(TrainingRun, kwargs["run"])
        if run.runtime.ranks == 1 or this_process().count > 1:
            return train(*args, **kwargs)
        return _launch(train_together, run.runtime, args, kwargs)

    return train_together


def check_devices(runtime: RuntimeConfig) -> None:
    """Raises DeviceError if this machine lacks the device that is asked for, or one for each process of a training."""
    device = resolve_device(runtime.device)
    if runtime.ranks == 1:
        return
    if device.type == "cuda" and torch.cuda.device_count() < runtime.processes:
        raise DeviceError(
            f"processes is {runtime.processes}, but this machine has {torch.cuda.device_count()} GPUs: each process needs "
            "its own. Lower it, or set device to cpu"
        )
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"several processes cannot share {device.type}: set processes to 1, or device to cpu")


def _launch(train: Callable[..., R], runtime: RuntimeConfig, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
    """`train`, called in each process; its result is that of the first one on this machine."""
    check_devices(runtime)
    relayed = multiprocessing.get_context("spawn").RawValue(c_int, 0)
    with tempfile.TemporaryDirectory() as folder, _relaying(relayed), _without_traces_of_the_launcher():
        # In a file, not as arguments: these go through a pipe, and the next process starts when one has read them.
        task = Path(folder) / "task.pickle"
        with open(task, "wb") as file:
            pickle.dump((train, args, kwargs), file, protocol=pickle.HIGHEST_PROTOCOL)
        outcome = _outcome_of_all(task, train.__name__, runtime, relayed)
    if number := outcome.signal or relayed.value:
        stop_process(number)
    if outcome.error:
        raise outcome.error
    return torch.load(io.BytesIO(outcome.result), map_location="cpu", weights_only=False)


def _outcome_of_all(task: Path, name: str, runtime: RuntimeConfig, relayed: c_int) -> Outcome:
    """Start the processes, and wait for their end."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import elastic_launch

    settings = Settings.of_this_process()
    try:
        outcomes = elastic_launch(_launch_config(name, runtime, task.parent), work)(task, runtime, relayed, settings)
    except ChildFailedError as error:
        if relayed.value:  # Ctrl-C reached a process that was still starting, or could not save
            logger.warning("%s", _obituary(error, runtime))
            stop_process(relayed.value)
        rank, _ = error.get_first_failure()
        raise ProcessDiedError(_obituary(error, runtime)) from left_error(task.parent, rank)
    except RendezvousError as error:
        raise MachinesDidNotMeetError(
            f"the {runtime.machines} machines did not meet at {runtime.rendezvous} ({error}): check that each runs "
            "the same command, and that the port of that machine, which is one of them, can be reached"
        ) from error
    return outcomes[min(outcomes)]


def _launch_config(name: str, runtime: RuntimeConfig, folder: Path) -> Any:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    # Names resolve in their own ways in containers; a machine alone needs none.
    alone = runtime.rendezvous is None or runtime.rendezvous.startswith(("127.", "localhost:"))
    return LaunchConfig(
        min_nodes=runtime.machines,
        max_nodes=runtime.machines,
        nproc_per_node=runtime.processes,
        run_id=name,
        rdzv_backend="c10d",
        rdzv_endpoint=runtime.rendezvous or "127.0.0.1:0",
        rdzv_configs={"timeout": _MEETING_SECONDS},
        local_addr="127.0.0.1" if alone else None,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
        signals_to_handle="SIGQUIT",  # the others are relayed
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )


@contextmanager
def _relaying(relayed: c_int) -> Iterator[None]:
    """Ctrl-C and SIGTERM are passed on to the launched processes; a second one ends them, and this process, at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def relay(number: int, frame: FrameType | None) -> None:
        if relayed.value:
            stop_process(number)
        relayed.value = number

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
    previous = [signal.getsignal(number) for number in numbers]
    for number in numbers[:2]:
        signal.signal(number, relay)
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


@contextmanager
def _without_traces_of_the_launcher() -> Iterator[None]:
    """The launcher logs the stack of the process that died, and its own; `ProcessDiedError` says it once."""
    prefix = "torch.distributed.elastic"
    names = (f"{prefix}.multiprocessing.api", f"{prefix}.agent.server.api", "torch.multiprocessing.spawn")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _obituary(error: Any, runtime: RuntimeConfig) -> str:
    rank, failure = error.get_first_failure()
    words, stack = failure.message, "\n"
    if isinstance(words, dict):
        words, stack = words["message"], "\n" + words["extraInfo"]["py_callstack"]
    return (
        f"process {rank} of {runtime.ranks} (pid {failure.pid}) died: {words.rstrip('.')}. The others were ended. The last "
        f"checkpoint is kept: the same command goes on from it.{stack}"
    )
