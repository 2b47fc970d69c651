"""`evaluation`: sampling, scores and figures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from spatial_functa_pipeline.config.block import Block, NetworkPrecision
from spatial_functa_pipeline.config.diffusion import ON_STRAIGHT_PATHS, WITH_TIMESTEPS, DiffusionConfig
from spatial_functa_pipeline.config.training import TrainingConfig

SAMPLING_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"sampler": "ddpm", "steps": 1000},
    "fast": {"sampler": "dpm_solver", "steps": 12},
}
"""Values of `SamplingConfig.preset`: ancestral sampling as the paper has it (Fig. 9), or at most 25 network evaluations.

Of `paper`, DDPM and 1,000 steps are the paper's. What it does not print is as `SamplingConfig` has it: the clipping
(`clip_denoised`) is ours, and which of DDPM's two variances it takes (`variance`) is inferred.
A guided step is two evaluations: `fast` takes 24, or 12 without guidance. With as many evaluations, first order, steps even in
log-SNR and more steps guided within an interval only all gave larger Fréchet distances on Fashion-MNIST.
"""

OBJECTIVES_OF_SAMPLERS: dict[str, tuple[str, ...]] = {
    "ddpm": WITH_TIMESTEPS,
    "ddim": WITH_TIMESTEPS,
    "euler": ON_STRAIGHT_PATHS,
    "heun": (*WITH_TIMESTEPS, *ON_STRAIGHT_PATHS),
    "dpm_solver": (*WITH_TIMESTEPS, *ON_STRAIGHT_PATHS),
}
"""For each sampler, the values of `DiffusionConfig.objective` that it is for."""


class SamplingConfig(Block):
    """How latents are sampled from the denoiser."""

    samples: PositiveInt = Field(description="classes take turns, so that each has the same number")
    preset: Literal["paper", "fast"] | None = Field(
        None, description="sets sampler and steps, each unless it is given too: see SAMPLING_PRESETS"
    )
    sampler: Literal["ddpm", "ddim", "euler", "heun", "dpm_solver"] = Field(
        "ddim",
        description="ddpm and ddim are of epsilon and v_prediction, euler of flow_matching and edm, others of all",
    )
    steps: PositiveInt = 50
    time_shift: PositiveFloat = Field(
        1.0, description="of flow_matching: u ↦ su/(1 + (s − 1)u), so that above 1 more steps are spent on noise"
    )
    guidance: Literal["classifier_free", "autoguidance"] = Field(
        "classifier_free",
        description="away from the prediction without a class, or from that of less trained weights (diffusion.autoguidance)",
    )
    guidance_scale: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="0: what is guided away from, 1: conditional, null: no guidance (one network evaluation a step)",
    )
    guidance_interval: tuple[Annotated[float, Field(ge=0)], PositiveFloat] | None = Field(
        None, description="guide at noise levels in (low, high] only (Kynkäänniemi et al., 2024); null: at all"
    )
    clip_denoised: bool = Field(
        True,
        description="ours: each number of a predicted x₀ is clipped to its range in the training set, before which an "
        "ε-prediction's smallest error at pure noise is multiplied by 20,000",
    )
    variance: Literal["fixed_small", "fixed_large"] = Field(
        "fixed_small",
        description="inferred: DDPM's σ² of a step, the posterior's β̃ or β (Ho et al., 2020, Sec. 3.2). Other samplers have "
        "none",
    )
    precision: NetworkPrecision = Field(
        "float32", description="of the denoiser's products and convolutions, whatever it was trained in"
    )
    batch_size: PositiveInt = Field(description="denoised at once, and stored: what an interruption can cost")

    @property
    def unguided(self) -> SamplingConfig:
        """The same without guidance by classes, which an unconditional model cannot have."""
        if self.guidance == "autoguidance":
            return self
        return self.model_copy(update={"guidance_scale": None, "guidance_interval": None})

    def require_process(self, process: DiffusionConfig) -> None:
        """Raises ValueError if a denoiser of this process cannot be sampled so."""
        objective = process.objective
        fitting = [name for name, objectives in OBJECTIVES_OF_SAMPLERS.items() if objective in objectives]
        if self.sampler not in fitting:
            of_preset = SAMPLING_PRESETS.get(self.preset or "", {}).get("sampler") == self.sampler
            origin = f" (preset {self.preset})" if of_preset else ""
            raise ValueError(
                f"evaluation.sampling.sampler is {self.sampler}{origin}, but diffusion.objective is {objective}: choose "
                f"{', '.join(fitting[:-1])} or {fitting[-1]}, or an objective that it is for: "
                f"{' or '.join(OBJECTIVES_OF_SAMPLERS[self.sampler])}"
            )
        if process.has_timesteps and self.steps > process.timesteps:
            raise ValueError(
                f"evaluation.sampling.steps ({self.steps}) must not exceed diffusion.timesteps ({process.timesteps})"
            )
        if self.time_shift != 1 and objective != "flow_matching":
            raise ValueError(
                f"evaluation.sampling.time_shift is {self.time_shift}, but diffusion.objective is {objective}: it is of "
                "flow_matching; set it to 1"
            )

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_in(cls, data: Any) -> Any:
        preset = data.get("preset") if isinstance(data, dict) else None
        if not isinstance(preset, str) or preset not in SAMPLING_PRESETS:
            return data
        return SAMPLING_PRESETS[preset] | data

    @model_validator(mode="after")
    def _variance_is_of_use(self) -> SamplingConfig:
        if self.variance != "fixed_small" and self.sampler != "ddpm":
            raise ValueError(
                f"variance is {self.variance}, but sampler {self.sampler} adds no noise: set sampler to ddpm, or variance "
                "to fixed_small"
            )
        return self

    @model_validator(mode="after")
    def _interval_is_of_use(self) -> SamplingConfig:
        if self.guidance_interval is None:
            return self
        low, high = self.guidance_interval
        if low >= high:
            raise ValueError(f"guidance_interval must be (low, high) with low < high, got ({low}, {high})")
        if self.guidance_scale is None:
            raise ValueError(
                f"guidance_interval is ({low}, {high}), but guidance_scale is null: set the scale, or the interval to null"
            )
        return self

    @model_validator(mode="after")
    def _autoguidance_has_a_scale(self) -> SamplingConfig:
        if self.guidance == "autoguidance" and self.guidance_scale is None:
            raise ValueError(
                "guidance is autoguidance, but guidance_scale is null: set the scale, or guidance to classifier_free"
            )
        return self


class FrechetConfig(Block):
    """Features of the Fréchet distance and the other scores: only Inception's make it `fid`."""

    features: Literal["convnet", "convnet_large", "inception"] = Field(
        "convnet",
        description="of a small classifier that the pipeline trains, of one of twice the width, or of FID's network",
    )
    inception_weights: str | None = Field(None, description="path of pytorch-fid's weights; null: its download")
    feature_network: TrainingConfig = Field(
        description="training of the classifier behind `convnet` and `convnet_large`"
    )

    @model_validator(mode="after")
    def _batch_is_normalised_as_a_whole(self) -> FrechetConfig:
        if (size := self.feature_network.micro_batch) != "auto":
            raise ValueError(
                f"feature_network.micro_batch is {size}, but its batch normalisation looks at the whole batch: set it to auto"
            )
        return self


