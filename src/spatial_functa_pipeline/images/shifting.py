"""Images between their pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def shifted(images: Tensor, offset: Tensor) -> Tensor:
    """Images at the points that lie `offset` beside their pixels, by cubic convolution (Keys 1981, a = −½).

    Args:
        images: `(B, *resolution, channels)`, floats.
        offset: `(D,)`, in pixels along each axis. Beyond the edge the outermost pixels go on.
    """
    for axis, step in enumerate(offset.to(images).unbind(), start=1):
        whole = step.floor()
        t = step - whole
        weights = (
            *(((-t + 2) * t - 1) * t / 2, ((3 * t - 5) * t * t + 2) / 2),
            *(((-3 * t + 4) * t + 1) * t / 2, (t - 1) * t * t / 2),
        )
        index = torch.arange(images.shape[axis], device=images.device) + whole.long()
        parts = (
            weight * images.index_select(axis, (index + tap).clamp(0, images.shape[axis] - 1))
            for tap, weight in enumerate(weights, start=-1)
        )
        images = torch.stack(list(parts)).sum(dim=0)
    return images
