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
        rows = by_row(geometry, shifts)
        return self._in_parts(_values, siren, geometry, rows, (), gather=False)

    def gradient(
        self, siren: Siren, geometry: Geometry, shifts: Tensor, targets: Tensor, scale: float, precision: FieldPrecision
    ) -> Tensor:
        """Gradient of `scale / 2 · Σ (y − targets)²` for the shifts, of their shape; `targets (N, Q, h)`.

        `precision` is that of the products between the hidden layers.
        """

        def gradient(siren: Siren, spread: Tensor, targets: Tensor) -> Tensor:
            return _gradient(siren, spread, targets, scale, precision)

        rows = by_row(geometry, shifts)
        return self._in_parts(gradient, siren, geometry, rows, (targets,), gather=True).view(shifts.shape)

    def _in_parts(
        self,
        function: Callable[..., Tensor],
        siren: Siren,
        geometry: Geometry,
        rows: Tensor,
        targets: tuple[Tensor, ...],
        gather: bool,
    ) -> Tensor:
        """`function(siren, spread shifts, *targets)` over parts of the rows `(N, cells, L, W)`, or of a long row's points."""

        def of_rows(siren: Siren, rows: Tensor, *targets: Tensor) -> Tensor:
            found = function(siren, _spread(geometry, rows), *targets)
            return _gather(geometry, found) if gather else found

        points = len(siren.first)
        limit = max(1, self.floats_at_once // (rows.shape[-2] * rows.shape[-1]))
        if len(rows) * points <= limit:
            return of_rows(siren, rows, *targets)
        if points <= limit:
            parts = zip(*(tensor.split(limit // points) for tensor in (rows, *targets)), strict=True)
            return torch.cat([_recomputed(of_rows, siren, *part) for part in parts])
        results = []
        for row, *wanted in zip(*(tensor.split(1) for tensor in (rows, *targets)), strict=True):
            spread, firsts = _spread(geometry, row), siren.first.split(limit)
            shared = spread.shape[1] == 1
            shifts = [spread] * len(firsts) if shared else spread.split(limit, dim=1)
            parts = zip(firsts, shifts, *(target.split(limit, dim=1) for target in wanted), strict=True)
            found = [_recomputed(function, siren._replace(first=first), *part) for first, *part in parts]
            # Shifts that the parts share have the sum of the parts' gradients.
            whole = sum(found[1:], found[0]) if gather and shared else torch.cat(found, dim=1)
            results.append(_gather(geometry, whole) if gather else whole)
        return torch.cat(results)


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


def _values(siren: Siren, shifts: Tensor) -> Tensor:
    return output(siren, waves(siren, shifts, "float32"))


def _gradient(siren: Siren, shifts: Tensor, targets: Tensor, scale: float, precision: FieldPrecision) -> Tensor:
    layers = waves(siren, shifts, precision)
    start = scale * (output(siren, layers) - targets) @ siren.output_weight
    gradients = backward(siren, start, layers, precision)
    return torch.stack([g.sum_to_size(*shifts.shape[:2], g.shape[-1]) for g in gradients], dim=-2)


def _recomputed(function: Callable[..., Tensor], *arguments: Siren | Tensor) -> Tensor:
    return checkpoint(function, *arguments, use_reentrant=False) if torch.is_grad_enabled() else function(*arguments)
