"""Coordinates and the two interpolations."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from spatial_functa_pipeline.fields import geometry as module
from spatial_functa_pipeline.fields.geometry import (
    LinearGeometry,
    NearestGeometry,
    binary_coordinates,
    interpolation_matrix,
    pixel_centres,
)


def test_pixel_centres():
    centres = pixel_centres((2, 4))
    assert centres.shape == (8, 2)
    assert centres[0].tolist() == [0.25, 0.125]
    assert centres[1].tolist() == [0.25, 0.375]  # the last axis runs fastest
    assert centres[-1].tolist() == [0.75, 0.875]


def test_binary_coordinates_of_the_papers_example():
    """App. C: at 32×32, location (3, 5) has the code 00011 00101."""
    codes = binary_coordinates((32, 32))
    assert codes.shape == (1024, 10)
    assert codes[3 * 32 + 5].int().tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 0, 1]
    assert len(codes.unique(dim=0)) == 1024


def test_binary_coordinates_of_a_finer_grid_keep_the_trained_bits():
    trained, fine = binary_coordinates((8,)), binary_coordinates((32,), (8,))
    assert fine.shape == (32, 3)
    torch.testing.assert_close(fine, trained.repeat_interleave(4, dim=0))


def test_linear_interpolation_is_exact_for_linear_functions_and_clamped_at_the_edges():
    weights = interpolation_matrix(16, 4)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(16, dtype=torch.float64))
    cells = pixel_centres((4,))[:, 0]
    pixels = pixel_centres((16,))[:, 0]
    torch.testing.assert_close(weights @ cells, pixels.clamp(cells[0], cells[-1]))


@pytest.mark.parametrize(("grid", "resolution"), [((3, 4), (12, 8)), ((1, 1), (4, 4))])
def test_linear_spread_is_torchs_bilinear_interpolation(grid, resolution):
    geometry = LinearGeometry(grid, resolution, resolution).double()
    cells = torch.randn(2, *grid, 5, dtype=torch.float64)
    expected = F.interpolate(cells.movedim(-1, 1), resolution, mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        geometry.to_images(geometry.spread(cells)), expected.movedim(1, -1), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("make", [NearestGeometry, LinearGeometry])
@pytest.mark.parametrize(("grid", "resolution"), [((4,), (12,)), ((2, 3), (4, 12)), ((2, 1, 2), (4, 2, 6))])
def test_gather_is_the_adjoint_of_spread(make, grid, resolution):
    """⟨spread m, g⟩ = ⟨m, gather g⟩ for all m and g, and so for `differentiate` after it and `project`."""
    geometry = make(grid, resolution, resolution).double()
    modulations = torch.randn(2, *grid, 5, dtype=torch.float64)
    points = geometry.to_points(torch.randn(2, *resolution, 3, dtype=torch.float64))
    spread = geometry.spread(modulations)
    gradients = torch.randn_like(spread)
    torch.testing.assert_close((spread * gradients).sum(), (modulations * geometry.gather(gradients)).sum())
    basis = torch.randn(points.shape[1], 3, 5, dtype=torch.float64)
    left = (geometry.differentiate(spread, basis) * points).sum()
    torch.testing.assert_close(left, (modulations * geometry.project(points, basis)).sum())


@pytest.mark.parametrize("make", [NearestGeometry, LinearGeometry])
@pytest.mark.parametrize(("grid", "resolution"), [((4,), (12,)), ((2, 3), (4, 12)), ((2, 1, 2), (4, 2, 6))])
def test_points_and_images_are_inverse(make, grid, resolution):
    geometry = make(grid, resolution, resolution)
    images = torch.randn(2, *resolution, 3)
    torch.testing.assert_close(geometry.to_images(geometry.to_points(images)), images)


def test_nearest_points_are_the_pixels_of_a_cell():
    geometry = NearestGeometry((2, 2), (4, 4), (4, 4))
    image = torch.arange(16.0).reshape(1, 4, 4, 1)
    assert geometry.to_points(image)[1, :, 0].tolist() == [2, 3, 6, 7]


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation gives."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


@pytest.mark.parametrize("images_at_once", [1, 3])
def test_linear_projection_holds_the_modulations_of_some_images_at_a_time(monkeypatch, images_at_once):
    """Whatever the batch, and with the same results and derivatives as for the whole batch at once."""
    geometry = LinearGeometry((2, 3), (16, 12), (16, 12)).double()
    residual, basis = torch.randn(8, 192, 1).double(), torch.randn(192, 1, 40).double()

    def project():
        arguments = [tensor.clone().requires_grad_() for tensor in (residual, basis)]
        with Largest() as largest:
            result = geometry.project(*arguments)
            gradients = torch.autograd.grad(result.square().sum(), arguments)
        return largest.numbers, [result, *gradients]

    whole, wanted = project()
    assert whole == 8 * 192 * 40
    monkeypatch.setattr(module, "_FLOATS_AT_ONCE", images_at_once * 192 * 40)
    part, found = project()
    assert part == images_at_once * 192 * 40
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
