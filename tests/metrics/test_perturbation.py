import pytest
import torch

from spatial_functa_pipeline.metrics.perturbation import (
    VISIBLE,
    cell_distances,
    changed_share,
    effective_area,
    energy_by_distance,
    linear_fit,
    pattern_correlation,
    pixel_energy,
)


def test_energy_is_summed_over_channels():
    differences = torch.tensor([[[1.0, -2.0], [0.0, 3.0]]])
    torch.testing.assert_close(pixel_energy(differences), torch.tensor([[5.0, 9.0]]))


@pytest.mark.parametrize("shape", [(8,), (4, 6), (2, 3, 4)])
def test_area_is_the_share_of_pixels_that_have_the_energy(shape):
    energy = torch.zeros(2, *shape)
    energy[0] = 0.3
    energy[1].view(-1)[:2] = 5.0
    expected = torch.tensor([1.0, 2 / energy[0].numel()], dtype=torch.float64)
    torch.testing.assert_close(effective_area(energy), expected)


def test_uneven_energy_has_less_area():
    assert effective_area(torch.tensor([[3.0, 1.0]])).item() == pytest.approx(16 / (2 * 10))
    assert effective_area(torch.zeros(1, 4)).isnan().all()


def test_a_pixel_is_changed_if_one_of_its_channels_is():
    differences = torch.zeros(1, 4, 3)
    differences[0, 0, 1] = -1.1 * VISIBLE
    differences[0, 1] = 0.9 * VISIBLE
    assert changed_share(differences).tolist() == [0.25]


def test_distances_are_in_cells_along_the_axis_where_a_pixel_is_furthest():
    assert cell_distances((6,), (3,), (1,)).tolist() == [1, 1, 0, 0, 1, 1]
    distances = cell_distances((4, 8), (2, 4), (1, 0))
    assert distances[2:, :2].unique().tolist() == [0]
    assert distances[0].tolist() == [1, 1, 1, 1, 2, 2, 3, 3]
    assert cell_distances((2, 2, 2), (1, 2, 1), (0, 1, 0))[:, 0].unique().tolist() == [1]


@pytest.mark.parametrize(("resolution", "grid"), [((6,), (4,)), ((4, 4), (2,))])
def test_cells_that_do_not_tile_the_image_are_refused(resolution, grid):
    with pytest.raises(ValueError, match="equal cells"):
        cell_distances(resolution, grid, (0,))


def test_energy_is_shared_among_distances():
    energy = torch.tensor([[0.0, 1.0, 5.0, 1.0, 2.0, 1.0], [0.0] * 6])
    shares = energy_by_distance(energy, cell_distances((6,), (3,), (1,)))
    assert shares[0].tolist() == pytest.approx([0.6, 0.4])
    assert shares[1].isnan().all()


def test_one_pattern_that_is_repeated_at_any_strength_has_a_correlation_of_one():
    pattern = torch.randn(12, generator=torch.Generator().manual_seed(0))
    cells = torch.tensor([[1.0], [0.2], [3.0]]) * pattern
    torch.testing.assert_close(pattern_correlation(cells), torch.ones(3, dtype=torch.float64))
    assert pattern_correlation(torch.ones(5, 4)).tolist() == pytest.approx([1.0] * 5)  # brightness is a pattern too


def test_what_has_nothing_in_common_has_no_correlation():
    """With the cell itself in the mean it would be 1/√n."""
    assert pattern_correlation(torch.eye(6)).tolist() == [0.0] * 6
    assert pattern_correlation(torch.tensor([[1.0], [1.0], [-1.0]])).isnan()[2].item() is False
    assert pattern_correlation(torch.ones(1, 4)).isnan().all()


def test_an_error_in_proportion_to_the_strength_is_fitted_exactly():
    strengths = torch.tensor([-0.2, -0.1, 0.1, 0.2])
    slope, r2 = linear_fit(strengths, 3 * strengths.abs())
    assert slope == pytest.approx(3)
    assert r2 == pytest.approx(1)


def test_a_fit_is_as_bad_as_its_residual():
    strengths, errors = torch.tensor([-2.0, -1.0, 1.0, 2.0]), torch.tensor([4.0, 1.0, 1.0, 4.0])
    slope, r2 = linear_fit(strengths, errors)
    assert slope == pytest.approx(18 / 10)
    assert r2 == pytest.approx(1 - (2 * 0.4**2 + 2 * 0.8**2) / 9)
    assert linear_fit(strengths, torch.zeros(4))[1] != linear_fit(strengths, torch.zeros(4))[1]  # NaN
