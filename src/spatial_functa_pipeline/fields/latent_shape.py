"""The shape of a latent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from math import prod


@dataclass(frozen=True)
class Scale:
    """A grid of cells, each with so many numbers of its own."""

    grid: tuple[int, ...]
    channels: int

    @property
    def cells(self) -> int:
        """Number of cells of the grid."""
        return prod(self.grid)

    @property
    def numbers(self) -> int:
        """Of all cells."""
        return self.cells * self.channels

    def __str__(self) -> str:
        return "x".join(map(str, (*self.grid, self.channels)))


@dataclass(frozen=True)
class LatentShape:
    """Shape of one latent: `grid` cells (s×s for images, any dimension D) of `channels` c numbers each.

    With `coarser` scales (ours) a cell shares the first of its channels with its neighbours: those of each coarser grid are
    the same in all cells that lie in one of its cells. The latent is kept as a vector of what is not repeated.

    Attributes:
        grid: the finest one.
        channels: of one of its cells, those that it shares with others included.
        coarser: from the coarsest on.

    Raises ValueError unless each grid is a finer division of the one before.
    """

    grid: tuple[int, ...]
    channels: int
    coarser: tuple[Scale, ...] = ()

    def __post_init__(self) -> None:
        for coarse, fine in pairwise(self.scales):
            divides = len(coarse.grid) == len(fine.grid) and not any(
                n % s for n, s in zip(fine.grid, coarse.grid, strict=True)
            )
            if not divides or coarse.grid == fine.grid:
                raise ValueError(
                    f"the scales of a latent shape stand from coarse to fine, each grid a division of the one before: "
                    f"{coarse}+{fine} is not"
                )

    @classmethod
    def parse(cls, value: str | LatentShape) -> LatentShape:
        """Read `"8x8x16"` (grid sides, then channels), or several such scales, `"1x1x64+8x8x4"`.

        Raises ValueError on anything else.
        """
        if isinstance(value, cls):
            return value
        scale = r"[1-9]\d*(x[1-9]\d*)+"
        if not isinstance(value, str) or not re.fullmatch(rf"{scale}(\+{scale})*", value):
            raise ValueError(
                "a latent shape is written as its grid sides and its channels joined by 'x', as in 8x8x16; one of several "
                "scales from coarse to fine, joined by '+', as in 1x1x64+4x4x16+8x8x3"
            )
        scales = [[int(side) for side in text.split("x")] for text in value.split("+")]
        *coarser, (*grid, _) = scales
        channels = sum(numbers[-1] for numbers in scales)
        return cls(tuple(grid), channels, tuple(Scale(tuple(sides), own) for *sides, own in coarser))

    @property
    def scales(self) -> tuple[Scale, ...]:
        """From coarse to fine; one of them for a latent of one grid."""
        return (*self.coarser, Scale(self.grid, self.channels - sum(scale.channels for scale in self.coarser)))

    @property
    def cells(self) -> int:
        """Number of cells S of the (finest) grid, s² for images."""
        return prod(self.grid)

    @property
    def numbers(self) -> int:
        """How many numbers a latent is."""
        return sum(scale.numbers for scale in self.scales)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array shape: `(*grid, c)`; of several scales `(numbers,)`, one after the other, each as `(*its grid, its c)`."""
        return (self.numbers,) if self.coarser else (*self.grid, self.channels)

    def __str__(self) -> str:
        return "+".join(map(str, self.scales))
