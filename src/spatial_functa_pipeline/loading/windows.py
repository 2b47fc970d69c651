"""The order in which a training loop visits the rows of a functaset that does not fit in memory.

Rows that are near each other on disk are read together: an epoch takes the chunks in a shuffled order, some at a time,
and shuffles the rows of those, a *window*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Chunking:
    """Rows 0 … `rows` − 1 in chunks of `chunk_rows`, the last of which may be shorter, and windows of `window_chunks`.

    A window is one chunk larger where the chunks do not divide evenly, and holds them all if there are fewer than two
    windows' worth: never is the last window of an epoch a small rest, which would hardly be shuffled.
    """

    rows: int
    chunk_rows: int
    window_chunks: int

    def __post_init__(self) -> None:
        if min(self.rows, self.chunk_rows, self.window_chunks) < 1:
            raise ValueError(f"an order needs at least one row, one row per chunk and one chunk per window; got {self}")

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.rows // self.chunk_rows)

    @property
    def windows(self) -> int:
        """Windows of an epoch."""
        return max(1, self.chunks // self.window_chunks)

    def bounds(self, chunk: int) -> tuple[int, int]:
        """First row of a chunk and the row after its last."""
        return chunk * self.chunk_rows, min((chunk + 1) * self.chunk_rows, self.rows)


@dataclass(frozen=True)
class Window:
    """The rows at positions `first` … `last` − 1 of the endless sequence of epochs.

    They are those of `chunks`, one chunk after the other, and row i of them is at position `first + places[i]`.
    """

    first: int
    chunks: np.ndarray
    places: np.ndarray

    @property
    def last(self) -> int:
        """The position after the last one."""
        return self.first + len(self.places)


def windows(chunking: Chunking, seed: int, first: int, last: int) -> Iterator[Window]:
    """The windows that hold positions `first` … `last` − 1 of the sequence of epochs, in order.

    Every epoch has each row once. Its order of the chunks is drawn from (seed, epoch) and that of a window's rows from
    (seed, epoch, window): any window is found without those before it, and nothing is as long as the data set.

    Raises ValueError if `first` is negative.
    """
    if first < 0:
        raise ValueError(f"an order needs a first step from 0 on; got position {first}")
    position = first
    while position < last:
        epoch, within = divmod(position, chunking.rows)
        order = np.random.default_rng((seed, epoch)).permutation(chunking.chunks)
        # Where each window begins among the chunks, and among the rows: all chunks are full but one.
        cuts = np.arange(chunking.windows + 1) * chunking.chunks // chunking.windows
        missing = chunking.chunks * chunking.chunk_rows - chunking.rows
        short = np.flatnonzero(order == chunking.chunks - 1)
        starts = cuts * chunking.chunk_rows - np.where(cuts > short, missing, 0)
        for index in range(int(np.searchsorted(starts, within, side="right")) - 1, chunking.windows):
            start = epoch * chunking.rows + int(starts[index])
            if start >= last:
                return
            size = int(starts[index + 1] - starts[index])
            # From 1 on: NumPy makes the same generator of (seed, epoch, 0) as of (seed, epoch).
            places = np.random.default_rng((seed, epoch, index + 1)).permutation(size)
            yield Window(start, order[cuts[index] : cuts[index + 1]], places)
        position = (epoch + 1) * chunking.rows
