"""Precision, recall, density and coverage on clouds whose answers are known."""

import pytest
import torch

from spatial_functa_pipeline.metrics import precision_recall
from spatial_functa_pipeline.metrics.precision_recall import Manifold, manifold_scores, squared_distances


def gaussian(count, width=8, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def scores(generated, real):
    found = manifold_scores(Manifold.of(generated), Manifold.of(real))
    return {name: estimate.value for name, estimate in found.items()}


def on_a_line(*places):
    return torch.tensor([[float(place)] for place in places])


def test_a_set_compared_with_itself():
    x = gaussian(60)
    # Every ball holds its centre and the k neighbours that it reaches to, the last on its surface.
    result = scores(x, x)
    assert (result["precision"], result["recall"], result["coverage"]) == (1, 1, 1)
    assert result["density"] >= 6 / 5 - 0.02  # rounding may leave the k-th neighbour just outside


def test_clouds_apart_share_nothing():
    assert set(scores(gaussian(50), gaussian(50, seed=1) + 100).values()) == {0}


def test_one_of_two_modes_is_precise_but_recalls_half():
    near, far = gaussian(100), gaussian(100, seed=1) + 100
    real = torch.cat([near, far])
    dropped = scores(gaussian(200, seed=2), real)
    assert dropped["precision"] > 0.8
    assert dropped["recall"] <= 0.5
    assert dropped["coverage"] <= 0.5
    invented = scores(torch.cat([gaussian(100, seed=3), far + 1000]), near)
    assert invented["precision"] <= 0.5
    assert invented["recall"] > 0.8


def test_balls_on_a_line_counted_by_hand():
    real = on_a_line(0, 1, 2, 3, 4, 5, 6)  # radii: k = 3 → 3 2 2 2 2 2 3; k = 5 → 5 4 3 3 3 4 5
    generated = on_a_line(5.5, 8.5, 8.6, 20, 30, 40)
    result = scores(generated, real)
    assert result["precision"] == pytest.approx(3 / 6)  # 5.5, 8.5 and 8.6: 6's ball reaches 9
    # k = 5: 5.5 lies in the balls of 3 (≤ 6), 4 (≤ 7), 5 (≤ 9), 6 (≤ 11) but not of 2 (≤ 5), 1 (≤ 5), 0 (≤ 5);
    # 8.5 and 8.6 in those of 5 and 6
    assert result["density"] == pytest.approx((4 + 2 + 2) / (5 * 6))
    assert result["coverage"] == pytest.approx(4 / 7)
    # Third neighbours: 5.5 → 20 (14.5), which reaches down to −9: all real ones are recalled
    assert result["recall"] == 1


def test_an_outlier_makes_everything_precise_but_not_dense():
    """The reason for density (Naeem et al., 2020): one real outlier's ball holds what is nowhere near the others."""
    real = torch.cat([gaussian(200, 2), torch.full((1, 2), 1000.0)])
    generated = gaussian(100, 2, seed=1) + 500
    result = scores(generated, real)
    assert result["precision"] == 1
    assert result["density"] == pytest.approx(1 / 5)
    assert result["coverage"] == pytest.approx(1 / 201)


def test_equal_distributions_have_the_expected_density_and_coverage():
    real, generated = gaussian(2000), gaussian(2000, seed=1)
    result = scores(generated, real)
    assert result["density"] == pytest.approx(1, abs=0.06)
    assert result["coverage"] == pytest.approx(1 - 0.5**5, abs=0.02)
    assert result["precision"] == pytest.approx(result["recall"], abs=0.05)


def test_copies_are_each_others_neighbours():
    copies = torch.zeros(10, 3)
    assert scores(copies, copies)["precision"] == 1
    assert scores(copies + 1, copies)["precision"] == 0


def test_blocks_change_nothing(monkeypatch):
    generated, real = gaussian(70), gaussian(90, seed=1) + 0.5
    whole = scores(generated, real)
    monkeypatch.setattr(precision_recall, "_BLOCK", 16)
    assert scores(generated, real) == whole


def test_distances_far_from_the_origin_keep_their_digits():
    x, y = gaussian(20).double(), gaussian(30, seed=1).double()
    expected = (x[:, None] - y).square().sum(dim=-1)
    torch.testing.assert_close(squared_distances(x + 1e4, y + 1e4), expected, rtol=1e-8, atol=1e-8)


def test_too_few_images_are_an_error():
    with pytest.raises(ValueError, match="more than 5 images in each set, got 5"):
        Manifold.of(gaussian(5))
