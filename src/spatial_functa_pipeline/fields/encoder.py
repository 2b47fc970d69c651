"""What maps images to latents and back: a field, or what it is compared with.

Shapes: B images of `(*resolution, h)` pixels and channels; latents `(*grid, c)`; P pixels of a cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from spatial_functa_pipeline.fields.geometry import Interpolation
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.siren import FieldPrecision


class EncoderSpec:
    """What any encoder says of its images and latents."""

    latent_shape: LatentShape
    resolution: tuple[int, ...]
    channels: int
    interpolation: Interpolation
    precision: FieldPrecision

    @property
    def cell(self) -> tuple[int, ...]:
        """Pixels of a cell along each axis, P in all."""
        return tuple(n // s for n, s in zip(self.resolution, self.latent_shape.grid, strict=True))

    @property
    def cell_numbers(self) -> int:
        """P · h: what the c numbers of a cell's latent stand for."""
        return prod(self.cell) * self.channels


@dataclass(frozen=True)
class CodeSpec(EncoderSpec):
    """Of an encoder that is no field: its latents belong to cells as those of `nearest` do, and its products are exact."""

    latent_shape: LatentShape
    resolution: tuple[int, ...]
    channels: int
    interpolation: Interpolation = "nearest"
    precision: FieldPrecision = "float32"


class Encoder(nn.Module):
    """Images `(B, *resolution, h)` in [0, 1] → latents `(B, *grid, c)`, and back.

    Attributes:
        spec: the shapes.
        any_resolution: whether `decode` takes another resolution than the spec's.
    """

    spec: EncoderSpec
    any_resolution = False

    def encode(self, images: Tensor) -> Tensor:
        """Latents `(B, *grid, c)` of images `(B, *resolution, h)`. Raises ValueError for images of another shape."""
        raise NotImplementedError

    def decode(self, latents: Tensor, resolution: tuple[int, ...] | None = None) -> Tensor:
        """Images `(B, *resolution, h)` of latents `(B, *grid, c)`, not clamped. None: at the spec's resolution.

        Raises ValueError for a resolution that it cannot decode.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions like `images`, and their latents."""
        latents = self.encode(images)
        return self.decode(latents), latents

    def require_shape(self, images: Tensor) -> None:
        """Raises ValueError unless the images have the spec's resolution and channels."""
        expected = (*self.spec.resolution, self.spec.channels)
        if tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"{type(self).__name__} was built for images of shape {expected}, got {tuple(images.shape[1:])}"
            )

    def require_own(self, resolution: tuple[int, ...] | None) -> None:
        """Raises ValueError for another resolution than the spec's."""
        if resolution is not None and tuple(resolution) != self.spec.resolution:
            raise ValueError(
                f"{type(self).__name__} decodes at {self.spec.resolution} only, not at {tuple(resolution)}"
            )
