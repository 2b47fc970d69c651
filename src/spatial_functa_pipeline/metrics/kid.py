"""KID, a distance between two sets of features (Bińkowski et al., 2018), without bias.

It is the squared maximum mean discrepancy of the similarity k(x, y) = (x·y / F + 1)³. Here it is estimated from all pairs
of the two sets at once (the U-statistic), block by block, rather than as a mean over random subsets: both have the
expectation of the true value, whatever the number of images, and this one has the smaller variance and no random numbers.
It can be negative where the sets are alike.
"""

from __future__ import annotations

from torch import Tensor

_BLOCK = 2048


def kid_distance(x: Tensor, y: Tensor) -> float:
    """KID of the features `(N, F)` and `(M, F)`. Raises ValueError below two rows or for different widths."""
    return kid_of_mean_similarities(mean_within(x), mean_within(y), mean_between(x, y))


def kid_of_mean_similarities(within_x: float, within_y: float, between: float) -> float:
    """KID from the mean similarities within its two sets and between them."""
    return within_x + within_y - 2 * between


def mean_within(x: Tensor) -> float:
    """Mean similarity over all pairs of different rows of `(N, F)`, in float64. Raises ValueError below two rows."""
    n = len(x)
    if n < 2:
        raise ValueError(f"KID needs at least 2 images, got {n}")
    own = _cubic(x.double().square().sum(dim=1), x.shape[1]).sum().item()
    return (_sum_between(x, x) - own) / (n * (n - 1))


def mean_between(x: Tensor, y: Tensor) -> float:
    """Mean similarity over all pairs of a row of `(N, F)` and a row of `(M, F)`, in float64."""
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features must be of one kind, got widths {x.shape[1]} and {y.shape[1]}")
    return _sum_between(x, y) / (len(x) * len(y))


def _sum_between(x: Tensor, y: Tensor) -> float:
    y = y.double()
    blocks = (_cubic(rows.double() @ columns.T, x.shape[1]) for rows in x.split(_BLOCK) for columns in y.split(_BLOCK))
    return sum(block.sum().item() for block in blocks)


def _cubic(products: Tensor, width: int) -> Tensor:
    return (products / width + 1) ** 3
