"""Batches of images, real and decoded, for the nodes of `evaluation`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.images import Images

Metrics = dict[str, Any]
"""Name → number, and under `details` name → what it was measured on."""

BATCH = 64
NO_CLASS = -1
"""Label of an unconditional sample."""
PCA_IMAGES = 10_000
_PCA_NUMBERS = 4096
"""Patches of more numbers have a covariance that takes longer to decompose than this reference point is worth."""


def image_batches(images: Images, count: int) -> Iterator[Tensor]:
    """The first `count` images, uint8 `(≤ BATCH, *resolution, channels)` at a time."""
    for start in range(0, count, BATCH):
        yield images.batch(range(start, min(start + BATCH, count)))


def decoded(functaset: Functaset, field: SpatialField, count: int | None = None) -> Iterator[Tensor]:
    """The first `count` rows (None: all) decoded, `(≤ BATCH, *resolution, channels)` at a time, on the CPU, not clamped."""
    device = next(field.parameters()).device
    count = len(functaset) if count is None else min(count, len(functaset))
    for start in range(0, count, BATCH):
        latents = torch.from_numpy(functaset.rows(start, min(start + BATCH, count)))
        with torch.no_grad():
            yield field.decode(latents.to(device)).cpu()


def classes_of(labels: np.ndarray) -> np.ndarray | None:
    """Labels `(N,)` of samples; None if the model that drew them is unconditional."""
    return None if (labels == NO_CLASS).all() else labels


def pca_patch(spec: FieldSpec) -> tuple[tuple[int, ...], int] | None:
    """Pixels of a cell along each axis and the components of a code as large as the latent; None if it is too costly."""
    patch = tuple(n // s for n, s in zip(spec.resolution, spec.latent_shape.grid, strict=True))
    numbers = torch.Size(patch).numel() * spec.channels
    return (patch, min(spec.latent_shape.channels, numbers)) if numbers <= _PCA_NUMBERS else None
