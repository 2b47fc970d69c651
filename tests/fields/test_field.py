"""The field against a plain float64 implementation, written independently with one loop per cell and autograd."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from spatial_functa_pipeline.fields.cells import cut_into_cells, join_cells
from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.torch_engine import TorchEngine


def make(grid, resolution, interpolation="nearest", kernel_size=1, channels=2, latent=3, width=7, depth=4, **more):
    """A small float64 field with non-zero biases, so that no term can hide."""
    torch.manual_seed(sum(grid) + kernel_size)
    spec = FieldSpec(
        LatentShape(grid, latent), resolution, channels, interpolation, width, depth, 8.0, kernel_size, **more
    )
    field = SpatialField(spec).double()
    with torch.no_grad():
        for parameter in field.parameters():
            if parameter.ndim == 1 and parameter is not field.inner_rates:
                parameter.normal_(std=0.1)
    # Coordinates are rounded to float32 when the field is built; the reference below uses exact ones.
    field.geometry = type(field.geometry)(grid, resolution, resolution).double()
    return field


CASES = [
    pytest.param(dict(grid=(2, 2), resolution=(8, 8)), id="nearest"),
    pytest.param(dict(grid=(2, 4), resolution=(8, 8), kernel_size=3), id="nearest-3x3"),
    pytest.param(dict(grid=(2, 2), resolution=(8, 8), interpolation="linear"), id="linear"),
    pytest.param(dict(grid=(4, 2), resolution=(8, 4), interpolation="linear", kernel_size=3), id="linear-3x3"),
    pytest.param(dict(grid=(1, 1), resolution=(4, 4)), id="vector"),
    pytest.param(dict(grid=(1, 1), resolution=(4, 4), interpolation="linear"), id="vector-linear"),
    pytest.param(dict(grid=(4,), resolution=(16,)), id="1d"),
    pytest.param(dict(grid=(4,), resolution=(16,), interpolation="linear", kernel_size=3), id="1d-linear-3"),
    pytest.param(dict(grid=(2, 1, 2), resolution=(4, 4, 4)), id="3d"),
    pytest.param(
        dict(grid=(2, 2, 2), resolution=(4, 4, 4), interpolation="linear", kernel_size=3), id="3d-linear-3x3x3"
    ),
]


def reference_pixel(field, latent, pixel):
    """f(x; m_x) at one pixel of one image, from the definition (Sec. 4)."""
    spec = field.spec
    grid, resolution = spec.latent_shape.grid, spec.resolution
    dims = len(grid)
    # λ: a convolution with zero padding, cell by cell.
    pad = spec.kernel_size // 2
    modulations = {}
    for cell in torch.cartesian_prod(*(torch.arange(s) for s in grid)).reshape(-1, dims).tolist():
        value = field.modulation_bias
        offsets = torch.cartesian_prod(*(torch.arange(spec.kernel_size) for _ in grid)).reshape(-1, dims).tolist()
        for offset in offsets:
            source = [k + o - pad for k, o in zip(cell, offset, strict=True)]
            if all(0 <= k < s for k, s in zip(source, grid, strict=True)):
                value = value + field.modulation_weight[(..., *offset)] @ latent[tuple(source)]
        modulations[tuple(cell)] = value
    if spec.interpolation == "nearest":
        patch = [n // s for n, s in zip(resolution, grid, strict=True)]
        modulation = modulations[tuple(i // p for i, p in zip(pixel, patch, strict=True))]
        coordinates = [(i % p + 0.5) / p for i, p in zip(pixel, patch, strict=True)]
    else:
        modulation = 0
        for cell, value in modulations.items():
            weight = 1.0
            for i, k, n, s in zip(pixel, cell, resolution, grid, strict=True):
                position = min(max((i + 0.5) / n * s - 0.5, 0), s - 1)
                weight *= max(0.0, 1 - abs(position - k))
            modulation = modulation + weight * value
        bits = [int(math.log2(n)) for n in resolution]
        coordinates = [int(bit) for i, b in zip(pixel, bits, strict=True) for bit in format(i, f"0{b}b")]
    hidden = torch.tensor(coordinates, dtype=torch.float64)
    for layer, shift in zip(field.layers[:-1], modulation.split(spec.width), strict=True):
        hidden = torch.sin(spec.omega0 * (layer.weight @ hidden + layer.bias + shift))
    return field.layers[-1].weight @ hidden + field.layers[-1].bias + 0.5


def reference_decode(field, latents):
    resolution = field.spec.resolution
    pixels = torch.cartesian_prod(*(torch.arange(n) for n in resolution)).reshape(-1, len(resolution)).tolist()
    images = [torch.stack([reference_pixel(field, latent, pixel) for pixel in pixels]) for latent in latents]
    return torch.stack(images).reshape(len(latents), *resolution, field.spec.channels)


def reference_encode(field, images, decode):
    """Three steps of autograd on the loss of design: mean over a cell's pixels and channels, summed over cells."""
    latents = torch.zeros(
        len(images),
        *field.spec.latent_shape.grid,
        field.spec.latent_shape.channels,
        dtype=torch.float64,
        requires_grad=True,
    )
    per_cell = math.prod(field.spec.resolution) / math.prod(field.spec.latent_shape.grid) * field.spec.channels
    for _ in range(field.spec.inner_steps):
        loss = (decode(latents) - images).square().sum() / per_cell
        (gradient,) = torch.autograd.grad(loss, latents, create_graph=True)
        latents = latents - field.inner_rates.clamp(0, 1) * gradient
    return latents


