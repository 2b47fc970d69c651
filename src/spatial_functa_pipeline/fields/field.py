"""The spatial functa field f_θ(x; m_x) and its inner loop (Sec. 4, App. A).

A SIREN of `depth − 1` sine layers, each shifted by a modulation, and a linear output layer. Shapes: B images, `(*grid, c)`
latents, N rows of Q points (see `geometry`), W width, L = depth − 1 modulated layers, h output channels.

Latents of several scales (see `scales`) are `(numbers,)` where it says `(*grid, c)`; `(*grid, c)` is then what the cells of
the finest grid have.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod, sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from spatial_functa_pipeline.fields.cell_maps import MOST_DIMENSIONS, apply_adjoint, apply_map, centre_of
from spatial_functa_pipeline.fields.cells import cut_into_cells
from spatial_functa_pipeline.fields.encoder import Encoder, EncoderSpec
from spatial_functa_pipeline.fields.geometry import GEOMETRIES, Geometry, Interpolation, OverlappingGeometry
from spatial_functa_pipeline.fields.lanczos import largest_eigenvalues
from spatial_functa_pipeline.fields.latent_shape import LatentShape, Scale
from spatial_functa_pipeline.fields.native_engine import NativeEngine
from spatial_functa_pipeline.fields.own_parts import FreeFirstStep, FreeFirstSteps, LinearPart
from spatial_functa_pipeline.fields.scales import (
    channel_of_numbers,
    join_scales,
    place_of_cells,
    split_scales,
    to_cells,
    to_cells_adjoint,
)
from spatial_functa_pipeline.fields.siren import FieldPrecision, Siren, backward, output, waves
from spatial_functa_pipeline.fields.torch_engine import TorchEngine, recomputed

KernelInit = Literal["whole", "centre"]
FirstStep = Literal["tied", "free"]
Initialisation = Literal["random", "data"]

_DATA_RATE = 0.5
"""Of the inner loop of a field that starts from the data, whose loss has the second derivative 1 / rate for each latent."""
_DATA_SHIFT = 0.1
"""Standard deviation of the shifts of each sine layer of such a field, in radians."""
_DATA_RANGE = 1e-3
"""Of such a field's latents: channels of less than this share of the largest deviation shift the sines by less."""


@dataclass(frozen=True)
class FieldSpec(EncoderSpec):
    """Everything that fixes the field's shape. Sides are per axis, for any dimension D."""

    latent_shape: LatentShape
    resolution: tuple[int, ...]
    channels: int
    interpolation: Interpolation
    width: int
    depth: int
    omega0: float
    kernel_size: int = 1
    kernel_init: KernelInit = "whole"
    inner_steps: int = 3
    inner_rate_init: tuple[float, float] = (0.005, 0.1)
    precision: FieldPrecision = "float32"
    first_step: FirstStep = "tied"
    initialisation: Initialisation = "random"
    overlap: float = 0.0


