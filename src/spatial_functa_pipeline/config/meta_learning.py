"""`meta_learning`: the field and how it is learned."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from spatial_functa_pipeline.config.block import Block, LatentShapeText
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.fields.field import FieldSpec
from spatial_functa_pipeline.fields.geometry import Interpolation
from spatial_functa_pipeline.fields.siren import FieldPrecision


class FieldConfig(Block):
    """The neural field f_θ(x; m_x), its latent grid and the inner loop (Sec. 4)."""

    latent_shape: LatentShapeText
    interpolation: Interpolation
    resolution: tuple[PositiveInt, ...]
    channels: PositiveInt
    width: PositiveInt
    depth: Annotated[int, Field(ge=2)] = Field(description="counts the linear output layer: depth − 1 sine layers")
    omega0: PositiveFloat = 10.0
    kernel_size: Annotated[int, Field(ge=1)] = Field(1, description="side of λ's convolution kernel, odd")
    inner_steps: PositiveInt = 3
    inner_rate_init: tuple[PositiveFloat, PositiveFloat] = Field(
        (0.005, 0.1),
        description="meta-SGD rates ~ U(low, high). second-hand: functa's code, which App. B.1 keeps, for s = 1; ours for "
        "grids, whose inner loss is s² times the image's mean",
    )
    precision: FieldPrecision = Field(
        "float32",
        description="ours: of the inner steps' products; bf16: factors rounded, sums in float32. tf32: all products on CUDA",
    )

    @property
    def spec(self) -> FieldSpec:
        """The same as the method knows it."""
        return FieldSpec(**{field.name: getattr(self, field.name) for field in fields(FieldSpec)})

    @model_validator(mode="after")
    def _shapes_fit(self) -> FieldConfig:
        grid, resolution = self.latent_shape.grid, self.resolution
        if len(grid) != len(resolution):
            raise ValueError(
                f"latent_shape {self.latent_shape} has a {len(grid)}-dimensional grid, but the data are "
                f"{len(resolution)}-dimensional {resolution}: write {len(resolution)} grid sides, then the channels"
            )
        if any(n % s for n, s in zip(resolution, grid, strict=True)):
            raise ValueError(
                f"latent_shape {self.latent_shape} does not fit the resolution {'x'.join(map(str, resolution))}: "
                "each grid side must divide it"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        if self.inner_rate_init[0] >= self.inner_rate_init[1] or self.inner_rate_init[1] > 1:
            raise ValueError(f"inner_rate_init must be (low, high) with low < high ≤ 1, got {self.inner_rate_init}")
        return self


class SpectralPenaltyConfig(Block):
    """Added to the loss: weight · max(0, λ_max − threshold)², λ_max of the inner loop's step matrix at z = 0.

    Gradient descent on the latent diverges where λ_max exceeds 2; the penalty keeps meta-learning away from there.
    It is ours: docs/field.md.
    """

    weight: Annotated[float, Field(ge=0)] = Field(1e-3, description="0: λ_max is only measured")
    threshold: Annotated[float, Field(gt=0, lt=2)] = 1.0


class MetaLearningConfig(Block):
    """Meta-learning of θ, λ and the inner rates (App. A, C.1, C.3)."""

    field: FieldConfig
    training: TrainingConfig
    spectral_penalty: SpectralPenaltyConfig = SpectralPenaltyConfig()
    validation_images: PositiveInt = Field(description="images of the validation split used during training")
    inner_rate_learning_rate_factor: PositiveFloat = Field(
        1.0, description="the meta-SGD rates' own learning rate, as a multiple of training.learning_rate"
    )
