"""Fields of several scales against a plain float64 implementation, written independently: one pixel at a time, from the definition."""

from itertools import product

import pytest
import torch

from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape

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
        for buffer in field.geometry.buffers():  # exact halves of quarters, whatever they were rounded to
            assert torch.equal(buffer, (buffer * 1024).round() / 1024) or resolution == (4, 12)
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
    for _ in range(field.spec.inner_steps):
        loss = (reference_decode(field, latents) - images).square().mean(dim=tuple(range(1, images.ndim))).sum()
        (gradient,) = torch.autograd.grad(loss, latents, create_graph=True)
        latents = latents - torch.cat(rates) * gradient
    return latents


@pytest.mark.parametrize(("shape", "resolution", "kernel_size"), CASES)
def test_values_match_the_definition(shape, resolution, kernel_size):
    field = make(shape, resolution, kernel_size)
    latents = latents_of(field)
    torch.testing.assert_close(field.decode(latents), reference_decode(field, latents), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("shape", "resolution", "kernel_size"), CASES)
def test_latents_and_second_order_gradients_match_autograd(shape, resolution, kernel_size):
    field = make(shape, resolution, kernel_size, inner_steps=2)
    images = images_of(field)
    parameters = [field.inner_rates, *field.layers.parameters(), field.modulation_weight, field.modulation_bias]
    reconstructions, latents = field(images)
    expected = reference_encode(field, images)
    torch.testing.assert_close(latents, expected, rtol=1e-6, atol=1e-8)
    found = torch.autograd.grad((reconstructions - images).square().mean(), parameters)
    loss = (reference_decode(field, expected) - images).square().mean()
    for gradient, wanted in zip(found, torch.autograd.grad(loss, parameters), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-9)
