"""`diffusion`: the denoiser and its process."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from spatial_functa_pipeline.config.block import Block, NetworkPrecision, Share
from spatial_functa_pipeline.config.mlp import MLPConfig
from spatial_functa_pipeline.config.training import MuonRate, TrainingConfig
from spatial_functa_pipeline.config.transformer import TransformerSizes
from spatial_functa_pipeline.fields.latent_shape import LatentShape

DenoiserArchitecture = Literal["unet", "mlp", "dit"]

Objective = Literal["epsilon", "v_prediction", "flow_matching", "edm"]
WITH_TIMESTEPS = ("epsilon", "v_prediction")
"""Objectives whose noise levels are the time steps of a schedule."""
ON_STRAIGHT_PATHS = ("flow_matching", "edm")
"""Objectives whose paths from data to noise are straight lines."""


class UNetConfig(Block):
    """The UNet of Dhariwal & Nichol (App. C, Tab. 6)."""

    channels: Annotated[int, Field(gt=0, multiple_of=32)]
    multipliers: tuple[PositiveInt, ...] = Field(min_length=1)
    residual_blocks: PositiveInt
    attention_resolutions: tuple[PositiveInt, ...] | None = Field(
        None, description="grid sides of the levels with attention; null: the coarsest level"
    )
    dropout: Share = 0.0
    head_dim: PositiveInt = Field(64, description="inferred: Dhariwal & Nichol")

    def levels_with_attention(self, latent_shape: LatentShape) -> list[bool]:
        """For each level, whether its grid side (the longer one) is among the attention resolutions.

        Raises ValueError if the UNet does not fit the grid, never reaches a side that should attend, or attends where
        `head_dim` does not divide the channels.
        """
        if latent_shape.coarser:
            raise ValueError(
                f"diffusion.architecture unet needs latents of one grid, and {latent_shape} has several scales; choose dit or "
                "mlp"
            )
        grid, levels = latent_shape.grid, len(self.multipliers)
        if len(grid) != 2:
            raise ValueError(
                f"diffusion.architecture unet needs a two-dimensional grid, not {latent_shape}; choose mlp or dit"
            )
        halvings = 2 ** (levels - 1)
        if any(side % halvings for side in grid):
            raise ValueError(
                f"diffusion.unet.multipliers has {levels} levels, which halve the grid {levels - 1} times: each side of "
                f"latent_shape {latent_shape} must be a multiple of {halvings}"
            )
        sides = [max(grid) // 2**level for level in range(levels)]
        wanted = sides[-1:] if self.attention_resolutions is None else self.attention_resolutions
        if missing := sorted(set(wanted) - set(sides)):
            raise ValueError(
                f"diffusion.unet.attention_resolutions has {missing}, but on {latent_shape} latents a UNet of "
                f"{levels} levels has the grid sides {sides}: choose among them, or change multipliers"
            )
        attends = [side in wanted for side in sides]
        attends_or_middle = [*attends[:-1], True]  # the middle block, at the last level's width, always attends
        for multiplier, attend in zip(self.multipliers, attends_or_middle, strict=True):
            if attend and self.channels * multiplier % self.head_dim:
                raise ValueError(
                    f"diffusion.unet.head_dim ({self.head_dim}) must divide the channels of every level with attention, "
                    f"the last level included; one has {self.channels} × {multiplier} = {self.channels * multiplier}"
                )
        return attends


OF_TIMESTEPS = ("timesteps", "noise_schedule", "timestep_ratio", "timestep_reweighting", "min_snr_gamma")
"""What says something of ε and v alone."""


class NormalisationConfig(Block):
    """Eq. 1 and its three kinds (App. C.4.1)."""

    kind: Literal["scalar", "vector", "array"] = "vector"
    gamma: PositiveFloat = 1.0


class DenoiserMLPConfig(MLPConfig):
    """The residual MLP as a denoiser, with dropout in every block: the UNet's remedy against memorising (App. C.2)."""

    dropout: Share = 0.0


class NoiseLevelConfig(Block):
    """The noise levels of a training: log(noise/signal) is normal."""

    mean: float | None = Field(
        None,
        description="null: 0 (flow_matching; Esser et al., 2024), −1.2 + log(σ_data/0.5) (edm; Karras et al., 2022)",
    )
    std: PositiveFloat | None = Field(None, description="null: 1 (flow_matching), 1.2 (edm)")


class DiTConfig(TransformerSizes):
    """Diffusion Transformer (Peebles & Xie, 2023): ours, the paper has a UNet. Dropout ends each residual branch."""

    dropout: Share = 0.0


