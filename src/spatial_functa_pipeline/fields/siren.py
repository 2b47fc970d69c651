"""The SIREN in torch operations, for any device and data type, forwards and backwards.

Shapes: N rows of Q points that share their coordinates, W width, L modulated layers, h output channels. Shifts are
`(N, 1|Q, L, W)`, for all points of a row or, interpolated, for each. ω0 is folded into `first`, `hidden` and the shifts:

    a_1 = first + s_1,    a_l = h_{l−1} hidden_lᵀ + s_l,    h_l = sin a_l,    y = h_L output_weightᵀ + output_bias
"""

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

FieldPrecision = Literal["float32", "tf32", "bf16"]


class Siren(NamedTuple):
    """What all rows share: the first layer at each of the Q points, `(Q, W)`; the hidden layers `(L − 1, W, W)`; the output
    layer `(h, W)` and `(h,)`."""

    first: Tensor
    hidden: Tensor
    output_weight: Tensor
    output_bias: Tensor


class Context(Protocol):
    """What autograd carries from a forward to its backward pass; torch's type of it knows no `saved_tensors`."""

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]:
        """Those of `save_for_backward`."""

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep these."""

    def set_materialize_grads(self, value: bool) -> None:
        """Whether the gradient of what is not used is a tensor of zeros, or else None."""


class SinCos(torch.autograd.Function):
    """Sine and cosine at once: each is the other's derivative, so neither is computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Context, argument: Tensor) -> tuple[Tensor, Tensor]:
        """`(sin, cos)` of the argument."""
        sine, cosine = argument.sin(), argument.cos()
        ctx.save_for_backward(sine, cosine)
        ctx.set_materialize_grads(False)
        return sine, cosine

    @staticmethod
    def backward(ctx: Context, from_sine: Tensor | None, from_cosine: Tensor | None) -> Tensor | None:
        """The argument's gradient from those of its sine and cosine; None stands for zero."""
        sine, cosine = ctx.saved_tensors
        if from_cosine is None:
            return None if from_sine is None else from_sine * cosine
        gradient = -from_cosine * sine
        return gradient if from_sine is None else torch.addcmul(gradient, from_sine, cosine)


def waves(siren: Siren, shifts: Tensor, precision: FieldPrecision) -> list[tuple[Tensor, Tensor]]:
    """(sin a_l, cos a_l) of each layer, each `(N, Q, W)`."""
    first, *others = shifts.unbind(-2)
    result = [SinCos.apply(siren.first + first)]
    for weight, shift in zip(siren.hidden, others, strict=True):
        result.append(SinCos.apply(_product(result[-1][0], weight.T, precision) + shift))
    return result


def output(siren: Siren, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """y `(N, Q, h)`."""
    return torch.nn.functional.linear(layers[-1][0], siren.output_weight, siren.output_bias)


def backward(
    siren: Siren, gradient: Tensor, layers: list[tuple[Tensor, Tensor]], precision: FieldPrecision
) -> list[Tensor]:
    """Gradients for a_1 … a_L, each `(…, Q, W)`, from the one for h_L `(…, Q, W)`."""
    gradients = [gradient * layers[-1][1]]
    for (_, cosine), weight in zip(reversed(layers[:-1]), reversed(siren.hidden), strict=True):
        gradients.insert(0, _product(gradients[0], weight, precision) * cosine)
    return gradients


def _product(a: Tensor, b: Tensor, precision: FieldPrecision) -> Tensor:
    """a `(…, m, k)` times b `(k, n)`."""
    if precision != "bf16":
        return a @ b
    return RoundedProduct.apply(a.flatten(0, -2), b).unflatten(0, a.shape[:-1])


class RoundedProduct(torch.autograd.Function):
    """a `(m, k)` times b `(k, n)` with both rounded to bfloat16; sums and result are not. So are its derivatives' products.

    CUDA multiplies bfloat16 numbers and sums in float32. Elsewhere torch would round the result as well, so the rounded
    numbers are multiplied as what a and b are: right, and no faster than without rounding.
    """

    @staticmethod
    def forward(ctx: Context, a: Tensor, b: Tensor) -> Tensor:
        """The product, of a's data type."""
        ctx.save_for_backward(a, b)
        low, high = a.to(torch.bfloat16), b.to(torch.bfloat16)
        if a.device.type == "cuda" and a.dtype == torch.float32:
            return torch.mm(low, high, out_dtype=torch.float32)
        return low.to(a.dtype) @ high.to(a.dtype)

    @staticmethod
    def backward(ctx: Context, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of a and b."""
        a, b = ctx.saved_tensors
        return RoundedProduct.apply(gradient, b.T), RoundedProduct.apply(a.T, gradient)
