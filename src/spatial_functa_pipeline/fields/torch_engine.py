"""The SIREN's heavy part in plain torch operations: for any device and data type, and what the native engine is tested against.

Shapes as in `siren`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from spatial_functa_pipeline.fields.geometry import Geometry
from spatial_functa_pipeline.fields.siren import FieldPrecision, Siren, backward, output, waves


@dataclass(frozen=True)
class TorchEngine:
    """Values and shift gradients of the SIREN, differentiable to any order.

    Activations of more than `floats_at_once` numbers a kind are taken in parts of the points, and computed again for the
    backward pass instead of kept: memory then follows the part, not the batch, and not the image.
    """

    floats_at_once: int = 2**27

    def values(self, siren: Siren, geometry: Geometry, shifts: Tensor) -> Tensor:
        """y `(N, Q, h)` from the cells' shifts `(B, *grid, L, W)`, in the tensors' own precision."""

        def values(siren: Siren, spread: Tensor) -> list[Tensor]:
            return [output(siren, waves(siren, spread, "float32"))]

        return self._in_parts(values, siren, geometry, by_row(geometry, shifts), ())[0]

    def gradient(
        self, siren: Siren, geometry: Geometry, shifts: Tensor, targets: Tensor, scale: float, precision: FieldPrecision
    ) -> tuple[Tensor, Tensor]:
        """Gradient of `scale / 2 · Σ (y − targets)²` for the shifts, of their shape, and y; `targets`, y `(N, Q, h)`.

        `precision` is that of the products between the hidden layers.
        """

        def gradient(siren: Siren, spread: Tensor, targets: Tensor) -> list[Tensor]:
            return _gradient(siren, spread, targets, scale, precision)

        rows = by_row(geometry, shifts)
        values, found = self._in_parts(gradient, siren, geometry, rows, (targets,))
        return found.view(shifts.shape), values

    def _in_parts(
        self,
        function: Callable[..., list[Tensor]],
        siren: Siren,
        geometry: Geometry,
        rows: Tensor,
        targets: tuple[Tensor, ...],
    ) -> list[Tensor]:
        """`function(siren, spread shifts, *targets)` over parts of the rows `(N, cells, L, W)`, or of a long row's points.

        It gives values `(N, Q, h)` and, if it likes, gradients for the spread shifts, which become ones for the rows.
        """

        def of_rows(siren: Siren, rows: Tensor, *targets: Tensor) -> list[Tensor]:
            values, *gradients = function(siren, _spread(geometry, rows), *targets)
            return [values, *(_gather(geometry, found) for found in gradients)]

        points = len(siren.first)
        limit = max(1, self.floats_at_once // (rows.shape[-2] * rows.shape[-1]))
        if len(rows) * points <= limit:
            return of_rows(siren, rows, *targets)
        if points <= limit:
            parts = zip(*(tensor.split(limit // points) for tensor in (rows, *targets)), strict=True)
            return _joined([recomputed(of_rows, siren, *part) for part in parts])
        results = []
        for row, *wanted in zip(*(tensor.split(1) for tensor in (rows, *targets)), strict=True):
            spread, firsts = _spread(geometry, row), siren.first.split(limit)
            shared = spread.shape[1] == 1
            shifts = [spread] * len(firsts) if shared else spread.split(limit, dim=1)
            parts = zip(firsts, shifts, *(target.split(limit, dim=1) for target in wanted), strict=True)
            found = [recomputed(function, siren._replace(first=first), *part) for first, *part in parts]
            values, *gradients = zip(*found, strict=True)
            # Shifts that the parts share have the sum of the parts' gradients.
            whole = (sum(some[1:], some[0]) if shared else torch.cat(some, dim=1) for some in gradients)
            results.append([torch.cat(values, dim=1), *(_gather(geometry, gradient) for gradient in whole)])
        return _joined(results)


def by_row(geometry: Geometry, shifts: Tensor) -> Tensor:
    """Shifts of the cells `(B, *grid, L, W)` → `(N, cells of a row, L, W)`."""
    return shifts.reshape(-1, geometry.cells_per_row, *shifts.shape[-2:])


def _spread(geometry: Geometry, rows: Tensor) -> Tensor:
    """Rows' shifts `(N, cells, L, W)` → `(N, 1|Q, L, W)`; one cell's belong to all points."""
    if geometry.cells_per_row == 1:
        return rows
    return geometry.spread(rows.flatten(-2).unflatten(1, geometry.grid)).unflatten(-1, rows.shape[-2:])


def _gather(geometry: Geometry, gradients: Tensor) -> Tensor:
    """Adjoint of `_spread`."""
    if geometry.cells_per_row == 1:
        return gradients
    gathered = geometry.gather(gradients.flatten(-2)).flatten(1, len(geometry.grid))
    return gathered.unflatten(-1, gradients.shape[-2:])


def _gradient(siren: Siren, shifts: Tensor, targets: Tensor, scale: float, precision: FieldPrecision) -> list[Tensor]:
    layers = waves(siren, shifts, precision)
    values = output(siren, layers)
    gradients = backward(siren, scale * (values - targets) @ siren.output_weight, layers, precision)
    return [values, torch.stack([g.sum_to_size(*shifts.shape[:2], g.shape[-1]) for g in gradients], dim=-2)]


def _joined(parts: list[list[Tensor]]) -> list[Tensor]:
    return [torch.cat(kind) for kind in zip(*parts, strict=True)]


def recomputed(function: Callable[..., list[Tensor]], *arguments: Siren | Tensor) -> list[Tensor]:
    """`function(*arguments)`, whose intermediate results are computed again for the backward pass instead of kept."""
    return checkpoint(function, *arguments, use_reentrant=False) if torch.is_grad_enabled() else function(*arguments)
