"""`Metrics`: numbers with names, each beside what it was measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Metrics = dict[str, Any]
"""Name → number; under `details` name → what it was measured on; under `intervals`, if any are known, name → [low, high]."""

_BESIDE = ("details", "intervals")


def described(measured: Mapping[str, tuple[float, str]], intervals: Mapping[str, list[float]] | None = None) -> Metrics:
    """Metrics from name → (number, what it was measured on), with the 95 % intervals of some."""
    values = {name: value for name, (value, _) in measured.items()}
    found = {**values, "details": {name: text for name, (_, text) in measured.items()}}
    return {**found, "intervals": dict(intervals)} if intervals else found


def joined(*parts: Metrics) -> Metrics:
    """All metrics of the parts in one."""
    values = {name: value for part in parts for name, value in part.items() if name not in _BESIDE}
    details, intervals = (
        {name: one for part in parts for name, one in part.get(beside, {}).items()} for beside in _BESIDE
    )
    found = {**values, "details": details}
    return {**found, "intervals": intervals} if intervals else found
