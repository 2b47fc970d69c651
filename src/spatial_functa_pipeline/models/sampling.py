"""Sampling from a denoiser, with classifier-free guidance (App. C.4.2)."""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor
from tqdm import tqdm

from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models.denoisers import Denoiser
from spatial_functa_pipeline.models.diffusion import noise_schedule


def predicted_clean(predicted: Tensor, noisy: Tensor, alpha_bar: Tensor, prediction: str) -> Tensor:
    """x₀ `(B, *grid, c)` from a predicted ε or v and the noisy latents, both so shaped, at the noise level ᾱ `()`."""
    signal, noise = alpha_bar.sqrt().item(), (1 - alpha_bar).sqrt().item()
    if prediction == "epsilon":
        return (noisy - noise * predicted) / signal
    return signal * noisy - noise * predicted


def initial_noise(latent_shape: LatentShape, seed: int, indices: Sequence[int]) -> Tensor:
    """The x_T `(len(indices), *grid, c)`, on the CPU, from which samples number `indices` start."""
    return _noise(latent_shape, [_generator(seed, index) for index in indices])


def sample(
    denoiser: Denoiser,
    config: DiffusionConfig,
    sampling: SamplingConfig,
    labels: Tensor | None,
    latent_shape: LatentShape,
    clip_range: float,
    seed: int,
    device: torch.device | str,
    first: int = 0,
    progress: bool = False,
) -> Tensor:
    """Draw normalised latents `(N, *grid, c)`, float32, on the CPU.

    At every step the predicted x₀ is clipped to ±`clip_range` before it goes to the sampler: ᾱ of the cosine
    schedule's last step is 2e-9, so an ε-prediction's smallest error would otherwise be multiplied by 20,000.

    Args:
        denoiser: on `device`; left in evaluation mode.
        config: the forward process and the prediction the denoiser was trained with.
        sampling: sampler, steps, guidance, batch size. Guidance with the scale w follows the paper (App. C.4.2), for
            all channels: ε = ε_u + w (ε_c − ε_u), so that 0 is unconditional and 1 conditional; only another w costs a
            second evaluation, done in the same batch. Outside of `guidance_interval` w is 1. Its noise levels are
            √(1/ᾱ − 1), the σ of Kynkäänniemi et al. (2024), in units of the normalised latents.
        labels: `(N,)` int64 classes; None for an unconditional model, which gives N = `sampling.samples`.
        latent_shape: of one latent.
        clip_range: largest |z| of the normalised training functaset.
        seed: sample i takes all of its random numbers from a stream of its own, which (`seed`, i) fixes. So it does
            not depend on the batch it is in, nor on how many others are drawn.
        device: where to sample.
        first: number of the first sample.
        progress: show a progress bar, a batch at a time.

    Raises:
        ValueError: labels or guidance do not fit the denoiser, there are more steps than time steps, or `clip_range`
            is not positive.
    """
    if labels is None and sampling.guidance_scale is not None:
        raise ValueError(f"guidance_scale is {sampling.guidance_scale}, but there are no labels: set it to null")
    if sampling.steps > config.timesteps:
        raise ValueError(f"sampling steps ({sampling.steps}) must not exceed diffusion.timesteps ({config.timesteps})")
    if not clip_range > 0:
        raise ValueError(f"clip_range must be positive, got {clip_range}")

    denoiser.eval()
    schedule = noise_schedule(config)
    solver = _solver(schedule, sampling)
    scales = _guidance_scales(schedule, sampling)
    count = sampling.samples if labels is None else len(labels)
    samples = []
    for indices in torch.arange(count).split(sampling.batch_size):
        batch_labels = None if labels is None else labels[indices].to(device)
        generators = [_generator(seed, first + index) for index in indices.tolist()]
        latents = _noise(latent_shape, generators).to(device)
        solver.set_timesteps(timesteps=list(scales))  # anew for each batch: the solver remembers its last steps
        for timestep in tqdm(solver.timesteps, "sampling", leave=False, disable=not progress):
            scale, alpha_bar = scales[int(timestep)], schedule.alphas_cumprod[timestep]
            with torch.no_grad():
                predicted = _guided(denoiser, latents, timestep, batch_labels, scale)
            clean = predicted_clean(predicted, latents, alpha_bar, config.prediction).clamp(-clip_range, clip_range)
            latents = solver.step(clean, timestep, latents, generator=generators).prev_sample
        samples.append(latents.cpu())
    return torch.cat(samples)


