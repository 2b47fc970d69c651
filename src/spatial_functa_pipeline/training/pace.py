"""How long a training will take, said early where it is days."""

from __future__ import annotations

import time
from dataclasses import dataclass

_DAY = 24 * 60 * 60
_FIRST_STEPS = 2
"""Of this process, in which models are compiled and caches filled."""
_MEASURED_STEPS = 8


@dataclass
class Pace:
    """Measures the first steps of a process's part in a training.

    Args:
        steps: of the whole training.
    """

    steps: int
    _taken: int = 0
    _since: float = 0.0

    def days_left(self, step: int) -> float | None:
        """To be called after every step. Days that the rest will take, once, if these are more than one; None otherwise."""
        self._taken += 1
        if self._taken == _FIRST_STEPS:
            self._since = time.monotonic()
        if self._taken != _FIRST_STEPS + _MEASURED_STEPS:
            return None
        days = (time.monotonic() - self._since) / _MEASURED_STEPS * (self.steps - step) / _DAY
        return days if days > 1 else None
