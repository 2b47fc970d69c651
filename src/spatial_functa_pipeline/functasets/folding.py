"""One pass over a functaset with bounded memory, whose result does not depend on who reads.

Each shard is a task of its own, which any thread or process may do. Chunks are joined in the order of their rows, and so
are shards: the result has the same bits whoever did what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from spatial_functa_pipeline.functasets.chunks import ChunkReader
from spatial_functa_pipeline.functasets.scheduling import SYNCHRONOUS, Scheduling
from spatial_functa_pipeline.functasets.store import Functaset


class Joinable(Protocol):
    """What is known of some latents, and can be put together with what is known of others."""

    def joined(self, other: Self, /) -> Self:
        """Of both together."""


J = TypeVar("J", bound=Joinable)
T = TypeVar("T")


def fold_latents(
    functaset: Functaset,
    measure: Callable[[np.ndarray], J],
    scheduling: Scheduling = SYNCHRONOUS,
    at_most: int | None = None,
) -> J:
    """What `measure` finds in the latents of images and of mirrored images, joined; augmented copies do not count.

    Args:
        functaset: read chunk by chunk, each once.
        measure: of latents `(n, *grid, c)`, valid only while it is called; picklable, where processes read.
        scheduling: says who reads; the result does not depend on it.
        at_most: of the latents, about; whole chunks, spread evenly over all. None: all of them.

    Raises DamagedShardError, and what `Scheduling.run` raises.
    """
    header, rows = functaset.header, functaset.undistorted
    chunks = -(-rows // header.chunk_rows)
    wanted = chunks if at_most is None else min(chunks, -(-at_most // header.chunk_rows))
    chosen = [index * chunks // wanted for index in range(wanted)]
    shards = [list(group) for _, group in groupby(chosen, lambda chunk: chunk * header.chunk_rows // header.shard_rows)]
    task = _ShardTask(functaset, measure, shards, rows)
    return reduce(_join, _in_order(scheduling.run(task, range(len(shards)))))


def _join(one: J, other: J) -> J:
    return one.joined(other)


@dataclass(frozen=True)
class _ShardTask(Generic[J]):
    """What is found in some chunks of a shard, in those of their rows that are among the functaset's first `rows`; chunk by
    chunk, as the cache likes it.
    """

    functaset: Functaset
    measure: Callable[[np.ndarray], J]
    shards: list[list[int]]
    rows: int

    def __call__(self, number: int) -> tuple[int, J]:
        """The task's number, by which it is put in order, and what is found."""
        size, read = self.functaset.header.chunk_rows, ChunkReader(self.functaset)
        found = (self.measure(read(chunk)[: self.rows - chunk * size]) for chunk in self.shards[number])
        return number, reduce(_join, found)


def _in_order(numbered: Iterable[tuple[int, T]]) -> Iterator[T]:
    """Values in the order of their numbers 0, 1, …, whichever come first; those that come early wait."""
    waiting: dict[int, T] = {}
    following = 0
    for number, value in numbered:
        waiting[number] = value
        while following in waiting:
            yield waiting.pop(following)
            following += 1
