"""Every parameter of the project as a pydantic model: the only place where a default or a bound is written.

`conf/<environment>/parameters*.yml` fill these models in. The whole tree (`PipelineParameters`) is validated before
any node runs; nodes receive their own block of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

RESULT_NEUTRAL = frozenset({"micro_batch", "log_every", "checkpoint_every", "encode_batch", "retries"})
"""Keys that change no result beyond rounding: they enter no fingerprint and no checkpoint's identity."""

Share = Annotated[float, Field(ge=0, lt=1)]
Interpolation = Literal["nearest", "linear"]
StorageType = Literal["float32", "float16", "uint8", "uint7", "uint6", "uint5", "uint4", "uint3", "uint2"]


@dataclass(frozen=True)
class LatentShape:
    """Shape of one latent: `grid` cells (s×s for images, any dimension D) of `channels` c numbers each."""

    grid: tuple[int, ...]
    channels: int

    @classmethod
    def parse(cls, value: str | LatentShape) -> LatentShape:
        """Read `"8x8x16"` (grid sides, then channels). Raises ValueError on anything else."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, str) or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", value):
            raise ValueError("a latent shape is written as its grid sides and its channels joined by 'x', as in 8x8x16")
        *grid, channels = (int(side) for side in value.split("x"))
        return cls(tuple(grid), channels)

    @property
    def cells(self) -> int:
        """Number of cells S of the grid (s² for images)."""
        return prod(self.grid)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array shape `(*grid, c)`."""
        return (*self.grid, self.channels)

    def __str__(self) -> str:
        return "x".join(map(str, self.shape))


LatentShapeText = Annotated[LatentShape, BeforeValidator(LatentShape.parse), PlainSerializer(str)]


class Parameters(BaseModel):
    """Base of all blocks: immutable, and an unknown key is an error that lists the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := sorted(set(data) - set(cls.model_fields), key=str)):
            raise ValueError(f"unknown key {', '.join(map(str, unknown))}; known keys: {', '.join(cls.model_fields)}")
        return data


class DataConfig(Parameters):
    """What the images look like when they reach the pipelines."""

    resolution: tuple[PositiveInt, ...] = Field(description="pixels per axis, after padding or resizing")
    channels: PositiveInt
    num_classes: PositiveInt


def _known_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError("a device is auto, cpu, mps, cuda, or cuda:1 and the like")
    return name


def _as_written(value: Any) -> Any:
    """YAML reads `on` and `off` as booleans."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class RuntimeConfig(Parameters):
    """Where and how to run. Nothing here changes a result beyond rounding, so nothing here enters a fingerprint."""

    device: Annotated[str, AfterValidator(_known_device)] = "auto"
    num_workers: Annotated[int, Field(ge=0)] = Field(0, description="processes that decode a training's images")
    progress: bool = True
    compile: Annotated[Literal["auto", "on", "off"], BeforeValidator(_as_written)] = Field(
        "auto", description="CPU kernel and torch.compile; auto: where they repay their time"
    )
    processes: PositiveInt = Field(1, description="that train together on this machine, each with a part of the batch")
    machines: PositiveInt = Field(1, description="that train together; each runs the same command")
    rendezvous: Annotated[str, Field(pattern=r"^[^\s:]+:\d+$")] | None = Field(
        None, description="host:port of one of the machines, which all of them reach"
    )

    scheduler: Annotated[str, Field(pattern=r"^(synchronous|processes|(tcp://|tls://)?[^\s:]+:\d+)$")] = Field(
        "synchronous",
        description="of a functaset's build: in this process, in a local Dask cluster, or the address of a dask-scheduler",
    )
    workers: PositiveInt | None = Field(
        None, description="processes of the local Dask cluster; null: one for each GPU, or for each core"
    )
    replace_stale: bool = Field(
        False, description="whether a run replaces a functaset that another field or other parameters made"
    )

    @property
    def ranks(self) -> int:
        """Processes on all machines together."""
        return self.processes * self.machines

    @model_validator(mode="after")
    def _machines_can_meet(self) -> RuntimeConfig:
        if self.machines > 1 and self.rendezvous is None:
            raise ValueError(f"machines is {self.machines}: set rendezvous to host:port of one of them")
        if self.machines == 1 and self.rendezvous is not None:
            raise ValueError(f"rendezvous is {self.rendezvous}, but machines is 1: set machines, or rendezvous to null")
        if self.ranks > 1 and self.device.startswith(("mps", "cuda:")):
            raise ValueError(
                f"device {self.device} is one device, but there are {self.ranks} processes: set device to cuda or cpu"
            )
        return self


