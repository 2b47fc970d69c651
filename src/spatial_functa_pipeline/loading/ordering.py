"""The order in which a training loop visits the rows of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class Part:
    """Part `index` of `count` equal, contiguous parts of every batch: what one of several processes trains on."""

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> slice:
        """The positions of this part in a batch. Raises ValueError if the batch cannot be divided so."""
        if batch_size % self.count:
            raise ValueError(f"batch_size ({batch_size}) must be divisible by the number of processes ({self.count})")
        size = batch_size // self.count
        return slice(self.index * size, (self.index + 1) * size)


WHOLE = Part()


def epoch_batches(
    num_rows: int, batch_size: int, seed: int, start_step: int, steps: int, part: Part = WHOLE
) -> Iterator[np.ndarray]:
    """Row indices of the batches of steps `start_step` … `steps` − 1, shuffled anew in each epoch.

    The permutations of all epochs, each drawn from `(seed, epoch)`, are laid end to end; batch k is the window
    `[k·B, (k+1)·B)` of that sequence. So every row comes exactly once per epoch, no batch is short (the last one of an
    epoch continues into the next), and batch k depends on `(num_rows, B, seed, k)` alone: a run that restarts at any
    step sees what an uninterrupted one would have seen.

    Args:
        num_rows: rows N of the data set.
        batch_size: rows B of a batch; may exceed N.
        seed: non-negative seed of the order.
        start_step: first step to yield.
        steps: one past the last step; nothing is yielded if `start_step` has reached it.
        part: which part of each batch to yield.

    Returns:
        An iterator of int64 arrays of shape (B,), or (B / part.count,).

    Raises:
        ValueError: if `num_rows` or `batch_size` is below 1, or `start_step` below 0, or `batch_size` cannot be divided
            into such parts.
    """
    if num_rows < 1 or batch_size < 1 or start_step < 0:
        raise ValueError(
            "an order needs at least one row, one row per batch and a first step from 0 on; "
            f"got num_rows={num_rows}, batch_size={batch_size}, start_step={start_step}"
        )

    own = part.rows(batch_size)

    @lru_cache(maxsize=2)
    def permutation(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, epoch)).permutation(num_rows)

    def batch(step: int) -> np.ndarray:
        first, last = step * batch_size + own.start, step * batch_size + own.stop
        epochs = range(first // num_rows, (last - 1) // num_rows + 1)
        return np.concatenate(
            [permutation(epoch)[max(first - epoch * num_rows, 0) : last - epoch * num_rows] for epoch in epochs]
        )

    return map(batch, range(start_step, steps))
