"""From images to a functaset: each image is fitted by the inner loop of the meta-learned field (Sec. 4)."""

from functools import partial

import numpy as np
import torch

from ..config import FunctasetConfig, LatentShape
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
    seed: int,
    device: torch.device,
    progress: bool,
) -> FunctasetPlan:
    """The functaset of all images, followed by `copies` augmented copies of all of them.

    Row r is copy r // N of image r mod N, for N images; copy 0 is the image itself.
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
    )
    encode = partial(encode_rows, images=images, field=field.to(device).eval(), config=config, seed=seed, device=device)
    return FunctasetPlan(header, encode, progress)


@torch.inference_mode()
def encode_rows(
    start: int,
    stop: int,
    *,
    images: Images,
    field: SpatialField,
    config: FunctasetConfig,
    seed: int,
    device: torch.device,
) -> Rows:
    """Latents of the rows start … stop − 1, with the PSNR of their reconstructions (unclamped)."""
    copy, source = np.divmod(np.arange(start, stop), len(images))
    latents, quality = [], []
    for part in np.array_split(np.arange(stop - start), -(-(stop - start) // config.encode_batch)):
        pixels = augment(images.batch(source[part]), source[part], copy[part], config.augmentation, seed)
        targets = unit_images(pixels.to(device))
        encoded = field.encode(targets)
        latents.append(encoded.cpu())
        quality.append(psnr(per_image_mse(field.decode(encoded), targets)).cpu())
    return Rows(
        latents=torch.cat(latents).numpy(),
        labels=images.labels[source],
        source_index=source,
        augmentation=copy.astype(np.int32),
        psnr=torch.cat(quality).numpy(),
    )
