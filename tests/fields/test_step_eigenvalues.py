"""The largest eigenvalues of the inner loop's gradient steps against the explicit matrices, by plain autograd."""

import pytest
import torch

from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.lanczos import largest_eigenvalues
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.native_engine import NativeEngine
from spatial_functa_pipeline.fields.torch_engine import TorchEngine

CASES = [
    pytest.param((2, 2), "nearest", 1, id="nearest"),
    pytest.param((2, 2), "nearest", 3, id="nearest-3x3"),
    pytest.param((2, 2), "linear", 1, id="linear"),
    pytest.param((2, 2), "linear", 3, id="linear-3x3"),
    pytest.param((1, 1), "nearest", 1, id="vector"),
]
ALL = 12
"""Latent numbers of an image with 2×2 cells: so many products make all values exact."""


def make(grid=(2, 2), interpolation="nearest", kernel_size=1, *, width=16, double=True, **more):
    torch.manual_seed(3)
    spec = FieldSpec(
        LatentShape(grid, 3), (8, 8), 2, interpolation, width, 3, 8.0, kernel_size, inner_rate_init=(0.05, 0.3), **more
    )
    field = SpatialField(spec)
    if spec.initialisation == "data":
        pixels = field.linear.bias.numel()
        directions, _ = torch.linalg.qr(torch.randn(pixels, 3))
        field.start_from(torch.rand(pixels), directions, torch.rand(3) + 0.1)
    with torch.no_grad():
        for parameter in field.parameters():  # so that no part is as it starts, and the SIREN has an output
            if parameter is not field.inner_rates:
                parameter += 0.02 * torch.randn_like(parameter)
        field.inner_rates[0] = -0.1  # acts as 0
    return field.double() if double else field


def pictures(field, count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, *field.spec.resolution, field.spec.channels, generator=generator).to(field.inner_rates)


def starts(field, images):
    """Where the steps after the first start."""
    return [field.encode(images, steps).detach() for steps in range(1, field.spec.inner_steps)]


def loss(field, latent, image):
    """The inner loop's, of one image: the mean over a cell's pixels and channels, summed over the cells."""
    error = (field.decode(latent[None]) - image[None]).square().sum()
    return error * field.spec.latent_shape.cells / image.numel()


def matrices(field, images, latents, *, residual=True):
    """√α ∇²L √α of each image, `(B, S·c, S·c)`; without the residual's curvature, Gauss–Newton's."""
    roots = field.inner_rates.detach().clamp(0, 1).sqrt().repeat(field.spec.latent_shape.cells)
    found = []
    for latent, image in zip(latents, images, strict=True):
        if residual:
            second = torch.autograd.functional.hessian(lambda z, image=image: loss(field, z, image), latent)
        else:
            jacobian = torch.autograd.functional.jacobian(lambda z: field.decode(z[None]).flatten(), latent).flatten(1)
            second = 2 * field.spec.latent_shape.cells / image.numel() * jacobian.T @ jacobian
        found.append(roots[:, None] * second.reshape(len(roots), -1) * roots)
    return torch.stack(found)


def expected(field, images, **more):
    """The largest eigenvalues of the blocks of explicit matrices, `(n, B, cells | 1)`."""
    steps = []
    for latents in starts(field, images):
        whole = matrices(field, images, latents, **more)
        if field.spec.interpolation == "nearest" and field.spec.kernel_size == 1:
            cells = whole.unflatten(2, (-1, 3)).unflatten(1, (-1, 3))  # B, cell, c, cell, c
            between = cells.clone()
            for cell in range(cells.shape[1]):
                between[:, cell, :, cell] = 0
            assert between.abs().max() == 0
            whole = torch.stack([cells[:, cell, :, cell] for cell in range(cells.shape[1])], dim=1)
        else:
            whole = whole[:, None]
        steps.append(torch.linalg.eigvalsh(whole)[..., -1])
    return torch.stack(steps)


@pytest.mark.parametrize("initialisation", ["random", "data"])
@pytest.mark.parametrize("first_step", ["tied", "free"])
@pytest.mark.parametrize(("grid", "interpolation", "kernel_size"), CASES)
def test_are_those_of_the_explicit_matrices(grid, interpolation, kernel_size, first_step, initialisation):
    field = make(grid, interpolation, kernel_size, first_step=first_step, initialisation=initialisation)
    images = pictures(field)
    found, wanted = field.step_eigenvalues(images, ALL), expected(field, images)
    blocks = field.spec.latent_shape.cells if interpolation == "nearest" and kernel_size == 1 else 1
    assert found.shape == (2, 2, blocks)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    without = expected(field, images, residual=False)
    assert ((without - wanted).abs() / wanted.abs()).max() > 1e-3, "the residual's curvature shows"


@pytest.mark.parametrize(("grid", "interpolation", "kernel_size"), CASES)
def test_fewer_products_find_less(grid, interpolation, kernel_size):
    field = make(grid, interpolation, kernel_size)
    images = pictures(field)
    found = torch.stack([field.step_eigenvalues(images, products) for products in (1, 2, 3, ALL)])
    assert (found.diff(dim=0) >= -1e-12).all()
    assert (found[0] < found[-1]).all()


