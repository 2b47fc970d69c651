"""The Transformer over the latent's cells, classifier or denoiser."""

from __future__ import annotations

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from spatial_functa_pipeline.config.block import Block
from spatial_functa_pipeline.fields.latent_shape import LatentShape


class TransformerSizes(Block):
    """A pre-LN Transformer, one token per cell."""

    width: PositiveInt
    ffw_width: PositiveInt
    blocks: PositiveInt
    heads: PositiveInt
    head_dim: PositiveInt | None = Field(None, description="null: width / heads")
    vector_tokens: PositiveInt = Field(
        16, description="vector functa (s = 1): the vector is cut into so many equal tokens; must divide its length"
    )

    def require_equal_tokens(self, latent_shape: LatentShape, name: str) -> None:
        """Raises ValueError, with the block's `name`, if these latents are vectors that cannot be cut into equal tokens."""
        length, tokens = latent_shape.channels, self.vector_tokens
        if latent_shape.cells == 1 and length % tokens:
            raise ValueError(f"{name}.vector_tokens ({tokens}) must divide the {length} numbers of a latent vector")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.head_dim is None and self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width}) unless head_dim is given")
        return self
