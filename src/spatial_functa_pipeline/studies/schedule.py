"""Runs side by side: each as a process of its own, an output that several need made by one of them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

TRY_AGAIN = 75
"""Exit code of a process that found what it was about to make made by somebody else: started again, it goes on."""
_POLL = 0.2
_LOOK_AGAIN = 5.0
"""Seconds between two looks at what the waiting ones have to wait for."""
_PATIENCE = 120.0
"""Seconds that a process has to save what it needs to go on later."""
_TAIL_BYTES = 8192


class Work(Protocol):
    """What can be made by a process."""

    @property
    def name(self) -> str:
        """Tells it from others."""

    @property
    def log(self) -> Path:
        """The file that its process prints into."""

    def to_make(self) -> frozenset[str]:
        """What is missing of it now, in names that all works share. Empty once it is done."""

    def command(self) -> Sequence[str]:
        """What makes that: arguments of Python."""

    def environment(self) -> Mapping[str, str]:
        """What its process has beside this one's environment."""


@dataclass
class State:
    """How far all works are.

    Attributes:
        waiting: not begun, in the order in which they will be.
        running: with their processes.
        done: whose process has ended with nothing left to make.
        failed: with their last lines.
    """

    waiting: list[Work]
    running: dict[Work, subprocess.Popen[bytes]] = field(default_factory=dict)
    done: list[Work] = field(default_factory=list)
    failed: dict[Work, str] = field(default_factory=dict)


def next_to_start(waiting: Iterable[Work], running: Collection[Work]) -> Work | None:
    """The first that needs nothing that a running one will make."""
    taken = frozenset[str]().union(*(work.to_make() for work in running))
    return next((work for work in waiting if not work.to_make() & taken), None)


def threads_each(cores: int, jobs: int) -> int:
    """How many of the cores each of `jobs` processes has."""
    return max(1, cores // jobs)


def usable_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a file that say something; a progress bar is the line that it shows at the end."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip("\r").rpartition("\r")[2].strip() for line in text.split("\n")]
    return [line for line in lines if line][-count:]


class SideBySide:
    """Makes works by processes, `jobs` of them at once.

    A work waits as long as a running one will make something that it needs. One that fails does not stop the others. However
    this ends, it leaves no process behind.
    """

    def __init__(self, works: Iterable[Work], jobs: int, cores: int, show: Callable[[State], None]) -> None:
        """`show` is called at every change and, meanwhile, several times a second."""
        self.state = State([*works])
        self._jobs, self._threads, self._show = jobs, threads_each(cores, jobs), show
        self._looked = -math.inf

    def run(self) -> State:
        """All of them, to the end of the last."""
        state = self.state
        try:
            while state.waiting or state.running:
                for work in [work for work, process in state.running.items() if process.poll() is not None]:
                    self._end(work, state.running[work].returncode)
                    del state.running[work]  # not before: an interruption leaves each work in one of the lists
                self._start_what_may()
                self._show(state)
                time.sleep(_POLL)
        finally:
            self._stop()
        return state

    def _start_what_may(self) -> None:
        state = self.state
        while len(state.running) < self._jobs and state.waiting and time.monotonic() > self._looked + _LOOK_AGAIN:
            work = next_to_start(state.waiting, state.running)
            if work is None:
                self._looked = time.monotonic()
                return
            if work.to_make():
                state.running[work] = self._start(work)
            else:  # one of the others has made all of it
                state.done.append(work)
            state.waiting.remove(work)

    def _start(self, work: Work) -> subprocess.Popen[bytes]:
        work.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "2", **work.environment()}
        if self._jobs > 1:
            environment.setdefault("OMP_NUM_THREADS", str(self._threads))
        with work.log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.child", *work.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is for this process, which passes it on once
            )

    def _end(self, work: Work, code: int) -> None:
        self._looked = -math.inf
        if code == TRY_AGAIN:
            self.state.waiting.insert(0, work)
        elif code != 0:
            lines = last_lines(work.log, 6)
            self.state.failed[work] = "\n".join([f"exit code {code}", *lines] if code < 0 or not lines else lines)
        elif left := work.to_make():
            self.state.failed[work] = f"its process has ended well, but these are not there: {', '.join(sorted(left))}"
        else:
            self.state.done.append(work)

    def _stop(self) -> None:
        """End what is running so that it can be continued; what does not end in time is killed."""
        processes = [*self.state.running.values()]
        for process in processes:
            _send(process, signal.SIGTERM)  # Ctrl-C is ignored by all that a shell has put into the background
        try:
            give_up = time.monotonic() + _PATIENCE
            for process in processes:
                process.wait(max(0.0, give_up - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):  # whoever is asked for a stop twice does not wait
            for process in processes:
                _send(process, signal.SIGKILL)


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    """Of the process's whole group: it may have started others."""
    if process.poll() is None:
        os.killpg(process.pid, number)