class GuardConfig(Parameters):
    """What a training does when its loss is not finite, or its validation metric collapses: it rolls back.

    It goes back to the best validated state (the last one where there is no metric to be best in), and on with a lower
    learning rate.
    """

    margin: PositiveFloat | None = Field(
        None, description="how far the validation metric may fall below its best (field: dB); null: any fall will do"
    )
    learning_rate_factor: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="per roll-back, from then on")
    retries: Annotated[int, Field(ge=0)] = Field(5, description="roll-backs until the training gives up")


class TrainingConfig(Parameters):
    """One training loop: the same knobs for the field, the classifiers and the denoisers."""

    steps: PositiveInt
    batch_size: PositiveInt
    micro_batch: PositiveInt | Literal["auto"] = Field(
        "auto",
        description="rows at once; the gradient is the batch's. auto: all, of which a field keeps as much as fits the memory",
    )
    learning_rate: PositiveFloat
    schedule: Literal["constant", "cosine", "inverse_sqrt"] = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip_norm: PositiveFloat | None = 1.0
    ema_decay: Share | None = None
    log_every: PositiveInt = 50
    validate_every: PositiveInt = 500
    checkpoint_every: PositiveInt = 500
    guard: GuardConfig | None = Field(GuardConfig(), description="null: a loss that is not finite is an error at once")

    @model_validator(mode="after")
    def _warmup_is_shorter(self) -> TrainingConfig:
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must not exceed steps ({self.steps})")
        if self.micro_batch != "auto" and self.micro_batch > self.batch_size:
            raise ValueError(f"micro_batch ({self.micro_batch}) must not exceed batch_size ({self.batch_size})")
        return self


class FieldConfig(Parameters):
    """The neural field f_θ(x; m_x), its latent grid and the inner loop (Sec. 4)."""

    latent_shape: LatentShapeText
    interpolation: Interpolation
    resolution: tuple[PositiveInt, ...]
    channels: PositiveInt
    width: PositiveInt
    depth: Annotated[int, Field(ge=2)] = Field(description="counts the linear output layer: depth − 1 sine layers")
    omega0: PositiveFloat = 10.0
    kernel_size: Annotated[int, Field(ge=1)] = Field(1, description="side of λ's convolution kernel, odd")
    inner_steps: PositiveInt = 3
    inner_rate_init: tuple[PositiveFloat, PositiveFloat] = Field(
        (0.005, 0.1), description="meta-SGD rates ~ U(low, high)"
    )
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32", description="of the inner steps' matrix products; bf16 sums in float32. tf32: all products on CUDA"
    )

    @model_validator(mode="after")
    def _shapes_fit(self) -> FieldConfig:
        grid, resolution = self.latent_shape.grid, self.resolution
        if len(grid) != len(resolution):
            raise ValueError(
                f"latent_shape {self.latent_shape} has a {len(grid)}-dimensional grid, but the data are "
                f"{len(resolution)}-dimensional {resolution}: write {len(resolution)} grid sides, then the channels"
            )
        if any(n % s for n, s in zip(resolution, grid, strict=True)):
            raise ValueError(
                f"latent_shape {self.latent_shape} does not fit the resolution {'x'.join(map(str, resolution))}: "
                "each grid side must divide it"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {self.kernel_size}")
        if self.inner_rate_init[0] >= self.inner_rate_init[1] or self.inner_rate_init[1] > 1:
            raise ValueError(f"inner_rate_init must be (low, high) with low < high ≤ 1, got {self.inner_rate_init}")
        return self


class SpectralPenaltyConfig(Parameters):
    """Added to the loss: weight · max(0, λ_max − threshold)², λ_max of the inner loop's step matrix at z = 0.

    Gradient descent on the latent diverges where λ_max exceeds 2; the penalty keeps meta-learning away from there.
    """

    weight: Annotated[float, Field(ge=0)] = Field(1e-3, description="0: λ_max is only measured")
    threshold: Annotated[float, Field(gt=0, lt=2)] = 1.0


class MetaLearningConfig(Parameters):
    """Meta-learning of θ, λ and the inner rates (App. A, C.1, C.3)."""

    field: FieldConfig
    training: TrainingConfig
    spectral_penalty: SpectralPenaltyConfig = SpectralPenaltyConfig()
    validation_images: PositiveInt = Field(256, description="images of the validation split used during training")
    inner_rate_learning_rate_factor: PositiveFloat = Field(
        1.0, description="the meta-SGD rates' own learning rate, as a multiple of training.learning_rate"
    )


class AugmentationConfig(Parameters):
    """How augmented copies of training images are drawn (App. B.1 for CIFAR-10, App. C for ImageNet)."""

    flip: bool = True
    crop_padding: Annotated[int, Field(ge=0)] = Field(4, description="zero padding before a random crop; 0: no crop")
    resized_crop: bool = Field(False, description="random distorted bounding box (Szegedy et al., 2016)")
    randaugment_operations: Annotated[int, Field(ge=0)] = 0
    randaugment_magnitude: Annotated[int, Field(ge=0, le=10)] = 5


class FunctasetConfig(Parameters):
    """How images become a functaset on disk."""

    augmented_copies: Annotated[int, Field(ge=0)] = Field(1, description="copies per training image beside the image")
    augmentation: AugmentationConfig = AugmentationConfig()
    storage_type: StorageType = Field(
        "float32", description="uint<b>: uniformly quantised, b bits per latent dimension (C.4.4)"
    )
    shard_rows: PositiveInt = 2048
    chunk_rows: PositiveInt = 64
    encode_batch: PositiveInt = Field(16, description="images encoded at once; small fits the CPU's cache")

    @model_validator(mode="after")
    def _chunks_fill_shards(self) -> FunctasetConfig:
        if self.shard_rows % self.chunk_rows:
            raise ValueError(f"shard_rows ({self.shard_rows}) must be a multiple of chunk_rows ({self.chunk_rows})")
        return self


class TransformerConfig(Parameters):
    """Pre-LN Transformer over the latent cells (App. C, Tab. 5)."""

    width: PositiveInt
    ffw_width: PositiveInt
    blocks: PositiveInt
    heads: PositiveInt
    head_dim: PositiveInt | None = Field(None, description="null: width / heads")
    pooling: Literal["mean", "concatenate"] = Field(
        "mean", description="how the last block's tokens become one vector; concatenate learns faster from few images"
    )
    vector_tokens: PositiveInt = Field(
        16, description="vector functa (s = 1): the vector is cut into so many equal tokens; must divide its length"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TransformerConfig:
        if self.head_dim is None and self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width}) unless head_dim is given")
        return self


