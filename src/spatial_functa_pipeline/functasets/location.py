"""Where a functaset is: a local folder, or a prefix in an object store that fsspec knows (`s3://…`, `gs://…`, `memory://…`)."""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore

from spatial_functa_pipeline.files import nearest_folder


class Location:
    """The files below a path or an address. It is pickled as that, so that each process makes its own connections.

    Credentials and endpoints of object stores come from their usual environment variables or fsspec's configuration.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise ImportError(
                f"{self.url} needs a package that is not installed ({error}); for s3:// and gs:// as in: "
                "pip install 'spatial_functa_pipeline[cloud]'"
            ) from error

    def __reduce__(self) -> tuple[type[Location], tuple[str]]:
        return type(self), (self.url,)

    def __str__(self) -> str:
        return self.url

    @cached_property
    def local(self) -> Path | None:
        """The folder, or None in an object store."""
        return Path(self._root) if isinstance(self._fs, LocalFileSystem) else None

    def store(self, read_only: bool) -> Store:
        """A new Zarr store."""
        if self.local is not None:
            return LocalStore(self.local, read_only=read_only)
        return FsspecStore.from_url(self.url, read_only=read_only)

    def exists(self, key: str = "") -> bool:
        """Whether there is a file `key`, or, without one, anything at all."""
        self._fs.invalidate_cache()
        return self._fs.exists(self._path(key))

    def files(self, prefix: str = "") -> dict[str, int]:
        """The files below `prefix`, relative to the location, with their sizes in bytes."""
        self._fs.invalidate_cache()
        found = self._fs.find(self._path(prefix), detail=True)
        start = len(self._root.rstrip("/")) + 1
        return {path[start:]: info["size"] for path, info in found.items()}

    def size(self, *keys: str) -> int:
        """Bytes of these files together."""
        self._fs.invalidate_cache()
        return sum(self._fs.size(self._path(key)) for key in keys)

    def path_to(self, other: Location) -> str:
        """Where the other is, as seen from the folder that this one is in; its address if it is in another file system."""
        if type(other._fs) is not type(self._fs):
            return other._fs.unstrip_protocol(other._root)
        return posixpath.relpath(other._root, posixpath.dirname(self._root.rstrip("/")))

    def follow(self, path: str) -> Location:
        """The location at a path, or an address, that `path_to` gave."""
        if "://" in path:
            return Location(path)
        root = posixpath.normpath(posixpath.join(posixpath.dirname(self._root.rstrip("/")), path))
        return Location(root if self.local is not None else self._fs.unstrip_protocol(root))

    @property
    def nearest_folder(self) -> Path | None:
        """The folder, or the first one above it that is there; None in an object store."""
        return self.local and nearest_folder(self.local)

    @property
    def disk(self) -> int | None:
        """Number of the disk, or None in an object store."""
        return None if (folder := self.nearest_folder) is None else folder.stat().st_dev

    def delete(self, key: str) -> None:
        """Remove a file, if it is there."""
        if self.exists(key):
            self._fs.rm_file(self._path(key))

    def clear(self, last: str) -> None:
        """Remove everything, the file `last` after all others."""
        if self.exists(last):
            for key in self.files():
                if key != last:
                    self._fs.rm_file(self._path(key))
        self._fs.rm(self._root, recursive=True)
        self._fs.invalidate_cache()

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}" if key else self._root


def lacks_room(sizes: Sequence[tuple[Location, int]]) -> str:
    """Empty if files of so many bytes may fit at these locations, which are all on one disk; else the numbers.

    Files are counted that are there and are written no more. An object store has no end.
    """
    if (folder := sizes[0][0].nearest_folder) is None:
        return ""
    needed = sum(size - sum(location.files().values()) for location, size in sizes)
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return ""
    return f"{needed / 1e9:.2f} GB at least are still to be written, and {free / 1e9:.2f} GB are free"
