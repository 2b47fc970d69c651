"""Batches of a functaset for a training loop."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .ordering import WHOLE, Part, epoch_batches
from .store import Functaset


@dataclass(frozen=True)
class FunctasetBatches:
    """Shuffled batches of steps `start_step` … `steps` − 1: raw latents `(B, *grid, c)` and int64 labels `(B,)`.

    `rows` restricts them to the first rows of the functaset; of each batch only `part` is read.
    """

    functaset: Functaset
    batch_size: int
    seed: int
    steps: int
    start_step: int = 0
    rows: int | None = None
    part: Part = WHOLE

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        labels = torch.from_numpy(self.functaset.labels)
        count = len(self.functaset) if self.rows is None else self.rows
        for rows in epoch_batches(count, self.batch_size, self.seed, self.start_step, self.steps, self.part):
            yield self.functaset.batch(rows), labels[rows]


def consecutive_batches(functaset: Functaset, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All rows once, in order: raw latents `(≤ batch_size, *grid, c)` and labels."""
    labels = torch.from_numpy(functaset.labels)
    for start in range(0, len(functaset), batch_size):
        stop = min(start + batch_size, len(functaset))
        yield torch.from_numpy(functaset.rows(start, stop)), labels[start:stop]
