"""Latents without locality: the matrix, the statistics of what it makes of them, and the way there and back."""

import json

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.rotation import random_orthogonal, rotated, rotated_back
from spatial_functa_pipeline.functasets.statistics import LatentStatistics, compute_statistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import write

AXES = {"scalar": None, "vector": (0, 1, 2), "array": (0,)}
KINDS = list(AXES)
SIZES = {"within_cells": 3, "whole": 12}
ROTATIONS = list(SIZES)


@pytest.fixture
def raw() -> np.ndarray:
    """40 latents of 2×2×3 with a mean and a scale of their own in each element."""
    rng = np.random.default_rng(5)
    mean, scale = rng.normal(size=(2, 2, 3)), rng.uniform(0.01, 1, size=(2, 2, 3))
    return (mean + scale * rng.normal(size=(40, 2, 2, 3))).astype(np.float32)


def by_hand(latents, matrix):
    """Q z in NumPy, float64: of each cell, or of the latent laid out in one row."""
    matrix = matrix.double().numpy()
    if len(matrix) == latents.shape[-1]:
        return np.einsum("ij,nrcj->nrci", matrix, latents.astype(np.float64))
    flat = latents.reshape(len(latents), -1).astype(np.float64)
    return np.stack([matrix @ row for row in flat]).reshape(latents.shape)


@pytest.mark.parametrize("numbers", [1, 7, 200])
def test_the_matrix_is_orthogonal_and_its_seeds_own(numbers):
    matrix = random_orthogonal(numbers, 3)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(numbers), atol=2e-6, rtol=0)
    assert torch.equal(matrix, random_orthogonal(numbers, 3))
    assert numbers == 1 or not torch.allclose(matrix, random_orthogonal(numbers, 4), atol=0.01)


def test_matrices_are_uniform():
    """Every entry of a Haar matrix has mean 0 and variance 1/n; QR without its signs has a diagonal of one sign."""
    matrices = torch.stack([random_orthogonal(4, seed) for seed in range(4000)])
    assert matrices.mean(0).abs().max() < 0.04
    torch.testing.assert_close(matrices.var(0), torch.full((4, 4), 0.25), atol=0.02, rtol=0)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_what_keeps_its_norm(raw, rotation):
    latents = torch.from_numpy(raw)
    turned = rotated(latents, random_orthogonal(SIZES[rotation], 0))
    torch.testing.assert_close(turned.flatten(1).norm(dim=1), latents.flatten(1).norm(dim=1))
    cells_are_kept = torch.allclose(turned.norm(dim=-1), latents.norm(dim=-1), atol=1e-4)
    assert cells_are_kept == (rotation == "within_cells")
    assert (turned - latents).abs().mean() > 0.3
    torch.testing.assert_close(rotated_back(turned, random_orthogonal(SIZES[rotation], 0)), latents)


def test_cells_are_rotated_alike():
    cell = torch.randn(3)
    turned = rotated(cell.expand(1, 2, 2, 3), random_orthogonal(3, 0))
    torch.testing.assert_close(turned, turned[:, :1, :1].expand(1, 2, 2, 3))


@pytest.mark.parametrize("storage", [{}, {"storage_type": "float16"}, {"bits": 4}])
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_statistics_are_those_of_the_rotated_latents(make_functaset, raw, rotation, storage):
    functaset = make_functaset(raw, originals=30, **storage)
    result = compute_statistics(functaset, rotation=rotation)
    assert result.rotation.shape == (SIZES[rotation], SIZES[rotation])
    assert (result.rotation.dtype, result.count) == (torch.float32, 30)
    turned = by_hand(functaset.rows(0, 30), result.rotation)
    for kind, axes in AXES.items():
        mean, std, moments = turned.mean(axes), turned.std(axes), result.moments[kind]
        np.testing.assert_allclose(moments.mean, mean, rtol=1e-9)
        np.testing.assert_allclose(moments.std, std, rtol=1e-9)
        np.testing.assert_allclose(moments.largest, np.abs((turned - mean) / std).max(axes), rtol=1e-9)


def test_another_field_has_another_matrix(tmp_path, make_plan, raw):
    matrices = []
    for path, field in zip("123", "aab", strict=True):
        write(tmp_path / path, make_plan(raw, fingerprint=field))
        matrices.append(compute_statistics(Functaset.open(tmp_path / path), rotation="whole").rotation)
    one, again, other = matrices
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, atol=0.1)


def test_a_cell_that_never_varies_has_a_deviation_of_exactly_zero_afterwards(make_functaset, raw):
    """A corner of background: rounding must not be taken for a deviation, and be scaled up."""
    raw[:, 0, 0] = [0.1, -0.3, 0.7]
    statistics = compute_statistics(make_functaset(raw, chunk_rows=4, shard_rows=12), rotation="within_cells")
    still = np.zeros((2, 2, 3), bool)
    still[0, 0] = True
    np.testing.assert_array_equal(statistics.moments["array"].std.numpy() == 0, still)
    normaliser = Normaliser.from_statistics(statistics, "array")
    assert normaliser(torch.from_numpy(raw))[:, 0, 0].abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_the_normaliser_rotates_and_undoes_it(make_functaset, raw, rotation, kind):
    statistics = compute_statistics(make_functaset(raw), rotation=rotation)
    normaliser, latents = Normaliser.from_statistics(statistics, kind, gamma=2.5), torch.from_numpy(raw)
    moments, turned = statistics.moments[kind], torch.from_numpy(by_hand(raw, statistics.rotation))
    expected = (turned - moments.mean) / (2.5 * moments.std)
    torch.testing.assert_close(normaliser(latents).double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(normaliser.inverse(normaliser(latents)), latents, atol=2e-6, rtol=1e-5)
    assert (normaliser(latents).abs() <= normaliser.clip_range + 1e-4).all()


@pytest.mark.parametrize("rotation", [None, *ROTATIONS])
def test_statistics_and_normaliser_are_read_back(make_functaset, raw, rotation):
    tensors, metadata = compute_statistics(make_functaset(raw), rotation=rotation).to_tensors()
    statistics = LatentStatistics.from_tensors(tensors, json.loads(json.dumps(metadata)))
    latents = torch.from_numpy(raw)
    for normaliser in (
        Normaliser.from_statistics(statistics, "vector", 2.0),
        Normaliser.by_scale(0.3, statistics.rotation),
    ):
        state = normaliser.state_dict()
        assert ("rotation" in state) == (rotation is not None)
        restored = Normaliser(**state)
        assert torch.equal(restored(latents), normaliser(latents))
        assert restored.rotated_numbers == (rotation and SIZES[rotation])


def test_a_rotation_is_exact_whatever_the_precision_around_it(raw):
    normaliser, latents = Normaliser.by_scale(1.0, random_orthogonal(12, 0)), torch.from_numpy(raw)
    with torch.autocast("cpu", torch.bfloat16):
        turned = normaliser(latents)
        assert (latents.flatten(1) @ normaliser.rotation.T).dtype == torch.bfloat16
    assert torch.equal(turned, normaliser(latents))
