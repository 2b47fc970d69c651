"""One way to cut images into cells, for any number of axes."""

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.fields.cells import cut_into_cells, join_cells

CASES = [((4,), (12,)), ((2, 3), (8, 6)), ((1, 1), (4, 4)), ((2, 1, 3), (4, 2, 6))]


@pytest.mark.parametrize(("grid", "resolution"), CASES)
def test_each_cell_has_its_pixels_in_order(grid, resolution):
    images = torch.randint(0, 256, (5, *resolution, 2), dtype=torch.uint8)
    cells = cut_into_cells(images, grid)
    patch = [n // s for n, s in zip(resolution, grid, strict=True)]
    assert cells.shape == (5, *grid, np.prod(patch), 2)
    for cell in np.ndindex(*grid):
        place = tuple(slice(k * p, (k + 1) * p) for k, p in zip(cell, patch, strict=True))
        assert torch.equal(cells[(slice(None), *cell)], images[(slice(None), *place)].reshape(5, -1, 2))


@pytest.mark.parametrize(("grid", "resolution"), CASES)
def test_joining_is_the_inverse_of_cutting(grid, resolution):
    images = torch.rand(3, *resolution, 2)
    assert torch.equal(join_cells(cut_into_cells(images, grid), resolution), images)


@pytest.mark.parametrize("grid", [(3, 3), (2,), (2, 2, 1)])
def test_a_grid_that_does_not_fit_is_refused(grid):
    with pytest.raises(ValueError, match=r"images of \(8, 6\) pixels cannot be cut into a grid of"):
        cut_into_cells(torch.rand(1, 8, 6, 1), grid)
