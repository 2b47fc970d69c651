"""Augmented copies of images, drawn before they are turned into latents (App. B.1 and C)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from spatial_functa_pipeline.config.functaset import AugmentationConfig

MIRRORED = -1
"""Number of the copy that is the image mirrored, left to right, and nothing else."""


def augment(
    images: Tensor, source_index: np.ndarray, copy: np.ndarray, config: AugmentationConfig, seed: int
) -> Tensor:
    """Augmented copy number `copy` of each image; copy 0 is the image itself, copy `MIRRORED` its mirror image.

    Every random choice for an image derives from `(seed, source_index, copy)` alone, so a copy is the same in
    whichever batch, process or order it is made.

    The operations are applied in this order, each if `config` asks for it: left/right flip (probability ½); crop of
    the original size from the zero-padded image (App. B.1); crop of a distorted bounding box (8–100 % of the area,
    aspect ratio ¾ to 4/3; Szegedy et al., 2016) resized to the original size; RandAugment (Cubuk et al., 2020), whose
    magnitude counts from 0 to 10, the strongest, as in that paper (App. C: 2 operations at magnitude 5).

    Args:
        images: uint8 (B, H, W, channels), on the CPU.
        source_index: int64 (B,), each image's row in its data set.
        copy: integers (B,): 0 for no augmentation, `MIRRORED`, or from 1 on.
        config: which operations.
        seed: non-negative seed of the augmentation.

    Returns:
        uint8 (B, H, W, channels), a new tensor.

    Raises:
        ValueError: if the shapes or the dtype are not as above.
    """
    if images.ndim != 4 or images.dtype != torch.uint8:
        raise ValueError(f"expected uint8 images (B, H, W, channels), got {images.dtype} {tuple(images.shape)}")
    if not len(images) == len(source_index) == len(copy):
        raise ValueError(
            f"expected one source index and one copy number per image, got {len(images)} images, "
            f"{len(source_index)} source indices and {len(copy)} copy numbers"
        )
    _, height, width, _ = images.shape
    distort = _distortion(config, (height, width))
    augmented = images.numpy().copy()
    mirrored = copy == MIRRORED
    augmented[mirrored] = augmented[mirrored, :, ::-1]
    for row in np.flatnonzero(copy > 0):
        rng = np.random.default_rng((seed, int(source_index[row]), int(copy[row])))
        augmented[row] = distort(_flip_and_crop(augmented[row], config, rng), rng)
    return torch.from_numpy(augmented)


def _flip_and_crop(image: np.ndarray, config: AugmentationConfig, rng: np.random.Generator) -> np.ndarray:
    """Random flip and zero-padded random crop of one image (H, W, channels)."""
    height, width, channels = image.shape
    flip, top, left = rng.random(3)  # one call: this function's time is that of the generator
    if config.flip and flip < 0.5:
        image = image[:, ::-1]
    if pad := config.crop_padding:
        padded = np.zeros((height + 2 * pad, width + 2 * pad, channels), image.dtype)
        padded[pad:-pad, pad:-pad] = image
        top, left = int(top * (2 * pad + 1)), int(left * (2 * pad + 1))
        image = padded[top : top + height, left : left + width]
    return image


def _distortion(
    config: AugmentationConfig, resolution: tuple[int, int]
) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Distorted bounding box and RandAugment of one image (H, W, channels), as far as `config` asks for them."""
    if not config.resized_crop and not config.randaugment_operations:
        return lambda image, _: image

    from torchvision.transforms import v2  # takes seconds to import, and flip and crop do without it

    operations = []
    if config.resized_crop:
        operations.append(v2.RandomResizedCrop(resolution, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)))
    if config.randaugment_operations:
        operations.append(
            v2.RandAugment(config.randaugment_operations, config.randaugment_magnitude, num_magnitude_bins=11)
        )
    transform = v2.Compose(operations)

    def distort(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: it would reseed the accelerators as well, which are not forked here.
            torch.default_generator.manual_seed(int(rng.integers(2**63)))
            channel_first = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
            return transform(channel_first).numpy().transpose(1, 2, 0)

    return distort
