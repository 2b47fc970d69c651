"""`autoencoder`: the convolutional autoencoder whose latents may stand in the place of the field's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt

from spatial_functa_pipeline.config.block import Block, NetworkPrecision
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape


class AutoencoderConfig(Block):
    """The autoencoder of latent diffusion (Rombach et al., 2022), without its perceptual and adversarial losses."""

    channels: Annotated[int, Field(gt=0, multiple_of=8)] = Field(description="at the images' resolution")
    multipliers: tuple[PositiveInt, ...] = Field(
        min_length=1,
        description="of the channels, level by level, each of half the side: as many as the latent grid asks for; the last "
        "one goes on",
    )
    residual_blocks: PositiveInt = Field(description="of a level of the encoder; the decoder's have one more")
    attention: bool = Field(True, description="in the middle of encoder and decoder, at the latent grid's resolution")
    kl_weight: Annotated[float, Field(ge=0)] = Field(
        1e-6,
        description="second-hand: of the posterior's divergence from a standard Gaussian, in nats for each number of an image",
    )
    precision: NetworkPrecision = Field(
        "float32", description="of the products in training, where the device has them; images are encoded in float32"
    )
    training: TrainingConfig
    validation_images: PositiveInt = Field(description="images of the validation split used during training")

    def multipliers_of_levels(self, latent_shape: LatentShape, resolution: tuple[int, ...]) -> tuple[int, ...]:
        """Of the levels that lead from the resolution down to the latent grid.

        Raises ValueError unless both are two-dimensional, and the same power of two lies between them along both axes.
        """
        grid, size = latent_shape.grid, "x".join(map(str, resolution))
        factors = {n / s for n, s in zip(resolution, grid, strict=True)}
        factor = int(factors.pop())
        if len(grid) != 2 or factors or factor & (factor - 1):
            coarser = ["x".join(str(n // 2**level) for n in resolution) for level in (2, 3)]
            raise ValueError(
                f"encoder autoencoder halves images of {size} pixels until they are the latent grid, which {latent_shape} is "
                f"not: as latent_shape choose a grid such as {' or '.join(coarser)}, then the channels"
            )
        levels = factor.bit_length()
        last = self.multipliers[-1]
        return (*self.multipliers[:levels], *(last,) * (levels - len(self.multipliers)))