class MLPConfig(Parameters):
    """Residual SiLU MLP for vector functa (s = 1; App. B.1)."""

    width: PositiveInt
    blocks: PositiveInt


class ClassificationConfig(Parameters):
    """Classifier on latents (App. B.1, C; Tab. 5), or on the pixels that they stand for."""

    input: Literal["latents", "pixels"] = Field(
        "latents", description="pixels: the baseline, raw patches in the place of latents; its files are pixel_*"
    )
    architecture: Literal["auto", "transformer", "mlp"] = Field("auto", description="auto: mlp if s = 1")
    transformer: TransformerConfig
    mlp: MLPConfig
    dropout: Share = 0.1
    label_smoothing: Share = 0.1
    normalisation_scale: PositiveFloat | None = Field(
        None,
        description="latents are divided by it; null: the training set's scalar standard deviation. Pixels are always "
        "normalised by their mean and standard deviation",
    )
    precision: Literal["float32", "bf16"] = Field(
        "float32", description="of the matrix products in training, where the device has bf16 ones; sums are float32"
    )
    training: TrainingConfig


class UNetConfig(Parameters):
    """The UNet of Dhariwal & Nichol (App. C, Tab. 6)."""

    channels: Annotated[int, Field(gt=0, multiple_of=32)]
    multipliers: tuple[PositiveInt, ...] = Field(min_length=1)
    residual_blocks: PositiveInt
    attention_resolutions: tuple[PositiveInt, ...] | None = Field(
        None, description="grid sides of the levels with attention; null: the coarsest level"
    )
    dropout: Share = 0.0
    head_dim: PositiveInt = 64

    def levels_with_attention(self, latent_shape: LatentShape) -> list[bool]:
        """For each level, whether its grid side (the longer one) is among the attention resolutions.

        Raises ValueError if the UNet does not fit the grid, never reaches a side that should attend, or attends where
        `head_dim` does not divide the channels.
        """
        grid, levels = latent_shape.grid, len(self.multipliers)
        if len(grid) != 2:
            raise ValueError(
                f"diffusion.architecture unet needs a two-dimensional grid, not {latent_shape}; choose mlp"
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


class NormalisationConfig(Parameters):
    """Eq. 1 and its three kinds (App. C.4.1)."""

    kind: Literal["scalar", "vector", "array"] = "vector"
    gamma: PositiveFloat = 1.0


class DenoiserMLPConfig(MLPConfig):
    """The residual MLP as a denoiser, with dropout in every block: the UNet's remedy against memorising (App. C.2)."""

    dropout: Share = 0.0


class DiffusionConfig(Parameters):
    """DDPM on normalised latents (App. B.1, C; Tab. 6)."""

    conditional: bool = True
    dummy_label_share: Share = 0.2
    architecture: Literal["auto", "unet", "mlp"] = Field("auto", description="auto: mlp if s = 1")
    unet: UNetConfig
    mlp: DenoiserMLPConfig
    normalisation: NormalisationConfig = NormalisationConfig()
    timesteps: PositiveInt = 1000
    noise_schedule: Literal["linear", "cosine"] = "cosine"
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    timestep_ratio: Annotated[float, Field(ge=1)] = Field(1.0, description="p(t=0)/p(t=T), falling linearly (C.4.3)")
    timestep_reweighting: bool = Field(
        False, description="divide the loss by p(t)·T, so that its expectation is uniform"
    )
    min_snr_gamma: PositiveFloat | None = Field(
        None, description="Min-SNR-γ weights of the loss, 5 in Hang et al. (2023); null: the simple loss, as the paper"
    )
    training: TrainingConfig

    @model_validator(mode="after")
    def _linear_schedule_has_enough_timesteps(self) -> DiffusionConfig:
        if self.noise_schedule == "linear" and self.timesteps <= 20:
            raise ValueError(
                f"noise_schedule linear needs more than 20 timesteps, for its β to stay below 1; got {self.timesteps}"
            )
        return self


SAMPLING_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"sampler": "ddpm", "steps": 1000},
    "fast": {"sampler": "dpm_solver", "steps": 12},
}
"""Values of `SamplingConfig.preset`: ancestral sampling as the paper has it (Fig. 9), or at most 25 network evaluations.

A guided step is two evaluations: `fast` takes 24, or 12 without guidance. With as many evaluations, first order, steps even in
log-SNR and more steps guided within an interval only all gave larger Fréchet distances on Fashion-MNIST.
"""


