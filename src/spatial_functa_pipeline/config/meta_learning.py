"""`meta_learning`: the field and how it is learned."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from spatial_functa_pipeline.config.block import Block, LatentShapeText
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.fields.field import FieldSpec, FirstStep, Initialisation, KernelInit
from spatial_functa_pipeline.fields.geometry import Interpolation
from spatial_functa_pipeline.fields.siren import FieldPrecision

MOST_TO_START_FROM = 2**13
"""Numbers of a cell, of which a covariance matrix is made: 0.5 GiB, and minutes for its eigenvectors."""


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
    kernel_init: KernelInit = Field(
        "whole",
        description="ours: centre: a random start has nothing of the neighbours' latents, as with a kernel of 1",
    )
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
    first_step: FirstStep = Field(
        "tied", description="ours: free: a linear map of the pixels, learned; tied: the gradient step, as functa has it"
    )
    initialisation: Initialisation = Field(
        "random",
        description="ours: data: with a linear part, which starts as the principal components of the cells' pixels",
    )
    overlap: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0,
        description="ours: trained pixels by which cells reach beyond their borders, and are blended there, where they are "
        "decoded between the pixels; needs jitter.share",
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
        if self.latent_shape.coarser and (self.interpolation != "nearest" or self.initialisation == "data"):
            raise ValueError(
                f"latent_shape {self.latent_shape} has several scales: they need interpolation nearest (got "
                f"{self.interpolation}) and field.initialisation random (got {self.initialisation})"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        if self.inner_rate_init[0] >= self.inner_rate_init[1] or self.inner_rate_init[1] > 1:
            raise ValueError(f"inner_rate_init must be (low, high) with low < high ≤ 1, got {self.inner_rate_init}")
        pixels = self.spec.cell_numbers
        if self.initialisation == "data" and pixels > MOST_TO_START_FROM:
            raise ValueError(
                f"a start from the data takes the principal components of a cell's {pixels} numbers, and at most "
                f"{MOST_TO_START_FROM} are supported: more cells, or initialisation random"
            )
        return self


class SpectralPenaltyConfig(Block):
    """Added to the loss: weight · max(0, λ_max − threshold)², λ_max of the inner loop's Gauss–Newton step matrix at z = 0.

    A gradient step drives latents apart where the true matrix has an eigenvalue beyond 2; the penalty keeps the part of it
    that all images share away from there. It is ours: docs/field.md.
    """

    weight: Annotated[float, Field(ge=0)] = Field(1e-3, description="0: λ_max is only measured")
    threshold: Annotated[float, Field(gt=0, lt=2)] = 1.0


class LearningRateFactors(Block):
    """Multiples of `training.learning_rate` for the parts of a field; 0 leaves a part as it starts. All but 1 is ours."""

    siren: Annotated[float, Field(ge=0)] = Field(
        1.0, description="layers of θ; what a training at a high rate fails by"
    )
    hidden: Annotated[float, Field(ge=0)] | None = Field(
        None, description="the matrices between the SIREN's sine layers; null: as the rest of it"
    )
    modulation: Annotated[float, Field(ge=0)] = Field(1.0, description="λ and its bias")
    inner_rates: Annotated[float, Field(ge=0)] = Field(1.0, description="the meta-SGD rates")
    first_step: Annotated[float, Field(ge=0)] = Field(1.0, description="of field.first_step: free")
    linear: Annotated[float, Field(ge=0)] = Field(1.0, description="the linear part of field.initialisation: data")


class JitterConfig(Block):
    """The outer loss between the pixels: at x + u, u uniform within a pixel, against the images' cubic interpolation there.

    It is ours: the loss at the pixels alone leaves open what the field does between them.
    """

    share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="of the steps that have it; the others have u = 0"
    )


class SeamPenaltyConfig(Block):
    """Added to the loss: weight · mean (e − e′)², e and e′ the errors of two pixels that a border of cells lies between.

    It is ours.
    """

    weight: Annotated[float, Field(ge=0)] = 0.0


class MetaLearningConfig(Block):
    """Meta-learning of θ, λ and the inner rates (App. A, C.1, C.3)."""

    field: FieldConfig
    training: TrainingConfig
    training_inner_steps: PositiveInt | None = Field(
        None, description="ours: inner steps of the outer loss; null: field.inner_steps, with which images are encoded"
    )
    hidden_optimizer: Literal["adam", "muon"] = Field(
        "adam",
        description="ours: of the matrices between the SIREN's sine layers. muon: orthogonalised steps (Jordan et al. 2024)",
    )
    learning_rate_factors: LearningRateFactors = LearningRateFactors()
    jitter: JitterConfig = JitterConfig()
    spectral_penalty: SpectralPenaltyConfig = SpectralPenaltyConfig()
    seam_penalty: SeamPenaltyConfig = SeamPenaltyConfig()
    validation_images: PositiveInt = Field(description="images of the validation split used during training")

    @model_validator(mode="after")
    def _cells_can_be_continued(self) -> MetaLearningConfig:
        if self.field.interpolation != "nearest" and (self.jitter.share or self.field.overlap):
            raise ValueError(
                "jitter.share and field.overlap must be 0 for the interpolation linear: its coordinates are bits of the "
                "pixels' indices, and there is nothing between them"
            )
        if self.field.overlap and not self.jitter.share:
            raise ValueError(
                f"field.overlap is {self.field.overlap}, but jitter.share is 0: cells are not trained beyond their borders; "
                "set field.overlap to 0, or a share"
            )
        if self.seam_penalty.weight and (self.field.interpolation != "nearest" or self.field.latent_shape.cells == 1):
            raise ValueError("seam_penalty.weight must be 0 where no cells meet: one cell, or the interpolation linear")
        return self

    @model_validator(mode="after")
    def _all_is_trained(self) -> MetaLearningConfig:
        trained = self.training_inner_steps or self.field.inner_steps
        if self.field.first_step == "free" and trained == 1:
            raise ValueError(
                "with a free first step one inner step in training leaves the meta-SGD rates as they start: take two, or "
                "field.first_step tied"
            )
        return self
