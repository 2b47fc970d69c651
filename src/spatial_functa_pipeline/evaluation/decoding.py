"""Latents as pictures."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from spatial_functa_pipeline.compute import tf32_products
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.loading.functaset_batches import consecutive_batches

BATCH = 64
"""Images that are decoded, or looked at, at once."""


@torch.no_grad()
def decode(field: SpatialField, latents: Tensor, resolution: tuple[int, ...] | None = None) -> Tensor:
    """Images `(B, *resolution, channels)` of latents `(B, *grid, c)`, on the CPU, not clamped."""
    device = device_of(field)
    with tf32_products(field.spec.precision, device):
        return field.decode(latents.to(device), resolution).cpu()


def decoded(functaset: Functaset, field: SpatialField, count: int | None = None) -> Iterator[Tensor]:
    """The first `count` rows (None: all) decoded, `(≤ BATCH, *resolution, channels)` at a time, on the CPU, not clamped."""
    for latents, _ in consecutive_batches(functaset, BATCH, count):
        yield decode(field, latents)


def device_of(field: SpatialField) -> torch.device:
    """Where the field is, hence where work on its images is done."""
    return next(field.parameters()).device
