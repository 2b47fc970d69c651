"""Linear codes of the cells of images: principal components, and pixels as they are."""

import math
from typing import Literal

import numpy as np
import torch

from spatial_functa_pipeline.fields.encoder import CodeSpec
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.metrics.image_quality import PatchPCA
from spatial_functa_pipeline.models.linear_encoder import LinearEncoder

_IMAGES_TO_START_FROM = 10_000
_IMAGES_AT_ONCE = 500


def principal_components(images: Images, cell: tuple[int, ...], components: int) -> PatchPCA:
    """Of the images' cells, `(P·h)` numbers each; of many images, of some evenly spaced ones.

    Raises ImagesError if an image cannot be read.
    """
    count = min(len(images), _IMAGES_TO_START_FROM)
    rows = np.unique(np.linspace(0, len(images) - 1, count).astype(int))
    parts = np.array_split(rows, math.ceil(len(rows) / _IMAGES_AT_ONCE))
    return PatchPCA((images.batch(part) for part in parts), cell, components)


def fit_linear_encoder(images: Images, spec: CodeSpec, kind: Literal["pca", "pixels"]) -> LinearEncoder:
    """The principal components of the images' cells (`pca`), or the cells' pixels (`pixels`).

    Latents of pixels are less the mean of all pixels: divided by their deviation, as a classifier has them, they are
    normalised as pixels usually are.

    Raises:
        ValueError: a latent has more numbers than a cell, or, of pixels, not as many.
        ImagesError: an image cannot be read.
    """
    numbers, codes = spec.cell_numbers, spec.latent_shape.channels
    if kind == "pixels" and codes != numbers:
        raise ValueError(f"the pixels of a cell are {numbers} numbers, and not {codes}")
    code = principal_components(images, spec.cell, codes)
    if kind == "pca":
        return LinearEncoder(spec, code.mean, code.basis)
    return LinearEncoder(spec, code.mean.mean().expand(numbers).clone(), torch.eye(numbers))
