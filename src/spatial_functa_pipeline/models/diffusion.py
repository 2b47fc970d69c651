"""Denoising diffusion on normalised latents: the process and the loss (App. C, C.4.3). `sampling` draws from it.

A noisy latent is x_t = √ᾱ_t x₀ + √(1 − ᾱ_t) ε with ε ~ N(0, 1). The denoiser predicts ε (the paper's choice) or
v = √ᾱ_t ε − √(1 − ᾱ_t) x₀.

Shapes: B latents with their grid and c channels, `(B, *grid, c)`; T time steps; K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatial_functa_pipeline.config.diffusion import DiffusionConfig

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler


def noise_schedule(config: DiffusionConfig) -> DDPMScheduler:
    """The forward process: ᾱ_t for t = 0, …, T − 1, cosine (Nichol & Dhariwal, 2021) or linear (Ho et al., 2020).

    The linear β of Ho et al. run from 1e-4 to 0.02 in 1,000 steps; for another T they are scaled by 1000/T, so that
    the last step is pure noise for every T. `DiffusionConfig` sees to it that they stay below 1.
    """
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler  # here: diffusers takes seconds to import

    if config.noise_schedule == "cosine":
        return DDPMScheduler(config.timesteps, beta_schedule="squaredcos_cap_v2", prediction_type=config.prediction)
    scale = 1000 / config.timesteps
    return DDPMScheduler(
        config.timesteps,
        beta_schedule="linear",
        beta_start=1e-4 * scale,
        beta_end=0.02 * scale,
        prediction_type=config.prediction,
    )


def predicted_clean(predicted: Tensor, noisy: Tensor, alpha_bar: Tensor, prediction: str) -> Tensor:
    """x₀ `(B, *grid, c)` from a predicted ε or v and the noisy latents, both so shaped, at the noise level ᾱ `()`."""
    signal, noise = alpha_bar.sqrt().item(), (1 - alpha_bar).sqrt().item()
    if prediction == "epsilon":
        return (noisy - noise * predicted) / signal
    return signal * noisy - noise * predicted


def timestep_probabilities(timesteps: int, ratio: float) -> Tensor:
    """Probabilities `(T,)`, float64, of drawing each time step: linear, with p(0) / p(T − 1) = `ratio` (App. C.4.3)."""
    weights = torch.linspace(ratio, 1, timesteps, dtype=torch.float64)
    return weights / weights.sum()


def min_snr_weights(alpha_bar: Tensor, gamma: float, prediction: str) -> Tensor:
    """Weights of the squared error at the noise levels ᾱ, shaped like it (Min-SNR-γ; Hang et al., 2023, Sec. 3.4).

    All of them weight the error of the x₀ that the prediction stands for by min(SNR, γ), SNR = ᾱ/(1 − ᾱ): the error of
    ε is √SNR times that of x₀, the error of v √(SNR + 1) times.
    """
    ratio = alpha_bar / (1 - alpha_bar)
    return ratio.clamp(max=gamma) / (ratio if prediction == "epsilon" else ratio + 1)


def diffusion_loss(
    denoiser: nn.Module,
    latents: Tensor,
    labels: Tensor | None,
    schedule: DDPMScheduler,
    config: DiffusionConfig,
    num_classes: int,
    generator: torch.Generator,
    kinds: Tensor | None = None,
) -> Tensor:
    """The simple loss of Ho et al. (2020): mean squared error of the predicted ε or v, a scalar.

    Time steps follow `timestep_probabilities` (App. C.4.3); with `timestep_reweighting` each latent's error is divided
    by p(t)·T, so that the loss has the expectation of uniform time steps. `min_snr_gamma` weights it by
    `min_snr_weights`. Each label becomes the dummy label K with probability `dummy_label_share` (App. C.1).

    Args:
        denoiser: a `Denoiser`, wrapped or not (DistributedDataParallel, `torch.compile`).
        latents: `(B, *grid, c)`, normalised, float32.
        labels: `(B,)` int64, None for an unconditional model.
        schedule: of `noise_schedule(config)`.
        config: objective and time-step sampling.
        num_classes: K.
        generator: on the CPU, the source of all time steps, noise and dummy labels, whatever the device.
        kinds: `(B,)` int64, the numbers of `CopyKind`, for a denoiser that knows them.

    Raises:
        ValueError: labels are missing for a conditional model, or given to an unconditional one.
    """
    if config.conditional != (labels is not None):
        raise ValueError(f"conditional is {config.conditional}, but labels is {type(labels).__name__}")
    batch, device = len(latents), latents.device

    probabilities = timestep_probabilities(config.timesteps, config.timestep_ratio)
    timesteps = torch.multinomial(probabilities, batch, replacement=True, generator=generator)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    if labels is not None:
        dropped = torch.rand(batch, generator=generator) < config.dummy_label_share
        labels = labels.masked_fill(dropped.to(device), num_classes)

    # diffusers' annotations ask for int32, but as indices its time steps may be int64 as well.
    noisy = schedule.add_noise(latents, noise, timesteps)  # type: ignore[arg-type]
    target = noise
    if config.prediction == "v_prediction":
        target = schedule.get_velocity(latents, noise, timesteps)  # type: ignore[arg-type]
    predicted = denoiser(noisy, timesteps.to(device), labels, *(() if kinds is None else (kinds,)))
    errors = F.mse_loss(predicted.float(), target, reduction="none").flatten(1).mean(dim=1)  # (B,)
    if config.timestep_reweighting:
        errors = errors / (probabilities[timesteps] * config.timesteps).to(errors)
    if config.min_snr_gamma is not None:
        weights = min_snr_weights(schedule.alphas_cumprod[timesteps], config.min_snr_gamma, config.prediction)
        errors = errors * weights.to(errors)
    return errors.mean()
