"""Latents as pictures."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spatial_functa_pipeline.compute import tf32_products
from spatial_functa_pipeline.fields.encoder import Encoder
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.loading.functaset_batches import consecutive_batches

BATCH = 64
"""Images that are decoded, or looked at, at once."""


@torch.no_grad()
def decode(encoder: Encoder, latents: Tensor, resolution: tuple[int, ...] | None = None) -> Tensor:
    """Images `(B, *resolution, channels)` of latents `(B, *grid, c)`, on the CPU, not clamped."""
    device = device_of(encoder)
    with tf32_products(encoder.spec.precision, device):
        return encoder.decode(latents.to(device), resolution).cpu()


def decoded(functaset: Functaset, encoder: Encoder, count: int | None = None) -> Iterator[Tensor]:
    """The first `count` rows (None: all) decoded, `(≤ BATCH, *resolution, channels)` at a time, on the CPU, not clamped."""
    for latents, _ in consecutive_batches(functaset, BATCH, count):
        yield decode(encoder, latents)


def device_of(encoder: Encoder) -> torch.device:
    """Where the encoder is, hence where work on its images is done."""
    return next(encoder.parameters()).device
