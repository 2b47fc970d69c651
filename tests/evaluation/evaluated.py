"""A small field, images of its size and the functasets of latents that tests of the evaluation share."""

import numpy as np
import torch

from spatial_functa_pipeline.config.meta_learning import FieldConfig
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.images.images import Images

CLASSES = ("left", "right")


def field():
    """A field of 8×8 grey images with random weights and latents of 2×2×3."""
    config = FieldConfig(latent_shape="2x2x3", interpolation="nearest", resolution=(8, 8), channels=1, width=8, depth=2)
    torch.manual_seed(0)
    return SpatialField(config.spec).eval()


def images(count, seed):
    """8×8 grey noise of two classes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), np.uint8)
    return Images.from_array(pixels, np.arange(count) % 2, CLASSES)


def latents(count, seed=0):
    """`(count, 2, 2, 3)`."""
    return np.random.default_rng(seed).normal(size=(count, 2, 2, 3)).astype(np.float32)