def network_evaluations(config: DiffusionConfig, sampling: SamplingConfig) -> int:
    """How often the network is evaluated for one sample: a guided step is two evaluations, though done as one batch."""
    scales = _guidance_scales(noise_schedule(config), sampling).values()
    return sum(1 if scale in _SCALES_OF_ONE_EVALUATION else 2 for scale in scales)


def sampling_settings(
    config: DiffusionConfig, sampling: SamplingConfig, clip_range: float, seed: int
) -> dict[str, str | float | list[float] | None]:
    """How samples are drawn, as JSON, to be kept beside them.

    `first_seed` is the seed of sample 0's CPU generator, and `first_seed` + i that of sample i, modulo 2³²; its first
    numbers are x_T.
    """
    return {
        "prediction": config.prediction,
        "noise_schedule": config.noise_schedule,
        "timesteps": config.timesteps,
        **sampling.model_dump(mode="json", include={"sampler", "steps", "guidance_scale", "guidance_interval"}),
        "network_evaluations": network_evaluations(config, sampling),
        "clip_range": clip_range,
        "classes": "in turn" if config.conditional else None,
        "first_seed": _generator(seed, 0).initial_seed(),
    }


_SCALES_OF_ONE_EVALUATION = (None, 0, 1)


def _guidance_scales(schedule: DDPMScheduler, sampling: SamplingConfig) -> dict[int, float | None]:
    """The time steps, descending, and the guidance scale at each of them.

    They are evenly spaced, from the last on: the first latent is pure noise, as it was in training.
    """
    count = len(schedule)
    timesteps = [count * step // sampling.steps - 1 for step in range(sampling.steps, 0, -1)]
    if sampling.guidance_interval is None:
        return dict.fromkeys(timesteps, sampling.guidance_scale)
    low, high = sampling.guidance_interval
    levels = (1 / schedule.alphas_cumprod.double() - 1).sqrt().tolist()
    return {timestep: sampling.guidance_scale if low < levels[timestep] <= high else 1.0 for timestep in timesteps}


def _solver(schedule: DDPMScheduler, sampling: SamplingConfig) -> DDPMScheduler | DPMSolverMultistepScheduler:
    """The sampler, told to expect x₀: clipping x₀ outside makes it work alike in all of them.

    DDIM is DPM-Solver++ of first order (Lu et al., 2022); diffusers' own `DDIMScheduler` is right only for a number of
    steps that divides T.
    """
    options = {"trained_betas": schedule.betas.tolist(), "prediction_type": "sample"}
    if sampling.sampler == "ddpm":
        return DDPMScheduler(len(schedule), clip_sample=False, **options)
    order = 1 if sampling.sampler == "ddim" else 2
    return DPMSolverMultistepScheduler(len(schedule), solver_order=order, **options)


def _guided(
    denoiser: Denoiser, latents: Tensor, timestep: Tensor, labels: Tensor | None, scale: float | None
) -> Tensor:
    """The denoiser's prediction, with classifier-free guidance (v is affine in ε, so the formula holds for both)."""
    timesteps = torch.full((len(latents),), int(timestep), device=latents.device)
    if scale is None or scale == 1:
        return denoiser(latents, timesteps, labels).float()
    dummy = torch.full_like(labels, denoiser.num_classes)
    if scale == 0:
        return denoiser(latents, timesteps, dummy).float()
    both = denoiser(torch.cat([latents, latents]), torch.cat([timesteps, timesteps]), torch.cat([dummy, labels]))
    unconditional, conditional = both.float().chunk(2)
    return unconditional + scale * (conditional - unconditional)


def _noise(latent_shape: LatentShape, generators: Sequence[torch.Generator]) -> Tensor:
    """Standard normal noise `(len(generators), *grid, c)` on the CPU, each latent from its generator."""
    return torch.stack([torch.randn(latent_shape.shape, generator=generator) for generator in generators])


def _generator(seed: int, index: int) -> torch.Generator:
    """The CPU generator of sample number `index` for `seed`.

    Torch's CPU generator keeps 32 bits of its seed. `index` is added to the hashed `seed`: no two numbers of one seed
    share a stream, as they might if the pair were hashed, and neighbouring seeds are far apart.
    """
    start = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return torch.Generator().manual_seed((start + index) % 2**32)
