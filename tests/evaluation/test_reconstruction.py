import pytest
import torch
from evaluated import field, images, latents

from spatial_functa_pipeline.evaluation.decoding import BATCH
from spatial_functa_pipeline.evaluation.reconstruction import evaluate_reconstructions
from spatial_functa_pipeline.metrics.image_quality import mean_psnr, pca_psnr, per_image_mse


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


def test_latents_of_other_images_are_refused(make_functaset):
    with pytest.raises(ValueError, match="shape"):
        evaluate_reconstructions(images(5, 0), images(8, 1), make_functaset(latents(9)), field(), 5, seed=0)
