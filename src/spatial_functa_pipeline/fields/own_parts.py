"""Two parts of a field that are ours, and there only if its spec asks for them. Both are the same maps at each cell.

Shapes: cells' pixels `(B, *grid, P·h)`, latents `(B, *grid, c)`; `reach` is how many cells along each axis the pixels of one
cell depend on to first order, and the other way round.
"""

from collections.abc import Sequence
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from spatial_functa_pipeline.fields.cell_maps import adjoint_weight, apply_adjoint, apply_map, centre_of
from spatial_functa_pipeline.fields.cells import cut_into_cells
from spatial_functa_pipeline.fields.geometry import cosine_interpolation
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.scales import join_scales


class FreeFirstStep(nn.Module):
    """z₁ = b − A r, with the residual r of the pixels at z = 0.

    A gradient step from z = 0 is such a map, since all images have the same activations there: A = α ⊙ (∂y/∂z)ᵀ, b = 0.
    Free, it starts as that, and is learned with the rest.
    """

    def __init__(self, latent: int, pixels: int, reach: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(latent, pixels, *reach))  # A (c, P·h, *reach)
        self.bias = nn.Parameter(torch.zeros(latent))  # b (c,)

    def forward(self, residual: Tensor) -> Tensor:
        """z₁ of the cells' residual."""
        return self.bias - apply_map(self.weight, residual)

    @torch.no_grad()
    def tie(self, rates: Tensor, first_order: Tensor) -> None:
        """Make it the gradient step: `rates (c,)` times the adjoint of ∂y/∂z, `(P·h, c, *reach)`."""
        adjoint = adjoint_weight(first_order)
        self.weight.copy_(rates.reshape(-1, *(1,) * (adjoint.ndim - 1)) * adjoint)
        self.bias.zero_()


class FreeFirstSteps(nn.ModuleList):
    """`FreeFirstStep` for several scales: one for each, of the pixels of its own cells.

    A scale's residual is divided by the number n of the finest grid's cells in one of its own, as its rate is: weights of all
    scales are then of one size, and a training's steps suit all of them.

    Args:
        shape: of the latents.
        pixels: P·h, of a cell of the finest grid.
        reaches: of each scale, in its cells.
    """

    def __init__(self, shape: LatentShape, pixels: int, reaches: Sequence[Sequence[int]]) -> None:
        super().__init__(
            FreeFirstStep(scale.channels, pixels * shape.cells // scale.cells, reach)
            for scale, reach in zip(shape.scales, reaches, strict=True)
        )
        self.shape = shape

    def forward(self, residual: Tensor) -> Tensor:
        """z₁ `(B, numbers)` of the residual of the finest grid's cells."""
        found = []
        for step, scale in zip(self, self.shape.scales, strict=True):
            cells = cut_into_cells(residual, scale.grid)  # (B, *its grid, n, P·h)
            found.append(step(cells.flatten(-2) / cells.shape[-2]))
        return join_scales(found)

    def tie(self, rates: Tensor, first_orders: Sequence[Tensor]) -> None:
        """As `FreeFirstStep.tie` for each scale; `rates (c,)` are those before they are divided by n."""
        shares = rates.split([scale.channels for scale in self.shape.scales])
        for step, share, first_order in zip(self, shares, first_orders, strict=True):
            cast(FreeFirstStep, step).tie(share, first_order)


class LinearPart(nn.Module):
    """D z with a bias, which a field that starts from the data adds to its SIREN: f_θ(x; m_x) + D z.

    Args:
        cell: pixels of a cell along each axis, P in all.
        channels: h.
        latent: c.
        reach: see above.
    """

    def __init__(self, cell: Sequence[int], channels: int, latent: int, reach: Sequence[int]) -> None:
        super().__init__()
        self.cell, self.channels, pixels = tuple(cell), channels, prod(cell) * channels
        self.weight = nn.Parameter(torch.zeros(pixels, latent, *reach))  # D (P·h, c, *reach)
        self.bias = nn.Parameter(torch.zeros(pixels))

    def forward(self, latents: Tensor, places: Tensor | None = None) -> Tensor:
        """Cells' pixels of the latents.

        `places` `(P', D)`: where in a cell to take them, if not at the trained pixels; they are the values of the trained
        pixels' cosine series, which beyond a border is its mirror image.
        """
        if places is None:
            return apply_map(self.weight, latents, self.bias)
        matrix = cosine_interpolation(places, self.cell).to(latents)
        weight, bias = (
            torch.tensordot(matrix, atoms.unflatten(0, (-1, self.channels)), dims=1).flatten(0, 1)
            for atoms in (self.weight, self.bias)
        )
        return apply_map(weight, latents, bias)

    def tangent(self, latents: Tensor) -> Tensor:
        """How the pixels change with the latents, D z."""
        return apply_map(self.weight, latents)

    def adjoint(self, pixels: Tensor) -> Tensor:
        """Dᵀ times cells' pixels: latents."""
        return apply_adjoint(self.weight, pixels)

    @torch.no_grad()
    def start_from(self, mean: Tensor, components: Tensor) -> None:
        """For `mean (P·h,)` and `components (P·h, k)` of k ≤ c latent channels; the others, and other cells, have no part."""
        self.bias.copy_(mean)
        self.weight.zero_()
        centre_of(self.weight)[:, : components.shape[1]] = components.to(self.weight)
