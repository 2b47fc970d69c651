"""Batches of a functaset for a training loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.loading.ordering import WHOLE, Part, epoch_batches
from spatial_functa_pipeline.loading.window_reader import WindowReader
from spatial_functa_pipeline.loading.windows import Chunking

WINDOW_BYTES = 32 * 2**20
"""Least size of a window, as float32: 8,192 rows of 8×8×16. Two are in memory; from 8 to 64 MiB the speed is the same."""
WINDOW_BATCHES = 8
"""Least number of batches in a window: fewer would be made of nearly the same chunks."""
WINDOW_CHUNKS = 16
"""Least number of chunks in a window: neighbouring rows may well be of one class, as in a folder of ImageNet's."""


@dataclass(frozen=True)
class FunctasetBatches:
    """Shuffled batches of steps `start_step` … `steps` − 1: raw latents `(B, *grid, c)` and int64 labels `(B,)`.

    With `kinds`, the `CopyKind` of each row, int64 `(B,)`, comes third.

    Every row comes once per epoch, no batch is short, and any step can be the first. Where the functaset is held in
    memory, an epoch is one permutation (see `epoch_batches`); otherwise rows are mixed within windows (see `windows`), and the
    next window is read in the background while the caller uses the one before. The order is then also a matter of
    batch and chunk size.

    `rows` restricts the batches to the first rows of the functaset. Of each batch only `part` is made: together, the
    parts are the batch that one process would have.

    Iterating raises DamagedShardError, and ValueError for a batch that has no such parts. Close the iterator to end the
    reading early; that happens by itself when nothing refers to it any more.
    """

    functaset: Functaset
    batch_size: int
    seed: int
    steps: int
    start_step: int = 0
    rows: int | None = None
    part: Part = WHOLE
    kinds: bool = False

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return self._from_memory() if self.functaset.in_memory else self._from_windows()

    @property
    def _count(self) -> int:
        return len(self.functaset) if self.rows is None else self.rows

    @property
    def _columns(self) -> list[np.ndarray]:
        return [self.functaset.labels, *([self.functaset.kinds] if self.kinds else [])]

    def _from_memory(self) -> Iterator[tuple[Tensor, ...]]:
        columns = [torch.from_numpy(column) for column in self._columns]
        for rows in epoch_batches(self._count, self.batch_size, self.seed, self.start_step, self.steps, self.part):
            yield self.functaset.batch(rows), *(column[rows] for column in columns)

    def _from_windows(self) -> Iterator[tuple[Tensor, ...]]:
        own = self.part.rows(self.batch_size)
        size = own.stop - own.start
        span = (self.start_step * self.batch_size, self.steps * self.batch_size)
        reader = WindowReader(self.functaset, self._columns, self.chunking, self.seed, self.batch_size, self.part)
        with closing(reader.read(*span)) as windows:
            pieces: list[tuple[Tensor, ...]] = []
            missing = size
            while (window := next(windows, None)) is not None:
                rows = len(window[0])
                first = min(missing, rows)
                whole, rest = divmod(rows - first, size)
                sizes = [first, *[size] * whole, rest]
                columns = [column.split(sizes) for column in window]
                for index, count in enumerate(sizes):
                    piece = tuple(column[index] for column in columns)
                    # What the caller may hold when the next window is needed is copied: a view would keep this one in memory.
                    if count:
                        pieces.append(_concatenated([piece]) if index >= whole else piece)
                    missing -= count
                    if not missing:
                        batch = pieces[0] if len(pieces) == 1 else _concatenated(pieces)
                        pieces, missing = [], size
                        yield batch
                        del batch
                del window, columns, piece  # given up before the next but one is read

    @property
    def chunking(self) -> Chunking:
        """How rows are read together where they are not held in memory."""
        header = self.functaset.header
        row_bytes = 4 * int(np.prod(header.latent_shape.shape))
        rows = max(WINDOW_BATCHES * self.batch_size, -(-WINDOW_BYTES // row_bytes))
        return Chunking(self._count, header.chunk_rows, max(WINDOW_CHUNKS, -(-rows // header.chunk_rows)))


def _concatenated(pieces: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Each column's pieces one after the other, in memory of their own.

    By NumPy, in this thread: PyTorch's threads would wait for the cores on which the next window is read.
    """
    return tuple(
        torch.from_numpy(np.concatenate([piece.numpy() for piece in column])) for column in zip(*pieces, strict=True)
    )


def consecutive_batches(
    functaset: Functaset, batch_size: int, count: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """The first `count` images (None: all) once, in order, without their copies.

    Raw latents `(≤ batch_size, *grid, c)` and labels.
    """
    count = functaset.originals if count is None else min(count, functaset.originals)
    return _in_order(functaset, batch_size, 0, count)


def mirrored_batches(functaset: Functaset, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All mirrored images once, in the order of their images, as `consecutive_batches` has these.

    Raises ValueError if the functaset has none.
    """
    if not functaset.mirrored:
        raise ValueError(f"{functaset} has no mirrored images")
    return _in_order(functaset, batch_size, functaset.originals, functaset.undistorted)


def _in_order(functaset: Functaset, batch_size: int, first: int, end: int) -> Iterator[tuple[Tensor, Tensor]]:
    labels = torch.from_numpy(functaset.labels)
    for start in range(first, end, batch_size):
        stop = min(start + batch_size, end)
        yield torch.from_numpy(functaset.rows(start, stop)), labels[start:stop]
