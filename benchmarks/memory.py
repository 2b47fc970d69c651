"""Peak memory of our outer step, measured in a process of its own: `python memory.py CONFIGURATION PRECISION`.

Prints the megabytes (10⁶ bytes) by which the resident memory rises, at its highest, above what the process held
between two steps: activations, temporaries and gradients, not the interpreter, the libraries or the compiler.
"""

import ctypes
import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cases import CASES, Precision

_RESET = Path("/proc/self/clear_refs")


def peak_memory(configuration: str, precision: Precision) -> float | None:
    """Run this file for one configuration; None where the system offers no way to measure (other than Linux)."""
    if not _RESET.exists():
        return None
    done = subprocess.run(
        [sys.executable, __file__, configuration, precision], stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def rise(call: Callable[[], object]) -> float:
    """Bytes by which the resident memory of this process rises during `call`, at its highest."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _RESET.write_text("5")  # sets the high-water mark to the present
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    """A field of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}: peak memory cannot be measured on this kernel")


def _main(configuration: str, precision: Precision) -> None:
    from ours import Ours, use_all_cores

    use_all_cores()
    case = next(case for case in CASES if case.name == configuration)
    ours, images = Ours(case, precision), case.images()
    for _ in range(2):  # compiles, and fills what is kept from step to step
        ours.outer(images)
    ours.field.zero_grad()
    print(rise(lambda: [ours.outer(images) for _ in range(3)]) / 1e6)


if __name__ == "__main__":
    _main(*sys.argv[1:])
