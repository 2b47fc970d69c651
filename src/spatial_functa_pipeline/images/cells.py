"""Images cut into the cells of a grid."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor


def patches(images: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Cut images `(B, *resolution, channels)` into one flat patch per cell: `(B, *grid, patch pixels · channels)`.

    Raises ValueError if a side of the grid does not divide its side of the image.
    """
    resolution = tuple(images.shape[1:-1])
    if len(grid) != len(resolution) or any(n % s for n, s in zip(resolution, grid, strict=True)):
        raise ValueError(f"images of {resolution} pixels cannot be cut into a grid of {grid} equal patches")
    cells = " ".join(f"(s{axis} p{axis})" for axis in range(len(grid)))
    outer, inner = (" ".join(f"{name}{axis}" for axis in range(len(grid))) for name in "sp")
    sides = {f"s{axis}": side for axis, side in enumerate(grid)}
    return rearrange(images, f"b {cells} c -> b {outer} ({inner} c)", **sides)
