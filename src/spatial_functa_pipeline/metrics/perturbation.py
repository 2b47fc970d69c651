"""What a change of a latent does to the picture, as numbers (App. B.3, C.5).

Shapes: B images of `(*resolution, channels)`, cut into a grid `(*grid,)` of S cells of P pixels. Differences are those of
decoded pictures, perturbed − unperturbed, not clamped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

VISIBLE = 1 / 255
"""A pixel is changed noticeably if one of its channels changes by more: by a level of an 8-bit picture."""


def pixel_energy(differences: Tensor) -> Tensor:
    """Squared differences `(B, *resolution, channels)` summed over the channels: `(B, *resolution)`."""
    return differences.square().sum(dim=-1)


def effective_area(energy: Tensor) -> Tensor:
    """Share of the picture over which an energy is spread, `(B,)`: the participation ratio (Σe)²/(X Σe²) of its X pixels.

    1 if all pixels have the same, k/X if k of them share it equally. NaN where there is none.

    Args:
        energy: `(B, *resolution)`.
    """
    flat = energy.flatten(1).double()
    return flat.sum(dim=1).square() / (flat.shape[1] * flat.square().sum(dim=1))


def changed_share(differences: Tensor) -> Tensor:
    """Share of the pixels that differ by more than `VISIBLE` in some channel, `(B,)`."""
    return (differences.abs().amax(dim=-1) > VISIBLE).flatten(1).double().mean(dim=1)


def cell_distances(resolution: Sequence[int], grid: Sequence[int], cell: Sequence[int]) -> Tensor:
    """How many cells each pixel is away from a cell, along the axis where it is furthest, int64 `(*resolution,)`: 0 inside.

    Raises ValueError if a side of the grid does not divide its side of the image.
    """
    if len(grid) != len(resolution) or any(n % s for n, s in zip(resolution, grid, strict=True)):
        raise ValueError(f"images of {tuple(resolution)} pixels cannot be cut into a grid of {tuple(grid)} equal cells")
    axes = [(torch.arange(n) // (n // s) - own).abs() for n, s, own in zip(resolution, grid, cell, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).amax(dim=0)


def energy_by_distance(energy: Tensor, distances: Tensor) -> Tensor:
    """Share of an energy `(B, *resolution)` at each distance 0, 1, …, `(B, distances)`; NaN where there is no energy.

    Args:
        energy: of the pixels.
        distances: int64 `(*resolution,)`, as `cell_distances` gives them.
    """
    flat, places = energy.flatten(1).double(), distances.flatten()
    sums = flat.new_zeros(len(flat), int(places.max()) + 1).index_add_(1, places, flat)
    return sums / sums.sum(dim=1, keepdim=True)


def pattern_correlation(cells: Tensor) -> Tensor:
    """Correlation of each cell's difference with the mean of all others', `(n,)`: 1 if all repeat one pattern.

    It is not centred: a pattern may well be a change of brightness. The cell itself is left out of the mean, so that what
    has nothing in common has 0, and not 1/√n. NaN where a cell does not change, and of a single cell.

    Args:
        cells: differences `(n, P·channels)`, cell by cell.
    """
    cells = cells.double()
    others = cells.sum(dim=0) - cells
    return (cells * others).sum(dim=1) / (cells.norm(dim=1) * others.norm(dim=1))


def linear_fit(strengths: Tensor, errors: Tensor) -> tuple[float, float]:
    """Slope of error = slope · |strength|, and R² = 1 − Σ(error − fit)²/Σ(error − mean)², NaN if no error differs.

    Args:
        strengths: `(n,)`, of both signs.
        errors: `(n,)`.
    """
    size, errors = strengths.double().abs(), errors.double()
    slope = (size * errors).sum() / size.square().sum()
    spread = (errors - errors.mean()).square().sum()
    return slope.item(), (1 - (errors - slope * size).square().sum() / spread).item()
