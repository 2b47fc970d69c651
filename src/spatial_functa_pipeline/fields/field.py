"""The spatial functa field f_θ(x; m_x) and its inner loop (Sec. 4, App. A).

A SIREN of `depth − 1` sine layers, each shifted by a modulation, and a linear output layer. Shapes: B images, `(*grid, c)`
latents, N rows of Q points (see `geometry`), W width, L = depth − 1 modulated layers, h output channels.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from .geometry import GEOMETRIES, Interpolation

CONVOLUTIONS = {1: (F.conv1d, F.conv_transpose1d), 2: (F.conv2d, F.conv_transpose2d), 3: (F.conv3d, F.conv_transpose3d)}


class SinCos(torch.autograd.Function):
    """Sine and cosine at once: each is the other's derivative, so neither is computed again in the backward pass."""

    @staticmethod
    def forward(ctx: FunctionCtx, argument: Tensor) -> tuple[Tensor, Tensor]:
        """`(sin, cos)` of the argument."""
        sine, cosine = argument.sin(), argument.cos()
        ctx.save_for_backward(sine, cosine)
        ctx.set_materialize_grads(False)
        return sine, cosine

    @staticmethod
    def backward(ctx: FunctionCtx, from_sine: Tensor | None, from_cosine: Tensor | None) -> Tensor | None:
        """The argument's gradient from those of its sine and cosine; None stands for zero."""
        sine, cosine = ctx.saved_tensors
        if from_cosine is None:
            return None if from_sine is None else from_sine * cosine
        gradient = -from_cosine * sine
        return gradient if from_sine is None else torch.addcmul(gradient, from_sine, cosine)


@dataclass(frozen=True)
class FieldSpec:
    """Everything that fixes the field's shape. Sides are per axis, for any dimension D."""

    grid: tuple[int, ...]
    latent_channels: int
    resolution: tuple[int, ...]
    channels: int
    interpolation: Interpolation
    width: int
    depth: int
    omega0: float
    kernel_size: int = 1
    inner_steps: int = 3
    inner_rate_init: tuple[float, float] = (0.005, 0.1)


