"""The shape of a latent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class LatentShape:
    """Shape of one latent: `grid` cells (s×s for images, any dimension D) of `channels` c numbers each."""

    grid: tuple[int, ...]
    channels: int

    @classmethod
    def parse(cls, value: str | LatentShape) -> LatentShape:
        """Read `"8x8x16"` (grid sides, then channels). Raises ValueError on anything else."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, str) or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", value):
            raise ValueError("a latent shape is written as its grid sides and its channels joined by 'x', as in 8x8x16")
        *grid, channels = (int(side) for side in value.split("x"))
        return cls(tuple(grid), channels)

    @property
    def cells(self) -> int:
        """Number of cells S of the grid (s² for images)."""
        return prod(self.grid)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array shape `(*grid, c)`."""
        return (*self.grid, self.channels)

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))
