"""From images to a functaset: each image is encoded, by a field in its inner loop (Sec. 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from spatial_functa_pipeline.compute import accelerated, resolve_device, tf32_products
from spatial_functa_pipeline.config.functaset import FunctasetConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.fields.encoder import Encoder
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.scheduling import Scheduling
from spatial_functa_pipeline.functasets.writing import FunctasetPlan
from spatial_functa_pipeline.images.augmentation import MIRRORED, augment
from spatial_functa_pipeline.images.digest import describe_images
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.metrics.image_quality import per_image_mse, psnr


def plan_functaset(
    images: Images,
    encoder: Encoder,
    config: FunctasetConfig,
    *,
    dataset: str,
    split: str,
    copies: int,
    fingerprint: str,
    seed: int,
    runtime: RuntimeConfig,
) -> FunctasetPlan:
    """The functaset of all images, followed by all of them mirrored, if `config` asks for it, and `copies` augmented copies.

    Row r is of image r mod N, for N images; its copy's number is in the column `augmentation`, see `augment`. The PSNR of
    a row is that of its reconstruction, unclamped. `encoder` is on the CPU; `fingerprint` stands for its weights.

    Raises ImagesError if an image that tells the set from others cannot be decoded, see `describe_images`.
    """
    numbers = (0, *([MIRRORED] if config.mirror_images else []), *range(1, copies + 1))
    header = FunctasetHeader(
        dataset=dataset,
        split=split,
        latent_shape=encoder.spec.latent_shape,
        interpolation=encoder.spec.interpolation,
        rows=len(images) * len(numbers),
        shard_rows=config.shard_rows,
        chunk_rows=config.chunk_rows,
        storage_type=config.storage_type,
        fingerprint=fingerprint,
        images=describe_images(images)["digest"],
    )
    calls = header.rows // config.encode_batch
    return FunctasetPlan(
        header,
        ImageEncoder(images, encoder, config, numbers, seed, runtime, calls, f"{split} functaset"),
        progress=runtime.progress,
        scheduling=Scheduling(runtime.scheduler, runtime.workers),
        classes=images.classes,
    )


@dataclass(frozen=True)
class ImageEncoder:
    """Encodes images and their copies of these numbers. Each process that gets it moves the encoder to its own device."""

    images: Images
    encoder: Encoder
    config: FunctasetConfig
    copies: tuple[int, ...]
    seed: int
    runtime: RuntimeConfig
    calls: int
    name: str

    @torch.no_grad()
    def __call__(self, start: int, stop: int) -> Rows:
        """The rows start, …, stop − 1 of the functaset, see `plan_functaset`."""
        encoder, fit, device = self._fit
        size = self.config.encode_batch
        turn, source = np.divmod(np.arange(start, stop), len(self.images))
        copy = np.array(self.copies)[turn]
        latents, quality = [], []
        for first in range(0, stop - start, size):
            part = slice(first, first + size)
            pixels = augment(self.images, source[part], copy[part], self.config.augmentation, self.seed)
            targets = unit_images(pixels.to(device))
            # A batch of another size would be compiled for itself.
            with tf32_products(encoder.spec.precision, device):
                reconstructions, encoded = (fit if len(targets) == size else encoder)(targets)
            latents.append(encoded.cpu())
            quality.append(psnr(per_image_mse(reconstructions, targets)).cpu())
        return Rows(
            latents=torch.cat(latents).numpy(),
            labels=self.images.labels[source],
            source_index=source,
            augmentation=copy.astype(np.int32),
            psnr=torch.cat(quality).numpy(),
        )

    @cached_property
    def _fit(self) -> tuple[Encoder, Callable[..., Any], torch.device]:
        device = resolve_device(self.runtime.device)
        encoder = self.encoder.to(device).eval()
        return encoder, accelerated(encoder, self.runtime, calls=self.calls, device=device, name=self.name), device

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_fit"}
