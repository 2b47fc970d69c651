"""Images cut into the cells of a grid, and put together again.

Shapes, for any dimension D: B images of `(*resolution, channels)`; a latent grid `(*grid,)`; P pixels per cell.
"""

from collections.abc import Sequence
from math import prod

from torch import Tensor


def cut_into_cells(images: Tensor, grid: Sequence[int]) -> Tensor:
    """`(B, *resolution, channels)` → `(B, *grid, P, channels)`.

    Raises ValueError if a side of the grid does not divide its side of the image.
    """
    batch, *resolution, channels = images.shape
    if len(grid) != len(resolution) or any(n % s for n, s in zip(resolution, grid, strict=True)):
        raise ValueError(f"images of {tuple(resolution)} pixels cannot be cut into a grid of {tuple(grid)} equal cells")
    dims = len(grid)
    patch = [n // s for n, s in zip(resolution, grid, strict=True)]
    sides = [side for pair in zip(grid, patch, strict=True) for side in pair]
    order = [0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 2 * dims + 1]
    return images.reshape(batch, *sides, channels).permute(order).reshape(batch, *grid, prod(patch), channels)


def join_cells(cells: Tensor, resolution: Sequence[int]) -> Tensor:
    """`(B, *grid, P, channels)` → `(B, *resolution, channels)`, the inverse of `cut_into_cells`."""
    batch, *grid, _, channels = cells.shape
    dims = len(grid)
    patch = [n // s for n, s in zip(resolution, grid, strict=True)]
    pairs = zip(range(1, dims + 1), range(dims + 1, 2 * dims + 1), strict=True)
    order = [0, *(axis for pair in pairs for axis in pair), 2 * dims + 1]
    return cells.reshape(batch, *grid, *patch, channels).permute(order).reshape(batch, *resolution, channels)
