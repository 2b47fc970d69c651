"""Figure of reconstructions beside their originals."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.evaluation.drawing import array, image_grid, label_row, show

ERROR_GAIN = 10
"""Errors are drawn this many times larger: without it those of a good field cannot be seen."""


def reconstruction_figure(originals: Tensor, reconstructions: Tensor, psnr: Tensor) -> Figure:
    """Originals over their reconstructions over the absolute error (times `ERROR_GAIN`), one column for each image.

    Args:
        originals: `(B, *resolution, channels)`.
        reconstructions: of the same shape.
        psnr: `(B,)` in dB, written above the columns.

    Raises ValueError if the three do not belong together, or for images of three or more dimensions.
    """
    if originals.shape != reconstructions.shape or psnr.shape != originals.shape[:1]:
        raise ValueError(
            "needs as many reconstructions and PSNRs as originals, got shapes "
            f"{tuple(originals.shape)}, {tuple(reconstructions.shape)} and {tuple(psnr.shape)}"
        )
    above, below = array(originals), array(reconstructions)
    rows = {
        "original": above,
        "reconstruction": below,
        f"|error| × {ERROR_GAIN}": ERROR_GAIN * np.abs(above - below),
    }
    figure, grid = image_grid(len(rows), len(originals), label_inches=1.1)
    for axes, (name, images) in zip(grid, rows.items(), strict=True):
        label_row(axes[0], name)
        for axis, image in zip(axes, images, strict=True):
            show(axis, image)
    for axis, value in zip(grid[0], psnr.tolist(), strict=True):
        axis.set_title(f"{value:.1f} dB", fontsize=9)
    return figure
