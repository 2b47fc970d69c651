"""`Metrics`: numbers with names, each beside what it was measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Metrics = dict[str, Any]
"""Name → number, and under `details` name → what it was measured on."""


def described(measured: Mapping[str, tuple[float, str]]) -> Metrics:
    """Metrics from name → (number, what it was measured on)."""
    values = {name: value for name, (value, _) in measured.items()}
    return {**values, "details": {name: text for name, (_, text) in measured.items()}}


def joined(*parts: Metrics) -> Metrics:
    """All metrics of the parts in one."""
    values = {name: value for part in parts for name, value in part.items() if name != "details"}
    return {**values, "details": {name: text for part in parts for name, text in part["details"].items()}}
