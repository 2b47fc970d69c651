"""Denoisers of normalised latents: the UNet of Dhariwal & Nichol, a residual MLP for vector functa (App. B.1, C).

Shapes: B latents with their grid, s × s for the UNet, and c channels, `(B, *grid, c)`; W the MLP's width; K classes.

diffusers' models take seconds to import, so they are imported where one is built.
"""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from spatial_functa_pipeline.config.diffusion import DenoiserMLPConfig, DiffusionConfig, UNetConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape


class Denoiser(nn.Module, ABC):
    """Predicts ε or v from noisy latents, the time step and, if conditional, the class.

    `num_classes` is K for a conditional denoiser and None for an unconditional one. Label K is the dummy label, which
    stands for "any class" (classifier-free guidance).
    """

    def __init__(self, num_classes: int | None) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, noisy: Tensor, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        """Noisy latents `(B, *grid, c)`, int64 time steps `(B,)` and labels `(B,)` -> prediction `(B, *grid, c)`.

        Raises:
            ValueError: labels are missing for a conditional denoiser, or given to an unconditional one.
        """
        if self.num_classes is None and labels is not None:
            raise ValueError("this denoiser is unconditional: pass labels=None")
        if self.num_classes is not None and labels is None:
            raise ValueError(
                f"this denoiser is conditional: pass labels (0 to {self.num_classes - 1}, or the dummy label "
                f"{self.num_classes} for unconditional predictions)"
            )
        return self.predict(noisy, timesteps, labels)

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        """What `forward` returns, the labels having been checked."""


class UNetDenoiser(Denoiser):
    """`UNet2DModel` of diffusers, arranged and initialised as the UNet of Dhariwal & Nichol (App. C, Tab. 6)."""

    def __init__(self, config: UNetConfig, latent_shape: LatentShape, num_classes: int | None) -> None:
        from diffusers.models.unets.unet_2d import UNet2DModel

        super().__init__(num_classes)
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        attends = config.levels_with_attention(latent_shape)
        self.unet = UNet2DModel(
            sample_size=latent_shape.grid,
            in_channels=latent_shape.channels,
            out_channels=latent_shape.channels,
            block_out_channels=widths,
            layers_per_block=config.residual_blocks,
            down_block_types=["AttnDownBlock2D" if attend else "ResnetDownsampleBlock2D" for attend in attends],
            up_block_types=["AttnUpBlock2D" if attend else "ResnetUpsampleBlock2D" for attend in reversed(attends)],
            downsample_type="resnet",
            upsample_type="resnet",
            resnet_time_scale_shift="scale_shift",
            attention_head_dim=config.head_dim,
            attn_norm_num_groups=32,  # left out, the middle attention has no normalisation
            norm_eps=1e-5,
            dropout=config.dropout,
            time_embedding_dim=4 * config.channels,
            num_class_embeds=None if num_classes is None else num_classes + 1,
        )
        # diffusers takes as many sinusoids as the first level has channels, the original always `channels`.
        self.unet.time_proj, self.unet.time_embedding = _time_embedding(config.channels, 4 * config.channels)
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        """Zero the last layer of every residual branch and of the network, as the original does and diffusers not."""
        for name, parameter in self.unet.named_parameters():
            layer, _, _ = name.rpartition(".")
            if layer.endswith((".conv2", ".to_out.0")) or layer == "conv_out":
                nn.init.zeros_(parameter)

    def predict(self, noisy: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        """`(B, s, s, c)` -> `(B, s, s, c)`: see `Denoiser.forward`."""
        return self.unet(noisy.movedim(-1, 1), timesteps, labels).sample.movedim(1, -1)


class ResidualMLPDenoiser(Denoiser):
    """Residual SiLU MLP on the flattened latent (App. B.1): time and class embeddings are added inside each block.

    The paper gives width and number of blocks. LayerNorm, one hidden layer per block and 256 sinusoids are choices of
    this project. Dropout is where the UNet's residual blocks have it, before a block's last layer; the output starts at
    zero, as the UNet's does.
    """

    SINUSOIDS = 256

    def __init__(self, config: DenoiserMLPConfig, latent_shape: LatentShape, num_classes: int | None) -> None:
        super().__init__(num_classes)
        width = config.width
        size = latent_shape.numbers
        self.time_sinusoids, self.time_embedding = _time_embedding(self.SINUSOIDS, width)
        self.class_embedding = None if num_classes is None else nn.Embedding(num_classes + 1, width)
        self.embed = nn.Linear(size, width)
        self.blocks = nn.ModuleList(_ConditionedBlock(width, config.dropout) for _ in range(config.blocks))
        last = nn.Linear(width, size)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.output = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), last)

    def predict(self, noisy: Tensor, timesteps: Tensor, labels: Tensor | None) -> Tensor:
        """`(B, *grid, c)` -> `(B, *grid, c)`: see `Denoiser.forward`."""
        sinusoids = self.time_sinusoids(timesteps).to(self.embed.weight.dtype)
        condition = self.time_embedding(sinusoids)  # (B, W)
        if self.class_embedding is not None:
            condition = condition + self.class_embedding(labels)
        condition = F.silu(condition)
        hidden = self.embed(noisy.flatten(1))  # (B, W)
        for block in self.blocks:
            hidden = hidden + block(hidden, condition)
        return self.output(hidden).view(noisy.shape)


class _ConditionedBlock(nn.Module):
    """Residual branch of `ResidualMLPDenoiser`."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.condition = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, width)

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """`(B, W)`, `(B, W)` -> `(B, W)`."""
        hidden = self.hidden(F.silu(self.norm(hidden))) + self.condition(condition)
        return self.output(self.dropout(F.silu(hidden)))


def _time_embedding(sinusoids: int, width: int) -> tuple[nn.Module, nn.Module]:
    """Time steps `(B,)` → sinusoids, and those → the MLP's output `(B, width)`."""
    from diffusers.models.embeddings import TimestepEmbedding, Timesteps

    time_sinusoids = Timesteps(sinusoids, flip_sin_to_cos=True, downscale_freq_shift=0)
    return time_sinusoids, TimestepEmbedding(sinusoids, width)


def build_denoiser(config: DiffusionConfig, latent_shape: LatentShape, num_classes: int) -> Denoiser:
    """Build the denoiser that `config` asks for: see `Denoiser.forward` for its interface.

    `architecture: auto` takes the MLP for vector functa (s = 1) and the UNet otherwise; an MLP asked for on a larger
    grid sees the latent flattened. With `conditional: false` the denoiser takes no labels.

    Raises:
        ValueError: the UNet never reaches a grid side listed in `attention_resolutions`, or its `head_dim` does not
            divide the channels where it attends.
    """
    classes = num_classes if config.conditional else None
    match config.architecture_on(latent_shape):
        case "mlp":
            return ResidualMLPDenoiser(config.mlp, latent_shape, classes)
        case "unet":
            return UNetDenoiser(config.unet, latent_shape, classes)
