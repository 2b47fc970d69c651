"""Codes that are linear in the pixels of a cell: principal components, or the pixels themselves."""

import torch
from torch import Tensor, nn

from spatial_functa_pipeline.fields.cells import cut_into_cells, join_cells
from spatial_functa_pipeline.fields.encoder import CodeSpec, Encoder


class LinearEncoder(Encoder):
    """z = (x − μ) B for the P·h numbers x of a cell, and x = z Bᵀ + μ, with orthonormal columns of B.

    With the c principal components of cells it is the best linear code of that size; with c = P·h nothing is lost.

    Args:
        spec: the shapes.
        mean: μ, `(P·h,)`; None: zeros, until a state is loaded.
        basis: B, `(P·h, c)`; None likewise.

    Raises ValueError if a latent has more numbers than its cell.
    """

    def __init__(self, spec: CodeSpec, mean: Tensor | None = None, basis: Tensor | None = None) -> None:
        super().__init__()
        numbers, codes = spec.cell_numbers, spec.latent_shape.channels
        if codes > numbers:
            raise ValueError(f"a linear code of {codes} numbers is for cells of as many or more, not of {numbers}")
        self.spec = spec
        mean = torch.zeros(numbers) if mean is None else mean
        basis = torch.zeros(numbers, codes) if basis is None else basis
        self.mean = nn.Parameter(mean.float().contiguous(), requires_grad=False)
        self.basis = nn.Parameter(basis.float().contiguous(), requires_grad=False)

    def encode(self, images: Tensor) -> Tensor:
        """See `Encoder.encode`."""
        self.require_shape(images)
        cells = cut_into_cells(images, self.spec.latent_shape.grid).flatten(-2)  # (B, *grid, P·h)
        return (cells - self.mean) @ self.basis

    def decode(self, latents: Tensor, resolution: tuple[int, ...] | None = None) -> Tensor:
        """See `Encoder.decode`; at the spec's resolution only."""
        self.require_own(resolution)
        cells = latents @ self.basis.T + self.mean
        return join_cells(cells.unflatten(-1, (-1, self.spec.channels)), self.spec.resolution)
