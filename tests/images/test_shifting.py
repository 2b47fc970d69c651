"""Images between their pixels: `shifted` against what cubic convolution is exact for, and against its definition."""

import pytest
import torch

from spatial_functa_pipeline.images.shifting import shifted


def image_of(function, side=12):
    row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float64),) * 2, indexing="ij")
    return function(row, column)[None, ..., None]


@pytest.mark.parametrize("offset", [(0.3, -0.4), (-0.9, 0.0), (1.6, 0.5)])
def test_quadratic_images_are_exact(offset):
    def function(row, column):
        return 0.02 * row**2 - 0.3 * row * column + column

    found = shifted(image_of(function), torch.tensor(offset, dtype=torch.float64))
    expected = image_of(lambda row, column: function(row + offset[0], column + offset[1]))
    torch.testing.assert_close(found[:, 3:-4, 3:-4], expected[:, 3:-4, 3:-4])


@pytest.mark.parametrize("shape", [(2, 9, 1), (2, 5, 6, 3), (1, 4, 4, 4, 1)])
def test_whole_pixels_are_moved_and_the_edge_goes_on(shape):
    images = torch.rand(shape, dtype=torch.float64)
    dims = len(shape) - 2
    torch.testing.assert_close(shifted(images, torch.zeros(dims)), images)
    moved = shifted(images, torch.ones(dims))
    clamped = images
    for axis in range(1, dims + 1):
        clamped = torch.cat([clamped.narrow(axis, 1, shape[axis] - 1), clamped.narrow(axis, shape[axis] - 1, 1)], axis)
    torch.testing.assert_close(moved, clamped)


def test_the_kernel_is_keys():
    """One pixel of 1: its neighbours are (a + …)|t|³ …, with a = −½."""

    def kernel(t):
        t = abs(t)
        return 1.5 * t**3 - 2.5 * t**2 + 1 if t <= 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    image = torch.zeros(1, 9, 1, dtype=torch.float64)
    image[0, 4] = 1
    found = shifted(image, torch.tensor([0.3], dtype=torch.float64))[0, :, 0]
    assert found.tolist() == pytest.approx([kernel(at + 0.3 - 4) for at in range(9)])
