"""Boxes that are cut from pictures of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels; right and bottom are outside."""
ChooseBox = Callable[[int, int], Box]
"""Width and height of a picture → a box of it."""

FILTER = Image.Resampling.LANCZOS
"""Antialiased: a pixel of the smaller picture is a mean over all that it covers."""

SHARES = (0.08, 1.0)
"""Of the area, in a distorted box (Szegedy et al., 2016)."""
RATIOS = (3 / 4, 4 / 3)
"""Width to height, likewise."""
_ATTEMPTS = 10


def distorted_box(rng: np.random.Generator) -> ChooseBox:
    """A box with 8–100 % of the area and an aspect ratio from ¾ to 4/3, anywhere in the picture (Szegedy et al., 2016).

    Everything random is drawn here. Share and logarithm of the ratio are uniform; those with which the box would not fit
    are passed over. Where none of ten fits, as in a panorama, it is the largest central box of such a ratio.
    """
    draws = rng.random((_ATTEMPTS, 4))

    def choose(width: int, height: int) -> Box:
        for share, ratio, left, top in draws:
            area = width * height * (SHARES[0] + (SHARES[1] - SHARES[0]) * share)
            aspect = RATIOS[0] * (RATIOS[1] / RATIOS[0]) ** ratio
            columns, rows = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if 0 < columns <= width and 0 < rows <= height:
                x, y = int(left * (width - columns + 1)), int(top * (height - rows + 1))
                return x, y, x + columns, y + rows
        columns, rows = min(width, round(height * RATIOS[1])), min(height, round(width / RATIOS[0]))
        x, y = (width - columns) // 2, (height - rows) // 2
        return x, y, x + columns, y + rows

    return choose


def resize_boxes(pixels: np.ndarray, choices: Sequence[ChooseBox | None]) -> np.ndarray:
    """Pictures in memory, uint8 (B, H, W, channels), each resized from the chosen box of it to its whole size."""
    resized = pixels.copy()
    height, width = pixels.shape[1:3]
    for picture, choose in zip(resized, choices, strict=True):
        if choose is not None:
            box = choose(width, height)
            for channel in range(picture.shape[-1]):
                plane = Image.fromarray(np.ascontiguousarray(picture[..., channel]))
                picture[..., channel] = np.asarray(plane.resize((width, height), FILTER, box=box))
    return resized