class SamplingConfig(Parameters):
    """How latents are sampled from the denoiser."""

    samples: PositiveInt = Field(1000, description="classes take turns, so that each has the same number")
    preset: Literal["paper", "fast"] | None = Field(
        None, description="sets sampler and steps, each unless it is given too: see SAMPLING_PRESETS"
    )
    sampler: Literal["ddpm", "ddim", "dpm_solver"] = "ddim"
    steps: PositiveInt = 50
    guidance_scale: Annotated[float, Field(ge=0)] | None = Field(
        None, description="0: unconditional, 1: conditional, null: no guidance (one network evaluation a step)"
    )
    guidance_interval: tuple[Annotated[float, Field(ge=0)], PositiveFloat] | None = Field(
        None, description="guide at noise levels in (low, high] only (Kynkäänniemi et al., 2024); null: at all"
    )
    batch_size: PositiveInt = Field(250, description="denoised at once, and stored: what an interruption can cost")

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_in(cls, data: Any) -> Any:
        preset = data.get("preset") if isinstance(data, dict) else None
        if not isinstance(preset, str) or preset not in SAMPLING_PRESETS:
            return data
        return SAMPLING_PRESETS[preset] | data

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


class FrechetConfig(Parameters):
    """Features of the Fréchet distance and the other scores: only Inception's make it `fid`."""

    features: Literal["convnet", "inception"] = "convnet"
    inception_weights: str | None = Field(None, description="path of pytorch-fid's weights; null: its download")
    feature_network: TrainingConfig = Field(description="training of the small classifier behind `convnet`")


class ScoresConfig(Parameters):
    """How many images the scores of generated images look at."""

    reference_images: PositiveInt | None = Field(
        50_000, description="of the training and of the test set, at most: samples are compared with them; null: all"
    )
    pair_images: Annotated[int, Field(gt=5)] = Field(
        10_000, description="of each set, at most, in KID, precision, recall, density, coverage: they take N² pairs"
    )


class MemorisationConfig(Parameters):
    """The search for each sample's nearest training images in pixel space (App. C.2)."""

    images: PositiveInt | None = Field(
        None, description="samples, and test images, at most, that are looked up among all training images; null: all"
    )
    max_side: PositiveInt = Field(64, description="larger images are averaged down to so many pixels a side")


class EvaluationConfig(Parameters):
    """What is measured and drawn at the end."""

    sampling: SamplingConfig
    frechet: FrechetConfig
    scores: ScoresConfig = ScoresConfig()
    memorisation: MemorisationConfig = MemorisationConfig()
    figure_images: Annotated[int, Field(ge=1, le=32)] = Field(10, description="columns of the image figures")


