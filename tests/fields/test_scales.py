"""Fields of several scales against a plain float64 implementation, written independently, one pixel at a time."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from spatial_functa_pipeline.fields.cells import cut_into_cells
from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape, Scale
from spatial_functa_pipeline.fields.native_engine import NativeEngine
from spatial_functa_pipeline.fields.scales import join_scales, split_scales, to_cells, to_cells_adjoint
from spatial_functa_pipeline.fields.torch_engine import TorchEngine

SHAPE = LatentShape.parse("1x1x5+2x2x3+4x4x2")
CASES = [
    pytest.param(SHAPE, (8, 8), 1, id="three"),
    pytest.param(SHAPE, (8, 8), 3, id="three-3x3"),
    pytest.param(LatentShape.parse("1x2x3+2x6x2"), (4, 12), 3, id="uneven-3x3"),
    pytest.param(LatentShape.parse("2x3+8x2"), (16,), 1, id="1d"),
    pytest.param(LatentShape.parse("1x1x1x2+2x1x2x1"), (4, 2, 4), 1, id="3d"),
]


def make(shape=SHAPE, resolution=(8, 8), kernel_size=1, double=True, **more):
    """A small field with non-zero biases and a first step that has moved, so that no term can hide."""
    torch.manual_seed(0)
    width, depth = more.pop("width", 7), more.pop("depth", 4)
    field = SpatialField(FieldSpec(shape, resolution, 2, "nearest", width, depth, 8.0, kernel_size, **more))
    field = field.double() if double else field
    with torch.no_grad():
        for parameter in field.parameters():
            if parameter.ndim == 1 and parameter is not field.inner_rates:
                parameter.normal_(std=0.1)
        field.tie_first_step()
        if field.first_step is not None:
            for parameter in field.first_step.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.03)
    return field


def images_of(field, count=2):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, *field.spec.resolution, 2, dtype=torch.float64, generator=generator)
    return images.to(field.inner_rates)


def latents_of(field, count=2):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, field.spec.latent_shape.numbers, dtype=torch.float64, generator=generator)


def reference_decode(field, latents):
    """f(x; m_x): the sum of λ's parts at the cells, one for each scale, and coordinates in the cells of each scale."""
    shape, resolution, spec = field.spec.latent_shape, field.spec.resolution, field.spec
    weights = field.modulation_weight.split([scale.channels for scale in shape.scales], dim=1)
    images = torch.empty(len(latents), *resolution, spec.channels, dtype=torch.float64)
    for pixel in product(*(range(n) for n in resolution)):
        fine = [i * s // n for i, s, n in zip(pixel, shape.grid, resolution, strict=True)]
        modulation, coordinates, first = field.modulation_bias.expand(len(latents), -1), [], 0
        for scale, weight in zip(shape.scales, weights, strict=True):
            part = latents[:, first : first + scale.numbers].reshape(-1, *scale.grid, scale.channels)
            first += scale.numbers
            for offset in product(range(spec.kernel_size), repeat=len(resolution)):  # neighbours in the finest grid
                at = [k + o - spec.kernel_size // 2 for k, o in zip(fine, offset, strict=True)]
                if all(0 <= k < s for k, s in zip(at, shape.grid, strict=True)):
                    cell = [k * s // f for k, s, f in zip(at, scale.grid, shape.grid, strict=True)]
                    modulation = modulation + part[(slice(None), *cell)] @ weight[(..., *offset)].T
            coordinates += [(i + 0.5) * s / n % 1 for i, s, n in zip(pixel, scale.grid, resolution, strict=True)]
        hidden = torch.tensor(coordinates, dtype=torch.float64).expand(len(latents), -1)
        for layer, shift in zip(field.layers[:-1], modulation.split(spec.width, dim=-1), strict=True):
            hidden = torch.sin(spec.omega0 * (hidden @ layer.weight.T + layer.bias + shift))
        images[(slice(None), *pixel)] = hidden @ field.layers[-1].weight.T + field.layers[-1].bias + 0.5
    return images


def reference_encode(field, images):
    """Gradient steps of each scale's latents at the rates of its own grid: a loss that is the mean over a cell of that grid."""
    shape = field.spec.latent_shape
    latents = torch.zeros(len(images), shape.numbers, dtype=torch.float64, requires_grad=True)
    own = [scale.channels for scale in shape.scales]
    rates = [
        (scale.cells * rate.clamp(0, 1)).repeat(scale.cells)
        for scale, rate in zip(shape.scales, field.inner_rates.split(own), strict=True)
    ]
    if field.first_step is not None:
        latents = reference_first_step(field, images)
    for _ in range(field.spec.inner_steps - (field.first_step is not None)):
        loss = (reference_decode(field, latents) - images).square().mean(dim=tuple(range(1, images.ndim))).sum()
        (gradient,) = torch.autograd.grad(loss, latents, create_graph=True)
        latents = latents - torch.cat(rates) * gradient
    return latents


@pytest.mark.parametrize(("shape", "resolution", "kernel_size"), CASES)
def test_values_match_the_definition(shape, resolution, kernel_size):
    field = make(shape, resolution, kernel_size)
    latents = latents_of(field)
    torch.testing.assert_close(field.decode(latents), reference_decode(field, latents), rtol=1e-6, atol=1e-7)


def reference_first_step(field, images):
    """b − A r / n of each scale, r the residual of the n finest cells in a cell, one after the other."""
    shape, zero = field.spec.latent_shape, torch.zeros(len(images), field.spec.latent_shape.numbers).double()
    residual = cut_into_cells(reference_decode(field, zero) - images, shape.grid).flatten(-2)
    found = []
    for scale, step in zip(shape.scales, field.first_step, strict=True):
        cells = cut_into_cells(residual, scale.grid).flatten(-2)  # (B, *its grid, n)
        latents = step.bias.expand(*cells.shape[:-1], -1).clone()
        for at in product(*(range(side) for side in scale.grid)):
            for offset in product(*(range(side) for side in step.weight.shape[2:])):
                there = [k + o - n // 2 for k, o, n in zip(at, offset, step.weight.shape[2:], strict=True)]
                if all(0 <= k < side for k, side in zip(there, scale.grid, strict=True)):
                    change = cells[(slice(None), *there)] @ step.weight[(..., *offset)].T
                    latents[(slice(None), *at)] -= change * scale.cells / shape.cells
        found.append(latents.flatten(1))
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("first_step", ["tied", "free"])
@pytest.mark.parametrize(("shape", "resolution", "kernel_size"), CASES)
def test_latents_and_second_order_gradients_match_autograd(shape, resolution, kernel_size, first_step):
    field = make(shape, resolution, kernel_size, inner_steps=2, first_step=first_step)
    images = images_of(field)
    parameters = list(field.parameters())
    reconstructions, latents = field(images)
    expected = reference_encode(field, images)
    torch.testing.assert_close(latents, expected, rtol=1e-6, atol=1e-8)
    found = torch.autograd.grad((reconstructions - images).square().mean(), parameters)
    loss = (reference_decode(field, expected) - images).square().mean()
    for gradient, wanted in zip(found, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-9)


def test_outer_gradient_matches_finite_differences():
    field = make(LatentShape.parse("1x1x2+2x2x1"), (4, 4), inner_steps=3, first_step="free", width=5, depth=3)
    images = images_of(field, 1)

    def loss():
        return (field(images)[0] - images).square().mean()

    parameters = list(field.parameters())
    gradients = torch.autograd.grad(loss(), parameters)
    generator = torch.Generator().manual_seed(3)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        values = []
        with torch.no_grad():
            for step in (1e-5, -2e-5):
                parameter += step * direction
                values.append(loss())
            parameter += 1e-5 * direction
        torch.testing.assert_close((values[0] - values[1]) / 2e-5, (gradient * direction).sum(), rtol=1e-6, atol=1e-9)


def test_modulations_are_the_sum_of_the_scales():
    field = make(kernel_size=3)
    latents, nothing = latents_of(field), field.modulate(torch.zeros(1, SHAPE.numbers).double())
    parts = split_scales(latents, SHAPE)
    alone = [join_scales([part if other is part else torch.zeros_like(other) for other in parts]) for part in parts]
    assert [part.shape[1:] for part in parts] == [(1, 1, 5), (2, 2, 3), (4, 4, 2)]
    total = sum(field.modulate(one) - nothing for one in alone) + nothing
    torch.testing.assert_close(field.modulate(latents), total)
    coarse = to_cells(alone[1], SHAPE)[..., 5:8]  # the same in the four cells of each
    torch.testing.assert_close(coarse[:, 1::2, ::2], coarse[:, ::2, 1::2])
    assert not torch.equal(coarse[:, 1], coarse[:, 2])


def test_to_cells_has_its_adjoint():
    latents, cells = latents_of(make()), torch.randn(2, 4, 4, 10, dtype=torch.float64)
    left = (to_cells(latents, SHAPE) * cells).sum()
    torch.testing.assert_close(left, (latents * to_cells_adjoint(cells, SHAPE)).sum())


@pytest.mark.parametrize(("shape", "resolution", "kernel_size"), CASES)
def test_a_free_first_step_starts_as_the_gradient_step_of_the_middle_cell(shape, resolution, kernel_size):
    """Of each scale; where λ mixes cells, which are not alike, of a grid's only cell."""
    torch.manual_seed(0)
    spec = FieldSpec(shape, resolution, 2, "nearest", 7, 4, 8.0, kernel_size, inner_steps=1)
    tied, free = SpatialField(spec).double(), SpatialField(replace(spec, first_step="free")).double()
    free.load_state_dict(tied.state_dict(), strict=False)
    free.tie_first_step()
    images = images_of(tied)
    for scale, found, wanted in zip(
        shape.scales, split_scales(free.encode(images), shape), split_scales(tied.encode(images), shape), strict=True
    ):
        if kernel_size > 1 and scale.cells > 1:
            continue
        middle = (slice(None), *(side // 2 for side in scale.grid))
        torch.testing.assert_close(found[middle], wanted[middle], rtol=1e-6, atol=1e-9)
        assert wanted[middle].abs().min() > 0


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_spectral_radius_is_the_largest_eigenvalue_of_a_step(kernel_size):
    field = make(kernel_size=kernel_size, inner_steps=2)

    def step(latents):  # without the residual's part: of a target that the field has already
        targets = field.geometry.to_points(field.decode(torch.zeros_like(latents)).detach())
        return latents - field._rates * field._gradient(latents, targets, field._siren(field.geometry.coordinates))

    jacobian = torch.autograd.functional.jacobian(step, torch.zeros(1, SHAPE.numbers).double())[0, :, 0]
    largest = (torch.eye(len(jacobian)) - jacobian).double().T
    expected = torch.linalg.eigvals(largest).real.max()
    torch.testing.assert_close(field.spectral_radius(200), expected, rtol=1e-6, atol=0)
    found = field.step_eigenvalues(images_of(field), SHAPE.numbers)
    assert found.shape == (1, 2, 1)


def test_a_field_in_parts_is_the_field_in_one():
    whole, parts = make(kernel_size=3), make(kernel_size=3)
    parts.engine = TorchEngine(floats_at_once=50)
    images = images_of(whole)
    torch.testing.assert_close(parts(images), whole(images))


@pytest.mark.parametrize("first_step", ["tied", "free"])
def test_the_native_engine_is_the_torch_engine(first_step):
    """Values, latents and all gradients, in float32."""
    field = make(double=False, width=32, first_step=first_step)
    images, results = images_of(field), []
    for engine in (TorchEngine(), NativeEngine()):
        field.engine = engine
        reconstructions, latents = field(images)
        loss = (reconstructions - images).square().mean()
        results.append([reconstructions, latents, *torch.autograd.grad(loss, list(field.parameters()))])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-3, atol=2e-5 * wanted.abs().max().item())


def test_a_finer_image_goes_through_the_trained_pixels_and_is_continuous_where_cells_overlap():
    field = make(inner_steps=2, overlap=0.5)
    latents = latents_of(field)
    fine = field.decode(latents, (24, 24))
    torch.testing.assert_close(fine[:, 1::3, 1::3], field.decode(latents))
    images = images_of(field)
    offset = torch.tensor([1 / 3, -1 / 3]).double()
    beside, found = field(images, offset=offset)
    torch.testing.assert_close(beside, field.decode(found, (24, 24))[:, 2::3, ::3], rtol=1e-6, atol=1e-6)


def test_shapes_of_several_scales():
    assert [str(scale) for scale in SHAPE.scales] == ["1x1x5", "2x2x3", "4x4x2"]
    assert (SHAPE.grid, SHAPE.channels, SHAPE.numbers, SHAPE.shape, str(SHAPE)) == (
        *((4, 4), 10, 5 + 12 + 32, (49,)),
        "1x1x5+2x2x3+4x4x2",
    )
    assert LatentShape.parse(str(SHAPE)) == SHAPE == LatentShape((4, 4), 10, (Scale((1, 1), 5), Scale((2, 2), 3)))
    alone = LatentShape.parse("8x8x16")
    assert (alone.coarser, alone.scales, alone.numbers) == ((), (Scale((8, 8), 16),), 1024)
    assert alone.shape == (8, 8, 16)


@pytest.mark.parametrize("text", ["4x4x2+2x2x3", "4x4x2+4x4x3", "2x2x1+3x3x1", "2x1x1+2x3x1+4x2x1", "1x1+2x2x3"])
def test_scales_that_do_not_divide_one_another_are_refused(text):
    with pytest.raises(ValueError, match="from coarse to fine, each grid a division of the one before"):
        LatentShape.parse(text)


@pytest.mark.parametrize("text", ["", "8", "+8x8x8", "8x8x8+", "1x1x4 + 8x8x8", "1x1x0+8x8x8", "8x8x8++16x16x2"])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(ValueError, match="as in 1x1x64"):
        LatentShape.parse(text)


@pytest.mark.parametrize("more", [{"interpolation": "linear"}, {"initialisation": "data"}])
def test_several_scales_are_of_nearest_and_start_at_random(more):
    options = {"interpolation": "nearest", "width": 7, "depth": 3, "omega0": 8.0} | more
    with pytest.raises(ValueError, match="several scales"):
        SpatialField(FieldSpec(SHAPE, (8, 8), 1, **options))
