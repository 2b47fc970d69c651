"""Folders of picture files: which are pictures, of which class, and in which order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from operator import attrgetter
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from spatial_functa_pipeline.digest import short_digest

NO_CLASSES = "all"
"""The single class of a folder without class folders."""
_NO_PICTURES = {"EPS", "MPEG"}
"""Formats that Pillow opens, but whose files are a drawing that another program renders, and a film."""


@dataclass(frozen=True)
class PictureFolder:
    """The pictures in a folder, sorted by path.

    Attributes:
        folder: the folder.
        paths: bytes `(N,)`, below the folder. One array: see `ImageFiles`.
        labels: int64 `(N,)`, positions in `classes`.
        classes: names of the folder's subfolders in which there are pictures, or `NO_CLASSES` if there are none such.
        left_out: what was left out, in a few words each.
    """

    folder: Path
    paths: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    left_out: tuple[str, ...]

    @classmethod
    def scan(cls, folder: Path) -> PictureFolder:
        """Look through a folder. Each subfolder is a class, with all that is below it.

        Whatever has a name that starts with a dot is not looked at. All files are taken that Pillow can decode, to judge by
        their names. Files beside class folders, and class folders without a picture, are left out.
        """
        top = sorted((entry for entry in os.scandir(folder) if not _is_hidden(entry.name)), key=attrgetter("name"))
        others: Counter[str] = Counter()

        def pictures(files: Iterable[str]) -> list[str]:
            """Those of the files, sorted; the others are counted."""
            found = []
            for file in files:
                if is_picture(file):
                    found.append(file)
                else:
                    others[_suffix(file)] += 1
            return sorted(found)

        found = {entry.name: pictures(visible_files(entry.path)) for entry in top if entry.is_dir()}
        beside = pictures(entry.path for entry in top if not entry.is_dir())
        classes = [name for name, files in found.items() if files]
        left_out = [_counted(count, suffix) for suffix, count in sorted(others.items())]
        left_out += [f"the folder {name}, without a picture" for name, files in found.items() if not files]
        if not classes:
            found, classes = {NO_CLASSES: beside}, [NO_CLASSES]
        elif beside:
            name = os.path.basename(beside[0])
            left_out.append(f"{_plural(len(beside), 'picture')} beside the class folders, as {name}")
        start = len(os.path.join(folder, ""))
        paths = np.array([os.fsencode(path[start:]) for name in classes for path in found[name]], dtype=bytes)
        labels = np.repeat(np.arange(len(classes)), [len(found[name]) for name in classes])
        return cls(folder, paths, labels, tuple(classes), tuple(left_out))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def summary(self) -> str:
        """How many pictures there are, and a digest of their paths below the folder."""
        return f"{len(self)} pictures, {short_digest([self.paths.tobytes()])[:8]}"

    def shuffled(self, seed: int) -> np.ndarray:
        """All rows `(N,)`, in the order of a digest of seed and path: fair samples of the folder are ranges of it.

        Where a picture stands depends on its own path: another one that comes or goes moves it by one place at most.
        """
        prefix = f"{seed}/".encode()
        digests = (blake2b(prefix + path, digest_size=8).digest() for path in self.paths.tolist())
        keys = np.frombuffer(b"".join(digests), dtype=">u8")
        return np.argsort(keys, kind="stable")

    def full_paths(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Paths to open, bytes `(B,)`."""
        return np.char.add(os.fsencode(self.folder) + b"/", self.paths[rows])


def visible_files(folder: Path | str) -> Iterator[str]:
    """All files below a folder, links followed, without those that are hidden or in hidden folders."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        yield from (os.path.join(parent, name) for name in files if not _is_hidden(name))


def is_picture(path: str) -> bool:
    """Whether Pillow can decode such a file, to judge by its name."""
    return _suffix(path) in _suffixes()


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


@cache
def _suffixes() -> frozenset[str]:
    """Of the files that Pillow can decode with what is installed, plugins included."""

    def decodes(kind: str) -> bool:
        reader = Image.OPEN.get(kind, (None,))[0]
        is_stub = isinstance(reader, type) and issubclass(reader, ImageFile.StubImageFile)
        return reader is not None and not is_stub and kind not in _NO_PICTURES

    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if decodes(kind))


def _counted(count: int, suffix: str) -> str:
    return _plural(count, f"{suffix} file") if suffix else f"{_plural(count, 'file')} without a suffix"


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
