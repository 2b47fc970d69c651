"""How close two sets of images are: MSE, PSNR, and the PSNR of a linear code as a reference point.

Images are channel-last `(B, *resolution, channels)`, either uint8 or floats in [0, 1].

Two numbers are called "PSNR" in the literature, and they differ by up to a few dB. Here they have two names: `mean_psnr`
(the mean over images of each image's PSNR; what the tables report as `psnr`) and `psnr_of_mean_mse` (what a training
loss amounts to; never larger than the former).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from spatial_functa_pipeline.fields.cells import cut_into_cells, join_cells
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.metrics.frechet import FeatureMoments

PSNR_CAP = 100.0
"""Highest PSNR in dB: an exact reconstruction would have an infinite one, which spoils means and is not valid JSON."""
_BATCH = 1024


def per_image_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over the pixels and channels of each image.

    Args:
        prediction: `(B, *resolution, channels)`, compared as it is: a decoded field is neither clamped nor rounded,
            so that the number is the one which training minimises. For the PSNR of images as a viewer would see
            them, round both to uint8 before.
        target: of the same shape.

    Returns:
        `(B,)`. Raises ValueError if the shapes differ: broadcasting would hide the mistake.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must have the same shape, got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    return (unit_images(prediction) - unit_images(target)).square().flatten(start_dim=1).mean(dim=1)


def psnr(mse: Tensor) -> Tensor:
    """PSNR = −10 log₁₀(MSE) in dB of images in [0, 1], elementwise, at most `PSNR_CAP`.

    NaN stays NaN, so that a diverged run cannot look like a perfect one.
    """
    return -10 * torch.log10(mse.clamp_min(10 ** (-PSNR_CAP / 10)))


def mean_psnr(mse: Tensor) -> Tensor:
    """Mean over images of each image's PSNR in dB, from the `(B,)` errors of `per_image_mse`. The `psnr` of reports."""
    return psnr(mse).mean()


def psnr_of_mean_mse(mse: Tensor) -> Tensor:
    """PSNR in dB of the mean error, from the `(B,)` errors of `per_image_mse`."""
    return psnr(mse.mean())


class PatchPCA:
    """The best linear code with as many numbers as the latent: PCA on patches.

    A latent of s×s×c describes each patch of P pixels by c numbers; so does this code, with one mean and one basis of
    c principal components for all patches of the training images.

    Args:
        train_images: `(N, *resolution, channels)`, or such batches, from which mean and basis are computed.
        patch: pixels per latent cell along each axis, `resolution / grid`.
        components: c.

    Attributes:
        mean: of a patch, `(P·channels,)`.
        basis: orthonormal, the largest component first, `(P·channels, c)`.
        deviations: the code's standard deviations, `(c,)`.

    Raises ValueError if the patch does not tile the images or has fewer than `components` numbers.
    """

    def __init__(self, train_images: Tensor | Iterable[Tensor], patch: tuple[int, ...], components: int) -> None:
        self.patch = tuple(patch)
        batches = train_images.split(_BATCH) if isinstance(train_images, Tensor) else train_images
        moments = None
        for batch in batches:
            if moments is None:
                moments = self._moments(batch, components)
            self._check(batch)
            moments.update(self._patches(batch).flatten(end_dim=-2))
        if moments is None:
            raise ValueError("there are no training images")
        variances, directions = torch.linalg.eigh(moments.covariance())  # ascending
        self.mean = moments.mean()
        self.basis = directions[:, -components:].flip(1)
        self.deviations = variances[-components:].flip(0).clamp_min(0).sqrt()

    def _moments(self, batch: Tensor, components: int) -> FeatureMoments:
        """Of patches such as the batch's, empty."""
        self.channels = batch.shape[-1]
        self._check(batch)
        values = self.channels * torch.Size(self.patch).numel()
        if not 1 <= components <= values:
            raise ValueError(f"a patch has {values} numbers: components must lie in 1..{values}, got {components}")
        return FeatureMoments(values)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images `(B, *resolution, channels)` from their codes, unclamped, in float64 on the CPU."""
        self._check(images)
        centred = self._patches(images).cpu().double() - self.mean  # (B, *grid, P·channels)
        patches = centred @ self.basis @ self.basis.T + self.mean
        return join_cells(patches.unflatten(-1, (-1, self.channels)), images.shape[1:-1])

    def _patches(self, images: Tensor) -> Tensor:
        """Cut `(B, *resolution, channels)` into `(B, *grid, P·channels)`."""
        grid = [n // side for n, side in zip(images.shape[1:-1], self.patch, strict=True)]
        return cut_into_cells(unit_images(images), grid).flatten(-2)

    def _check(self, images: Tensor) -> None:
        resolution = tuple(images.shape[1:-1])
        if len(self.patch) != len(resolution) or any(n % m for n, m in zip(resolution, self.patch, strict=True)):
            raise ValueError(f"patches of {self.patch} pixels do not tile images of {resolution} pixels")
        if images.shape[-1] != self.channels:
            raise ValueError(f"training images have {self.channels} channels, test images {images.shape[-1]}")


def pca_psnr(train_images: Tensor, test_images: Tensor, patch: tuple[int, ...], components: int) -> float:
    """Test PSNR in dB of `PatchPCA`, unclamped, by `mean_psnr`. A field must beat it to be worth its cost.

    Raises ValueError as `PatchPCA` does.
    """
    code = PatchPCA(train_images, patch, components)
    errors = [per_image_mse(code.reconstruct(batch), batch.cpu()) for batch in test_images.split(_BATCH)]
    return mean_psnr(torch.cat(errors)).item()
