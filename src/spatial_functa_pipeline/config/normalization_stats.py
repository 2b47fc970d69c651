"""`normalization_stats`: the space in which latents are normalised and modelled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from spatial_functa_pipeline.config.block import Block
from spatial_functa_pipeline.fields.latent_shape import LatentShape

RotationKind = Literal["within_cells", "whole"]

_MOST_NUMBERS = 8192


class NormalizationStatsConfig(Block):
    """Of the latents' statistics, and of all that is modelled by them: classifier, denoiser, samples."""

    rotation: RotationKind | None = Field(
        None,
        description="ours, a control: latents are multiplied by a random orthogonal matrix before they are normalised, "
        "which keeps all information. within_cells: the c numbers of each cell, by the same matrix in all cells; whole: "
        "all numbers of a latent, which then have no place; null: they are not",
    )

    def require_cells(self, latent_shape: LatentShape) -> None:
        """Raises ValueError where cells are to be rotated in the same way and are not alike."""
        if self.rotation == "within_cells" and latent_shape.coarser:
            raise ValueError(
                f"normalization_stats.rotation is within_cells, but the cells of latent_shape {latent_shape} are of several "
                "scales: set it to whole, or choose one grid"
            )

    def require_room_for_matrix(self, latent_shape: LatentShape) -> None:
        """Raises ValueError if so many numbers are too many for a matrix."""
        if self.rotation is None:
            return
        numbers = rotated_numbers(self.rotation, latent_shape)
        if numbers > _MOST_NUMBERS:
            gibibytes = 4 * numbers**2 / 2**30
            raise ValueError(
                f"normalization_stats.rotation is {self.rotation}, but a matrix over {numbers} numbers has {gibibytes:.1f} "
                f"GiB and is applied at every step: at most {_MOST_NUMBERS} numbers are rotated together (256 MiB); choose a "
                "smaller latent_shape"
                + (", or within_cells" if latent_shape.channels <= _MOST_NUMBERS and not latent_shape.coarser else "")
            )


def rotated_numbers(rotation: RotationKind, latent_shape: LatentShape) -> int:
    """How many numbers of a latent are rotated together."""
    return latent_shape.channels if rotation == "within_cells" else latent_shape.numbers
