"""Augmented copies of images, drawn before they are turned into latents (App. B.1 and C)."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from spatial_functa_pipeline.config.functaset import AugmentationConfig
from spatial_functa_pipeline.images.boxes import distorted_box
from spatial_functa_pipeline.images.images import Images

MIRRORED = -1
"""Number of the copy that is the image mirrored, left to right, and nothing else."""


class CopyKind(IntEnum):
    """What sort of copy of an image a row is."""

    ORIGINAL = 0
    MIRRORED = 1
    AUGMENTED = 2

    @classmethod
    def of(cls, copies: np.ndarray) -> np.ndarray:
        """Numbers of copies, see `augment` -> int64 kinds, shaped alike."""
        return np.select([copies == 0, copies == MIRRORED], [cls.ORIGINAL, cls.MIRRORED], cls.AUGMENTED).astype(
            np.int64
        )


def augment(images: Images, rows: np.ndarray, copy: np.ndarray, config: AugmentationConfig, seed: int) -> Tensor:
    """Augmented copy number `copy` of each of the `rows` of `images`.

    Copy 0 is the image itself, copy `MIRRORED` its mirror image.

    Every random choice for an image derives from `(seed, row, copy)` alone, so a copy is the same in whichever batch,
    process or order it is made.

    The operations are applied in this order, each if `config` asks for it: distorted bounding box of the original picture
    (`distorted_box`), resized once; left/right flip (probability ½); crop of the original size from the zero-padded image
    (App. B.1); RandAugment (Cubuk et al., 2020), whose magnitude counts from 0 to 10, the strongest, as in that paper
    (App. C: 2 operations at magnitude 5), and which fills with black. The paper does not print the order, nor the fill.

    Args:
        images: of which uint8 pictures (H, W, channels) are read.
        rows: int64 (B,).
        copy: integers (B,): 0 for no augmentation, `MIRRORED`, or from 1 on.
        config: which operations.
        seed: non-negative seed of the augmentation.

    Returns:
        uint8 (B, H, W, channels).

    Raises:
        ValueError: if the pictures have not two dimensions, or rows and copies are not as many.
        ImagesError: if an image cannot be decoded.
    """
    if len(rows) != len(copy):
        raise ValueError(f"expected one number of copy for each row, got {len(rows)} rows and {len(copy)} copies")
    if not np.any(copy):
        return images.batch(rows)
    if len(images.resolution) != 2:
        raise ValueError(f"only pictures can be augmented, not data of the resolution {images.resolution}")
    drawn = np.flatnonzero(copy > 0).tolist()
    generators = {index: np.random.default_rng((seed, int(rows[index]), int(copy[index]))) for index in drawn}
    # One call for each: this function's time is that of the generators.
    placements = {index: rng.random(3) for index, rng in generators.items()}
    boxes = {index: distorted_box(rng) for index, rng in generators.items() if config.resized_crop}
    distort = _randaugment(config)
    augmented = images.boxes(rows, [boxes.get(index) for index in range(len(rows))]).numpy()
    mirrored = copy == MIRRORED
    augmented[mirrored] = augmented[mirrored, :, ::-1]
    for index, rng in generators.items():
        augmented[index] = distort(_flip_and_crop(augmented[index], config, placements[index]), rng)
    return torch.from_numpy(augmented)


def _flip_and_crop(image: np.ndarray, config: AugmentationConfig, placement: np.ndarray) -> np.ndarray:
    """Flip and zero-padded crop of one image (H, W, channels), as three uniform numbers in [0, 1) say."""
    height, width, channels = image.shape
    flip, top, left = placement
    if config.flip and flip < 0.5:
        image = image[:, ::-1]
    if pad := config.crop_padding:
        padded = np.zeros((height + 2 * pad, width + 2 * pad, channels), image.dtype)
        padded[pad:-pad, pad:-pad] = image
        top, left = int(top * (2 * pad + 1)), int(left * (2 * pad + 1))
        image = padded[top : top + height, left : left + width]
    return image


def _randaugment(config: AugmentationConfig) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """RandAugment of one image (H, W, channels), if `config` asks for it."""
    if not config.randaugment_operations:
        return lambda image, _: image

    from torchvision.transforms import v2  # takes seconds to import, and the other operations do without it

    transform = v2.RandAugment(
        config.randaugment_operations, config.randaugment_magnitude, num_magnitude_bins=11, fill=0
    )

    def distort(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: it would reseed the accelerators as well, which are not forked here.
            torch.default_generator.manual_seed(int(rng.integers(2**63)))
            channel_first = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            return transform(channel_first).numpy().transpose(1, 2, 0)

    return distort
