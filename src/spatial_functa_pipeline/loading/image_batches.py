"""Batches of images for a training loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spatial_functa_pipeline.images.images import Images, ImagesError
from spatial_functa_pipeline.loading.ordering import WHOLE, Part, epoch_batches


@dataclass(frozen=True)
class ImageBatches:
    """Shuffled batches of steps `start_step` … `steps` − 1: uint8 (B, *resolution, channels) and int64 labels (B,).

    Which images make up a step is a pure function of `(seed, step)`, see `epoch_batches`. With `num_workers` > 0 that
    many processes decode ahead; the batches are the same. Of each batch only `part` is decoded.

    Raises ImagesError in the place of the first batch that has an image which cannot be read, whichever process reads it.
    """

    images: Images
    batch_size: int
    seed: int
    steps: int
    start_step: int = 0
    num_workers: int = 0
    part: Part = WHOLE

    def __len__(self) -> int:
        return max(self.steps - self.start_step, 0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = epoch_batches(len(self.images), self.batch_size, self.seed, self.start_step, self.steps, self.part)
        # The loader draws a seed for its workers, which need none: its own generator keeps the global one untouched.
        loader = DataLoader(
            _LabelledBatches(self.images),
            batch_size=None,
            sampler=order,
            num_workers=self.num_workers,
            generator=torch.Generator(),
        )
        for batch in loader:
            if isinstance(batch, ImagesError):
                raise batch
            yield batch


@dataclass(frozen=True)
class _LabelledBatches(Dataset[tuple[Tensor, Tensor] | ImagesError]):
    """Images as the DataLoader wants them: indexed by a whole batch of rows."""

    images: Images

    def __getitem__(self, indices: np.ndarray) -> tuple[Tensor, Tensor] | ImagesError:
        try:
            return self.images.batch(indices), torch.from_numpy(self.images.labels[indices])
        except ImagesError as error:  # what a worker raises reaches the loop as another kind of error
            return error