def random_images(field, count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, *field.spec.resolution, field.spec.channels, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("case", CASES)
def test_values_match_the_definition(case):
    field = make(**case)
    latents = torch.randn(2, *field.spec.latent_shape.grid, field.spec.latent_shape.channels, dtype=torch.float64)
    torch.testing.assert_close(field.decode(latents), reference_decode(field, latents), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_latents_and_second_order_gradients_match_autograd(case):
    """The analytic inner gradient and the shared first step, against double backward of the plain loop."""
    field = make(**case)
    images = random_images(field)
    expected = reference_encode(field, images, field.decode)
    reconstructions, latents = field(images)
    torch.testing.assert_close(latents, expected, rtol=1e-8, atol=1e-14)
    torch.testing.assert_close(field.encode(images), expected, rtol=1e-8, atol=1e-14)
    outer = torch.autograd.grad((reconstructions - images).square().mean(), list(field.parameters()))
    reference = torch.autograd.grad((field.decode(expected) - images).square().mean(), list(field.parameters()))
    for (name, _), gradient, wanted in zip(field.named_parameters(), outer, reference, strict=True):
        assert wanted.norm() > 0, name
        assert (gradient - wanted).norm() <= 1e-8 * wanted.norm(), name


@pytest.mark.parametrize("first_step", ["tied", "free"])
@pytest.mark.parametrize("case", CASES)
def test_a_field_in_parts_is_the_field_in_one(case, first_step):
    """A few points at a time, computed again: the same latents, derivatives and spectral radius."""
    field = make(**case, first_step=first_step)
    images, found = random_images(field), []
    for engine in (TorchEngine(), TorchEngine(floats_at_once=3 * field.sine_layers * field.spec.width * 2)):
        field.engine = engine
        reconstructions, latents = field(images)
        radius = field.spectral_radius()
        loss = (reconstructions - images).square().mean() + radius
        found.append([latents, radius, *torch.autograd.grad(loss, list(field.parameters()))])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("first_step", ["tied", "free"])
def test_at_zero_a_field_in_parts_keeps_only_a_part_in_memory(first_step):
    """Nothing for each modulation of each point is kept for the backward pass: for a vector functa there are many of both."""
    field = make((1, 1), (32, 32), width=32, depth=6, first_step=first_step)
    points, modulations = 32 * 32, len(field.modulation_bias)

    def kept(floats_at_once):
        sizes = []
        field.engine = TorchEngine(floats_at_once)
        targets, siren = field.geometry.to_points(random_images(field)), field._siren(field.geometry.coordinates)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            field._first_latents(targets, siren)
        return sum(sizes)

    assert kept(2 * modulations * points) > 2 * points * modulations
    assert kept(2 * modulations * points // 16) < points * modulations


def test_latents_match_the_definition_without_the_library_decoder():
    """One small case against the pixel-by-pixel reference alone, inner loop included."""
    field = make(grid=(2, 2), resolution=(4, 4), interpolation="linear", kernel_size=3, width=5, depth=3)
    images = random_images(field, count=1)
    expected = reference_encode(field, images, lambda latents: reference_decode(field, latents))
    torch.testing.assert_close(field.encode(images), expected, rtol=1e-8, atol=1e-14)


def test_outer_gradient_matches_finite_differences():
    field = make(grid=(2, 2), resolution=(4, 4), width=5, depth=3)
    images = random_images(field)

    def loss():
        return (field(images)[0] - images).square().mean()

    gradients = torch.autograd.grad(loss(), list(field.parameters()))
    for parameter, gradient in zip(field.parameters(), gradients, strict=True):
        direction = torch.randn_like(parameter)
        step = 1e-5
        with torch.no_grad():
            parameter += step * direction
            above = loss()
            parameter -= 2 * step * direction
            below = loss()
            parameter += step * direction
        expected = ((above - below) / (2 * step)).item()
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-5, abs=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_an_image_has_the_same_latent_in_any_batch(case):
    field = make(**case)
    images = random_images(field, count=5)
    together = field.encode(images)
    alone = torch.cat([field.encode(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-15)


def test_one_cell_is_vector_functa():
    """s = 1 is the original functa: global coordinates in [0, 1]², one shift vector for the whole image."""
    field = make(grid=(1, 1), resolution=(6, 4))
    latent = torch.randn(1, 1, 1, field.spec.latent_shape.channels, dtype=torch.float64)
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in (6, 4)]
    hidden = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    shifts = field.modulation_weight[:, :, 0, 0] @ latent.flatten() + field.modulation_bias
    for layer, shift in zip(field.layers[:-1], shifts.split(field.spec.width), strict=True):
        hidden = torch.sin(field.spec.omega0 * (hidden @ layer.weight.T + layer.bias + shift))
    expected = hidden @ field.layers[-1].weight.T + field.layers[-1].bias + 0.5
    torch.testing.assert_close(field.decode(latent)[0], expected)


def test_a_nearest_latent_cell_changes_its_patch_only():
    field = make(grid=(2, 2), resolution=(8, 8))
    latents = torch.zeros(1, 2, 2, 3, dtype=torch.float64)
    changed = latents.clone()
    changed[0, 0, 1] += 1
    difference = (field.decode(changed) - field.decode(latents)).abs().sum(-1)[0]
    assert (difference[:4, 4:] > 0).all()
    assert difference[4:].sum() == difference[:4, :4].sum() == 0


def test_each_channel_has_one_rate_shared_by_steps_and_cells():
    """Rates enter only through α ⊙ ∇: with all rates zero the latents stay at zero; above 1 they act as 1."""
    field = make(grid=(2, 2), resolution=(8, 8))
    images = random_images(field)
    assert field.inner_rates.shape == (field.spec.latent_shape.channels,)
    with torch.no_grad():
        field.inner_rates.fill_(-0.5)
        assert field.encode(images).abs().max() == 0
        field.inner_rates.fill_(1.0)
        at_one = field.encode(images)
        field.inner_rates.fill_(7.0)
        torch.testing.assert_close(field.encode(images), at_one)


def test_more_inner_steps_fit_better():
    field = make(grid=(2, 2), resolution=(8, 8), inner_rate_init=(0.001, 0.002))
    images = random_images(field)
    errors = [(field.decode(field.encode(images, steps)) - images).square().mean().item() for steps in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > errors[-1]


def test_initialisation_is_sirens():
    """First layer U(±1/f_in), later ones U(±√(6/f_in)/ω0), biases 0, λ a truncated normal of std 1/√fan_in."""
    torch.manual_seed(0)
    field = SpatialField(FieldSpec(LatentShape((2, 2), 64), (8, 8), 3, "nearest", 256, 4, 20.0, 3))
    for index, layer in enumerate(field.layers):
        bound = 1 / 2 if index == 0 else math.sqrt(6 / 256) / 20
        assert bound * 0.95 < layer.weight.abs().max() <= bound
        assert layer.bias.abs().max() == 0
    std = 1 / math.sqrt(64 * 9)
    assert field.modulation_weight.abs().max() <= 2 * std
    assert field.modulation_weight.std().item() == pytest.approx(0.88 * std, rel=0.02)
    assert 0.005 <= field.inner_rates.min() <= field.inner_rates.max() <= 0.1
    assert field.modulation_weight.shape == (3 * 256, 64, 3, 3)


def test_a_kernel_that_starts_at_its_centre_is_that_of_one_cell():
    spec = FieldSpec(LatentShape((2, 2), 64), (8, 8), 3, "nearest", 256, 4, 20.0, 3, "centre")
    field, single = SpatialField(spec), SpatialField(replace(spec, kernel_size=1))
    centre = field.modulation_weight[:, :, 1:2, 1:2]
    assert centre.std().item() == pytest.approx(single.modulation_weight.std().item(), rel=0.02)
    single.load_state_dict({**field.state_dict(), "modulation_weight": centre})
    latents = torch.randn(1, 2, 2, 64)
    torch.testing.assert_close(field.decode(latents), single.decode(latents))


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_decodes_at_another_resolution(interpolation):
    """Twice as many pixels: averaged back, a smooth field gives about the image it was asked for before."""
    field = make(grid=(2, 2), resolution=(8, 8), interpolation=interpolation)
    latents = 0.1 * torch.randn(1, 2, 2, 3, dtype=torch.float64)
    fine = field.decode(latents, (32, 32))
    assert fine.shape == (1, 32, 32, 2)
    averaged = fine.reshape(1, 8, 4, 8, 4, 2).mean(dim=(2, 4))
    coarse = field.decode(latents)
    assert (averaged - coarse).abs().mean() < 0.1 * (coarse - coarse.mean()).abs().mean()
    torch.testing.assert_close(field.decode(latents, (8, 8)), coarse)


def test_wrong_shapes_are_errors():
    field = make(grid=(2, 2), resolution=(8, 8))
    with pytest.raises(ValueError, match=r"\(8, 8, 2\)"):
        field.encode(torch.zeros(1, 8, 9, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="at least one inner step"):
        field.encode(random_images(field), steps=0)
    with pytest.raises(ValueError, match="multiple of the latent grid"):
        field.decode(torch.zeros(1, 2, 2, 3, dtype=torch.float64), (9, 8))
    field = make(grid=(2, 2), resolution=(8, 8), interpolation="linear", initialisation="data")
    with pytest.raises(ValueError, match="multiple of the latent grid"):  # of its linear part's cells
        field.decode(torch.zeros(1, 2, 2, 3, dtype=torch.float64), (9, 8))
    field = make(grid=(2, 2), resolution=(8, 8), interpolation="linear")
    assert field.decode(torch.zeros(1, 2, 2, 3, dtype=torch.float64), (9, 8)).shape == (1, 9, 8, 2)


# The free first step and the linear part, which are ours


def with_data(field, components=3):
    """Start from random orthonormal directions; returns them, the mean and the deviations."""
    pixels = field.linear.bias.numel()
    directions, _ = torch.linalg.qr(torch.randn(pixels, components, dtype=torch.float64))
    mean, deviations = torch.rand(pixels, dtype=torch.float64), torch.rand(components, dtype=torch.float64) + 0.1
    field.start_from(mean, directions, deviations)
    return mean, directions, deviations


def reference_first_step(field, images):
    """z₁ = b − A r cell by cell, A's kernel reaching over the neighbours."""
    residual = cut_into_cells(
        field.decode(torch.zeros_like(field.encode(images))) - images, field.spec.latent_shape.grid
    )
    residual, grid = residual.flatten(-2), field.spec.latent_shape.grid
    latents = torch.zeros(len(images), *grid, field.spec.latent_shape.channels, dtype=images.dtype)
    side = field.first_step.weight.shape[2]
    cells = list(product(*(range(s) for s in grid)))
    for cell, offset in product(cells, product(range(side), repeat=len(grid))):
        source = tuple(k + o - side // 2 for k, o in zip(cell, offset, strict=True))
        if source in cells:
            step = residual[(slice(None), *source)] @ field.first_step.weight[(..., *offset)].T
            latents[(slice(None), *cell)] -= step
    return latents + field.first_step.bias


@pytest.mark.parametrize("initialisation", ["random", "data"])
@pytest.mark.parametrize("case", CASES)
def test_free_first_step_and_linear_part_match_autograd(case, initialisation):
    """Latents and the outer gradient of all parameters, against double backward of the plain loop from z₁ on."""
    field = make(**case, first_step="free", initialisation=initialisation)
    with torch.no_grad():
        for name, parameter in field.named_parameters():
            if name.startswith(("first_step", "linear")):
                parameter.normal_(std=0.1)
    images = random_images(field)
    per_cell = math.prod(field.spec.resolution) / math.prod(field.spec.latent_shape.grid) * field.spec.channels
    expected = reference_first_step(field, images)
    for _ in range(field.spec.inner_steps - 1):
        loss = (field.decode(expected) - images).square().sum() / per_cell
        (gradient,) = torch.autograd.grad(loss, expected, create_graph=True)
        expected = expected - field.inner_rates.clamp(0, 1) * gradient
    reconstructions, latents = field(images)
    torch.testing.assert_close(latents, expected, rtol=1e-8, atol=1e-13)
    outer = torch.autograd.grad((reconstructions - images).square().mean(), list(field.parameters()))
    reference = torch.autograd.grad((field.decode(expected) - images).square().mean(), list(field.parameters()))
    for (name, _), gradient, wanted in zip(field.named_parameters(), outer, reference, strict=True):
        assert wanted.norm() > 0, name
        assert (gradient - wanted).norm() <= 1e-8 * wanted.norm(), name


@pytest.mark.parametrize("initialisation", ["random", "data"])
@pytest.mark.parametrize("case", [case for case in CASES if "linear" not in case.id or case.id == "vector-linear"])
def test_a_free_first_step_starts_as_the_gradient_step(case, initialisation):
    free = make(**case, first_step="free", initialisation=initialisation)
    if initialisation == "data":
        with_data(free)
    tied = make(**case, first_step="tied", initialisation=initialisation)
    tied.load_state_dict(free.state_dict(), strict=False)
    with torch.no_grad():
        free.tie_first_step()
    images = random_images(free)
    torch.testing.assert_close(free.encode(images, 1), tied.encode(images, 1), rtol=1e-9, atol=1e-14)
    assert free.encode(images, 1).norm() > 0


@pytest.mark.parametrize("first_step", ["free", "tied"])
@pytest.mark.parametrize("case", CASES)
def test_a_field_that_starts_from_the_data_is_the_linear_code(case, first_step):
    """From its first step on: latents are the codes, reconstructions the projections, whatever the interpolation."""
    field = make(**case, first_step=first_step, initialisation="data")
    mean, directions, _ = with_data(field)
    images = random_images(field)
    cells = cut_into_cells(images, field.spec.latent_shape.grid).flatten(-2) - mean
    projected = (cells @ directions @ directions.T + mean).unflatten(-1, (-1, field.spec.channels))
    for steps in (1, 3):
        found = field.decode(field.encode(images, steps))
        torch.testing.assert_close(found, join_cells(projected, field.spec.resolution), rtol=1e-5, atol=1e-7)


def test_each_latent_of_the_data_shifts_the_sines_by_as_much():
    field = make(grid=(2, 2), resolution=(16, 16), latent=4, width=400, initialisation="data")
    _, _, deviations = with_data(field, components=3)
    length = (2 * field._residual_scale) ** -0.5 * 2
    shifts = field.spec.omega0 * field.modulation_weight[:, :3, 0, 0] * deviations / length
    assert shifts.std(dim=0).tolist() == pytest.approx([0.1 / 2] * 3, rel=0.1)  # of four channels


def test_data_that_never_vary_along_a_direction():
    """Such as black borders: their channel shifts the sines by no more than a finite λ does."""
    field = make(grid=(2, 2), resolution=(8, 8), initialisation="data", first_step="free")
    directions, _ = torch.linalg.qr(torch.randn(32, 3, dtype=torch.float64))
    field.start_from(torch.zeros(32), directions, torch.tensor([1.0, 0.1, 0.0], dtype=torch.float64))
    rows = field.modulation_weight.flatten(1).norm(dim=0)
    assert rows[2] < 2000 * rows[0]
    images = random_images(field)
    assert field(images)[0].isfinite().all()


def test_data_that_are_all_the_same():
    field = make(grid=(2, 2), resolution=(8, 8), initialisation="data", first_step="free")
    mean = torch.rand(32, dtype=torch.float64)
    field.start_from(mean, torch.eye(32, dtype=torch.float64)[:, :3], torch.zeros(3, dtype=torch.float64))
    images = mean.reshape(1, 1, 4, 1, 4, 2).expand(3, 2, 4, 2, 4, 2).reshape(3, 8, 8, 2)
    torch.testing.assert_close(field(images)[0], images)


def test_a_random_field_cannot_start_from_data():
    with pytest.raises(ValueError, match="random has no linear part"):
        make(grid=(2, 2), resolution=(8, 8)).start_from(torch.zeros(32), torch.eye(32)[:, :3], torch.ones(3))


@pytest.mark.parametrize("grid", [(1, 1), (2, 4)])
def test_the_linear_part_is_a_cosine_series_between_the_pixels(grid):
    """At a finer resolution, an atom that is a cosine stays one."""
    field = make(grid=grid, resolution=(8, 16), channels=1, initialisation="data")
    cell = [n // s for n, s in zip((8, 16), grid, strict=True)]
    rows, columns = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in cell)
    with torch.no_grad():
        field.layers[-1].weight.zero_()
        field.layers[-1].bias.fill_(-0.5)
        field.linear.bias.zero_()
        field.linear.weight.zero_()
        field.linear.weight[:, 0, 0, 0] = (
            torch.cos(torch.pi * rows)[:, None] * torch.cos(2 * torch.pi * columns)
        ).flatten()
    latents = torch.zeros(1, *grid, 3, dtype=torch.float64)
    latents[..., 0] = 2
    fine = cut_into_cells(field.decode(latents, (24, 48)), grid)[0].flatten(end_dim=-3)
    rows, columns = ((torch.arange(3 * n, dtype=torch.float64) + 0.5) / (3 * n) for n in cell)
    expected = 2 * (torch.cos(torch.pi * rows)[:, None] * torch.cos(2 * torch.pi * columns)).flatten()
    torch.testing.assert_close(fine[..., 0], expected.expand(len(fine), -1), rtol=0, atol=1e-6)  # float32's places


@pytest.mark.parametrize("initialisation", ["random", "data"])
def test_reconstructions_beside_the_pixels_are_those_of_a_finer_image(initialisation):
    """Half a finer pixel beside the pixels' centres lie those of twice the resolution."""
    field = make(grid=(2, 2), resolution=(8, 8), initialisation=initialisation)
    if initialisation == "data":
        with_data(field)
        with torch.no_grad():
            field.layers[-1].weight.normal_(std=0.1)
    images = random_images(field)
    beside, latents = field(images, offset=torch.tensor([0.25, -0.25], dtype=torch.float64))
    torch.testing.assert_close(latents, field.encode(images))
    torch.testing.assert_close(beside, field.decode(latents, (16, 16))[:, 1::2, ::2])
    still, _ = field(images, offset=torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(still, field(images)[0])


def test_bits_have_nothing_beside_them():
    field = make(grid=(2, 2), resolution=(8, 8), interpolation="linear")
    with pytest.raises(ValueError, match="nothing between the pixels"):
        field(random_images(field), offset=torch.zeros(2))
