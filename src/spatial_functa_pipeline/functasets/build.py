"""From images to a functaset: each image is fitted by the inner loop of the meta-learned field (Sec. 4)."""

import numpy as np
import torch

from ..compute import accelerated, products
from ..config import FunctasetConfig, LatentShape, RuntimeConfig
from ..datasets.images import Images
from ..fields.field import SpatialField
from ..metrics.image_quality import per_image_mse, psnr, unit_images
from .augmentation import augment
from .store import FunctasetHeader, FunctasetPlan, Rows


def plan_functaset(
    images: Images,
    field: SpatialField,
    config: FunctasetConfig,
    *,
    dataset: str,
    split: str,
    copies: int,
    fingerprint: str,
    seed: int,
    runtime: RuntimeConfig,
) -> FunctasetPlan:
    """The functaset of all images, followed by `copies` augmented copies of all of them.

    Row r is copy r // N of image r mod N, for N images; copy 0 is the image itself. The PSNR of a row is that of its
    reconstruction, unclamped. `fingerprint` stands for the field's weights.
    """
    header = FunctasetHeader(
        dataset=dataset,
        split=split,
        latent_shape=LatentShape(field.spec.grid, field.spec.latent_channels),
        interpolation=field.spec.interpolation,
        rows=len(images) * (copies + 1),
        shard_rows=config.shard_rows,
        chunk_rows=config.chunk_rows,
        storage_dtype=config.storage_dtype,
        fingerprint=fingerprint,
    )
    size, device = config.encode_batch, next(field.parameters()).device
    fit = accelerated(field, runtime, calls=header.rows // size, device=device, name=f"{split} functaset")

    @torch.no_grad()
    def encode(start: int, stop: int) -> Rows:
        copy, source = np.divmod(np.arange(start, stop), len(images))
        latents, quality = [], []
        for first in range(0, stop - start, size):
            part = slice(first, first + size)
            pixels = augment(images.batch(source[part]), source[part], copy[part], config.augmentation, seed)
            targets = unit_images(pixels.to(device))
            # A batch of another size would be compiled for itself.
            with products(field.spec.precision):
                reconstructions, encoded = (fit if len(targets) == size else field)(targets)
            latents.append(encoded.cpu())
            quality.append(psnr(per_image_mse(reconstructions, targets)).cpu())
        return Rows(
            latents=torch.cat(latents).numpy(),
            labels=images.labels[source],
            source_index=source,
            augmentation=copy.astype(np.int32),
            psnr=torch.cat(quality).numpy(),
        )

    return FunctasetPlan(header, encode, runtime.progress)
