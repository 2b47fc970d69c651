"""Sampling from a denoiser (App. C.4.2).

Shapes: N samples with their grid and c channels, `(N, *grid, c)`, drawn B = `batch_size` at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from spatial_functa_pipeline.compute import bf16_products, tf32_products
from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models.denoisers import Denoiser, OfOriginals
from spatial_functa_pipeline.models.diffusion import noise_schedule, predicted_clean
from spatial_functa_pipeline.models.guidance import Guidance, GuidedDenoiser
from spatial_functa_pipeline.models.sample_seeds import initial_noise, sample_generator, sample_seed

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler


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
) -> Tensor:
    """Draw normalised latents `(N, *grid, c)`, float32, on the CPU.

    With `sampling.clip_denoised` the predicted x₀ is clipped to ±`clip_range` at every step before it goes to the sampler:
    ᾱ of the cosine schedule's last step is 2e-9, so an ε-prediction's smallest error would otherwise be multiplied by 20,000.

    Args:
        denoiser: on `device`; left in evaluation mode.
        config: the forward process and the prediction the denoiser was trained with.
        sampling: sampler, steps, guidance (see `guidance`), precision of the network, batch size.
        labels: `(N,)` int64 classes; None for an unconditional model, which gives N = `sampling.samples`.
        latent_shape: of one latent.
        clip_range: largest |z| of the normalised training functaset, `()`, `(c,)` or `(*grid, c)`.
        seed: with a sample's number, fixes all of its random numbers: see `sample_seeds`.
        device: where to sample.
        first: number of the first sample.
        progress: show a progress bar, a batch at a time.

    Raises:
        ValueError: labels or guidance do not fit the denoiser, there are more steps than time steps, or a clip range
            is negative.
    """
    if labels is None and sampling.guidance_scale is not None:
        raise ValueError(f"guidance_scale is {sampling.guidance_scale}, but there are no labels: set it to null")
    if sampling.steps > config.timesteps:
        raise ValueError(
            f"sampling steps ({sampling.steps}) must not exceed the process's timesteps ({config.timesteps})"
        )
    if not (clip_range >= 0).all():
        raise ValueError(f"clip_range must not be negative, got {clip_range.min().item()}")

    schedule = noise_schedule(config)
    asked = OfOriginals(denoiser) if config.augmented_copies else denoiser
    predict = GuidedDenoiser(asked.eval(), Guidance.of(sampling, schedule))
    solver, timesteps = _solver(schedule, sampling), _timesteps(schedule, sampling)
    device, precision = torch.device(device), sampling.precision
    clip_range, samples = clip_range.to(device), []
    for rows in torch.arange(sampling.samples if labels is None else len(labels)).split(sampling.batch_size):
        generators = [sample_generator(seed, first + row) for row in rows.tolist()]
        latents = initial_noise(latent_shape, generators).to(device)
        classes = None if labels is None else labels[rows].to(device)
        solver.set_timesteps(timesteps=timesteps)  # anew for each batch: the solver remembers its last steps
        for timestep in tqdm(solver.timesteps, "sampling", leave=False, disable=not progress):
            with torch.no_grad(), tf32_products(precision, device), bf16_products(precision, device):
                predicted = predict(latents, int(timestep), classes)
            alpha_bar = schedule.alphas_cumprod[timestep]
            clean = predicted_clean(predicted, latents, alpha_bar, config.prediction)
            if sampling.clip_denoised:
                clean = clean.clamp(-clip_range, clip_range)
            # A generator for each sample, which the annotations of diffusers do not know.
            step = solver.step(clean, timestep, latents, generator=generators, return_dict=False)  # type: ignore[arg-type]
            latents = step[0]
        # The last step leads to ᾱ = 1, hence to x₀ itself; diffusers' DDPM would add noise if it does not start at t = 0.
        samples.append(clean.cpu())
    return torch.cat(samples)


def network_evaluations(config: DiffusionConfig, sampling: SamplingConfig) -> int:
    """How often the network is evaluated for one sample: a guided step is two evaluations, though done as one batch."""
    schedule = noise_schedule(config)
    guidance = Guidance.of(sampling, schedule)
    return sum(map(guidance.evaluations_at, _timesteps(schedule, sampling)))


def sampling_settings(
    config: DiffusionConfig, sampling: SamplingConfig, clip_range: Tensor, seed: int
) -> dict[str, str | float | list[float] | None]:
    """How samples are drawn, and what a reader should know of the training, as JSON, to be kept beside them.

    `clip_range` has the least and the largest range of single numbers; None if nothing is clipped. `first_seed` is the seed
    of sample 0's CPU generator, and `first_seed` + i that of sample i, modulo 2³²; its first numbers are x_T.
    """
    return {
        "prediction": config.prediction,
        "noise_schedule": config.noise_schedule,
        "timesteps": config.timesteps,
        "mirror_images": config.mirror_images,
        "augmented_copies": config.augmented_copies,
        **sampling.model_dump(
            mode="json", include={"sampler", "steps", "variance", "guidance_scale", "guidance_interval", "precision"}
        ),
        "network_evaluations": network_evaluations(config, sampling),
        "clip_range": [clip_range.min().item(), clip_range.max().item()] if sampling.clip_denoised else None,
        "classes": "in turn" if config.conditional else None,
        "first_seed": sample_seed(seed, 0),
    }


def _timesteps(schedule: DDPMScheduler, sampling: SamplingConfig) -> list[int]:
    """The time steps, descending, evenly spaced from the last on: the first latent is pure noise, as it was in training."""
    count = len(schedule)
    return [count * step // sampling.steps - 1 for step in range(sampling.steps, 0, -1)]


def _solver(schedule: DDPMScheduler, sampling: SamplingConfig) -> DDPMScheduler | DPMSolverMultistepScheduler:
    """The sampler, told to expect x₀: clipping x₀ outside makes it work alike in all of them.

    DDIM is DPM-Solver++ of first order (Lu et al., 2022); diffusers' own `DDIMScheduler` is right only for a number of
    steps that divides T.
    """
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

    options = {"trained_betas": schedule.betas.tolist(), "prediction_type": "sample"}
    if sampling.sampler == "ddpm":
        return DDPMScheduler(len(schedule), clip_sample=False, variance_type=sampling.variance, **options)
    order = 1 if sampling.sampler == "ddim" else 2
    return DPMSolverMultistepScheduler(len(schedule), solver_order=order, **options)
