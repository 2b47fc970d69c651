"""The pieces of a report's page, pictures and tables, and how a page is made from its template."""

from __future__ import annotations

import json
import platform
import struct
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:  # pandas takes a second to import, which every command would wait for
    import pandas as pd

_LIBRARIES = ("spatial_functa_pipeline", "torch", "diffusers", "zarr", "kedro")
_PNG = b"\x89PNG\r\n\x1a\n"
_DOTS_PER_INCH = 150
"""Of the figures' files; a page has 96 pixels per inch, and shows them in the size that they were drawn for."""
_SHA_1 = 40
"""Digits of a commit."""
_LONG = 12
"""Rows of the longest table that is not folded."""


def in_words(name: str) -> str:
    """`most_often_taken_for` → `most often taken for`."""
    return name.replace("_", " ")


def number(value: Any) -> str:
    """As it stands in a table: four digits that count, or all of a whole number; what is no number as it is."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def written(value: Any) -> str:
    """A parameter's value as a command has it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: what it is, in a few words: read out to who does not see it.
        caption: below it.
        png: the file's contents.

    Raises ValueError if that is no PNG.
    """

    name: str
    caption: str
    png: bytes

    def __post_init__(self) -> None:
        if not self.png.startswith(_PNG):
            raise ValueError(f"the picture {self.name!r} is no PNG")

    @property
    def address(self) -> str:
        """The whole picture, as the `src` of an image."""
        return f"data:image/png;base64,{b64encode(self.png).decode()}"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the page."""
        width, height = struct.unpack(">II", self.png[16:24])
        return round(width * 96 / _DOTS_PER_INCH), round(height * 96 / _DOTS_PER_INCH)


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        name: what it is, in a few words.
        caption: above it.
        header: the columns' names.
        rows: the cells' text.
        numeric: which columns are of numbers.
    """

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]

    @classmethod
    def of(cls, name: str, caption: str, table: pd.DataFrame) -> Sheet:
        """From a table of numbers and words, without the columns that are empty."""
        import pandas as pd

        table = table.dropna(axis="columns", how="all")
        columns = [[number(value) for value in table[column].tolist()] for column in table]
        return cls(
            name,
            caption,
            tuple(in_words(str(column)) for column in table),
            tuple(zip(*columns, strict=True)),
            tuple(pd.api.types.is_numeric_dtype(table[column]) for column in table),
        )

    @property
    def is_long(self) -> bool:
        """Whether it is folded at first."""
        return len(self.rows) > _LONG


def facts(commit: str) -> dict[str, str]:
    """When a page was written, and with which versions on which machine.

    Args:
        commit: that is checked out, with a `+` if files differ from it.
    """
    return {
        "written": datetime.now().astimezone().isoformat(" ", "minutes"),
        "commit": commit.replace("+", ", with changes that are not committed"),
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _LIBRARIES)]
        ),
        "machine": platform.platform(),
    }


def checkout(commit: str) -> list[str]:
    """The command that brings a commit back; none for one that is not all that was there."""
    return [f"git checkout {commit}"] if len(commit) == _SHA_1 else []


def render(template: str, **values: Any) -> str:
    """A page of one of the templates beside this file. Raises jinja2.UndefinedError for a value that is not given."""
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("spatial_functa_pipeline.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"in_words": in_words, "number": number, "written": written}
    return environment
