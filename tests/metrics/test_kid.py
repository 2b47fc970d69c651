"""KID against its definition, and its expectation on equal distributions."""

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.metrics import kid
from spatial_functa_pipeline.metrics.kid import kid_distance, similarity_between, similarity_within


def gaussian(count, width=4, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def by_definition(x, y):
    def similarity(a, b):
        return (float(np.dot(a, b)) / len(a) + 1) ** 3

    x, y = x.double().numpy(), y.double().numpy()
    within_x = np.mean([similarity(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    within_y = np.mean([similarity(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    return within_x + within_y - 2 * np.mean([similarity(a, b) for a in x for b in y])


def test_it_is_the_definition_written_out():
    x, y = gaussian(9), gaussian(7, seed=1) + 0.5
    assert kid_distance(x, y) == pytest.approx(by_definition(x, y), rel=1e-12)


def test_blocks_change_nothing(monkeypatch):
    x, y = gaussian(50), gaussian(41, seed=1)
    whole = kid_distance(x, y)
    monkeypatch.setattr(kid, "_BLOCK", 8)
    assert kid_distance(x, y) == pytest.approx(whole, abs=1e-12)


def test_it_is_unbiased_on_equal_distributions():
    """The mean over many small sets of one distribution is 0 within its error; the biased estimate's is not."""
    count = 10
    sets = [(gaussian(count, seed=2 * i), gaussian(count, seed=2 * i + 1)) for i in range(400)]
    values = np.array([kid_distance(x, y) for x, y in sets])

    def mean(a, b):
        return similarity_between(a, b)[0].mean().item()

    biased = np.array([mean(x, x) + mean(y, y) - 2 * mean(x, y) for x, y in sets])
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 4 * error
    assert biased.mean() > 20 * error
    assert values.min() < 0


def test_its_expectation_does_not_depend_on_the_number_of_images():
    """A shift of the mean along one axis has a closed form: E k over independent Gaussians, degree by degree."""
    width, shift = 4, 1.0
    x = [gaussian(12, width, seed=i) for i in range(600)]
    y = [gaussian(12, width, seed=10_000 + i) + torch.tensor([shift, 0, 0, 0]) for i in range(600)]
    values = np.array([kid_distance(a, b) for a, b in zip(x, y, strict=True)])
    # (s + 1)³ = s³ + 3 s² + 3 s + 1 with s = x·y/F; E s = μ·ν/F, E s² = (F + |μ|² + |ν|² + (μ·ν)²)/F²,
    # E s³ = ((μ·ν)³ + 3 (μ·ν)(F + 2 + |μ|² + |ν|²))/F³ for unit Gaussians around μ and ν

    def expected_similarity(product, norms):
        first = product / width
        second = (width + norms + product**2) / width**2
        third = (product**3 + 3 * product * (width + 2 + norms)) / width**3
        return third + 3 * second + 3 * first + 1

    squared = shift**2
    expected = (
        expected_similarity(0, 0) + expected_similarity(squared, 2 * squared) - 2 * expected_similarity(0, squared)
    )
    assert values.mean() == pytest.approx(expected, abs=4 * values.std() / np.sqrt(len(values)))


def test_one_image_and_other_features_are_errors():
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        similarity_within(gaussian(1))
    with pytest.raises(ValueError, match="widths 4 and 3"):
        kid_distance(gaussian(5), gaussian(5, 3))
