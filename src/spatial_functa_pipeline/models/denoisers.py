"""Denoisers of normalised latents: the UNet of Dhariwal & Nichol, a residual MLP for vector functa (App. B.1, C), and a DiT.

Shapes: B latents with their grid, s × s for the UNet, and c channels, `(B, *grid, c)`; S tokens; W the width; K classes.

diffusers' models take seconds to import, so they are imported where one is built.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatial_functa_pipeline.config.diffusion import DenoiserMLPConfig, DiffusionConfig, DiTConfig, UNetConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.images.augmentation import CopyKind
from spatial_functa_pipeline.models.transformer import AdaptiveLayerNorm, Tokens, TransformerBlock, initialise_linears

Condition = Tensor | tuple[Tensor | None, Tensor] | None
"""What a prediction is conditioned on beside the time: labels, labels and kinds, or nothing."""


class Denoiser(nn.Module, ABC):
    """Predicts what the process asks for from noisy latents, the time and, if conditional, the class and the kind of copy.

    `num_classes` is K for a conditional denoiser and None for an unconditional one. Label K is the dummy label, which
    stands for "any class" (classifier-free guidance). `knows_kinds`: whether kinds are a condition (Karras et al., 2022,
    App. F.2).
    """

    ENDS: ClassVar[tuple[str, ...]] = ("embed", "output", "time_embedding", "class_embedding")
    """How the names of its layers start that are no hidden ones: the first, the last, and the embeddings of time and class."""

    def __init__(self, num_classes: int | None, knows_kinds: bool = False) -> None:
        super().__init__()
        self.num_classes, self.knows_kinds = num_classes, knows_kinds

    def forward(
        self, noisy: Tensor, timesteps: Tensor, labels: Tensor | None = None, kinds: Tensor | None = None
    ) -> Tensor:
        """Noisy latents `(B, *grid, c)`, times `(B,)` in [0, 1000), labels `(B,)` and kinds `(B,)` -> `(B, *grid, c)`.

        Times may be whole or not; kinds are the numbers of `CopyKind`.

        Raises:
            ValueError: labels or kinds are missing for a denoiser that is conditioned on them, or given to another.
        """
        if self.num_classes is None and labels is not None:
            raise ValueError("this denoiser is unconditional: pass labels=None")
        if self.num_classes is not None and labels is None:
            raise ValueError(
                f"this denoiser is conditional: pass labels (0 to {self.num_classes - 1}, or the dummy label "
                f"{self.num_classes} for unconditional predictions)"
            )
        if not self.knows_kinds and kinds is not None:
            raise ValueError("this denoiser was not made for augmented copies: pass kinds=None")
        if self.knows_kinds and kinds is None:
            raise ValueError(f"this denoiser knows kinds of copies: pass kinds ({CopyKind.ORIGINAL} for originals)")
        return self.predict(noisy, timesteps, labels if kinds is None else (labels, kinds))

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """What `forward` returns; the condition, which has been checked, is for `condition_embedding`."""


class OfOriginals(nn.Module):
    """A denoiser that knows kinds of copies, asked for originals alone."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.num_classes = denoiser, denoiser.num_classes

    def forward(self, noisy: Tensor, timesteps: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `Denoiser.forward`."""
        kinds = torch.full((len(noisy),), CopyKind.ORIGINAL, device=noisy.device)
        return self.denoiser(noisy, timesteps, labels, kinds)


def condition_embedding(num_classes: int | None, knows_kinds: bool, width: int) -> nn.Module | None:
    """Condition -> `(B, width)`; None if there is nothing to be conditioned on."""
    if knows_kinds:
        return _ClassAndKindEmbedding(num_classes, width)
    return None if num_classes is None else nn.Embedding(num_classes + 1, width)


class _ClassAndKindEmbedding(nn.Module):
    """Embeds both and adds them up. Kinds start without effect."""

    def __init__(self, num_classes: int | None, width: int) -> None:
        super().__init__()
        self.classes = None if num_classes is None else nn.Embedding(num_classes + 1, width)
        self.kinds = nn.Embedding(len(CopyKind), width)
        nn.init.zeros_(self.kinds.weight)

    def forward(self, condition: tuple[Tensor | None, Tensor]) -> Tensor:
        """Labels `(B,)` and kinds `(B,)` -> `(B, width)`."""
        labels, kinds = condition
        embedded = self.kinds(kinds)
        return embedded if self.classes is None else embedded + self.classes(labels)


class UNetDenoiser(Denoiser):
    """`UNet2DModel` of diffusers, arranged and initialised as the UNet of Dhariwal & Nichol (App. C, Tab. 6)."""

    ENDS = ("unet.conv_in", "unet.conv_out", "unet.time_embedding", "unet.class_embedding")

    def __init__(
        self, config: UNetConfig, latent_shape: LatentShape, num_classes: int | None, knows_kinds: bool = False
    ) -> None:
        from diffusers.models.unets.unet_2d import UNet2DModel

        super().__init__(num_classes, knows_kinds)
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
            num_class_embeds=None if num_classes is None or knows_kinds else num_classes + 1,
        )
        if knows_kinds:
            self.unet.class_embedding = condition_embedding(num_classes, knows_kinds, 4 * config.channels)
        # diffusers takes as many sinusoids as the first level has channels, the original always `channels`.
        self.unet.time_proj, self.unet.time_embedding = _time_embedding(config.channels, 4 * config.channels)
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        """Zero the last layer of every residual branch and of the network, as the original does and diffusers not."""
        for name, parameter in self.unet.named_parameters():
            layer, _, _ = name.rpartition(".")
            if layer.endswith((".conv2", ".to_out.0")) or layer == "conv_out":
                nn.init.zeros_(parameter)

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """`(B, s, s, c)` -> `(B, s, s, c)`: see `Denoiser.forward`."""
        return self.unet(noisy.movedim(-1, 1), timesteps, condition).sample.movedim(1, -1)


class EmbeddingDenoiser(Denoiser, ABC):
    """One whose layers are given time and condition as a single vector of the model's width W.

    256 sinusoids are this project's choice, and Peebles & Xie's.
    """

    SINUSOIDS = 256

    def __init__(self, width: int, num_classes: int | None, knows_kinds: bool = False) -> None:
        super().__init__(num_classes, knows_kinds)
        self.time_sinusoids, self.time_embedding = _time_embedding(self.SINUSOIDS, width)
        self.class_embedding = condition_embedding(num_classes, knows_kinds, width)

    def embedded(self, timesteps: Tensor, condition: Condition) -> Tensor:
        """Times `(B,)` and condition -> SiLU of the sum of their embeddings, `(B, W)`."""
        sinusoids = self.time_sinusoids(timesteps).to(next(self.time_embedding.parameters()).dtype)
        embedded = self.time_embedding(sinusoids)
        if self.class_embedding is not None:
            embedded = embedded + self.class_embedding(condition)
        return F.silu(embedded)


class ResidualMLPDenoiser(EmbeddingDenoiser):
    """Residual SiLU MLP on the flattened latent (App. B.1): time and class embeddings are added inside each block.

    The paper gives width and number of blocks. LayerNorm and one hidden layer per block are choices of this project.
    Dropout is where the UNet's residual blocks have it, before a block's last layer; the output starts at zero, as the
    UNet's does.
    """

    def __init__(
        self, config: DenoiserMLPConfig, latent_shape: LatentShape, num_classes: int | None, knows_kinds: bool = False
    ) -> None:
        width = config.width
        super().__init__(width, num_classes, knows_kinds)
        size = latent_shape.numbers
        self.embed = nn.Linear(size, width)
        self.blocks = nn.ModuleList(_ConditionedBlock(width, config.dropout) for _ in range(config.blocks))
        last = nn.Linear(width, size)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.output = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), last)

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """`(B, *grid, c)` -> `(B, *grid, c)`: see `Denoiser.forward`."""
        embedded = self.embedded(timesteps, condition)
        hidden = self.embed(noisy.flatten(1))  # (B, W)
        for block in self.blocks:
            hidden = hidden + block(hidden, embedded)
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


class DiTDenoiser(EmbeddingDenoiser):
    """Diffusion Transformer (Peebles & Xie, 2023) on the latent's cells, of grids of any dimension: one token per cell.

    Ours: the paper has a UNet. Time and condition act through adaptive layer norms that start at zero, in each block and
    before the last layer, so that each block starts as the identity, and the output as zero.
    """

    def __init__(
        self, config: DiTConfig, latent_shape: LatentShape, num_classes: int | None, knows_kinds: bool = False
    ) -> None:
        width = config.width
        super().__init__(width, num_classes, knows_kinds)
        self.tokens = Tokens.of(latent_shape, config.vector_tokens)
        self.embed = self.tokens.embedding(width)
        self.positions = nn.Parameter(torch.empty(self.tokens.count, width))
        head_dim = config.head_dim or width // config.heads
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.ffw_width, config.heads, head_dim, conditioned=True, dropout=config.dropout)
            for _ in range(config.blocks)
        )
        self.norm = AdaptiveLayerNorm(width, gates=0)
        self.output = self.tokens.output(width)
        initialise_linears(self)
        nn.init.normal_(self.positions, std=0.02)
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """`(B, *grid, c)` -> `(B, *grid, c)`: see `Denoiser.forward`."""
        embedded = self.embedded(timesteps, condition)
        tokens = self.embed(self.tokens.cut(noisy)) + self.positions  # (B, S, W)
        for block in self.blocks:
            tokens = block(tokens, embedded)
        (tokens,) = self.norm.modulated(tokens, embedded)
        return self.output(tokens).view(noisy.shape)  # (B, S, numbers) has the order of the latents


def _time_embedding(sinusoids: int, width: int) -> tuple[nn.Module, nn.Module]:
    """Time steps `(B,)` → sinusoids, and those → the MLP's output `(B, width)`."""
    from diffusers.models.embeddings import TimestepEmbedding, Timesteps

    time_sinusoids = Timesteps(sinusoids, flip_sin_to_cos=True, downscale_freq_shift=0)
    return time_sinusoids, TimestepEmbedding(sinusoids, width)


def build_denoiser(config: DiffusionConfig, latent_shape: LatentShape, num_classes: int) -> Denoiser:
    """Build the denoiser that `config` asks for: see `Denoiser.forward` for its interface.

    `architecture: auto` takes the MLP for vector functa (s = 1) and several scales, else the UNet; an MLP asked for on a
    grid sees the latent flattened. With `conditional: false` the denoiser takes no labels; with `augmented_copies` it takes
    kinds.

    Raises:
        ValueError: the UNet never reaches a grid side listed in `attention_resolutions`, or its `head_dim` does not
            divide the channels where it attends.
    """
    condition = (num_classes if config.conditional else None, config.augmented_copies)
    match config.architecture_on(latent_shape):
        case "mlp":
            return ResidualMLPDenoiser(config.mlp, latent_shape, *condition)
        case "unet":
            return UNetDenoiser(config.unet, latent_shape, *condition)
        case "dit":
            assert config.dit is not None  # the configuration has checked it
            return DiTDenoiser(config.dit, latent_shape, *condition)
