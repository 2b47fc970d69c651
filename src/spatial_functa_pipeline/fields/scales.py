"""Latents of several scales: from their vector to cells, and back.

Modulations are the sum of the λ of several grids' latents (as in LIFT, Kazerouni et al., 2025). That is one λ of the cells
of the finest grid, each of which has the channels of all the cells that it lies in: linear in the vector, and the identity
for a latent of one grid.

Shapes: latents `(B, *shape)` with `shape` of `LatentShape.shape`; cells of the finest grid `(B, *grid, c)` with the channels
of all scales, the coarsest first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from spatial_functa_pipeline.fields.latent_shape import LatentShape


def split_scales(latents: Tensor, shape: LatentShape) -> list[Tensor]:
    """Latents of several scales → of each `(B, *its grid, its channels)`, a view."""
    parts = latents.split([scale.numbers for scale in shape.scales], dim=-1)
    return [part.unflatten(-1, (*scale.grid, scale.channels)) for part, scale in zip(parts, shape.scales, strict=True)]


def finest_part(latents: Tensor, shape: LatentShape) -> Tensor:
    """`(B, *grid, its own channels)` of the finest scale, a view; all of a latent of one grid."""
    return split_scales(latents, shape)[-1] if shape.coarser else latents


def join_scales(parts: Sequence[Tensor]) -> Tensor:
    """The inverse of `split_scales`."""
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def to_cells(latents: Tensor, shape: LatentShape) -> Tensor:
    """What each cell of the finest grid has: latents → cells."""
    if not shape.coarser:
        return latents
    return torch.cat([_repeated(part, shape.grid) for part in split_scales(latents, shape)], dim=-1)


def to_cells_adjoint(cells: Tensor, shape: LatentShape) -> Tensor:
    """The adjoint of `to_cells`: cells → latents. What cells share has the sum of theirs."""
    if not shape.coarser:
        return cells
    parts = cells.split([scale.channels for scale in shape.scales], dim=-1)
    return join_scales([_summed(part, scale.grid) for part, scale in zip(parts, shape.scales, strict=True)])


def channel_of_numbers(shape: LatentShape) -> Tensor:
    """Which channel each number of a latent of several scales is, int64 `(numbers,)`."""
    channels, first = [], 0
    for scale in shape.scales:
        channels.append(torch.arange(first, first + scale.channels).repeat(scale.cells))
        first += scale.channels
    return torch.cat(channels)


def place_of_cells(shape: LatentShape) -> Tensor:
    """Where each cell of the finest grid begins in the cells of all scales, in [0, 1) of their sides, float64.

    `(*grid, scales·D)`; in its own scale's cell each begins at 0.
    """
    corners = torch.stack(torch.meshgrid(*(torch.arange(side) for side in shape.grid), indexing="ij"), dim=-1)
    covered = [torch.tensor([n // s for n, s in zip(shape.grid, scale.grid, strict=True)]) for scale in shape.scales]
    return torch.cat([corners % sides / sides.double() for sides in covered], dim=-1)


def _repeated(cells: Tensor, grid: Sequence[int]) -> Tensor:
    """`(B, *coarse grid, c)` → `(B, *grid, c)`."""
    for axis, side in enumerate(grid, start=1):
        cells = cells.repeat_interleave(side // cells.shape[axis], dim=axis)
    return cells


def _summed(cells: Tensor, grid: Sequence[int]) -> Tensor:
    """`(B, *fine grid, c)` → `(B, *grid, c)`."""
    for axis, side in enumerate(grid, start=1):
        cells = cells.unflatten(axis, (side, -1)).sum(dim=axis + 1)
    return cells
