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

from spatial_functa_pipeline.fields.geometry import GEOMETRIES, Geometry, Interpolation
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.native_engine import NativeEngine
from spatial_functa_pipeline.fields.siren import FieldPrecision, Siren, backward, output, waves
from spatial_functa_pipeline.fields.torch_engine import TorchEngine

CONVOLUTIONS = {1: (F.conv1d, F.conv_transpose1d), 2: (F.conv2d, F.conv_transpose2d), 3: (F.conv3d, F.conv_transpose3d)}


@dataclass(frozen=True)
class FieldSpec:
    """Everything that fixes the field's shape. Sides are per axis, for any dimension D."""

    latent_shape: LatentShape
    resolution: tuple[int, ...]
    channels: int
    interpolation: Interpolation
    width: int
    depth: int
    omega0: float
    kernel_size: int = 1
    inner_steps: int = 3
    inner_rate_init: tuple[float, float] = (0.005, 0.1)
    precision: FieldPrecision = "float32"


class SpatialField(nn.Module):
    """One SIREN and one map λ for all images, with the meta-SGD rates of the inner loop."""

    geometry: Geometry
    spectral_vector: Tensor

    def __init__(self, spec: FieldSpec) -> None:
        super().__init__()
        if spec.kernel_size > 1 and len(spec.latent_shape.grid) not in CONVOLUTIONS:
            raise ValueError(
                f"λ with a kernel of {spec.kernel_size} needs a grid of 1 to 3 dimensions, got {spec.latent_shape.grid}"
            )
        self.spec = spec
        self.geometry = GEOMETRIES[spec.interpolation](spec.latent_shape.grid, spec.resolution, spec.resolution)
        # ∂ loss / ∂ output = 2 (output − target) / (pixels of a cell · channels); ω0 is ∂ a / ∂ modulation.
        self._loss_scale = 2 * spec.omega0 * prod(spec.latent_shape.grid) / (prod(spec.resolution) * spec.channels)
        self.sine_layers = spec.depth - 1
        sizes = [self.geometry.coordinates.shape[-1], *[spec.width] * self.sine_layers, spec.channels]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(sizes))
        kernel = (spec.kernel_size,) * len(spec.latent_shape.grid)
        # λ as a convolution kernel (L·W, c, *kernel); a 1×1 kernel is applied as a plain matrix product.
        self.modulation_weight = nn.Parameter(
            torch.empty(self.sine_layers * spec.width, spec.latent_shape.channels, *kernel)
        )
        self.modulation_bias = nn.Parameter(torch.empty(self.sine_layers * spec.width))
        self.inner_rates = nn.Parameter(torch.empty(spec.latent_shape.channels))
        # Largest eigenvector of the inner loop's step matrix, as far as `spectral_radius` has found it.
        self.register_buffer("spectral_vector", torch.empty(1, *spec.latent_shape.grid, spec.latent_shape.channels))
        self.engine: TorchEngine | NativeEngine = TorchEngine()
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """SIREN's initialisation, as functa has it: the output layer is scaled like the hidden ones, biases are 0."""
        for index, layer in enumerate(self._linear_layers):
            fan_in = layer.in_features
            bound = 1 / fan_in if index == 0 else sqrt(6 / fan_in) / self.spec.omega0
            layer.weight.uniform_(-bound, bound)
            layer.bias.zero_()
        std = self.modulation_weight[0].numel() ** -0.5
        nn.init.trunc_normal_(self.modulation_weight, std=std, a=-2 * std, b=2 * std)
        self.modulation_bias.zero_()
        self.inner_rates.uniform_(*self.spec.inner_rate_init)
        self.spectral_vector.normal_()
        self.spectral_vector /= self.spectral_vector.norm()

    @property
    def _linear_layers(self) -> list[nn.Linear]:
        """`layers`, as what they are."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    # Latent → shifts, and its adjoint

    def modulate(self, latents: Tensor) -> Tensor:
        """λ: latents `(B, *grid, c)` → modulations `(B, *grid, L·W)`."""
        if self.spec.kernel_size == 1:
            return F.linear(latents, self.modulation_weight.flatten(1), self.modulation_bias)
        convolve, _ = CONVOLUTIONS[len(self.spec.latent_shape.grid)]
        out = convolve(latents.movedim(-1, 1), self.modulation_weight, self.modulation_bias, padding="same")
        return out.movedim(1, -1)

    def modulate_adjoint(self, gradients: Tensor) -> Tensor:
        """λᵀ: gradients of modulations `(B, *grid, L·W)` → of latents `(B, *grid, c)`."""
        if self.spec.kernel_size == 1:
            return gradients @ self.modulation_weight.flatten(1)
        _, convolve_transposed = CONVOLUTIONS[len(self.spec.latent_shape.grid)]
        padding = self.spec.kernel_size // 2
        return convolve_transposed(gradients.movedim(-1, 1), self.modulation_weight, padding=padding).movedim(1, -1)

    def _siren(self, coordinates: Tensor) -> Siren:
        """What all images share, with ω0 folded in: a_l = ω0 (W_l h_{l−1} + b_l + m_l), h_l = sin a_l."""
        *sine_layers, last = self._linear_layers
        first, *hidden = (layer.weight for layer in sine_layers)
        square = torch.stack(hidden) if hidden else first.new_empty(0, self.spec.width, self.spec.width)
        # Pixel values are + ½, not clamped.
        return Siren(
            self.spec.omega0 * (coordinates @ first.T), self.spec.omega0 * square, last.weight, last.bias + 0.5
        )

    def _shifts(self, modulations: Tensor) -> Tensor:
        """Modulations `(…, L·W)` → shifts `(…, L, W)`, each layer's bias included: interpolation weights sum to 1."""
        biases = torch.stack([layer.bias for layer in self._linear_layers[:-1]])
        return self.spec.omega0 * (modulations.unflatten(-1, (self.sine_layers, self.spec.width)) + biases)

    # The inner loop. The loss is the mean over a cell's pixels and channels, summed over the cells of an image.

    def _basis(self, siren: Siren) -> tuple[Tensor, Tensor]:
        """At z = 0, where all images are alike: values `(1, Q, h)`, and their derivatives for the modulations of the
        point `(Q, h, L·W)`, without ω0."""
        layers = waves(siren, self._shifts(self.modulation_bias.expand(1, 1, -1)), "float32")
        start = siren.output_weight[:, None, :].expand(-1, len(siren.first), -1)
        basis = torch.cat(backward(siren, start, layers, "float32"), dim=-1).movedim(0, 1)
        return output(siren, layers), basis

    def _first_gradient(self, targets: Tensor, siren: Siren) -> Tensor:
        """∇_z L at z = 0, `(B, *grid, c)`.

        There the activations depend on the point alone, not on the image: one basis ∂output/∂modulation serves all
        rows. Exact, and far cheaper than a general step.
        """
        values, basis = self._basis(siren)
        residual = values - targets
        if self.spec.kernel_size == 1:
            return self._loss_scale * self.geometry.project(residual, basis @ self.modulation_weight.flatten(1))
        return self._loss_scale * self.modulate_adjoint(self.geometry.project(residual, basis))

    def _gradient(self, latents: Tensor, targets: Tensor, siren: Siren) -> Tensor:
        """∇_z L at any z, written out, `(B, *grid, c)`."""
        shifts = self._shifts(self.modulate(latents))
        gradient, _ = self.engine.gradient(siren, self.geometry, shifts, targets, self._loss_scale, self.spec.precision)
        return self.modulate_adjoint(gradient.flatten(-2))

    def _fit(self, targets: Tensor, steps: int, siren: Siren) -> Tensor:
        rates = self.inner_rates.clamp(0, 1)
        latents = -rates * self._first_gradient(targets, siren)
        for _ in range(steps - 1):
            latents = latents - rates * self._gradient(latents, targets, siren)
        return latents

    def spectral_radius(self, iterations: int = 0) -> Tensor:
        """λ_max of the inner loop's step matrix at z = 0: above 2 the gradient steps diverge. Differentiable.

        The matrix is √α Jᵀ H J √α for the meta-SGD rates α, the derivative J of all pixels of an image for its latent, and
        the loss's second derivative H: positive, and without λ's mixing and interpolation the same block for each cell.
        The value is the Rayleigh quotient of `spectral_vector`, after so many more power iterations of it: from step to
        step of a training one is enough.
        """
        _, basis = self._basis(self._siren(self.geometry.coordinates))
        scale = self._loss_scale * self.spec.omega0
        roots = self.inner_rates.clamp(1e-12, 1).sqrt()

        def pixels(vector: Tensor) -> Tensor:
            modulations = self.modulate(roots * vector) - self.modulation_bias
            return self.geometry.differentiate(self.geometry.spread(modulations), basis)

        with torch.no_grad():
            vector = self.spectral_vector
            for _ in range(iterations):
                vector = roots * self.modulate_adjoint(self.geometry.project(pixels(vector), basis))
                vector = vector / vector.norm().clamp(min=1e-30)
            self.spectral_vector.copy_(vector)
        return scale * pixels(vector).square().sum()

    def encode(self, images: Tensor, steps: int | None = None) -> Tensor:
        """Latents `(B, *grid, c)` of images `(B, *resolution, channels)` in [0, 1]: gradient steps from zero.

        Differentiable with respect to all parameters, to second order; wrap in `torch.no_grad()` to encode only.
        `steps` overrides the number of inner steps (≥ 1) that the field was trained with.
        """
        steps = self.spec.inner_steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"encoding needs at least one inner step, got {steps}")
        self._check_images(images)
        return self._fit(self.geometry.to_points(images), steps, self._siren(self.geometry.coordinates))

    def decode(self, latents: Tensor, resolution: tuple[int, ...] | None = None) -> Tensor:
        """Images `(B, *resolution, channels)` of latents `(B, *grid, c)`, not clamped to [0, 1].

        Any `resolution` may be asked for (a multiple of the grid for `nearest`). `nearest` is continuous within a cell.
        `linear` is not: its coordinates are the bits of a trained pixel's index, so that an enlarged image is blocky.
        """
        geometry = self.geometry
        if resolution is not None and tuple(resolution) != self.spec.resolution:
            geometry = GEOMETRIES[self.spec.interpolation](
                self.spec.latent_shape.grid, resolution, self.spec.resolution
            ).to(latents)
        return self._decode(latents, geometry, self._siren(geometry.coordinates))

    def _decode(self, latents: Tensor, geometry: Geometry, siren: Siren) -> Tensor:
        return geometry.to_images(self.engine.values(siren, geometry, self._shifts(self.modulate(latents))))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode and decode: reconstructions like `images`, and their latents. What the outer loop differentiates."""
        self._check_images(images)
        siren = self._siren(self.geometry.coordinates)
        latents = self._fit(self.geometry.to_points(images), self.spec.inner_steps, siren)
        return self._decode(latents, self.geometry, siren), latents

    def _check_images(self, images: Tensor) -> None:
        expected = (*self.spec.resolution, self.spec.channels)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(f"the field was built for images of shape {expected}, got {tuple(images.shape[1:])}")
