"""What tells one content from another, in a few characters."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

_LONGEST_VALUE = 60


def short_digest(chunks: Iterable[bytes]) -> str:
    """SHA-256 of the chunks, laid end to end, shortened to 16 hexadecimal digits."""
    content = hashlib.sha256()
    for chunk in chunks:
        content.update(chunk)
    return content.hexdigest()[:16]


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """The keys whose values differ, in alphabetical order, each with a short phrase. No value and None are the same."""
    return {
        key: f"{key} was {_short(before.get(key))}, is {_short(now.get(key))}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
