"""What the images look like."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from spatial_functa_pipeline.config.block import Block


class DataConfig(Block):
    """What the images look like when they reach the pipelines."""

    resolution: tuple[PositiveInt, ...] = Field(description="pixels per axis, after padding or resizing")
    channels: PositiveInt
    num_classes: PositiveInt | None = Field(
        description="checked against the images'; null: as many as they have. With one, nothing is classified"
    )
