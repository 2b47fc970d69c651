"""Whether all files of a set can be decoded, found out before hours of work depend on it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from spatial_functa_pipeline.images.decoders import UndecodableImageError, decode_picture
from spatial_functa_pipeline.images.images import ImagesError

_MARK = np.dtype("<u8")
"""A digest of path, size and time of change, for one file. Of 10⁷ files two share one with a probability of 3·10⁻⁶."""
_PART = 64
"""Files that are decoded, and remembered, together: what an interruption can cost."""
_NAMED = 10


class BrokenImagesError(ImagesError):
    """Files that cannot be decoded: `reasons` says of each why; so many files are `looked_at`."""

    def __init__(self, reasons: Sequence[str], looked_at: int) -> None:
        super().__init__(reasons, looked_at)
        self.reasons, self.looked_at = reasons, looked_at

    def __str__(self) -> str:
        count = len(self.reasons)
        more = [f"and {count - _NAMED:,} more"] if count > _NAMED else []
        lines = "".join(f"\n    {line}" for line in [*self.reasons[:_NAMED], *more])
        return f"{count:,} of {self.looked_at:,} image files cannot be decoded:{lines}"


def check_files(paths: np.ndarray, record: Path, *, num_workers: int = 0, progress: bool = True) -> None:
    """Decode every file once. One that was found good before, and has not changed since, is not decoded again.

    Args:
        paths: bytes `(N,)`.
        record: file that remembers the good ones. It grows as files are decoded: an interrupted check goes on from there.
        num_workers: processes that decode; 0: this one.
        progress: whether to show a progress bar.

    Raises BrokenImagesError, which names what cannot be decoded, once all files have been looked at.
    """
    here = os.getcwdb()
    marks = np.fromiter((_mark(os.path.join(here, path)) for path in paths.tolist()), _MARK, len(paths))
    unknown = ~np.isin(marks, _marks_in(record))
    if not unknown.any():
        return
    record.parent.mkdir(parents=True, exist_ok=True)
    parts = _Parts(paths[unknown], marks[unknown])
    broken: list[str] = []
    with (
        record.open("ab") as file,
        tqdm(desc="checking files", total=unknown.sum(), unit="file", disable=not progress) as bar,
    ):
        for good, reasons in DataLoader(parts, batch_size=None, num_workers=num_workers, collate_fn=_as_it_is):
            file.write(good.tobytes())
            file.flush()
            broken += reasons
            bar.update(len(good) + len(reasons))
    if broken:
        raise BrokenImagesError(broken, len(paths))


def _mark(path: bytes) -> int:
    size = time = -1
    with suppress(OSError):  # what cannot be opened is named when it is decoded
        stat = os.stat(path)
        size, time = stat.st_size, stat.st_mtime_ns
    return int.from_bytes(blake2b(b"%s %d %d" % (path, size, time), digest_size=8).digest())


def _marks_in(record: Path) -> np.ndarray:
    """The marks of good files `(M,)`. A last one that was cut short, as a killed process leaves it, is cut off."""
    if not record.exists():
        return np.empty(0, _MARK)
    whole = record.stat().st_size // _MARK.itemsize * _MARK.itemsize
    os.truncate(record, whole)
    return np.fromfile(record, _MARK)


@dataclass(frozen=True)
class _Parts(Dataset[tuple[np.ndarray, list[str]]]):
    """Part by part: the marks of files that can be decoded, and why others cannot."""

    paths: np.ndarray
    marks: np.ndarray

    def __len__(self) -> int:
        return -(-len(self.paths) // _PART)

    def __getitem__(self, part: int) -> tuple[np.ndarray, list[str]]:
        files = slice(part * _PART, (part + 1) * _PART)
        reasons = [_reason(path) for path in self.paths[files]]
        return self.marks[files][[not reason for reason in reasons]], [reason for reason in reasons if reason]


def _reason(path: bytes) -> str:
    """Why a file cannot be decoded; empty if it can."""
    try:
        decode_picture(path)
    except UndecodableImageError as error:
        return f"{error.path}: {error.reason}"
    return ""


def _as_it_is(part: Any) -> Any:
    return part
