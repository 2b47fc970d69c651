"""Seams: steps between neighbouring pixels that cells meet at, beside those inside of cells.

A field is fitted cell by cell, so that its pictures could show the grid. The paper observes no such artifacts
(Sec. 5.1); this measures them. Natural pictures have ratios near 1: borders of cells are nowhere special in them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spatial_functa_pipeline.images.pixels import unit_images


class SeamSteps:
    """Absolute differences of neighbouring pixels, summed over images that arrive in batches, across borders and within.

    An axis counts if it has both: more than one cell, of more than one pixel each. Sums are float64, on the CPU.

    Args:
        grid: cells along each of the D axes.
    """

    def __init__(self, grid: Sequence[int]) -> None:
        self.grid = tuple(grid)
        self._sums = torch.zeros(len(self.grid), 2, dtype=torch.float64)  # (D, across and within)
        self._counts = torch.zeros(len(self.grid), 2, dtype=torch.int64)

    def update(self, images: Tensor) -> None:
        """Add images `(B, *resolution, channels)`, uint8 or floats, which are clamped to [0, 1] as when they are shown.

        Raises ValueError if a side of the grid does not divide its side of the images.
        """
        resolution = tuple(images.shape[1:-1])
        if len(resolution) != len(self.grid) or any(n % s for n, s in zip(resolution, self.grid, strict=True)):
            raise ValueError(f"images of {resolution} pixels cannot be cut into a grid of {self.grid} equal cells")
        levels = unit_images(images).clamp(0, 1)
        for axis, (pixels, cells) in enumerate(zip(resolution, self.grid, strict=True)):
            side = pixels // cells
            if cells == 1 or side == 1:
                continue
            steps = levels.diff(dim=axis + 1).abs().movedim(axis + 1, 0)  # (pixels − 1, B, …, channels)
            across = torch.arange(1, pixels) % side == 0
            for column, chosen in enumerate((steps[across], steps[~across])):
                self._sums[axis, column] += chosen.sum(dtype=torch.float64).cpu()
                self._counts[axis, column] += chosen.numel()

    def ratio(self) -> float | None:
        """Mean step across borders ÷ mean step within cells, over all axes together; None if no axis has both."""
        return _ratio(self._sums.sum(dim=0), self._counts.sum(dim=0))

    def ratios_by_axis(self) -> tuple[float | None, ...]:
        """The same of each axis: of two-dimensional images, from row to row and from column to column."""
        return tuple(map(_ratio, self._sums, self._counts))


def _ratio(sums: Tensor, counts: Tensor) -> float | None:
    """Ratio of the two means; 1 where there is no step at all."""
    if not counts.all():
        return None
    across, within = (sums / counts).tolist()
    return 1.0 if across == within else across / within if within else float("inf")