class ScoresConfig(Block):
    """Which images samples are compared with, and how many."""

    held_out_in_reference: bool = Field(
        True, description="the validation images are part of the training images: right if they were cut from them"
    )
    reference_images: PositiveInt | None = Field(
        None, description="of the training and of the test images, at most: samples are compared with them; null: all"
    )
    pair_images: Annotated[int, Field(gt=5)] = Field(
        10_000, description="of each set, at most, in KID, precision, recall, density, coverage: they take N² pairs"
    )


class MemorisationConfig(Block):
    """The search for each sample's nearest training images in pixel space (App. C.2)."""

    images: PositiveInt | None = Field(
        None, description="samples, and test images, at most, that are looked up among all training images; null: all"
    )
    max_side: PositiveInt = Field(64, description="larger images are averaged down to so many pixels a side")


class PerturbationConfig(Block):
    """What a change of one latent channel does to the picture (App. B.3, C.5)."""

    images: PositiveInt = Field(
        8, description="test latents, at most, that are perturbed; each takes ten network evaluations a channel"
    )
    strength: PositiveFloat = Field(
        1.0,
        description="by how much a channel is changed, in its standard deviations; Fig. 13's range does not depend on it",
    )


class EvaluationConfig(Block):
    """What is measured and drawn at the end."""

    sampling: SamplingConfig
    frechet: FrechetConfig
    scores: ScoresConfig = ScoresConfig()
    memorisation: MemorisationConfig = MemorisationConfig()
    perturbation: PerturbationConfig = PerturbationConfig()
    interval_resamples: Annotated[int, Field(ge=2)] | None = Field(
        100,
        description="random halves of each set, whose spread gives precision, recall, density and coverage their intervals; "
        "null: none",
    )
    distribution_latents: PositiveInt = Field(
        50_000,
        description="training latents, about, whose distribution is looked at: whole chunks, spread evenly over all of them",
    )
    figure_images: Annotated[int, Field(ge=1, le=32)] = Field(10, description="columns of the image figures")