def test_a_step_drives_latents_apart_beyond_two():
    """Two latents that differ along the eigenvector are 1 − λ times as far apart after the step."""
    field = make(first_step="free")
    images = pictures(field, 1)
    with torch.no_grad():
        field.inner_rates.fill_(0.3)
        field.layers[-1].weight *= 3
        start = field.encode(images, 1)
        whole = matrices(field, images, start)[0]
        values, vectors = torch.linalg.eigh(whole)
        largest = field.step_eigenvalues(images, ALL)[0].max()
        beside = start + 1e-6 * (field.inner_rates.sqrt() * vectors[:, -1].reshape(start.shape))
        siren, targets = field._siren(field.geometry.coordinates), field.geometry.to_points(images)
        after = [z - field.inner_rates * field._gradient(z, targets, siren) for z in (start, beside)]
    assert largest > 2
    assert largest.item() == pytest.approx(values[-1].item(), rel=1e-9)
    torch.testing.assert_close(after[1] - after[0], (1 - largest) * (beside - start), rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize(("interpolation", "kernel_size"), [("nearest", 1), ("nearest", 3), ("linear", 1)])
def test_engines_agree(interpolation, kernel_size):
    """Native, and torch with its activations computed again: both are asked for several products of one gradient."""
    field = make((2, 2), interpolation, kernel_size, width=32, double=False)
    images = pictures(field)
    plain = field.step_eigenvalues(images, ALL)
    for engine in (NativeEngine(), TorchEngine(floats_at_once=128)):
        field.engine = engine
        torch.testing.assert_close(field.step_eigenvalues(images, ALL), plain, rtol=1e-3, atol=1e-4)


def test_the_field_is_as_it_was():
    """Neither gradients nor the global random numbers nor buffers are touched, and nothing has to be differentiable."""
    field = make()
    images, before, state = (
        pictures(field),
        {k: v.clone() for k, v in field.state_dict().items()},
        torch.get_rng_state(),
    )
    with torch.no_grad():
        first = field.step_eigenvalues(images, ALL)
    assert not first.requires_grad
    assert torch.equal(first, field.step_eigenvalues(images, ALL))
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in field.parameters())
    assert all(torch.equal(value, before[name]) for name, value in field.state_dict().items())


def test_a_single_step_has_none():
    field = make(inner_steps=1)
    assert field.step_eigenvalues(pictures(field), ALL).shape == (0, 2, 4)


# Lanczos' method by itself


def symmetric(values):
    """Matrices with these eigenvalues `(N, n)`."""
    torch.manual_seed(0)
    vectors, _ = torch.linalg.qr(torch.randn(*values.shape, values.shape[-1], dtype=torch.float64))
    return vectors @ torch.diag_embed(values) @ vectors.mT


def largest(matrices, iterations):
    start = torch.randn(matrices.shape[:2], dtype=torch.float64)
    return largest_eigenvalues(lambda vectors: (matrices @ vectors[..., None])[..., 0], start, iterations)


def test_the_largest_is_not_the_largest_magnitude():
    values = torch.tensor([[-9.0, 0.5, 1.0, 2.0], [-3.0, -2.0, -1.5, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(largest(symmetric(values), 4), values[:, -1], rtol=1e-10, atol=0)


def test_equal_eigenvalues_and_small_spaces():
    """The space of products may have fewer dimensions than were asked for: a multiple eigenvalue, a rank of one, zero."""
    values = torch.tensor([[3.0, 3.0, 3.0, 3.0], [0.0, 0.0, 0.0, 5.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(largest(symmetric(values), 9), values[:, -1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("others", [1.0, 1.5])
def test_rounding_errors_are_no_directions(sign, others):
    """In float32, without noise from a product of matrices: what is left of a product is nothing, or along the basis."""
    diagonal = sign * torch.tensor([others, *[1.0] * 7])
    start = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    found = largest_eigenvalues(lambda vectors: vectors * diagonal, start, 8)
    torch.testing.assert_close(found, diagonal.max().expand(500), rtol=1e-5, atol=0)


def test_a_field_that_starts_from_the_data_steps_at_one():
    """Its SIREN has no output yet: along each channel the step matrix is the identity, or zero beyond the linear code."""
    torch.manual_seed(0)
    spec = FieldSpec(LatentShape((4, 4), 8), (16, 16), 1, "nearest", 32, 3, 10.0, initialisation="data")
    field = SpatialField(spec)
    directions, _ = torch.linalg.qr(torch.randn(16, 6))
    field.start_from(torch.rand(16), directions, torch.linspace(2, 0.1, 6))
    found = field.step_eigenvalues(pictures(field), 8)
    torch.testing.assert_close(found, torch.ones_like(found), rtol=1e-5, atol=0)


def test_what_is_not_finite_is_infinite():
    """A latent that ran away; the others are found all the same."""
    matrices = symmetric(torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64))
    matrices[0] = torch.nan
    torch.testing.assert_close(largest(matrices, 2), torch.tensor([torch.inf, 2.0], dtype=torch.float64))
