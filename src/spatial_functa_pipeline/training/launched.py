"""What each of the processes does that `launch` starts."""

import io
import logging
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from ctypes import c_int
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist

from spatial_functa_pipeline.compute import resolve_device
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.training.guard import TrainingDivergedError, UnreadableImageError
from spatial_functa_pipeline.training.ranks import Ranks, set_this_process

_PACKAGE = __name__.partition(".")[0]
_PATIENCE = timedelta(hours=2)
"""How long a process waits for another one: rank 0 may compile, or validate on many images. A dead one ends it sooner."""
_LAST_WORDS_SECONDS = 3.0


@dataclass(frozen=True)
class Outcome:
    """What a launched process hands back: the training's result (of the first one of each machine), or why it ended."""

    result: bytes = b""
    signal: int = 0
    error: Exception | None = None


@dataclass(frozen=True)
class Settings:
    """Of the launching process, for the launched ones."""

    log_level: int
    start_method: str

    @classmethod
    def of_this_process(cls) -> Self:
        """To be called in the launching one."""
        return cls(logging.getLogger(_PACKAGE).getEffectiveLevel(), multiprocessing.get_start_method())


def work(task: Path, runtime: RuntimeConfig, relayed: c_int, settings: Settings) -> Outcome:
    """What each launched process does: the pickled call in the file `task`. Its error is left beside that: `left_error`."""
    try:
        return _work(task, runtime, relayed, settings)
    except Exception as error:
        with suppress(Exception):  # some errors cannot be pickled, or not be made again from that
            content = pickle.dumps(error)
            pickle.loads(content)
            _file_of_error(task.parent, int(os.environ["RANK"])).write_bytes(content)
        raise


def left_error(folder: Path, rank: int) -> Exception | None:
    """The error that ended the process `rank`, if it could leave one."""
    file = _file_of_error(folder, rank)
    return pickle.loads(file.read_bytes()) if file.exists() else None


def _file_of_error(folder: Path, rank: int) -> Path:
    return folder / f"error-{rank}.pickle"


def _work(task: Path, runtime: RuntimeConfig, relayed: c_int, settings: Settings) -> Outcome:
    # Nothing goes on if the launching process is killed.
    torch.multiprocessing._prctl_pr_set_pdeathsig(signal.SIGKILL)  # type: ignore[attr-defined]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes, but one relays it
    local_rank, device = int(os.environ["LOCAL_RANK"]), resolve_device(runtime.device)
    if device.type == "cuda":
        torch.cuda.set_device(local_rank)
    _set_up(runtime, settings)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    set_this_process(Ranks(dist.get_rank(), dist.get_world_size(), relayed))
    with open(task, "rb") as file:
        train, args, kwargs = pickle.load(file)
    try:
        outcome = _outcome(train, args, kwargs, keep=local_rank == 0)
    except (RuntimeError, dist.DistError) as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            # Most likely another process died. Let the launcher, which looks for the first dead one, find that.
            time.sleep(_LAST_WORDS_SECONDS)
        raise
    dist.destroy_process_group()
    return outcome


def _set_up(runtime: RuntimeConfig, settings: Settings) -> None:
    """Log, workers, threads and compilation, in a process that is one of several on this machine."""
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    # What all processes say, one says.
    logging.getLogger(_PACKAGE).setLevel(settings.log_level if int(os.environ["RANK"]) == 0 else logging.WARNING)
    multiprocessing.set_start_method(settings.start_method, force=True)  # of the workers that decode images
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // runtime.processes))
    if runtime.compile != "off":
        # A compiled loss is one whole graph; splitting it where gradients are exchanged would break it.
        from torch._dynamo import config as compilation

        compilation.optimize_ddp = False


def _outcome(train: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], keep: bool) -> Outcome:
    """The end of the training that all processes reach together. Any other is an error of this one."""
    try:
        result = train(*args, **kwargs)
    except KeyboardInterrupt:
        return Outcome(signal=signal.SIGINT)
    except SystemExit as stop:
        if isinstance(stop.code, int):
            return Outcome(signal=stop.code - 128)
        raise  # not of `stop_process`
    except (TrainingDivergedError, UnreadableImageError) as error:
        return Outcome(error=error)
    buffer = io.BytesIO()
    if keep:
        torch.save(result, buffer)
    return Outcome(result=buffer.getvalue())
