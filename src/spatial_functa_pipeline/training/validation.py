"""How well an encoder reconstructs the images that it is validated on."""

from collections.abc import Iterator

import torch
from torch import Tensor

from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.metrics.image_quality import mean_psnr, psnr_of_mean_mse

_BATCH = 16


def first_images(images: Images, count: int, device: torch.device) -> Iterator[Tensor]:
    """The first `count` images in [0, 1], `(≤ 16, *resolution, channels)` at a time, on the device."""
    for start in range(0, min(count, len(images)), _BATCH):
        stop = min(start + _BATCH, count, len(images))
        yield unit_images(images.batch(range(start, stop)).to(device))


def reconstruction_metrics(errors: list[Tensor]) -> dict[str, float]:
    """Both kinds of PSNR in dB, of the batches of `per_image_mse`."""
    mse = torch.cat(errors)
    return {
        "validation_psnr": mean_psnr(mse).item(),
        "validation_psnr_of_mean_mse": psnr_of_mean_mse(mse).item(),
    }
