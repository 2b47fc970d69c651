"""The configurations that the field is measured at, and the weights and images that all contestants share."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape

Precision = Literal["float32", "bf16"]


@dataclass(frozen=True)
class Case:
    """One field: s×s cells of c numbers, a SIREN of `width` and `depth` (the linear output layer counted), a batch."""

    side: int
    latent_channels: int
    interpolation: Literal["nearest", "linear"]
    width: int
    depth: int
    batch: int
    resolution: int = 32
    channels: int = 1
    inner_steps: int = 3

    @property
    def name(self) -> str:
        """As in `8x8x16-nearest-w64-d6`."""
        shape = f"{self.side}x{self.side}x{self.latent_channels}"
        return f"{shape}-{self.interpolation}-w{self.width}-d{self.depth}"

    def spec(self, precision: Precision) -> FieldSpec:
        """The library's description of this field."""
        return FieldSpec(
            latent_shape=LatentShape((self.side, self.side), self.latent_channels),
            resolution=(self.resolution, self.resolution),
            channels=self.channels,
            interpolation=self.interpolation,
            width=self.width,
            depth=self.depth,
            omega0=10.0,
            inner_steps=self.inner_steps,
            precision=precision,
        )

    def field(self, precision: Precision = "float32") -> SpatialField:
        """The field with the same weights at each call; biases are not zero, so that none can be forgotten."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            field = SpatialField(self.spec(precision))
            with torch.no_grad():
                for bias in (*(layer.bias for layer in field.layers), field.modulation_bias):
                    bias.normal_(std=0.05)
        return field

    def images(self, count: int | None = None) -> Tensor:
        """`count` (default: one batch) random images (count, resolution, resolution, channels) in [0, 1]."""
        shape = (count or self.batch, self.resolution, self.resolution, self.channels)
        return torch.rand(shape, generator=torch.Generator().manual_seed(1))


CASES = (
    Case(8, 16, "nearest", 64, 6, 32),
    Case(8, 16, "nearest", 128, 6, 32),
    Case(8, 16, "nearest", 256, 10, 8),
    Case(4, 64, "nearest", 128, 6, 32),
    Case(8, 16, "linear", 128, 6, 32),
    Case(1, 256, "nearest", 128, 6, 32),
)
