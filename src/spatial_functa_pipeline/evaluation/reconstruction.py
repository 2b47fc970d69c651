"""How well the encoder reconstructs test images."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from spatial_functa_pipeline.evaluation.decoding import BATCH, decoded
from spatial_functa_pipeline.evaluation.linear_code import PCA_IMAGES, pca_patch
from spatial_functa_pipeline.evaluation.metrics import Metrics, described
from spatial_functa_pipeline.evaluation.reconstruction_figure import reconstruction_figure
from spatial_functa_pipeline.evaluation.seams import seam_metric
from spatial_functa_pipeline.fields.encoder import Encoder
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.metrics.image_quality import mean_psnr, pca_psnr, per_image_mse, psnr, psnr_of_mean_mse
from spatial_functa_pipeline.metrics.seams import SeamSteps


def evaluate_reconstructions(
    train_images: Images,
    test_images: Images,
    test_functaset: Functaset,
    encoder: Encoder,
    figure_images: int,
    seed: int,
) -> tuple[Metrics, Figure]:
    """Test PSNR of the encoder and of a linear code of the same size, and seams; the figure of the first `figure_images`.

    Args:
        train_images: what the linear code is computed from.
        test_images: the originals.
        test_functaset: their latents.
        encoder: decodes these.
        figure_images: columns of the figure, at most.
        seed: of the encoder's training, for what stands beside the numbers.
    """
    errors, shown, start = [], [], 0
    seams = {name: SeamSteps(encoder.spec.latent_shape.grid) for name in ("test_images", "reconstructions")}
    originals = test_images.batches(BATCH, test_functaset.originals)
    for reconstructions, images in zip(decoded(test_functaset, encoder), originals, strict=True):
        seams["test_images"].update(images)
        seams["reconstructions"].update(reconstructions)
        errors.append(per_image_mse(reconstructions, images))
        shown.append(reconstructions[: max(0, figure_images - start)])
        start += len(reconstructions)
    mse, drawn = torch.cat(errors), torch.cat(shown)
    where = f"test images, seed {seed}, dB"
    measured = {
        "psnr": (mean_psnr(mse).item(), f"{len(mse)} {where}"),
        "psnr_of_mean_mse": (psnr_of_mean_mse(mse).item(), f"{len(mse)} {where}"),
        **_linear_code(train_images, test_images, encoder, where),
        **seam_metric("reconstructions", seams["reconstructions"], f"{len(mse)} test images, seed {seed}"),
        **seam_metric("test_images", seams["test_images"], f"{len(mse)} test images"),
    }
    figure = reconstruction_figure(test_images.batch(range(len(drawn))), drawn, psnr(mse[: len(drawn)]))
    return described(measured), figure


def _linear_code(
    train_images: Images, test_images: Images, encoder: Encoder, where: str
) -> dict[str, tuple[float, str]]:
    """`psnr_pca` and what it was measured on; nothing where patches are too large for it."""
    if (code := pca_patch(encoder.spec)) is None:
        return {}
    patch, components = code
    train, test = (range(min(PCA_IMAGES, len(images))) for images in (train_images, test_images))
    value = pca_psnr(train_images.batch(train), test_images.batch(test), patch, components)
    patches = f"PCA of {'×'.join(map(str, patch))} patches of {len(train)} training images"
    return {"psnr_pca": (value, f"{len(test)} {where}: {patches}, {components} components")}
