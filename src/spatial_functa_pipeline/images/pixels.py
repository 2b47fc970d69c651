"""The scale of pixel values."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_images(images: Tensor) -> Tensor:
    """Images on the scale [0, 1] as floats: uint8 is divided by 255, floats pass unchanged (and unclamped).

    Half precision becomes float32. Raises TypeError for other integers, whose scale is unknown.
    """
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise TypeError(f"images must be uint8 or floats in [0, 1], got {images.dtype}")
    return images.to(torch.promote_types(images.dtype, torch.float32))
