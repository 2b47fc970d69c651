"""The largest eigenvalues of symmetric matrices that are known by their products with vectors."""

from collections.abc import Callable

import torch
from torch import Tensor


def largest_eigenvalues(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> Tensor:
    """Of N symmetric n×n matrices at a time, by Lanczos' method.

    The matrices may be indefinite: power iteration would find the eigenvalue of the largest magnitude, negative ones too,
    unless they were shifted by a bound that is not known. Lanczos' method finds both ends of the spectrum as it is, in
    fewer products. What it finds is never above the eigenvalue; with n iterations it is exact.

    Args:
        product: vectors `(N, n)` → each one's matrix times it, `(N, n)`.
        start: `(N, n)`, random: eigenvectors that are orthogonal to it are not found.
        iterations: products to take (≥ 1).

    Returns:
        `(N,)`; infinite where a product is not finite.
    """
    tiny = torch.finfo(start.dtype).tiny
    vector = start / start.norm(dim=-1, keepdim=True).clamp(min=tiny)
    basis, diagonal, beside = vector[:, None], [], []
    for _ in range(min(iterations, start.shape[-1])):
        image = product(vector)
        diagonal.append((image * vector).sum(-1))
        for _ in range(2):  # once leaves rounding errors where the vectors have found an invariant space
            image = image - ((basis @ image[..., None]) * basis).sum(1)
        beside.append(image.norm(dim=-1))
        vector = image / beside[-1][:, None].clamp(min=tiny)
        basis = torch.cat([basis, vector[:, None]], dim=1)
    tridiagonal = torch.diag_embed(torch.stack(diagonal, -1))
    tridiagonal = tridiagonal + torch.diag_embed(torch.stack(beside, -1)[:, :-1], offset=-1)  # the lower half is read
    tridiagonal = tridiagonal.cpu()  # small; MPS has no eigenvalues
    finite = tridiagonal.isfinite().flatten(1).all(1)
    found = torch.linalg.eigvalsh(tridiagonal.where(finite[:, None, None], 0.0))[:, -1]
    return found.where(finite, torch.inf).to(start.device)
