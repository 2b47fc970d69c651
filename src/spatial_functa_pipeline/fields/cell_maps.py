"""Linear maps of the cells of a grid, the same at each cell: convolutions, which for a 1×1 kernel are plain products.

Shapes, for a grid of D ≤ 3 dimensions: cells `(B, *grid, n)`; weights `(m, n, *kernel)`, kernels odd. Cells beyond the
grid's edge are zero.
"""

import torch.nn.functional as F
from torch import Tensor

_CONVOLUTIONS = {
    1: (F.conv1d, F.conv_transpose1d),
    2: (F.conv2d, F.conv_transpose2d),
    3: (F.conv3d, F.conv_transpose3d),
}
MOST_DIMENSIONS = max(_CONVOLUTIONS)
"""Of a grid, for kernels of more than one cell."""


def apply_map(weight: Tensor, cells: Tensor, bias: Tensor | None = None) -> Tensor:
    """Cells `(B, *grid, n)` → `(B, *grid, m)`."""
    if weight[0, 0].numel() == 1:
        return F.linear(cells, weight.flatten(1), bias)
    convolve, _ = _CONVOLUTIONS[weight.ndim - 2]
    return convolve(cells.movedim(-1, 1), weight, bias, padding="same").movedim(1, -1)


def apply_adjoint(weight: Tensor, cells: Tensor) -> Tensor:
    """The adjoint of `apply_map` without its bias: cells `(B, *grid, m)` → `(B, *grid, n)`."""
    if weight[0, 0].numel() == 1:
        return cells @ weight.flatten(1)
    _, convolve_transposed = _CONVOLUTIONS[weight.ndim - 2]
    padding = [side // 2 for side in weight.shape[2:]]
    return convolve_transposed(cells.movedim(-1, 1), weight, padding=padding).movedim(1, -1)


def adjoint_weight(weight: Tensor) -> Tensor:
    """`(n, m, *kernel)`, whose `apply_map` is the adjoint of this weight's."""
    return weight.transpose(0, 1).flip(*range(2, weight.ndim)) if weight.ndim > 2 else weight.T


def centre_of(weight: Tensor) -> Tensor:
    """What a cell has from itself, `(m, n)`: a view of the weight `(m, n, *kernel)`."""
    return weight.flatten(2)[..., weight[0, 0].numel() // 2]
