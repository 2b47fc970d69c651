"""How fast the field could be if only matrix products took time.

The ceiling is measured, not looked up: the fastest product of tall matrices with a (width × width) one. What the field
needs is counted from its definition, in the formulation of `fields/`: recomputation, element-wise work and the
interpolation of `linear` are not counted, so that the share falls if they take time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from cases import Case, Precision

_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
_ROWS = (512, 2048, 8192)


@dataclass(frozen=True)
class Products:
    """Floating-point operations of one batch's matrix products: of the inner steps, and of the final decoding."""

    inner: float
    final: float

    def shortest_time(self, inner_rate: float, final_rate: float) -> float:
        """Seconds at these rates (operations a second). The final decoding is in float32 at any precision."""
        return self.inner / inner_rate + self.final / final_rate


def encode_products(case: Case) -> Products:
    """Products that encoding one batch needs: the shared first step, then `inner_steps` − 1 general ones.

    Counted 2·m·k·n each. A general step is a forward and a backward pass through the W×W layers, the output layer, λ
    and λᵀ. The first step's basis belongs to the points of one cell (`nearest`) or image (`linear`) only; what it
    costs each image is the projection of the residual.
    """
    decode, points = _decode(case), case.resolution**2
    cells, layers = case.side**2, case.depth - 1
    features = layers * case.width
    unique = points // cells if case.interpolation == "nearest" else points
    basis = (1 + case.channels) * (layers - 1) * 2 * unique * case.width**2
    if case.interpolation == "nearest":
        basis += 2 * unique * case.channels * features * case.latent_channels
        project = case.batch * 2 * points * case.channels * case.latent_channels
    else:
        project = case.batch * 2 * cells * features * case.latent_channels
    return Products(basis + project + (case.inner_steps - 1) * 2 * decode, 0.0)


def outer_products(case: Case) -> Products:
    """Products of one outer step: encoding and decoding, and twice as many again in the backward pass."""
    return Products(3 * encode_products(case).inner, 3 * _decode(case))


def _decode(case: Case) -> float:
    """λ, the W×W layers and the output layer, for one batch. The first layer's coordinates are the same for all."""
    rows, layers = case.batch * case.resolution**2, case.depth - 1
    modulate = 2 * case.batch * case.side**2 * case.latent_channels * layers * case.width
    return modulate + 2 * rows * case.width * ((layers - 1) * case.width + case.channels)


class Ceiling:
    """The best rate of products with a (width × width) matrix seen so far, by torch.mm or by oneDNN."""

    def __init__(self, width: int, precision: Precision) -> None:
        self.best = 0.0
        self._candidates: list[tuple[float, Callable[[], object]]] = []
        dtype = _DTYPES[precision]
        square = torch.rand(width, width).to(dtype)
        for rows in _ROWS:
            tall, out = torch.rand(rows, width).to(dtype), torch.empty(rows, width, dtype=dtype)
            operations = 2.0 * rows * width**2
            self._candidates.append((operations, lambda a=tall, o=out: torch.mm(a, square, out=o)))
            if torch.backends.mkldnn.is_available():
                self._candidates.append((operations, lambda a=tall: _onednn(a, square)))

    @torch.no_grad()
    def measure(self, seconds: float = 0.02, repeats: int = 3) -> float:
        """Measure once more; returns the best rate so far, in operations a second."""
        for operations, product in self._candidates:
            product()
            start = time.perf_counter()
            product()
            calls = max(1, round(seconds / (time.perf_counter() - start)))
            for _ in range(repeats):
                start = time.perf_counter()
                for _ in range(calls):
                    product()
                self.best = max(self.best, calls * operations / (time.perf_counter() - start))
        return self.best


def _onednn(tall: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(tall, square, None, "none", [], "")
