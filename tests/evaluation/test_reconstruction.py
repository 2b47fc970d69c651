import pytest
import torch
from evaluated import field, images, latents

from spatial_functa_pipeline.config.meta_learning import FieldConfig
from spatial_functa_pipeline.evaluation.decoding import BATCH
from spatial_functa_pipeline.evaluation.reconstruction import evaluate_reconstructions
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.metrics.image_quality import mean_psnr, pca_psnr, per_image_mse
from spatial_functa_pipeline.metrics.seams import SeamSteps


def test_psnr_of_every_test_image_and_of_the_linear_code(make_functaset):
    rows, train, test, decoder = latents(BATCH + 6), images(30, 0), images(BATCH + 6, 1), field()
    metrics, figure = evaluate_reconstructions(train, test, make_functaset(rows), decoder, 5, seed=3)
    expected = per_image_mse(decoder.decode(torch.from_numpy(rows)).detach(), test.batch(range(len(test))))
    assert metrics["psnr"] == pytest.approx(mean_psnr(expected).item())
    code = pca_psnr(train.batch(range(30)), test.batch(range(len(test))), (4, 4), 3)
    assert metrics["psnr_pca"] == pytest.approx(code)
    assert metrics["details"]["psnr"] == "70 test images, seed 3, dB"
    assert metrics["details"]["psnr_pca"] == (
        "70 test images, seed 3, dB: PCA of 4×4 patches of 30 training images, 3 components"
    )
    assert len(figure.axes) == 3 * 5


def test_seams_of_the_reconstructions_stand_beside_those_of_the_test_images(make_functaset):
    """Random latents have nothing in common across borders, noise has no borders at all."""
    rows, test, decoder = latents(BATCH + 6), images(BATCH + 6, 1), field()
    metrics, _ = evaluate_reconstructions(images(30, 0), test, make_functaset(rows), decoder, 5, seed=3)
    steps = {name: SeamSteps((2, 2)) for name in ("test_images", "reconstructions")}
    steps["test_images"].update(test.batch(range(len(test))))
    steps["reconstructions"].update(decoder.decode(torch.from_numpy(rows)).detach())
    for name, expected in steps.items():
        assert metrics[f"seam_ratio_{name}"] == pytest.approx(expected.ratio())
        assert metrics["details"][f"seam_ratio_{name}"].startswith("70 test images")
    assert metrics["seam_ratio_test_images"] == pytest.approx(1, abs=0.1)
    assert metrics["seam_ratio_reconstructions"] > 1.5


def test_a_vector_has_no_seams(make_functaset):
    config = FieldConfig(latent_shape="1x1x3", interpolation="nearest", resolution=(8, 8), channels=1, width=8, depth=2)
    rows = latents(9)[:, :1, :1]
    functaset = make_functaset(rows)
    metrics, _ = evaluate_reconstructions(
        images(30, 0), images(9, 1), functaset, SpatialField(config.spec).eval(), 5, seed=3
    )
    assert "psnr" in metrics
    assert not [name for name in metrics if "seam" in name]


def test_latents_of_other_images_are_refused(make_functaset):
    with pytest.raises(ValueError, match="shape"):
        evaluate_reconstructions(images(5, 0), images(8, 1), make_functaset(latents(9)), field(), 5, seed=0)
