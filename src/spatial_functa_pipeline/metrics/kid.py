"""KID, a distance between two sets of features (Bińkowski et al., 2018), without bias.

It is the squared maximum mean discrepancy of the similarity k(x, y) = (x·y / F + 1)³. Here it is estimated from all pairs
of the two sets at once (the U-statistic), block by block, rather than as a mean over random subsets: both have the
expectation of the true value, whatever the number of images, and this one has the smaller variance and no random numbers.
It can be negative where the sets are alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spatial_functa_pipeline.metrics.intervals import Estimate, variance_of_contributions

_BLOCK = 2048


def kid_distance(x: Tensor, y: Tensor) -> float:
    """KID of the features `(N, F)` and `(M, F)`. Raises ValueError below two rows or for different widths."""
    return kid_estimate(similarity_within(x), similarity_within(y), *similarity_between(x, y)).value


def kid_estimate(within_x: Tensor, within_y: Tensor, x_to_y: Tensor, y_to_x: Tensor) -> Estimate:
    """KID with its variance, from the mean similarity of each row to its own set and to the other one."""
    value = (within_x.mean() + within_y.mean() - 2 * x_to_y.mean()).item()
    sides = ((2 * (within_x - x_to_y), len(within_x)), (2 * (within_y - y_to_x), len(within_y)))
    return Estimate(value, variance_of_contributions(*sides))


def similarity_within(x: Tensor) -> Tensor:
    """Mean similarity of each row of `(N, F)` to the others: float64 `(N,)`. Raises ValueError below two rows."""
    if len(x) < 2:
        raise ValueError(f"KID needs at least 2 images, got {len(x)}")
    own = _cubic(x.double().square().sum(dim=1), x.shape[1])
    return (_sums(x, x)[0] - own) / (len(x) - 1)


def similarity_between(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean similarity of each row of `(N, F)` to those of `(M, F)`, and of these to those: float64 `(N,)`, `(M,)`."""
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features must be of one kind, got widths {x.shape[1]} and {y.shape[1]}")
    rows, columns = _sums(x, y)
    return rows / len(y), columns / len(x)


def _sums(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the similarities between `(N, F)` and `(M, F)` along each row and each column: `(N,)`, `(M,)`."""
    rows, columns = x.new_zeros(len(x), dtype=torch.float64), x.new_zeros(len(y), dtype=torch.float64)
    for i in range(0, len(x), _BLOCK):
        for j in range(0, len(y), _BLOCK):
            block = _cubic(x[i : i + _BLOCK].double() @ y[j : j + _BLOCK].double().T, x.shape[1])
            rows[i : i + _BLOCK] += block.sum(dim=1)
            columns[j : j + _BLOCK] += block.sum(dim=0)
    return rows, columns


def _cubic(products: Tensor, width: int) -> Tensor:
    return (products / width + 1) ** 3
