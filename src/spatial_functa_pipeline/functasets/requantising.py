"""From latents as they were encoded to latents of b bits (App. C.4.4): no image is encoded again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
import torch

from spatial_functa_pipeline.compute import accelerated, resolve_device, tf32_products
from spatial_functa_pipeline.config.functaset import AugmentationConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.fields.encoder import Encoder
from spatial_functa_pipeline.functasets.chunks import ChunkReader
from spatial_functa_pipeline.functasets.format import Rows
from spatial_functa_pipeline.functasets.quantisation import Quantiser, Ranges
from spatial_functa_pipeline.functasets.scheduling import SYNCHRONOUS, Scheduling
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan
from spatial_functa_pipeline.images.augmentation import augment
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.metrics.image_quality import per_image_mse, psnr

_DECODED_AT_ONCE = 64


@dataclass(frozen=True)
class Pictures:
    """What the rows of a functaset are pictures of: `images`, augmented by `augmentation` and `seed` where they are copies."""

    images: Images
    augmentation: AugmentationConfig = dataclasses.field(default_factory=AugmentationConfig)
    seed: int = 0

    def of(self, source: np.ndarray, copy: np.ndarray) -> torch.Tensor:
        """Images `(B, *resolution, channels)`, uint8, of rows with these images and numbers of copy."""
        return augment(self.images, source, copy, self.augmentation, self.seed)


def quantised(
    encoded: Functaset,
    bits: int | None,
    pictures: Pictures,
    encoder: Encoder,
    runtime: RuntimeConfig,
    like: Functaset | None = None,
) -> FunctasetPlan | Functaset:
    """The functaset of `encoded`'s latents at `bits` bits; without bits `encoded` itself.

    Its PSNR is that of what is stored: codes are decoded, and compared with the `pictures` of their rows.

    Args:
        encoded: latents in a floating-point type.
        bits: per latent dimension, 1 to 8, or None.
        pictures: what was encoded.
        encoder: what encoded it, on the CPU.
        runtime: where to decode, and in which processes.
        like: the quantised functaset of the training split, whose ranges are taken. None: that is the one to be made,
            see `measure_ranges`.

    Raises:
        ValueError: `like` is not quantised.
        OtherImagesError: `encoded` was not built from the `pictures`.
        DamagedShardError: `encoded` or the ranges of `like` cannot be read.
    """
    if bits is None:
        return encoded
    encoded.require_images(pictures.images)
    scheduling = Scheduling(runtime.scheduler, runtime.workers)
    ranges = measure_ranges(encoded, scheduling) if like is None else like.ranges
    if ranges is None:
        raise ValueError(f"{like} is not quantised, so it has no ranges")
    attributes = json.dumps(encoded.header.to_attributes(), sort_keys=True).encode()
    fingerprint = short_digest([attributes, ranges.low.tobytes(), ranges.high.tobytes()])
    return FunctasetPlan(
        replace(encoded.header, bits=bits, fingerprint=fingerprint),
        Requantiser(encoded, ranges, bits, pictures, encoder, runtime),
        progress=runtime.progress,
        scheduling=scheduling,
        ranges=ranges,
        classes=encoded.classes,
    )


def measure_ranges(functaset: Functaset, scheduling: Scheduling = SYNCHRONOUS) -> Ranges:
    """The ranges of the latents of images and of mirrored images, all that a denoiser may train on.

    Not of augmented copies: what bits mean does not depend on how many there are, nor on how far they are distorted. The
    ranges depend neither on the shards nor on who reads them.

    Raises DamagedShardError, and what `Scheduling.run` raises.
    """
    task = _RangeTask(functaset, functaset.undistorted)
    shards = range(-(-task.rows // functaset.header.shard_rows))
    return reduce(Ranges.joined, scheduling.run(task, shards))


@dataclass(frozen=True)
class _RangeTask:
    """The ranges of a shard's latents, of those among the functaset's first `rows`; chunk by chunk, as the cache likes it."""

    functaset: Functaset
    rows: int

    def __call__(self, shard: int) -> Ranges:
        header, read = self.functaset.header, ChunkReader(self.functaset)
        first, last = header.bounds(shard)
        last = min(last, self.rows)
        starts = range(first, last, header.chunk_rows)
        return reduce(Ranges.joined, (Ranges.of(read(start // header.chunk_rows)[: last - start]) for start in starts))


@dataclass(frozen=True)
class Requantiser:
    """Codes of latents that are stored, and the PSNR of what they decode to. Each process that gets it moves the encoder to
    its own device.
    """

    encoded: Functaset
    ranges: Ranges
    bits: int
    pictures: Pictures
    encoder: Encoder
    runtime: RuntimeConfig

    @torch.no_grad()
    def __call__(self, start: int, stop: int) -> Rows:
        """The rows start, …, stop − 1, their latents as codes, uint8."""
        encoded, (decode, device) = self.encoded, self._decoder
        quantiser = Quantiser(self.ranges, self.bits)
        codes, quality = [], []
        for first in range(start, stop, _DECODED_AT_ONCE):
            part = slice(first, min(first + _DECODED_AT_ONCE, stop))
            codes.append(quantiser.codes(encoded.rows(part.start, part.stop)))
            pixels = self.pictures.of(encoded.source_index[part], encoded.augmentation[part])
            with tf32_products(self.encoder.spec.precision, device):
                decoded = decode(torch.from_numpy(quantiser.latents(codes[-1])).to(device))
            quality.append(psnr(per_image_mse(decoded, unit_images(pixels.to(device)))).cpu())
        return Rows(
            latents=np.concatenate(codes),
            labels=encoded.labels[start:stop],
            source_index=encoded.source_index[start:stop],
            augmentation=encoded.augmentation[start:stop],
            psnr=torch.cat(quality).numpy(),
        )

    @cached_property
    def _decoder(self) -> tuple[Callable[..., torch.Tensor], torch.device]:
        device = resolve_device(self.runtime.device)
        encoder = self.encoder.to(device).eval()
        accelerated(
            encoder, self.runtime, calls=0, device=device, name="quantisation"
        )  # gives a field its faster engine
        return encoder.decode, device

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_decoder"}
