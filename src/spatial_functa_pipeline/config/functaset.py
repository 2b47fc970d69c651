"""`functaset`: how images become latents on disk."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from spatial_functa_pipeline.config.block import Block, Switch

StorageType = Literal["float32", "float16"]


class AugmentationConfig(Block):
    """How augmented copies of training images are drawn (App. B.1 for CIFAR-10, App. C for ImageNet)."""

    flip: bool = True
    crop_padding: Annotated[int, Field(ge=0)] = Field(0, description="zero padding before a random crop; 0: no crop")
    resized_crop: bool = Field(False, description="random distorted bounding box (Szegedy et al., 2016)")
    randaugment_operations: Annotated[int, Field(ge=0)] = 0
    randaugment_magnitude: Annotated[int, Field(ge=0, le=10)] = 5


class FunctasetConfig(Block):
    """How images become a functaset on disk."""

    augmented_copies: Annotated[int, Field(ge=0)] = Field(description="copies per training image beside the image")
    augmentation: AugmentationConfig = AugmentationConfig()
    mirror_images: bool = Field(
        False,
        description="one more copy of each training image: mirrored, left to right, and nothing else. A denoiser may train on "
        "it (diffusion.mirror_images); a classifier trains on all copies",
    )
    mirror_held_out: Switch = Field(
        None,
        description="true: a mirrored copy of each validation and test image, too, for classification.test_time_flips alone; "
        "null: none",
    )
    storage_type: StorageType = Field("float32", description="of latents as they are encoded")
    shard_rows: PositiveInt = Field(description="written at once, and what an interruption can cost")
    chunk_rows: PositiveInt = Field(description="read at once; must divide shard_rows")
    encode_batch: PositiveInt = Field(description="images encoded at once; small fits the CPU's cache")

    @model_validator(mode="after")
    def _chunks_fill_shards(self) -> FunctasetConfig:
        if self.shard_rows % self.chunk_rows:
            raise ValueError(f"shard_rows ({self.shard_rows}) must be a multiple of chunk_rows ({self.chunk_rows})")
        return self
