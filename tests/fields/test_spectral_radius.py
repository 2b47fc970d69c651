"""λ_max of the inner loop's step matrix, against the matrix itself, and against what it foretells."""

import pytest
import torch

from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape

CASES = [
    pytest.param((2, 2), "nearest", 1, id="nearest"),
    pytest.param((2, 2), "nearest", 3, id="nearest-3x3"),
    pytest.param((2, 2), "linear", 1, id="linear"),
    pytest.param((2, 2), "linear", 3, id="linear-3x3"),
    pytest.param((1, 1), "nearest", 1, id="vector"),
]


def make(grid, interpolation, kernel_size, rates=(0.005, 0.1)):
    torch.manual_seed(3)
    spec = FieldSpec(LatentShape(grid, 3), (8, 8), 2, interpolation, 16, 3, 8.0, kernel_size, inner_rate_init=rates)
    field = SpatialField(spec).double()
    with torch.no_grad():
        field.modulation_bias.normal_(std=0.1)
    return field


def step_matrix(field):
    """α ⊙ (second derivative of the inner loss at z = 0 without the residual's part), by autograd."""
    shape = (1, *field.spec.latent_shape.grid, field.spec.latent_shape.channels)
    jacobian = torch.autograd.functional.jacobian(
        lambda z: field.decode(z.reshape(shape)).flatten(), torch.zeros(shape).double().flatten()
    )
    pixels_per_cell = 64 / (field.spec.latent_shape.grid[0] * field.spec.latent_shape.grid[1]) * field.spec.channels
    rates = field.inner_rates.detach().clamp(0, 1).repeat(len(jacobian.T) // field.spec.latent_shape.channels)
    return rates[:, None] * (2 / pixels_per_cell) * jacobian.T @ jacobian


@pytest.mark.parametrize(("grid", "interpolation", "kernel_size"), CASES)
def test_is_the_largest_eigenvalue(grid, interpolation, kernel_size):
    field = make(grid, interpolation, kernel_size)
    expected = torch.linalg.eigvals(step_matrix(field)).real.max()
    torch.testing.assert_close(field.spectral_radius(500).detach(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("grid", "interpolation", "kernel_size"), CASES)
def test_its_gradient_is_the_eigenvalues(grid, interpolation, kernel_size):
    field = make(grid, interpolation, kernel_size)
    parameters = {name: p for name, p in field.named_parameters() if name != "layers.2.bias"}  # without influence
    found = torch.autograd.grad(field.spectral_radius(500), list(parameters.values()), allow_unused=True)
    for (name, parameter), gradient in zip(parameters.items(), found, strict=True):
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter += sign * 1e-5 * direction
                values.append(torch.linalg.eigvals(step_matrix(field)).real.max())
                parameter -= sign * 1e-5 * direction
        expected = (values[0] - values[1]) / 2e-5
        assert (gradient * direction).sum().item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-7), name


def test_the_inner_loop_diverges_above_two():
    """Small images around the value at z = 0: the loop is linear there, and each step multiplies by 1 − λ."""
    field = make((2, 2), "nearest", 1)
    growth = {}
    for wanted in (1.5, 2.5):
        with torch.no_grad():
            field.layers[-1].weight *= (wanted / field.spectral_radius(500)).sqrt()
            images = field.decode(torch.zeros(1, 2, 2, 3).double())
        assert field.spectral_radius(500).item() == pytest.approx(wanted, rel=1e-6)
        images = images + 1e-6 * torch.randn_like(images)
        sizes = [field.encode(images, steps).norm().item() for steps in (5, 25)]
        growth[wanted] = sizes[1] / sizes[0]
    assert growth[1.5] < 2
    assert growth[2.5] > 100


def test_one_iteration_a_call_follows_the_eigenvector():
    """From call to call the vector is kept, in the state that checkpoints save."""
    field = make((2, 2), "linear", 1)
    first = field.spectral_radius().item()
    assert field.spectral_radius().item() == first
    for _ in range(200):
        last = field.spectral_radius(iterations=1).item()
    assert first < last == pytest.approx(torch.linalg.eigvals(step_matrix(field)).real.max().item(), rel=1e-6)
    again = make((2, 2), "linear", 1)
    again.load_state_dict(field.state_dict())
    assert again.spectral_radius().item() == last
