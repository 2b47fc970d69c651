"""`quantisation`: in how many bits the latents that are encoded are then kept for training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from spatial_functa_pipeline.config.block import Block


class QuantisationConfig(Block):
    """Uniform quantisation of each latent dimension (App. C.4.4)."""

    bits: Annotated[int, Field(ge=1, le=8)] | None = Field(
        None, description="per latent dimension; null: latents are used as they were encoded"
    )