class SpatialField(nn.Module):
    """One SIREN and one map λ for all images, with the meta-SGD rates of the inner loop."""

    def __init__(self, spec: FieldSpec) -> None:
        super().__init__()
        if spec.kernel_size > 1 and len(spec.grid) not in CONVOLUTIONS:
            raise ValueError(
                f"λ with a kernel of {spec.kernel_size} needs a grid of 1 to 3 dimensions, got {spec.grid}"
            )
        self.spec = spec
        self.geometry = GEOMETRIES[spec.interpolation](spec.grid, spec.resolution, spec.resolution)
        # ∂ loss / ∂ output = 2 (output − target) / (pixels of a cell · channels); ω0 is ∂ a / ∂ modulation.
        self._loss_scale = 2 * spec.omega0 * prod(spec.grid) / (prod(spec.resolution) * spec.channels)
        self.sine_layers = spec.depth - 1
        sizes = [self.geometry.coordinates.shape[-1], *[spec.width] * self.sine_layers, spec.channels]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(sizes))
        kernel = (spec.kernel_size,) * len(spec.grid)
        # λ as a convolution kernel (L·W, c, *kernel); a 1×1 kernel is applied as a plain matrix product.
        self.modulation_weight = nn.Parameter(torch.empty(self.sine_layers * spec.width, spec.latent_channels, *kernel))
        self.modulation_bias = nn.Parameter(torch.empty(self.sine_layers * spec.width))
        self.inner_rates = nn.Parameter(torch.empty(spec.latent_channels))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """SIREN's initialisation, as functa has it: the output layer is scaled like the hidden ones, biases are 0."""
        for index, layer in enumerate(self.layers):
            fan_in = layer.in_features
            bound = 1 / fan_in if index == 0 else sqrt(6 / fan_in) / self.spec.omega0
            layer.weight.uniform_(-bound, bound)
            layer.bias.zero_()
        std = self.modulation_weight[0].numel() ** -0.5
        nn.init.trunc_normal_(self.modulation_weight, std=std, a=-2 * std, b=2 * std)
        self.modulation_bias.zero_()
        self.inner_rates.uniform_(*self.spec.inner_rate_init)

    # Latent → shifts, and its adjoint

    def modulate(self, latents: Tensor) -> Tensor:
        """λ: latents `(B, *grid, c)` → modulations `(B, *grid, L·W)`."""
        if self.spec.kernel_size == 1:
            return F.linear(latents, self.modulation_weight.flatten(1), self.modulation_bias)
        convolve, _ = CONVOLUTIONS[len(self.spec.grid)]
        out = convolve(latents.movedim(-1, 1), self.modulation_weight, self.modulation_bias, padding="same")
        return out.movedim(1, -1)

    def modulate_adjoint(self, gradients: Tensor) -> Tensor:
        """λᵀ: gradients of modulations `(B, *grid, L·W)` → of latents `(B, *grid, c)`."""
        if self.spec.kernel_size == 1:
            return gradients @ self.modulation_weight.flatten(1)
        _, convolve_transposed = CONVOLUTIONS[len(self.spec.grid)]
        padding = self.spec.kernel_size // 2
        return convolve_transposed(gradients.movedim(-1, 1), self.modulation_weight, padding=padding).movedim(1, -1)

    # The SIREN. ω0 is folded into weights and shifts: a_l = ω0 (W_l h_{l−1} + b_l + m_l), h_l = sin a_l.

    def _scaled_weights(self) -> list[Tensor]:
        return [self.spec.omega0 * layer.weight for layer in self.layers[:-1]]

    def _waves(self, modulations: Tensor, coordinates: Tensor, weights: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(sin a_l, cos a_l) of each layer, each `(N, Q, W)`, from modulations `(N, 1|Q, L·W)`."""
        shifts = modulations.unflatten(-1, (self.sine_layers, self.spec.width))
        biases = torch.stack([layer.bias for layer in self.layers[:-1]])
        shifts = (self.spec.omega0 * (shifts + biases)).unbind(-2)
        waves = [SinCos.apply(coordinates @ weights[0].T + shifts[0])]
        for weight, shift in zip(weights[1:], shifts[1:], strict=True):
            waves.append(SinCos.apply(waves[-1][0] @ weight.T + shift))
        return waves

    def _output(self, waves: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Pixel values `(N, Q, h)`: linear in the last sine layer, + ½, not clamped."""
        return F.linear(waves[-1][0], self.layers[-1].weight, self.layers[-1].bias + 0.5)

    def _backward(self, gradient: Tensor, waves: list[tuple[Tensor, Tensor]], weights: list[Tensor]) -> list[Tensor]:
        """Gradients with respect to a_1 … a_L, each `(…, Q, W)`, from the one with respect to h_L `(…, Q, W)`."""
        gradients = []
        for (_, cosine), weight in zip(reversed(waves), reversed(weights), strict=True):
            gradients.insert(0, gradient * cosine)
            if len(gradients) < self.sine_layers:
                gradient = gradients[0] @ weight
        return gradients

    # The inner loop. The loss is the mean over a cell's pixels and channels, summed over the cells of an image.

    def _first_gradient(self, targets: Tensor, weights: list[Tensor]) -> Tensor:
        """∇_z L at z = 0, `(B, *grid, c)`.

        There the activations depend on the point alone, not on the image: one basis ∂output/∂modulation serves all
        rows. Exact, and far cheaper than a general step.
        """
        waves = self._waves(self.modulation_bias.expand(1, 1, -1), self.geometry.coordinates, weights)
        residual = self._output(waves) - targets
        # ∂ output[q, h] / ∂ modulation, for each output channel: (Q, h, L·W)
        start = self.layers[-1].weight[:, None, :].expand(-1, waves[0][0].shape[1], -1)
        basis = torch.cat(self._backward(start, waves, weights), dim=-1).movedim(0, 1)
        if self.spec.kernel_size == 1:
            return self._loss_scale * self.geometry.project(residual, basis @ self.modulation_weight.flatten(1))
        return self._loss_scale * self.modulate_adjoint(self.geometry.project(residual, basis))

    def _gradient(self, latents: Tensor, targets: Tensor, weights: list[Tensor]) -> Tensor:
        """∇_z L at any z, written out, `(B, *grid, c)`."""
        modulations = self.geometry.spread(self.modulate(latents))
        waves = self._waves(modulations, self.geometry.coordinates, weights)
        gradient = self._loss_scale * (self._output(waves) - targets) @ self.layers[-1].weight
        gathered = [self.geometry.gather(gradient) for gradient in self._backward(gradient, waves, weights)]
        return self.modulate_adjoint(torch.cat(gathered, dim=-1))

    def _fit(self, targets: Tensor, steps: int, weights: list[Tensor]) -> Tensor:
        rates = self.inner_rates.clamp(0, 1)
        latents = -rates * self._first_gradient(targets, weights)
        for _ in range(steps - 1):
            latents = latents - rates * self._gradient(latents, targets, weights)
        return latents

    def encode(self, images: Tensor, steps: int | None = None) -> Tensor:
        """Latents `(B, *grid, c)` of images `(B, *resolution, channels)` in [0, 1]: gradient steps from zero.

        Differentiable with respect to all parameters, to second order; wrap in `torch.no_grad()` to encode only.
        `steps` overrides the number of inner steps (≥ 1) that the field was trained with.
        """
        steps = self.spec.inner_steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"encoding needs at least one inner step, got {steps}")
        self._check_images(images)
        return self._fit(self.geometry.to_points(images), steps, self._scaled_weights())

    def decode(self, latents: Tensor, resolution: tuple[int, ...] | None = None) -> Tensor:
        """Images `(B, *resolution, channels)` of latents `(B, *grid, c)`, not clamped to [0, 1].

        The field is continuous: any `resolution` may be asked for (a multiple of the grid for `nearest`).
        """
        geometry = self.geometry
        if resolution is not None and tuple(resolution) != self.spec.resolution:
            geometry = GEOMETRIES[self.spec.interpolation](self.spec.grid, resolution, self.spec.resolution).to(latents)
        modulations = geometry.spread(self.modulate(latents))
        points = self._output(self._waves(modulations, geometry.coordinates, self._scaled_weights()))
        return geometry.to_images(points.reshape(len(modulations), -1, self.spec.channels))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode and decode: reconstructions like `images`, and their latents. What the outer loop differentiates."""
        self._check_images(images)
        targets, weights = self.geometry.to_points(images), self._scaled_weights()
        latents = self._fit(targets, self.spec.inner_steps, weights)
        modulations = self.geometry.spread(self.modulate(latents))
        points = self._output(self._waves(modulations, self.geometry.coordinates, weights))
        return self.geometry.to_images(points), latents

    def _check_images(self, images: Tensor) -> None:
        expected = (*self.spec.resolution, self.spec.channels)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(f"the field was built for images of shape {expected}, got {tuple(images.shape[1:])}")
