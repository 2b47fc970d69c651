"""Reading the windows of a shuffled epoch, one ahead of the caller."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from .chunks import ChunkReader
from .ordering import Part
from .store import Functaset
from .windows import Chunking, Window, windows

_READERS = 4
"""Threads that read chunks: two of them keep two cores busy, and an object store answers several at once."""


class WindowReader:
    """Reads the rows of windows in their shuffled order; of each batch of `batch_size` rows only `part` is kept."""

    def __init__(self, functaset: Functaset, chunking: Chunking, seed: int, batch_size: int, part: Part) -> None:
        """Raises ValueError if the batch cannot be divided so, or is below 1."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        own = part.rows(batch_size)
        self._functaset, self._chunking, self._seed = functaset, chunking, seed
        self._batch_size, self._start, self._size = batch_size, own.start, own.stop - own.start
        self._read_chunk = ChunkReader(functaset)

    def read(self, first: int, last: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What is this part's of the rows at positions `first` … `last` − 1 of the sequence of epochs, window by window.

        Each window is latents `(n, *grid, c)`, float32, and int64 labels `(n,)`, both without gaps in the order of the
        positions; n may be 0. While the caller has one, the next is read; no other is kept.

        Raises:
            ValueError: `first` is negative.
            DamagedShardError: at the window which the shard has a part in.
        """
        pool = ThreadPoolExecutor(_READERS, thread_name_prefix="functaset")
        try:
            following = None
            for window in windows(self._chunking, self._seed, first, last):
                current, following = following, self._begin(pool, window, first, last)
                if current is not None:
                    yield _finish(*current)
                    del current  # before the next one takes its place in memory
            if following is not None:
                yield _finish(*following)
        finally:
            # After an early end or an error, no thread is left that reads what may be closed, or removed, by then.
            pool.shutdown(cancel_futures=True)

    def _begin(
        self, pool: ThreadPoolExecutor, window: Window, first: int, last: int
    ) -> tuple[list[Future[None]], np.ndarray, np.ndarray]:
        """The chunks that are being read, and the latents and labels that are whole once these are done."""
        first, last = max(first, window.first), min(last, window.last)
        origin = self._own_before(np.array(first))
        count = int(self._own_before(np.array(last)) - origin)
        latents = np.empty((count, *self._functaset.latent_shape.shape), np.float32)
        labels = np.empty(count, np.int64)
        all_labels = self._functaset.labels

        def place(chunk: int, positions: np.ndarray, wanted: np.ndarray) -> None:
            start, stop = self._chunking.bounds(chunk)
            places = self._own_before(positions) - origin
            values, classes = self._read_chunk(chunk)[: stop - start], all_labels[start:stop]
            if not wanted.all():
                places, values, classes = places[wanted], values[wanted], classes[wanted]
            latents[places], labels[places] = values, classes

        reading, row = [], 0
        for chunk in window.chunks.tolist():
            start, stop = self._chunking.bounds(chunk)
            positions = window.first + window.places[row : row + stop - start]
            row += stop - start
            within = positions % self._batch_size - self._start
            wanted = (positions >= first) & (positions < last) & (within >= 0) & (within < self._size)
            if wanted.any():
                reading.append(pool.submit(place, chunk, positions, wanted))
        return reading, latents, labels

    def _own_before(self, positions: np.ndarray) -> np.ndarray:
        """How many of the positions before each of `positions` are this part's."""
        batch, within = np.divmod(positions, self._batch_size)
        return batch * self._size + np.clip(within - self._start, 0, self._size)


def _finish(reading: list[Future[None]], latents: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    for chunk in reading:
        chunk.result()
    return torch.from_numpy(latents), torch.from_numpy(labels)
