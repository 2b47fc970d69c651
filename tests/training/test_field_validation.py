"""What a validation says of the inner loop's edge."""

import pytest
import tiny_trainings as tiny
import torch

from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.training import field as field_training


def test_the_history_has_the_true_matrices_largest_eigenvalue(tmp_path):
    """Of the first four validation images, of the averaged weights, which are those that are kept."""
    reported = {}
    field, history = tiny.train(tmp_path / "field.ckpt", report=lambda step, row: reported.update(row), keep="last")
    few = unit_images(tiny.images(16, 1).batch(range(4)))
    found = field.step_eigenvalues(few, 4)  # exact: a cell has four channels
    last = history.iloc[-1]
    assert last.true_spectral_radius == pytest.approx(found.max().item(), rel=1e-5)
    assert last.share_beyond_2 == 0 == (found > 2).float().mean().item()
    assert reported["true_spectral_radius"] == pytest.approx(last.true_spectral_radius)
    assert last.true_spectral_radius != pytest.approx(last.spectral_radius, rel=1e-3)


def test_the_share_is_of_the_cells_and_steps():
    field, images = field_and_images()
    pixels = unit_images(images.batch(range(4)))
    with torch.no_grad():
        while not (found := field.step_eigenvalues(pixels, 4) > 2).any():  # until some are, and not all
            field.layers[-1].weight *= 1.2
        metrics = field_training._validation_metrics(field, images, 4)
    assert found.shape == (2, 4, 4)
    assert 0 < found.sum() < found.numel()
    assert metrics["share_beyond_2"] == pytest.approx(found.float().mean().item())
    assert metrics["true_spectral_radius"] > 2


def test_one_inner_step_has_no_such_metrics():
    field, images = field_and_images(inner_steps=1)
    with torch.no_grad():
        assert field_training._validation_metrics(field, images, 4).keys() == {
            "validation_psnr",
            "validation_psnr_of_mean_mse",
            "spectral_radius",
        }


def field_and_images(**changes):
    torch.manual_seed(0)
    config = tiny.field_config().field.model_copy(update=changes)
    return field_training.SpatialField(config.spec), tiny.images(4, 0)