class SpatialField(Encoder):
    """One SIREN and one map λ for all images, with the meta-SGD rates of the inner loop.

    Attributes:
        first_step: learned, or None: the first inner step is a gradient step.
        linear: what a field that starts from the data has beside its SIREN, or None.
    """

    geometry: Geometry
    geometry_beside: OverlappingGeometry | None
    spec: FieldSpec
    any_resolution = True
    spectral_vector: Tensor
    channel_of: Tensor
    cells_covered: Tensor
    places: Tensor
    first_step: FreeFirstStep | FreeFirstSteps | None
    linear: LinearPart | None

    def __init__(self, spec: FieldSpec) -> None:
        super().__init__()
        if spec.kernel_size > 1 and len(spec.latent_shape.grid) > MOST_DIMENSIONS:
            raise ValueError(
                f"λ with a kernel of {spec.kernel_size} needs a grid of 1 to 3 dimensions, got {spec.latent_shape.grid}"
            )
        if spec.overlap and spec.interpolation != "nearest":
            raise ValueError(f"only cells of the interpolation nearest have an overlap, got {spec.interpolation}")
        if spec.latent_shape.coarser and (spec.interpolation != "nearest" or spec.initialisation == "data"):
            raise ValueError(
                f"a field of several scales has the interpolation nearest and starts at random, got {spec.interpolation} "
                f"and {spec.initialisation}"
            )
        self.spec = spec
        shape = (spec.latent_shape.grid, spec.resolution, spec.resolution)
        self.geometry = GEOMETRIES[spec.interpolation](*shape)
        # Of points beside the pixels, which are at most half a pixel away.
        self.geometry_beside = OverlappingGeometry(*shape, spec.overlap, movable=0.5) if spec.overlap else None
        # ∂ loss / ∂ output = this · (output − target): the loss is the mean over the pixels of a cell and their channels.
        self._residual_scale = 2 * prod(spec.latent_shape.grid) / (prod(spec.resolution) * spec.channels)
        self.sine_layers = spec.depth - 1
        scales = spec.latent_shape.scales
        sizes = [len(scales) * self.geometry.coordinates.shape[-1], *[spec.width] * self.sine_layers, spec.channels]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(sizes))
        kernel = (spec.kernel_size,) * len(spec.latent_shape.grid)
        # λ as a convolution kernel (L·W, c, *kernel); a 1×1 kernel is applied as a plain matrix product.
        self.modulation_weight = nn.Parameter(
            torch.empty(self.sine_layers * spec.width, spec.latent_shape.channels, *kernel)
        )
        self.modulation_bias = nn.Parameter(torch.empty(self.sine_layers * spec.width))
        self.inner_rates = nn.Parameter(torch.empty(spec.latent_shape.channels))
        latent, pixels = spec.latent_shape.channels, prod(spec.cell) * spec.channels
        if spec.first_step == "tied":
            self.first_step = None
        elif spec.latent_shape.coarser:
            self.first_step = FreeFirstSteps(spec.latent_shape, pixels, [self._reach_of(scale) for scale in scales])
        else:
            self.first_step = FreeFirstStep(latent, pixels, self._reach)
        starts_from_data = spec.initialisation == "data"
        self.linear = LinearPart(spec.cell, spec.channels, latent, self._reach) if starts_from_data else None
        # Largest eigenvector of the inner loop's step matrix, as far as `spectral_radius` has found it.
        self.register_buffer("spectral_vector", torch.empty(1, *spec.latent_shape.shape))
        self._register_scales(spec.latent_shape)
        self.engine: TorchEngine | NativeEngine = TorchEngine()
        self.reset_parameters()

    @property
    def _reach(self) -> tuple[int, ...]:
        """Cells along each axis whose latents the pixels of one cell depend on to first order, and the other way round."""
        between = 2 if self.spec.interpolation == "linear" and self.spec.latent_shape.cells > 1 else 0
        return (self.spec.kernel_size + between,) * len(self.spec.latent_shape.grid)

    def _reach_of(self, scale: Scale) -> tuple[int, ...]:
        """The same in cells of this scale, of several."""
        neighbours = self.spec.kernel_size // 2
        sides = zip(self.spec.latent_shape.grid, scale.grid, strict=True)
        return tuple(1 if side == 1 else 1 + 2 * ceil(neighbours * side / finest) for finest, side in sides)

    def _register_scales(self, shape: LatentShape) -> None:
        """For several scales: each number's channel; of each channel, how many cells of the finest grid share it; and where in
        the cells of all scales each cell of the finest grid begins."""
        if not shape.coarser:
            return
        covered = [torch.full((scale.channels,), shape.cells / scale.cells) for scale in shape.scales]
        self.register_buffer("channel_of", channel_of_numbers(shape), persistent=False)
        self.register_buffer("cells_covered", torch.cat(covered), persistent=False)
        self.register_buffer("places", place_of_cells(shape).to(torch.get_default_dtype()), persistent=False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """SIREN's initialisation, as functa has it: the output layer is scaled like the hidden ones, biases are 0.

        A free first step and a linear part are zero until a training starts: `tie_first_step`, `start_from`.
        """
        for index, layer in enumerate(self._linear_layers):
            fan_in = layer.in_features
            bound = 1 / fan_in if index == 0 else sqrt(6 / fan_in) / self.spec.omega0
            layer.weight.uniform_(-bound, bound)
            layer.bias.zero_()
        started = (
            centre_of(self.modulation_weight.zero_()) if self.spec.kernel_init == "centre" else self.modulation_weight
        )
        std = started[0].numel() ** -0.5
        nn.init.trunc_normal_(started, std=std, a=-2 * std, b=2 * std)
        self.modulation_bias.zero_()
        self.inner_rates.uniform_(*self.spec.inner_rate_init)
        self.spectral_vector.normal_()
        self.spectral_vector /= self.spectral_vector.norm()
        for part in (self.first_step, self.linear):
            for parameter in () if part is None else part.parameters():
                parameter.zero_()

    @torch.no_grad()
    def start_from(self, mean: Tensor, directions: Tensor, deviations: Tensor) -> None:
        """Start from the principal components of cells' pixels: until the field is trained, its latents are their codes.

        The linear part has the components, at a length for which the inner loop's first step finds the code; the SIREN's
        output layer is zero. λ is such that each channel of the data's latents shifts the sines by as much.

        Args:
            mean: of a cell's pixels, `(P·h,)`.
            directions: orthonormal, `(P·h, k)`, k ≤ c; further latent channels have no part in the linear code.
            deviations: standard deviations of the data along them, `(k,)`.

        Raises ValueError if the spec's initialisation is not `data`.
        """
        if self.linear is None:
            raise ValueError(f"a field whose initialisation is {self.spec.initialisation} has no linear part")
        for parameter in self._linear_layers[-1].parameters():
            parameter.zero_()
        length = sqrt(1 / (_DATA_RATE * self._residual_scale))
        self.linear.start_from(mean - 0.5, length * directions)  # the SIREN's output is ½
        self.inner_rates.fill_(_DATA_RATE)
        largest = deviations.max().item() or 1.0  # the data are all the same
        of_latents = torch.full_like(self.inner_rates, largest)
        of_latents[: len(deviations)] = deviations.clamp(min=_DATA_RANGE * largest).to(of_latents)
        std = _DATA_SHIFT * length / (self.spec.omega0 * of_latents * sqrt(self.modulation_weight[0].numel()))
        self.modulation_weight.normal_()
        self.modulation_weight.mul_(std.reshape(-1, *(1,) * len(self._reach)))
        self.tie_first_step()

    @torch.no_grad()
    def tie_first_step(self) -> None:
        """Make a free first step, if there is one, the gradient step.

        For `linear` and several scales, whose cells differ, it is that of the middle cell.
        """
        rates = self._residual_scale * self.inner_rates.clamp(0, 1)
        if isinstance(self.first_step, FreeFirstSteps):
            self.first_step.tie(rates, self._first_orders())
        elif self.first_step is not None:
            self.first_step.tie(rates, self._first_order())

    @property
    def _linear_layers(self) -> list[nn.Linear]:
        """`layers`, as what they are."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    # Latent → shifts, and its adjoint

    def modulate(self, latents: Tensor) -> Tensor:
        """λ: latents `(B, *grid, c)` → modulations `(B, *grid, L·W)`; of several scales, the sum of theirs."""
        return apply_map(self.modulation_weight, to_cells(latents, self.spec.latent_shape), self.modulation_bias)

    def modulate_adjoint(self, gradients: Tensor) -> Tensor:
        """λᵀ: gradients of modulations `(B, *grid, L·W)` → of latents `(B, *grid, c)`."""
        return to_cells_adjoint(apply_adjoint(self.modulation_weight, gradients), self.spec.latent_shape)

    def _siren(self, coordinates: Tensor) -> Siren:
        """What all images share, with ω0 folded in: a_l = ω0 (W_l h_{l−1} + b_l + m_l), h_l = sin a_l.

        With several scales the coordinates are those in the cells of each. In a cell of the finest grid they are linear in
        those of that cell alone, which all cells share; where it lies in the others is a shift of the first layer (`_placed`).
        """
        *sine_layers, last = self._linear_layers
        first, *hidden = (layer.weight for layer in sine_layers)
        if self.spec.latent_shape.coarser:
            first = (first.unflatten(1, (-1, coordinates.shape[-1])) * self._cell_sides).sum(dim=1)
        square = torch.stack(hidden) if hidden else first.new_empty(0, self.spec.width, self.spec.width)
        # Pixel values are + ½, not clamped.
        return Siren(
            self.spec.omega0 * (coordinates @ first.T), self.spec.omega0 * square, last.weight, last.bias + 0.5
        )

    def _shifts(self, modulations: Tensor) -> Tensor:
        """Modulations `(…, L·W)` → shifts `(…, L, W)`, each layer's bias included: interpolation weights sum to 1."""
        biases = torch.stack([layer.bias for layer in self._linear_layers[:-1]])
        return self.spec.omega0 * (modulations.unflatten(-1, (self.sine_layers, self.spec.width)) + biases)

    @property
    def _cell_sides(self) -> Tensor:
        """Of a cell of the finest grid, in cells of each of the scales, `(scales, D)`."""
        finest, scales = self.spec.latent_shape.grid, self.spec.latent_shape.scales
        return self.places.new_tensor([[k / n for k, n in zip(scale.grid, finest, strict=True)] for scale in scales])

    def _placed(self) -> Tensor:
        """What the place of each cell in those of the coarser scales adds to the first layer's shifts, `(*grid, W)`."""
        return self.spec.omega0 * (self.places @ self._linear_layers[0].weight.T)

    def _shifts_of(self, latents: Tensor) -> Tensor:
        """All shifts of the cells, `(B, *grid, L, W)`."""
        shifts = self._shifts(self.modulate(latents))
        if not self.spec.latent_shape.coarser:
            return shifts
        first, others = shifts.split([1, self.sine_layers - 1], dim=-2)
        return torch.cat([first + self._placed().unsqueeze(-2), others], dim=-2)

    def _at_all_places(self, siren: Siren) -> Siren:
        """At the points of one cell for all, where z = 0 makes all cells alike; of several scales, at those of every cell."""
        if not self.spec.latent_shape.coarser:
            return siren
        placed = self._placed().flatten(0, -2)
        return siren._replace(first=(placed[:, None, :] + siren.first).flatten(0, 1))

    def _linear_part(self, latents: Tensor, geometry: Geometry, places: Tensor | None = None) -> Tensor | float:
        """At the points of the geometry, `(N, Q, h)`; 0 without a linear part. `places` as `LinearPart` has them."""
        return 0.0 if self.linear is None else geometry.from_cells(self.linear(latents, places), self.spec.channels)

    # The inner loop. The loss is the mean over a cell's pixels and channels, summed over the cells of an image.

    def _values_at_zero(self, siren: Siren) -> list[Tensor]:
        """At z = 0, where all images are alike: the SIREN's values `(Q, h)`."""
        return [output(siren, self._waves_at_zero(siren))[0]]

    def _waves_at_zero(self, siren: Siren) -> list[tuple[Tensor, Tensor]]:
        return waves(siren, self._shifts(self.modulation_bias.expand(1, 1, -1)), "float32")

    def _basis(self, siren: Siren) -> list[Tensor]:
        """At z = 0: the SIREN's values `(Q, h)`, and its derivatives for the latents of a point's cell `(Q, h, c)`; where λ
        mixes cells, for the modulations of the point `(Q, h, L·W)`. Q are the points of `_at_all_places`."""
        layers = self._waves_at_zero(siren)
        start = siren.output_weight[:, None, :].expand(-1, len(siren.first), -1)
        basis = self.spec.omega0 * torch.cat(backward(siren, start, layers, "float32"), dim=-1).movedim(0, 1)
        if self.spec.kernel_size == 1:
            basis = basis @ self.modulation_weight.flatten(1)
        return [output(siren, layers)[0], basis]

    def _at_all_points(self, function: Callable[[Siren], list[Tensor]], siren: Siren) -> list[Tensor]:
        """What `function` gives for each point, for as many points at a time as the engine's memory allows."""
        numbers = self.sine_layers * self.spec.width * self.spec.channels
        parts = siren.first.split(max(1, self.engine.floats_at_once // numbers))
        if len(parts) == 1:
            return function(siren)
        found = [recomputed(function, siren._replace(first=first)) for first in parts]
        return [torch.cat(tensors) for tensors in zip(*found, strict=True)]

    def _tangent(self, latents: Tensor, basis: Tensor) -> Tensor:
        """(∂y/∂z) · latents at z = 0: how the pixels change to first order, as points `(N, Q, h)`."""
        cells = to_cells(latents, self.spec.latent_shape)
        if self.spec.kernel_size > 1:
            cells = apply_map(self.modulation_weight, cells)
        change = self.geometry.differentiate(self.geometry.spread(cells), basis)
        if self.linear is None:
            return change
        return change + self.geometry.from_cells(self.linear.tangent(latents), self.spec.channels)

    def _tangent_adjoint(self, residual: Tensor, basis: Tensor) -> Tensor:
        """(∂y/∂z)ᵀ · residual at z = 0: points `(N, Q, h)` → latents `(B, *grid, c)`."""
        cells = self.geometry.project(residual, basis)
        if self.spec.kernel_size > 1:
            cells = apply_adjoint(self.modulation_weight, cells)
        latents = to_cells_adjoint(cells, self.spec.latent_shape)
        return latents if self.linear is None else latents + self.linear.adjoint(self.geometry.to_cells(residual))

    def _basis_at_all_places(self) -> Tensor:
        """The derivatives of `_basis`."""
        return self._at_all_points(self._basis, self._at_all_places(self._siren(self.geometry.coordinates)))[1]

    def _first_order(self) -> Tensor:
        """∂y/∂z at z = 0 as a map of cells, `(P·h, c, *reach)`; for `linear`, whose cells differ, that of the middle one."""
        basis = self._basis_at_all_places()
        if self.spec.interpolation == "nearest":
            change = basis.flatten(0, 1)
            if self.spec.kernel_size > 1:
                change = torch.tensordot(change, self.modulation_weight, dims=1)
            change = change.reshape(len(change), -1, *self._reach)
            return change if self.linear is None else change + self.linear.weight
        (scale,) = self.spec.latent_shape.scales
        return self._of_middle_cell(scale, self._reach, lambda cells: self._tangent(cells, basis))

    def _first_orders(self) -> list[Tensor]:
        """The same of each of several scales, as a map of its own cells, of the middle one."""
        basis, shape, found = self._basis_at_all_places(), self.spec.latent_shape, []
        for index, scale in enumerate(shape.scales):

            def change(cells: Tensor, index: int = index) -> Tensor:
                parts = split_scales(cells.new_zeros(len(cells), shape.numbers), shape)
                return self._tangent(join_scales([*parts[:index], cells, *parts[index + 1 :]]), basis)

            found.append(self._of_middle_cell(scale, self._reach_of(scale), change))
        return found

    def _of_middle_cell(self, scale: Scale, reach: Sequence[int], change: Callable[[Tensor], Tensor]) -> Tensor:
        """`change` of a scale's latents, points, as a map of its cells, `(P·h, c, *reach)`: of what its middle cell has."""
        grid, latent = scale.grid, scale.channels
        around = torch.cartesian_prod(*(torch.arange(side) - side // 2 for side in reach)).reshape(-1, len(grid))
        columns, middle = [], 0
        for side in grid:
            middle = middle * side + side // 2
        for offset in around.tolist():  # what one latent does to the middle cell
            source = [side // 2 + step for side, step in zip(grid, offset, strict=True)]
            latents = self.inner_rates.new_zeros(latent, *grid, latent)
            if all(0 <= at < side for at, side in zip(source, grid, strict=True)):
                latents[(slice(None), *source)] = torch.eye(latent).to(latents)
            pixels = cut_into_cells(self.geometry.to_cells(change(latents)), grid).flatten(-2)
            columns.append(pixels.flatten(1, -2)[:, middle])
        return torch.stack(columns, dim=-1).movedim(0, 1).unflatten(-1, tuple(reach))

    def _first_latents(self, targets: Tensor, siren: Siren) -> Tensor:
        """z₁ `(B, *grid, c)`.

        At z = 0 the activations depend on the point alone, not on the image: one basis, the derivatives of the output, serves
        all rows. Exact, and far cheaper than a general step. A free first step needs no basis.
        """
        at_zero = self._basis if self.first_step is None else self._values_at_zero
        values, *basis = self._at_all_points(at_zero, self._at_all_places(siren))
        if self.spec.latent_shape.coarser:
            values = values.unflatten(0, (-1, targets.shape[1])).repeat(
                len(targets) // self.spec.latent_shape.cells, 1, 1
            )
        residual = values - targets
        if self.linear is not None:
            cells = self.geometry.to_cells(residual) + self.linear.bias
            residual = self.geometry.from_cells(cells, self.spec.channels)
        if self.first_step is not None:
            latents: Tensor = self.first_step(self.geometry.to_cells(residual))
            return latents
        return -self._rates * self._residual_scale * self._tangent_adjoint(residual, *basis)

    def _gradient(self, latents: Tensor, targets: Tensor, siren: Siren) -> Tensor:
        """∇_z L at any z, written out, `(B, *grid, c)`."""
        scale, spec = self._residual_scale, self.spec
        shifts = self._shifts_of(latents)
        targets = targets - self._linear_part(latents, self.geometry)
        from_shifts, values = self.engine.gradient(
            siren, self.geometry, shifts, targets, scale * spec.omega0, spec.precision
        )
        gradient = self.modulate_adjoint(from_shifts.flatten(-2))
        if self.linear is None:
            return gradient
        return gradient + scale * self.linear.adjoint(self.geometry.to_cells(values - targets))

    @property
    def _rates(self) -> Tensor:
        """The meta-SGD rates `(c,)`; of several scales those of each number, `(numbers,)`.

        Each scale's are for the loss as a field of its grid alone has it: the mean over its own, larger cells.
        """
        rates = self.inner_rates.clamp(0, 1)
        return (rates / self.cells_covered)[self.channel_of] if self.spec.latent_shape.coarser else rates

    def _fit(self, targets: Tensor, steps: int, siren: Siren) -> Tensor:
        latents = self._first_latents(targets, siren)
        for _ in range(steps - 1):
            latents = latents - self._rates * self._gradient(latents, targets, siren)
        return latents

    def spectral_radius(self, iterations: int = 0) -> Tensor:
        """λ_max of the inner loop's step matrix at z = 0, without the residual's part. Differentiable.

        The matrix is √α Jᵀ H J √α for the meta-SGD rates α, the derivative J of all pixels of an image for its latent, and
        the loss's second derivative H: positive, and without λ's mixing and interpolation the same block for each cell.
        It is the Gauss–Newton part of the true one (`step_eigenvalues`), and the same for all images.
        The value is the Rayleigh quotient of `spectral_vector`, after so many more power iterations of it: from step to
        step of a training one is enough.
        """
        basis = self._basis_at_all_places()
        roots = self._rates.clamp(min=1e-12).sqrt()
        with torch.no_grad():
            vector = self.spectral_vector
            for _ in range(iterations):
                vector = roots * self._tangent_adjoint(self._tangent(roots * vector, basis), basis)
                vector = vector / vector.norm().clamp(min=1e-30)
            self.spectral_vector.copy_(vector)
        return self._residual_scale * self._tangent(roots * vector, basis).square().sum()

    @torch.no_grad()
    def step_eigenvalues(self, images: Tensor, iterations: int) -> Tensor:
        """The largest eigenvalues of √α ∇²L √α at z₁ … z_{n−1}, from which the inner loop takes its further steps.

        A step's derivative is I − α ∇²L: latents that differ along an eigenvector of a value above 2 are further apart
        after the step, on the other side, and an outer gradient that passes through it grows as much. At z₀ = 0 there is
        nothing to be driven apart: it is the same for all images and parameters. This is the true matrix, with the
        residual's curvature, and it may be indefinite.

        Args:
            images: `(B, *resolution, channels)`.
            iterations: Hessian–vector products for each step. As many as a matrix has rows make the values exact; with
                fewer they are not above the exact ones.

        Returns:
            `(n − 1, B, m)` for n inner steps. m is the number of cells if each cell's latent meets its own pixels alone, so
            that the matrix has a block for each; elsewhere 1, for the whole image.
        """
        self._check(images, None)
        targets, siren = self.geometry.to_points(images), self._siren(self.geometry.coordinates)
        whole = self.spec.latent_shape
        blocks = whole.cells if prod(self._reach) == 1 and not whole.coarser else 1
        shape, found = (len(images) * blocks, whole.numbers // blocks), images.new_zeros(0, len(images) * blocks)
        vectors = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(images)
        for steps in range(1, self.spec.inner_steps):
            product = self._step_product(self._fit(targets, steps, siren), targets, siren)
            found = torch.cat([found, largest_eigenvalues(product, vectors, iterations)[None]])
        return found.unflatten(1, (len(images), blocks))

    def _step_product(self, latents: Tensor, targets: Tensor, siren: Siren) -> Callable[[Tensor], Tensor]:
        """Vectors, as many numbers as `latents`, → √α ∇²L √α times them, at these latents."""
        with torch.enable_grad():
            latents = latents.detach().requires_grad_()
            gradient = self._gradient(latents, targets, siren)
        roots = self._rates.sqrt()

        def product(vectors: Tensor) -> Tensor:
            direction = roots * vectors.reshape(latents.shape)
            (found,) = torch.autograd.grad(gradient, latents, direction, retain_graph=True)
            return (roots * found).reshape(vectors.shape)

        return product

    def encode(self, images: Tensor, steps: int | None = None) -> Tensor:
        """Latents `(B, *grid, c)` of images `(B, *resolution, channels)` in [0, 1]: gradient steps from zero.

        Differentiable with respect to all parameters, to second order; wrap in `torch.no_grad()` to encode only.
        `steps` overrides the spec's number of inner steps (≥ 1).
        """
        self._check(images, steps)
        siren = self._siren(self.geometry.coordinates)
        return self._fit(self.geometry.to_points(images), steps or self.spec.inner_steps, siren)

    def decode(self, latents: Tensor, resolution: tuple[int, ...] | None = None) -> Tensor:
        """Images `(B, *resolution, channels)` of latents `(B, *grid, c)`, not clamped to [0, 1].

        Any `resolution` may be asked for (a multiple of the grid for `nearest` and with a linear part, or else ValueError).
        `nearest` is continuous within a cell, and across its borders if the spec has an overlap. `linear` is not: its
        coordinates are the bits of a trained pixel's index, so that an enlarged image is blocky.
        """
        grid, trained, overlap = self.spec.latent_shape.grid, self.spec.resolution, self.spec.overlap
        if resolution is None or tuple(resolution) == trained:
            return self._decode(latents, self.geometry)
        if overlap:
            return self._decode(latents, OverlappingGeometry(grid, resolution, trained, overlap).to(latents))
        return self._decode(latents, GEOMETRIES[self.spec.interpolation](grid, resolution, trained).to(latents))

    def _decode(self, latents: Tensor, geometry: Geometry, offset: Tensor | None = None) -> Tensor:
        """At the points of the geometry, or so far beside them: `offset` `(D,)`, in trained pixels."""
        coordinates, places = geometry.coordinates, None
        if offset is not None:
            coordinates = places = coordinates + offset / offset.new_tensor(self.spec.cell)
        elif geometry is not self.geometry:
            places = geometry.places
        values = self.engine.values(self._siren(coordinates), geometry, self._shifts_of(latents))
        values = values + self._linear_part(latents, geometry, places)
        if isinstance(geometry, OverlappingGeometry):
            return geometry.blended(values, coordinates)
        return geometry.to_images(values)

    def forward(self, images: Tensor, steps: int | None = None, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode and decode: reconstructions like `images`, and their latents. What the outer loop differentiates.

        Args:
            images: `(B, *resolution, channels)`.
            steps: overrides the spec's number of inner steps (≥ 1).
            offset: `(D,)`, in pixels, from −½ to ½: the reconstructions are taken so far beside the pixels, where they are
                what `decode` gives at a finer resolution. `nearest` only.
        """
        self._check(images, steps)
        if offset is not None and self.spec.interpolation != "nearest":
            raise ValueError("coordinates of the interpolation linear are bits: there is nothing between the pixels")
        siren = self._siren(self.geometry.coordinates)
        latents = self._fit(self.geometry.to_points(images), steps or self.spec.inner_steps, siren)
        geometry = self.geometry if offset is None or self.geometry_beside is None else self.geometry_beside
        return self._decode(latents, geometry, offset), latents

    def _check(self, images: Tensor, steps: int | None) -> None:
        if steps is not None and steps < 1:
            raise ValueError(f"encoding needs at least one inner step, got {steps}")
        self.require_shape(images)
