"""Ctrl-C and SIGTERM, held back until the step under way is done and recorded."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from spatial_functa_pipeline.training.ranks import Ranks

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequestedError(Exception):
    """Somebody asked for a stop, and no step is under way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def stop_process(number: int) -> NoReturn:
    """Leave in the way that the signal `number` asks for: SIGTERM (cluster schedulers) is no keyboard's."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


class HeldBackSignals:
    """Within it, a signal is noted instead of obeyed; `check` tells when all processes of the training know of one.

    Interrupted in the middle of a step, weights, optimiser and average would no longer belong together. A second signal
    is not held back. Outside the main thread, where signals never arrive, nothing changes.
    """

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._number = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._number:
            stop_process(number)
        self._number = number

    def check(self) -> None:
        """To be called between two steps, by all processes. Raises StopRequestedError in all of them at the same step."""
        if number := self._ranks.agreed(self._number):
            raise StopRequestedError(number)
