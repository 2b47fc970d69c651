"""Peak memory of one outer step, measured in a process of its own.

What counts is the resident memory, at its highest, above what the process held before the step: activations, temporaries
and the parameters' gradients. The interpreter, the libraries, compiled code, parameters and images are there before.
It is the contestant's first step: nothing that an earlier one left behind can be used again. A tiny field of the same kind
has taken one before, so that the libraries' code and threads are there.
"""

import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cases import Case, Precision

if TYPE_CHECKING:
    from contestants import Name

_RESET = Path("/proc/self/clear_refs")
_SPARE = 10**9
"""Bytes of the machine's memory that a step may not take, whatever its limit."""
_OUT_OF_MEMORY = 3
"""The exit status of a process that was not given the memory that it asked for."""


@dataclass(frozen=True)
class Step:
    """A step within its limit: bytes at its highest, and seconds."""

    peak: int
    seconds: float

    @property
    def megabytes(self) -> float:
        """10⁶ bytes."""
        return self.peak / 1e6


@dataclass(frozen=True)
class Stopped:
    """A step that would have taken more than `limit` bytes."""

    limit: int


def can_measure() -> bool:
    """Whether this system (Linux) tells a process how much memory it held at most."""
    return _RESET.exists()


def peak_memory(contestant: "Name", case: Case, precision: Precision, limit: int | None = None) -> Step | Stopped:
    """Measure one step. Beyond `limit` bytes, or what the machine has left, it is stopped."""
    available = _bytes(Path("/proc/meminfo"), "MemAvailable") - _SPARE
    limit = available if limit is None else min(limit, available)
    task = json.dumps({"contestant": contestant, "case": asdict(case), "precision": precision})
    with subprocess.Popen([sys.executable, __file__, task], stdout=subprocess.PIPE, text=True) as process:
        before = process.stdout.readline()  # of the step: the process is ready
        if before and not _stays_within(process, int(before) + limit):
            process.kill()
            return Stopped(limit)
        answer = process.stdout.read()
    if process.returncode == _OUT_OF_MEMORY:
        return Stopped(limit)
    if process.returncode:
        raise RuntimeError(
            f"{case.name}, batch {case.batch}: the process of {contestant} ended with {process.returncode}"
        )
    step = Step(**json.loads(answer))
    return step if step.peak <= limit else Stopped(limit)


def _stays_within(process: subprocess.Popen[str], resident: int) -> bool:
    """Wait until the process has ended, or holds more than so many bytes; which of the two.

    From outside: within the process a library may keep all other Python threads waiting until its step is done.
    """
    while process.poll() is None:
        try:
            if _bytes(Path(f"/proc/{process.pid}/status"), "VmRSS") > resident:
                return False
        except (OSError, LookupError):  # it has just ended
            break
        time.sleep(0.01)
    return True


def rise(call: Callable[[], object]) -> int:
    """Bytes by which the resident memory of this process rises during `call`, at its highest."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _RESET.write_text("5")  # sets the high-water mark to the present
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _resident(key: str) -> int:
    return _bytes(Path("/proc/self/status"), key)


def _bytes(table: Path, key: str) -> int:
    """What the kernel's `table` has for `key`. Raises LookupError if it has none."""
    for line in table.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise LookupError(f"{table} has no {key}: peak memory cannot be measured on this kernel")


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a library says that the system did not give it what it asked for."""
    said = str(error)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in said or "can't allocate memory" in said


def _main(contestant: "Name", case: Case, precision: Precision) -> None:
    from contestants import first_outer_step
    from ours import use_all_cores

    use_all_cores()
    tiny = replace(case, latent_channels=4, width=32, depth=3, batch=2, resolution=2 * case.side)
    first_outer_step(contestant, tiny, precision)()
    step = first_outer_step(contestant, case, precision)
    print(_resident("VmRSS"), flush=True)
    start = time.perf_counter()
    try:
        peak = rise(step)
    except Exception as error:
        if _is_out_of_memory(error):
            sys.exit(_OUT_OF_MEMORY)
        raise
    print(json.dumps({"peak": peak, "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    _main(**task | {"case": Case(**task["case"])})