class PipelineParameters(Parameters):
    """All of `parameters*.yml`, with the conditions that bind one block to another."""

    dataset: str
    latent_shape: LatentShapeText
    interpolation: Interpolation
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    data_path: str | None = Field(None, description="where the images are, for environments whose catalog reads it")
    runtime: RuntimeConfig
    data: DataConfig
    meta_learning: MetaLearningConfig
    functaset: FunctasetConfig
    classification: ClassificationConfig
    diffusion: DiffusionConfig
    evaluation: EvaluationConfig

    @model_validator(mode="after")
    def _field_is_the_variant(self) -> PipelineParameters:
        field, data = self.meta_learning.field, self.data
        for name, here, there in (
            ("latent_shape", field.latent_shape, self.latent_shape),
            ("interpolation", field.interpolation, self.interpolation),
            ("resolution", field.resolution, data.resolution),
            ("channels", field.channels, data.channels),
        ):
            if here != there:
                where = name if name in type(self).model_fields else f"data.{name}"
                raise ValueError(f"meta_learning.field.{name} is {here}, but {where} is {there}: set {where} instead")
        return self

    @model_validator(mode="after")
    def _guidance_needs_a_conditional_model(self) -> PipelineParameters:
        scale = self.evaluation.sampling.guidance_scale
        if scale is not None and not self.diffusion.conditional:
            raise ValueError(
                f"evaluation.sampling.guidance_scale is {scale}, but diffusion.conditional is false: "
                "guidance needs a conditional model; set the scale to null"
            )
        if scale is not None and scale != 1 and self.diffusion.dummy_label_share == 0:
            raise ValueError(
                f"evaluation.sampling.guidance_scale is {scale}, but diffusion.dummy_label_share is 0: the model never "
                "learns the unconditional distribution; set a share above 0, or the scale to null"
            )
        return self

    @model_validator(mode="after")
    def _sampler_has_enough_timesteps(self) -> PipelineParameters:
        steps, timesteps = self.evaluation.sampling.steps, self.diffusion.timesteps
        if steps > timesteps:
            raise ValueError(f"evaluation.sampling.steps ({steps}) must not exceed diffusion.timesteps ({timesteps})")
        return self

    @model_validator(mode="after")
    def _denoiser_fits_the_grid(self) -> PipelineParameters:
        if not uses_mlp(self.diffusion.architecture, self.latent_shape):
            self.diffusion.unet.levels_with_attention(self.latent_shape)
        return self

    @model_validator(mode="after")
    def _vector_is_cut_into_equal_tokens(self) -> PipelineParameters:
        config, field = self.classification, self.meta_learning.field
        if self.latent_shape.cells == 1 and not uses_mlp(config.architecture, self.latent_shape):
            pixels = config.input == "pixels"
            length = prod(field.resolution) * field.channels if pixels else self.latent_shape.channels
            if length % config.transformer.vector_tokens:
                raise ValueError(
                    f"classification.transformer.vector_tokens ({config.transformer.vector_tokens}) must divide the "
                    f"{length} numbers of {'an image' if pixels else 'a latent vector'}"
                )
        return self

    @model_validator(mode="after")
    def _batches_divide_among_the_processes(self) -> PipelineParameters:
        ranks = self.runtime.ranks
        for name in ("meta_learning", "classification", "diffusion"):
            size = getattr(self, name).training.batch_size
            if size % ranks:
                raise ValueError(
                    f"{name}.training.batch_size ({size}) must be divisible by the number of processes, "
                    f"runtime.processes × runtime.machines = {ranks}"
                )
        return self

    @model_validator(mode="after")
    def _guard_has_a_metric(self) -> PipelineParameters:
        for name, training in (
            ("diffusion.training", self.diffusion.training),
            ("evaluation.frechet.feature_network", self.evaluation.frechet.feature_network),
        ):
            if training.guard and training.guard.margin is not None:
                raise ValueError(
                    f"{name}.guard.margin is {training.guard.margin}, but this training has no validation metric that "
                    "it keeps the best of: set it to null"
                )
        return self

    @model_validator(mode="after")
    def _crop_needs_an_image(self) -> PipelineParameters:
        augmentation = self.functaset.augmentation
        if (
            len(self.data.resolution) != 2
            and self.functaset.augmented_copies
            and augmentation != AugmentationConfig(flip=False, crop_padding=0)
        ):
            raise ValueError(
                "functaset.augmentation is for images: set augmented_copies to 0 for data of another dimension"
            )
        return self


def uses_mlp(architecture: str, latent_shape: LatentShape) -> bool:
    """Whether `auto` or an explicit choice means the residual MLP: vector functa (s = 1) have no grid to work on."""
    return architecture == "mlp" or (architecture == "auto" and latent_shape.cells == 1)
