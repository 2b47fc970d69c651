"""Photographs that scikit-image and scikit-learn bring along, cut into tiles: to train on, and to test on.

What is tested on was never trained on: the lowest quarter of the photographs trained on, and other photographs.
"""

from collections.abc import Iterable
from functools import cache
from typing import Literal

import numpy as np
import skimage.data
import torch
from sklearn.datasets import load_sample_image

from spatial_functa_pipeline.fields.cells import cut_into_cells
from spatial_functa_pipeline.images.images import Images

TRAINED_ON = ("astronaut", "chelsea", "rocket", "immunohistochemistry", "china")
OTHERS = ("flower", "coffee")
_OF_SCIKIT_LEARN = ("china", "flower")
_TRAINED_SHARE = 3 / 4

Part = Literal["train", "same", "other"]


@cache
def photograph(name: str) -> np.ndarray:
    """`(height, width, 3)`, uint8."""
    if name in _OF_SCIKIT_LEARN:
        return np.asarray(load_sample_image(f"{name}.jpg"))
    return np.asarray(getattr(skimage.data, name)())


def tiles(picture: np.ndarray, side: int, stride: int) -> np.ndarray:
    """All squares of `side` pixels, `stride` pixels apart: `(N, side, side, 3)`; none if the picture is too small."""
    height, width, channels = picture.shape
    found = [
        picture[top : top + side, left : left + side]
        for top in range(0, height - side + 1, stride)
        for left in range(0, width - side + 1, stride)
    ]
    return np.stack(found) if found else np.empty((0, side, side, channels), picture.dtype)


def turned(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Each tile `(N, side, side, 3)` turned by a multiple of 90°, and mirrored or not, at random."""
    generator = np.random.default_rng(seed)
    turns, mirrored = generator.integers(4, size=len(pixels)), generator.integers(2, size=len(pixels))
    return np.stack(
        [np.rot90(tile[:: 1 - 2 * flip], turn) for tile, turn, flip in zip(pixels, turns, mirrored, strict=True)]
    )


def averaged(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Each square of `factor` pixels becomes their mean: `(N, side, side, 3)` → `(N, side / factor, side / factor, 3)`."""
    side = pixels.shape[1] // factor
    means = cut_into_cells(torch.from_numpy(pixels).float(), (side, side)).mean(dim=-2)
    return means.round().to(torch.uint8).numpy()


def photo_pixels(part: Part, side: int, stride: int) -> np.ndarray:
    """Tiles of a part of the photographs, `(N, side, side, 3)`, uint8.

    Args:
        part: `train`: the upper three quarters of `TRAINED_ON`; `same`: what is below them; `other`: `OTHERS`.
        side: of a tile, in pixels.
        stride: from tile to tile, in pixels.
    """
    return np.concatenate([tiles(picture, side, stride) for picture in _pictures(part)])


def photo_images(pixels: np.ndarray) -> Images:
    """As what is trained on and measured; all are of one class."""
    return Images.from_array(pixels, np.zeros(len(pixels), int), ("photograph",))


def _pictures(part: Part) -> Iterable[np.ndarray]:
    if part == "other":
        return map(photograph, OTHERS)
    whole = [photograph(name) for name in TRAINED_ON]
    cuts = [round(_TRAINED_SHARE * len(picture)) for picture in whole]
    both = zip(whole, cuts, strict=True)
    return [picture[:cut] if part == "train" else picture[cut:] for picture, cut in both]
