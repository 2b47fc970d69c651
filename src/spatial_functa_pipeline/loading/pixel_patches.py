"""The pixel baseline: raw image patches in the place of latents, one for each cell, in the rows of a functaset."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from spatial_functa_pipeline.config.functaset import AugmentationConfig
from spatial_functa_pipeline.fields.cells import cut_into_cells
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.augmentation import augment
from spatial_functa_pipeline.images.images import Images

_MEASURED_IMAGES = 4096


@dataclass(frozen=True)
class PixelPatches:
    """Pixels in the rows of a functaset: row r is the image, or the very augmented copy of it, whose latent row r is.

    A classifier reads it in the place of the functaset, so that both are trained on the same pictures in the same order.

    Attributes:
        images: the images which the functaset was built from.
        functaset: gives the grid, the labels, and each row's image and number of copy; its latents are not read.
        augmentation: the functaset's.
        seed: the functaset's.
    """

    images: Images
    functaset: Functaset
    augmentation: AugmentationConfig
    seed: int

    def __post_init__(self) -> None:
        self.functaset.require_images(self.images)

    def __len__(self) -> int:
        return len(self.functaset)

    @property
    def latent_shape(self) -> LatentShape:
        """Shape `(*grid, patch pixels · channels)` of one row."""
        grid = self.functaset.latent_shape.grid
        pixels = np.prod([n // s for n, s in zip(self.images.resolution, grid, strict=True)])
        return LatentShape(grid, int(pixels) * self.images.channels)

    @property
    def labels(self) -> np.ndarray:
        """Class of each row, int64 `(N,)`."""
        return self.functaset.labels

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the pixels, 0 to 255, of at most 4,096 images spread over all."""
        rows = np.unique(np.linspace(0, len(self.images) - 1, _MEASURED_IMAGES).astype(np.int64))
        total, squares, count = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64), 0
        for part in np.array_split(rows, -(-len(rows) // 64)):
            pixels = self.images.batch(part).double()
            total, squares, count = total + pixels.sum(), squares + pixels.square().sum(), count + pixels.numel()
        mean = total / count
        return mean.item(), (squares / count - mean**2).clamp(min=0).sqrt().item()

    def batch(self, indices: np.ndarray) -> Tensor:
        """Patches `(B, *grid, patch pixels · channels)` of any rows, uint8."""
        rows = np.asarray(indices, np.int64)
        source, copy = self.functaset.source_index[rows], self.functaset.augmentation[rows]
        images = augment(self.images, source, copy, self.augmentation, self.seed)
        return cut_into_cells(images, self.functaset.latent_shape.grid).flatten(-2)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Patches of consecutive rows, uint8."""
        return self.batch(np.arange(start, stop)).numpy()
