"""MSE and PSNR against values computed by hand, the linear code against an SVD of the patches in numpy."""

import math

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.metrics.image_quality import (
    PSNR_CAP,
    PatchPCA,
    mean_psnr,
    pca_psnr,
    per_image_mse,
    psnr,
    psnr_of_mean_mse,
)


def test_mse_is_taken_over_pixels_and_channels_of_each_image():
    target = torch.zeros(2, 4, 4, 3)
    prediction = torch.zeros(2, 4, 4, 3)
    prediction[0] += 0.1
    prediction[1, 0, 0, 0] = 1.0
    torch.testing.assert_close(per_image_mse(prediction, target), torch.tensor([0.01, 1 / 48]))


@pytest.mark.parametrize("resolution", [(8,), (4, 6), (2, 3, 4)])
def test_mse_takes_any_number_of_axes(resolution):
    target = torch.rand(5, *resolution, 2)
    expected = ((target - 0.5).numpy() ** 2).reshape(5, -1).mean(axis=1)
    np.testing.assert_allclose(per_image_mse(torch.full_like(target, 0.5), target), expected, rtol=1e-5)


def test_mse_of_bytes_does_not_wrap_around():
    black, white = torch.zeros(1, 2, 2, 1, dtype=torch.uint8), torch.full((1, 2, 2, 1), 255, dtype=torch.uint8)
    assert per_image_mse(black, white).item() == 1.0
    assert per_image_mse(black, torch.ones(1, 2, 2, 1)).item() == 1.0


def test_mse_neither_clamps_nor_rounds_the_prediction():
    assert per_image_mse(torch.full((1, 2, 2, 1), 1.5), torch.ones(1, 2, 2, 1)).item() == 0.25


def test_mse_of_half_precision_is_computed_in_single():
    mse = per_image_mse(
        torch.zeros(1, 4, 4, 1, dtype=torch.float16), torch.full((1, 4, 4, 1), 1e-4, dtype=torch.float16)
    )
    assert mse.item() == pytest.approx(1e-8, rel=1e-2)  # 0 in float16


def test_mse_of_different_shapes_is_an_error():
    with pytest.raises(ValueError, match=r"same shape.*\(2, 4, 4, 1\).*\(2, 4, 4, 3\)"):
        per_image_mse(torch.zeros(2, 4, 4, 1), torch.zeros(2, 4, 4, 3))


def test_integers_of_unknown_scale_are_an_error():
    with pytest.raises(TypeError, match="int64"):
        unit_images(torch.zeros(1, 2, 2, 1, dtype=torch.int64))


def test_psnr_of_known_errors():
    torch.testing.assert_close(psnr(torch.tensor([1.0, 0.1, 1e-4])), torch.tensor([0.0, 10.0, 40.0]))


def test_psnr_of_an_exact_reconstruction_is_capped_and_of_nan_is_nan():
    values = psnr(torch.tensor([0.0, float("nan")]))
    assert values[0].item() == pytest.approx(PSNR_CAP)
    assert math.isnan(values[1].item())


def test_the_two_means_differ():
    mse = torch.tensor([1e-2, 1e-4])
    assert mean_psnr(mse).item() == pytest.approx(30.0)
    assert psnr_of_mean_mse(mse).item() == pytest.approx(-10 * math.log10(0.00505))


def test_pca_with_all_components_is_exact():
    images = torch.rand(20, 8, 8, 2, generator=torch.Generator().manual_seed(0))
    assert pca_psnr(images[:15], images[15:], (2, 4), 16) == pytest.approx(PSNR_CAP)


def test_pca_agrees_with_a_singular_value_decomposition():
    generator = np.random.default_rng(0)
    images = (generator.random((60, 8, 12, 3)) * np.linspace(0.1, 1, 12)[:, None]).astype(np.float32)

    def patches(array):
        return np.stack(
            [[image[i : i + 4, j : j + 3].ravel() for i in (0, 4) for j in (0, 3, 6, 9)] for image in array]
        ).astype(np.float64)

    train, test = patches(images[:50]), patches(images[50:])
    mean = train.reshape(-1, 36).mean(axis=0)
    basis = np.linalg.svd(train.reshape(-1, 36) - mean, full_matrices=False)[2][:5]
    error = (test - mean) - (test - mean) @ basis.T @ basis
    expected = (-10 * np.log10((error**2).mean(axis=(1, 2)))).mean()
    result = pca_psnr(torch.from_numpy(images[:50]), torch.from_numpy(images[50:]), (4, 3), 5)
    assert result == pytest.approx(expected, abs=1e-4)


def test_pca_does_not_depend_on_the_internal_batch(monkeypatch):
    images = torch.randint(0, 256, (30, 6, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    whole = pca_psnr(images[:20], images[20:], (3,), 2)
    monkeypatch.setattr("spatial_functa_pipeline.metrics.image_quality._BATCH", 7)
    assert pca_psnr(images[:20], images[20:], (3,), 2) == pytest.approx(whole, abs=1e-9)


@pytest.mark.parametrize("patch", [(3, 4), (4,), (4, 4, 1)])
def test_pca_refuses_patches_that_do_not_tile(patch):
    with pytest.raises(ValueError, match="do not tile"):
        pca_psnr(torch.rand(4, 8, 8, 1), torch.rand(4, 8, 8, 1), patch, 2)


@pytest.mark.parametrize("components", [0, 17])
def test_pca_refuses_impossible_components(components):
    with pytest.raises(ValueError, match=r"1\.\.16"):
        pca_psnr(torch.rand(4, 8, 8, 1), torch.rand(4, 8, 8, 1), (4, 4), components)


def test_pca_refuses_other_channels():
    with pytest.raises(ValueError, match="3 channels, test images 1"):
        pca_psnr(torch.rand(4, 8, 8, 3), torch.rand(4, 8, 8, 1), (4, 4), 2)


@pytest.mark.parametrize(("shape", "patch"), [((12, 3), (4,)), ((6, 8, 2), (3, 4)), ((4, 4, 6, 1), (2, 4, 3))])
def test_images_come_back_from_a_code_of_all_components(shape, patch):
    images = torch.rand(60, *shape, generator=torch.Generator().manual_seed(0))
    code = PatchPCA(images, patch, torch.Size(patch).numel() * shape[-1])
    torch.testing.assert_close(code.reconstruct(images[:5]), images[:5].double())
    assert not torch.allclose(PatchPCA(images, patch, 1).reconstruct(images[:5]), images[:5].double(), atol=0.1)
