"""Reading the windows of a shuffled epoch, one ahead of the caller."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from spatial_functa_pipeline.functasets.chunks import ChunkReader
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.loading.ordering import Part
from spatial_functa_pipeline.loading.windows import Chunking, Window, windows

_LOCAL_READERS = 3
"""Threads that read chunks from files: two keep two cores busy, the third waits for the disk meanwhile."""
_REMOTE_READERS = 8
"""Threads that read chunks from an object store, which answers late, but many at once."""


_Begun = tuple[list[Future[None]], list[np.ndarray]]
"""The threads' work, and the latents and columns that are whole once it is done."""


class WindowReader:
    """Reads the rows of windows in their shuffled order; of each batch of `batch_size` rows only `part` is kept."""

    def __init__(
        self,
        functaset: Functaset,
        columns: Sequence[np.ndarray],
        chunking: Chunking,
        seed: int,
        batch_size: int,
        part: Part,
    ) -> None:
        """`columns`: of one number for each row of the functaset, which are read with the latents.

        Raises ValueError if the batch cannot be divided so, or is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        own = part.rows(batch_size)
        self._functaset, self._columns, self._chunking, self._seed = functaset, columns, chunking, seed
        self._batch_size, self._start, self._size = batch_size, own.start, own.stop - own.start
        self._read_chunk = ChunkReader(functaset)
        self._readers = _REMOTE_READERS if functaset.location.local is None else _LOCAL_READERS
        self._memory = _ReusedMemory()

    def read(self, first: int, last: int) -> Generator[tuple[Tensor, ...]]:
        """What is this part's of the rows at positions `first` … `last` − 1 of the sequence of epochs, window by window.

        Each window is latents `(n, *grid, c)`, float32, and the columns `(n,)`, all without gaps in the order of the
        positions; n may be 0. While the caller has one, the next is read; no other is kept.

        Raises:
            ValueError: `first` is negative.
            DamagedShardError: at the window which the shard has a part in.
        """
        pool, stopped = ThreadPoolExecutor(self._readers, thread_name_prefix="functaset"), threading.Event()
        try:
            following: _Begun | None = None
            for window in windows(self._chunking, self._seed, first, last):
                current, following = following, self._begin(pool, stopped, window, first, last)
                if current is not None:
                    yield _finish(*current)
                    del current  # before the next one takes its place in memory
            if following is not None:
                yield _finish(*following)
        finally:
            # After an early end or an error, no thread is left that reads what may be closed, or removed, by then.
            stopped.set()
            pool.shutdown()

    def _begin(
        self, pool: ThreadPoolExecutor, stopped: threading.Event, window: Window, first: int, last: int
    ) -> _Begun:
        first, last = max(first, window.first), min(last, window.last)
        origin, end = self._own_before(np.array([first, last])).tolist()
        latents = self._memory.array((end - origin, *self._functaset.latent_shape.shape))
        columns = [np.empty(end - origin, column.dtype) for column in self._columns]

        if self._size == self._batch_size and (first, last) == (window.first, window.last):
            places, wanted = window.places, None
        else:
            positions = window.first + window.places
            within = positions % self._batch_size - self._start
            wanted = (positions >= first) & (positions < last) & (within >= 0) & (within < self._size)
            places = self._own_before(positions) - origin

        jobs, begin = [], 0
        for chunk in window.chunks.tolist():
            start, stop = self._chunking.bounds(chunk)
            jobs.append((chunk, start, stop, begin))
            begin += stop - start

        def place(reader: int) -> None:
            for chunk, start, stop, begin in jobs[reader :: self._readers]:
                if stopped.is_set():
                    return
                rows = slice(begin, begin + stop - start)
                if wanted is not None and not wanted[rows].any():
                    continue
                kept = slice(None) if wanted is None else wanted[rows]
                to = places[rows][kept]
                latents[to] = self._read_chunk(chunk)[: stop - start][kept]
                for column, values in zip(columns, self._columns, strict=True):
                    column[to] = values[start:stop][kept]

        return [pool.submit(place, reader) for reader in range(self._readers)], [latents, *columns]

    def _own_before(self, positions: np.ndarray) -> np.ndarray:
        """How many of the positions before each of `positions` are this part's."""
        batch, within = np.divmod(positions, self._batch_size)
        return batch * self._size + np.clip(within - self._start, 0, self._size)


class _ReusedMemory:
    """Float32 arrays in memory that nobody uses any more, if there is some: the system needs as long to hand out new
    memory, page by page, as it takes to fill it.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def array(self, shape: tuple[int, ...]) -> np.ndarray:
        """An array of arbitrary numbers. Its memory is used again when it, and all tensors made of it, are gone."""
        size = int(np.prod(shape))
        block = self._free.pop() if self._free else None
        if block is None or len(block) < size:
            # A window may be one chunk larger than another: a little more, so that it fits that one too.
            block = np.empty(size + size // 16, np.float32)
        array = block[:size].reshape(shape)
        weakref.finalize(array, self._free.append, block).atexit = False
        return array


def _finish(jobs: list[Future[None]], arrays: list[np.ndarray]) -> tuple[Tensor, ...]:
    for job in jobs:
        job.result()
    return tuple(map(torch.from_numpy, arrays))
