"""Sampling from a denoiser (App. C.4.2).

Shapes: N samples with their grid and c channels, `(N, *grid, c)`, drawn B = `batch_size` at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor
from tqdm import tqdm

from spatial_functa_pipeline.compute import bf16_products, tf32_products
from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models.denoisers import Denoiser, OfOriginals
from spatial_functa_pipeline.models.diffusion import Process
from spatial_functa_pipeline.models.guidance import Guidance, GuidedDenoiser
from spatial_functa_pipeline.models.paths import NoiseLevel
from spatial_functa_pipeline.models.sample_seeds import initial_noise, sample_generator, sample_seed
from spatial_functa_pipeline.models.samplers import build_sampler


def sample(
    denoiser: Denoiser,
    config: DiffusionConfig,
    sampling: SamplingConfig,
    labels: Tensor | None,
    latent_shape: LatentShape,
    clip_range: Tensor,
    seed: int,
    device: torch.device | str,
    first: int = 0,
    progress: bool = False,
    guide: Denoiser | None = None,
) -> Tensor:
    """Draw normalised latents `(N, *grid, c)`, float32, on the CPU.

    With `sampling.clip_denoised` the predicted x₀ is clipped to ±`clip_range` at every step before it goes to the sampler:
    ᾱ of the cosine schedule's last step is 2e-9, so an ε-prediction's smallest error would otherwise be multiplied by 20,000.

    Args:
        denoiser: on `device`; left in evaluation mode.
        config: the process that the denoiser was trained for.
        sampling: sampler, steps, guidance (see `guidance`), precision of the network, batch size.
        labels: `(N,)` int64 classes; None for an unconditional model, which gives N = `sampling.samples`.
        latent_shape: of one latent.
        clip_range: largest |z| of the normalised training functaset, `()`, `(c,)` or `(*grid, c)`.
        seed: with a sample's number, fixes all of its random numbers: see `sample_seeds`.
        device: where to sample.
        first: number of the first sample.
        progress: show a progress bar, a batch at a time.
        guide: of autoguidance, as the denoiser.

    Raises:
        ValueError: labels, guidance or sampler do not fit the denoiser, there are more steps than time steps, or a clip
            range is negative.
    """
    sampling.require_process(config)
    guide = _guide(sampling, labels, guide)
    if not (clip_range >= 0).all():
        raise ValueError(f"clip_range must not be negative, got {clip_range.min().item()}")

    process = Process.of(config)
    levels = process.path.grid(sampling.steps, sampling.time_shift)
    guided = GuidedDenoiser(_asked(denoiser, config), Guidance.of(sampling), guide and _asked(guide, config))
    device, precision, clip_range = torch.device(device), sampling.precision, clip_range.to(device)

    def draw(rows: Tensor) -> Tensor:
        generators = [sample_generator(seed, first + row) for row in rows.tolist()]
        classes = None if labels is None else labels[rows].to(device)

        def draw_noise() -> Tensor:
            return initial_noise(latent_shape, generators).to(device)

        def predict(latents: Tensor, level: NoiseLevel) -> Tensor:
            with torch.no_grad(), tf32_products(precision, device), bf16_products(precision, device):
                output = guided(process.objective.network_input(latents, level), level, classes)
            clean = process.objective.clean(output, latents, level)
            return clean.clamp(-clip_range, clip_range) if sampling.clip_denoised else clean

        sampler, start = build_sampler(sampling, draw_noise), levels[0].noise * draw_noise()
        return sampler(predict, start, tqdm(levels, "sampling", leave=False, disable=not progress)).cpu()

    numbers = torch.arange(sampling.samples if labels is None else len(labels))
    return torch.cat([draw(rows) for rows in numbers.split(sampling.batch_size)])


def _asked(denoiser: Denoiser, config: DiffusionConfig) -> Denoiser | OfOriginals:
    """The denoiser in evaluation mode, of copies' kinds asked for originals."""
    return OfOriginals(denoiser.eval()) if config.augmented_copies else denoiser.eval()


def network_evaluations(config: DiffusionConfig, sampling: SamplingConfig) -> int:
    """How often a network is evaluated for one sample: a guided prediction is two evaluations, though done as one batch."""
    guidance, evaluations = Guidance.of(sampling), 0

    def predict(latent: Tensor, level: NoiseLevel) -> Tensor:
        nonlocal evaluations
        evaluations += guidance.evaluations_at(level)
        return latent

    nothing = torch.zeros(())
    levels = Process.of(config).path.grid(sampling.steps, sampling.time_shift)
    build_sampler(sampling, lambda: nothing)(predict, nothing, levels)
    return evaluations


def sampling_settings(
    config: DiffusionConfig, sampling: SamplingConfig, clip_range: Tensor, seed: int
) -> dict[str, str | float | list[float] | None]:
    """How samples are drawn, and what a reader should know of the training, as JSON, to be kept beside them.

    `clip_range` has the least and the largest range of single numbers; None if nothing is clipped. `first_seed` is the seed
    of sample 0's CPU generator, and `first_seed` + i that of sample i, modulo 2³²; its first numbers, times the first
    level's noise, are what a sampler starts from.
    """
    of_training = {
        "objective",
        "mirror_images",
        "augmented_copies",
        *(("noise_schedule", "timesteps") if config.has_timesteps else ()),
    }
    of_sampling = {
        *("sampler", "steps", "variance", "time_shift", "guidance", "guidance_scale", "guidance_interval", "precision")
    }
    return {
        **config.model_dump(mode="json", include=of_training),
        **sampling.model_dump(mode="json", include=of_sampling),
        "network_evaluations": network_evaluations(config, sampling),
        "clip_range": [clip_range.min().item(), clip_range.max().item()] if sampling.clip_denoised else None,
        "classes": "in turn" if config.conditional else None,
        "first_seed": sample_seed(seed, 0),
    }


def _guide(sampling: SamplingConfig, labels: Tensor | None, guide: Denoiser | None) -> Denoiser | None:
    """The guide, if it is one that `sampling` asks for. Raises ValueError if it cannot guide so."""
    scale = sampling.guidance_scale
    if scale is None or (scale == 1 and sampling.guidance == "autoguidance"):
        return None
    if sampling.guidance == "autoguidance":
        if guide is None:
            raise ValueError(
                "guidance is autoguidance, but no guide was kept with this denoiser: train it with autoguidance, the share "
                "of the training after which its guide is kept"
            )
        return guide
    if labels is None:
        raise ValueError(f"guidance_scale is {scale}, but there are no labels: set it to null")
    return None
