"""Latents turned by a random orthogonal matrix: the same information without locality (ours, a control).

A matrix over the c numbers of a cell turns each cell in the same way; one over all s²·c numbers turns the whole latent.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def random_orthogonal(numbers: int, seed: int) -> Tensor:
    """Q `(numbers, numbers)`, float32, uniform among the orthogonal matrices (Haar measure; Mezzadri, 2007).

    QR alone is not uniform: LAPACK chooses the signs of R's diagonal, which are taken out of Q here.
    """
    q, r = np.linalg.qr(np.random.default_rng(seed).standard_normal((numbers, numbers)))
    return torch.from_numpy(q * np.sign(np.diag(r))).float()


def rotated(latents: Tensor, matrix: Tensor) -> Tensor:
    """Q z of latents `(B, *grid, c)` by a matrix over c, or over all numbers of a latent; both of the same type."""
    return (latents.reshape(-1, len(matrix)) @ matrix.T).reshape(latents.shape)


def rotated_back(latents: Tensor, matrix: Tensor) -> Tensor:
    """Qᵀ z, the inverse of `rotated`."""
    return rotated(latents, matrix.T)