class DiffusionConfig(Block):
    """Diffusion on normalised latents (App. B.1, C; Tab. 6)."""

    conditional: bool = Field(True, description="on the class, where there are two or more")
    dummy_label_share: Share = Field(0.2, description="without effect on an unconditional model")
    architecture: Literal["auto", DenoiserArchitecture] = Field(
        "auto", description="auto: mlp if s = 1 or there are several scales"
    )
    unet: UNetConfig
    mlp: DenoiserMLPConfig
    dit: DiTConfig | None = Field(None, description="needed by architecture dit only")
    normalisation: NormalisationConfig = NormalisationConfig()
    objective: Objective = Field(
        "epsilon", description="what the network predicts, and on which path from data to noise: see docs/training.md"
    )
    timesteps: PositiveInt = Field(1000, description="of epsilon and v_prediction, as the next four")
    noise_schedule: Literal["linear", "cosine"] = "cosine"
    timestep_ratio: Annotated[float, Field(ge=1)] = Field(
        1.0,
        description="p(t=0)/p(t=T), falling linearly (C.4.3). inferred: one other than 1 is printed for ImageNet only",
    )
    timestep_reweighting: bool = Field(
        False, description="divide the loss by p(t)·T, so that its expectation is uniform"
    )
    min_snr_gamma: PositiveFloat | None = Field(
        None, description="Min-SNR-γ weights of the loss, 5 in Hang et al. (2023); null: the simple loss, as the paper"
    )
    noise_level: NoiseLevelConfig = Field(NoiseLevelConfig(), description="of flow_matching and edm")
    autoguidance: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="the share of the training after which the weights are kept as the guide of evaluation.sampling.guidance "
        "autoguidance; null: no guide",
    )
    mirror_images: bool = Field(
        False,
        description="train on mirrored images, too, which functaset.mirror_images makes; no other copy is trained on, since "
        "samples should not look like crops with a black border",
    )
    augmented_copies: bool = Field(
        False,
        description="ours: train on all copies, each with its kind (original, mirrored, augmented) as a condition, and sample "
        "originals (Karras et al., 2022, App. F.2). With mirror_images, mirrored images count as originals",
    )
    precision: NetworkPrecision = Field(
        "float32",
        description="of the products and convolutions in training, where the device has them; validation is in float32",
    )
    muon_learning_rate: MuonRate = None
    training: TrainingConfig

    def architecture_on(self, latent_shape: LatentShape) -> DenoiserArchitecture:
        """The one that is meant: `auto` is the MLP for vector functa (s = 1) and several scales: no one grid to work on."""
        if self.architecture != "auto":
            return self.architecture
        return "mlp" if latent_shape.cells == 1 or latent_shape.coarser else "unet"

    def for_classes(self, count: int) -> DiffusionConfig:
        """The same for so many classes: a single one says nothing, so the model is unconditional."""
        return self if count > 1 else self.model_copy(update={"conditional": False})

    @property
    def has_timesteps(self) -> bool:
        """Whether the noise levels are the time steps of a schedule, as they are for ε and v."""
        return self.objective in WITH_TIMESTEPS

    @property
    def data_std(self) -> float:
        """Standard deviation of the latents, normalised by Eq. 1."""
        return 1 / self.normalisation.gamma

    @property
    def guide_step(self) -> int | None:
        """The step of the training after which the guide is kept, if there is to be one."""
        return None if self.autoguidance is None else max(1, round(self.autoguidance * self.training.steps))

    @model_validator(mode="after")
    def _options_are_of_the_objective(self) -> DiffusionConfig:
        of_the_other = OF_TIMESTEPS if not self.has_timesteps else ("noise_level",)
        for name in of_the_other:
            value, default = getattr(self, name), type(self).model_fields[name].default
            if value != default:
                others = " and ".join(ON_STRAIGHT_PATHS if self.has_timesteps else WITH_TIMESTEPS)
                if isinstance(value, Block):  # each of its keys has null for its default
                    given = {f"{name}.{key}": one for key, one in value.model_dump().items() if one is not None}
                    name, value, default = ", ".join(given), ", ".join(map(str, given.values())), None
                raise ValueError(
                    f"{name} is {value}, but objective is {self.objective}: it is of {others}; set it to "
                    f"{'null' if default is None else default}"
                )
        return self

    @model_validator(mode="after")
    def _dit_has_its_sizes(self) -> DiffusionConfig:
        if self.architecture == "dit" and self.dit is None:
            raise ValueError(
                "architecture is dit, but the block dit is not given: this data set has no sizes for one; give width, "
                "ffw_width, blocks and heads"
            )
        return self

    @model_validator(mode="after")
    def _linear_schedule_has_enough_timesteps(self) -> DiffusionConfig:
        if self.noise_schedule == "linear" and self.timesteps <= 20:
            raise ValueError(
                f"noise_schedule linear needs more than 20 timesteps, for its β to stay below 1; got {self.timesteps}"
            )
        return self
