"""Files that a crash leaves whole: the old one or the new one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4


@contextmanager
def replace_durably(path: Path) -> Iterator[Path]:
    """Gives the path of a temporary file to write; at the end, once that is on disk, it takes the place of `path`.

    The temporary file stands in the same folder, which is made if need be, under a name of its own: several processes may
    write at once, and the last one wins. After an error it is gone, and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def why_not_writable(folder: Path) -> str:
    """Empty if a file can be made in the folder; else the system's reason."""
    try:
        with TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def nearest_folder(path: Path) -> Path:
    """The path, or the first one above it that is there."""
    return next((place for place in (path, *path.parents) if place.exists()), path)
