"""The largest eigenvalues of symmetric matrices that are known by their products with vectors."""

from collections.abc import Callable

import torch
from torch import Tensor

_ROUNDING = 16
"""Multiples of the data type's precision: what is left of a product by less is rounding error, which has no direction."""


def largest_eigenvalues(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> Tensor:
    """Of N symmetric n×n matrices at a time, by Lanczos' method.

    The matrices may be indefinite: power iteration would find the eigenvalue of the largest magnitude, negative ones too,
    unless they were shifted by a bound that is not known. Lanczos' method finds both ends of the spectrum as it is, in
    fewer products. What it finds is never above the eigenvalue; with n iterations it is exact. Where products lead no
    further, as with a multiple of the identity, a matrix is left alone.

    Args:
        product: vectors `(N, n)` → each one's matrix times it, `(N, n)`.
        start: `(N, n)`, random: eigenvectors that are orthogonal to it are not found.
        iterations: products to take (≥ 1).

    Returns:
        `(N,)`; infinite where a product is not finite.
    """
    vector = _unit(start, start.norm(dim=-1))
    basis = vector[:, None]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    rounding = _ROUNDING * torch.finfo(start.dtype).eps
    for _ in range(min(iterations, start.shape[-1])):
        image = product(vector)
        value, length = (image * vector).sum(-1), image.norm(dim=-1)
        diagonal.append(value.where(vector.any(-1), diagonal[0]) if diagonal else value)
        for _ in range(2):  # once leaves rounding errors in what is left
            image = image - ((basis @ image[..., None]) * basis).sum(1)
        left = image.norm(dim=-1)
        beside.append(left.where(~(left <= rounding * length), 0.0))  # what is not finite stays so
        vector = _unit(image, beside[-1])
        basis = torch.cat([basis, vector[:, None]], dim=1)
    tridiagonal = torch.diag_embed(torch.stack(diagonal, -1))
    tridiagonal = tridiagonal + torch.diag_embed(torch.stack(beside, -1)[:, :-1], offset=-1)  # the lower half is read
    tridiagonal = tridiagonal.cpu()  # small; MPS has no eigenvalues
    finite = tridiagonal.isfinite().flatten(1).all(1)
    found = torch.linalg.eigvalsh(tridiagonal.where(finite[:, None, None], 0.0))[:, -1]
    return found.where(finite, torch.inf).to(start.device)


def _unit(vectors: Tensor, lengths: Tensor) -> Tensor:
    """Of length 1, or 0 where `lengths` is 0."""
    return vectors / lengths.where(lengths != 0, torch.inf)[:, None]
