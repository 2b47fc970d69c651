"""Steps at the borders of cells against pictures whose steps are known."""

import pytest
import torch

from spatial_functa_pipeline.metrics.seams import SeamSteps


def steps_of(*batches, grid=(4, 4)):
    steps = SeamSteps(grid)
    for batch in batches:
        steps.update(batch)
    return steps


def staircase(heights):
    """One grey picture whose row i is `heights[i]` everywhere; as many columns as rows."""
    rows = torch.tensor(heights, dtype=torch.float64)
    return rows[None, :, None, None].expand(1, -1, len(heights), 1)


def test_a_smooth_picture_has_no_seams():
    ramp = staircase([i / 16 for i in range(16)])
    steps = steps_of(ramp)
    assert steps.ratio() == pytest.approx(1)
    assert steps.ratios_by_axis() == pytest.approx((1, 1))  # from column to column there is no step at all


def test_steps_at_borders_count_as_often_as_they_are_larger():
    heights = [0.0]
    for row in range(1, 16):
        heights.append(heights[-1] + (0.03 if row % 4 == 0 else 0.01))
    steps = steps_of(staircase(heights), staircase(heights).transpose(1, 2).expand(3, -1, -1, 1))
    assert steps.ratio() == pytest.approx(3)
    assert steps.ratios_by_axis() == pytest.approx((3, 3))


def test_both_axes_together_are_the_ratio_of_all_steps():
    """Rows: 0.2 across, 0.1 within. Columns: 0.1 across and within."""
    picture = torch.tensor([0.0, 0.1, 0.3, 0.4])[:, None] + torch.tensor([0.0, 0.1, 0.2, 0.3])
    steps = steps_of(picture[None, :, :, None], grid=(2, 2))
    assert steps.ratios_by_axis() == pytest.approx((2, 1))
    assert steps.ratio() == pytest.approx(1.5)


def test_bytes_are_on_the_scale_of_floats_and_floats_are_clamped_as_they_are_shown():
    pictures = torch.randint(0, 256, (5, 8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert steps_of(pictures).ratio() == pytest.approx(steps_of(pictures / 255).ratio())
    beyond = staircase([-3.0, -1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 2.0])
    shown = staircase([0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0])
    assert steps_of(beyond).ratio() == pytest.approx(steps_of(shown).ratio())


def test_the_ratio_does_not_depend_on_the_batches():
    pictures = torch.rand(9, 8, 8, 1, generator=torch.Generator().manual_seed(0))
    assert steps_of(*pictures.split(2)).ratio() == pytest.approx(steps_of(pictures).ratio(), rel=1e-12)


def test_volumes_have_three_axes():
    volume = torch.rand(2, 4, 4, 4, 1, generator=torch.Generator().manual_seed(0))
    assert len(steps_of(volume, grid=(2, 2, 2)).ratios_by_axis()) == 3


@pytest.mark.parametrize("grid", [(1, 1), (8, 8)])
def test_without_borders_or_without_insides_there_is_no_ratio(grid):
    steps = steps_of(torch.rand(2, 8, 8, 1), grid=grid)
    assert steps.ratio() is None
    assert steps.ratios_by_axis() == (None, None)


def test_an_axis_of_one_cell_does_not_count():
    """Its steps are within a cell, but they are steps in another direction."""
    picture = torch.tensor([0.0, 0.1, 0.3, 0.4])[:, None] + torch.tensor([0.0, 0.9, 0.0, 0.9])
    assert steps_of(picture[None, :, :, None] / 2, grid=(2, 1)).ratio() == pytest.approx(2)


def test_pictures_without_steps_but_at_borders():
    assert steps_of(torch.zeros(1, 8, 8, 1)).ratio() == 1
    assert steps_of(staircase([0, 0, 1, 1, 0, 0, 1, 1])).ratio() == float("inf")


def test_a_grid_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match=r"\(8, 8\) pixels cannot be cut into a grid of \(3, 3\)"):
        steps_of(torch.rand(1, 8, 8, 1), grid=(3, 3))
    with pytest.raises(ValueError, match="cannot be cut"):
        steps_of(torch.rand(1, 8, 8, 1), grid=(4,))
