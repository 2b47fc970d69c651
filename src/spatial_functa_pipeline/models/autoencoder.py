"""The convolutional autoencoder of latent diffusion (Rombach et al., 2022): what a functaset is compared with.

diffusers' models take seconds to import, so they are imported where one is built.
"""

from math import gcd
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spatial_functa_pipeline.config.autoencoder import AutoencoderConfig
from spatial_functa_pipeline.fields.encoder import CodeSpec, Encoder

if TYPE_CHECKING:
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

_MOST_GROUPS = 32  # of group normalisation, as in latent diffusion


class Autoencoder(Encoder):
    """`AutoencoderKL` of diffusers, between images in [0, 1] and the mean of its posterior.

    Its levels follow from the spec: each halves the sides, until they are those of the latent grid.

    Raises ValueError for a spec whose grid is not a power of two coarser than the images.
    """

    def __init__(self, spec: CodeSpec, config: AutoencoderConfig) -> None:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        super().__init__()
        self.spec = spec
        multipliers = config.multipliers_of_levels(spec.latent_shape, spec.resolution)
        self.network = AutoencoderKL(
            in_channels=spec.channels,
            out_channels=spec.channels,
            down_block_types=("DownEncoderBlock2D",) * len(multipliers),
            up_block_types=("UpDecoderBlock2D",) * len(multipliers),
            block_out_channels=tuple(config.channels * multiplier for multiplier in multipliers),
            layers_per_block=config.residual_blocks,
            latent_channels=spec.latent_shape.channels,
            norm_num_groups=gcd(_MOST_GROUPS, config.channels),
            mid_block_add_attention=config.attention,
        )

    def encode(self, images: Tensor) -> Tensor:
        """See `Encoder.encode`: the posterior's mean."""
        return self._posterior(images).mean.movedim(1, -1)

    def decode(self, latents: Tensor, resolution: tuple[int, ...] | None = None) -> Tensor:
        """See `Encoder.decode`; at the spec's resolution only."""
        self.require_own(resolution)
        decoded: Tensor = self.network.decode(latents.movedim(-1, 1), return_dict=False)[0]
        return (decoded.movedim(1, -1) + 1) / 2

    def with_noise(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Reconstructions from a latent drawn from the posterior, `(B, *resolution, h)`, and its divergence `(B,)`.

        The divergence is Kullback's and Leibler's, from a standard Gaussian, in nats.
        """
        posterior = self._posterior(images)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(posterior.mean)
        latents = posterior.mean + posterior.std * noise
        return self.decode(latents.movedim(1, -1)), posterior.kl()

    def _posterior(self, images: Tensor) -> "DiagonalGaussianDistribution":
        """Over latents `(B, c, *grid)`."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        self.require_shape(images)
        found = self.network.encode(2 * images.movedim(-1, 1) - 1, return_dict=False)[0]
        return DiagonalGaussianDistribution(found.parameters.float())  # from products in bfloat16, too
