"""The linear code with as many numbers as a latent: what a field must beat to be worth its cost."""

from __future__ import annotations

from spatial_functa_pipeline.fields.encoder import EncoderSpec

PCA_IMAGES = 10_000
"""The code is computed from, and its PSNR measured on, at most so many images."""
_PCA_NUMBERS = 4096
"""Patches of more numbers have a covariance that takes longer to decompose than this reference point is worth."""


def pca_patch(spec: EncoderSpec) -> tuple[tuple[int, ...], int] | None:
    """Pixels of a cell along each axis and the components of a code as large as the latent.

    None if it is too costly, and for several scales: a cell shares most of its numbers with others, so that no code of cells
    is as large.
    """
    numbers = spec.cell_numbers
    if spec.latent_shape.coarser:
        return None
    return (spec.cell, min(spec.latent_shape.channels, numbers)) if numbers <= _PCA_NUMBERS else None
