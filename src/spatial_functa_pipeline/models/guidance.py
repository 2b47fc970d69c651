"""Classifier-free guidance (App. C.4.2): a wrapper of the denoiser.

ε = ε_u + w (ε_c − ε_u), for all channels: w = 0 is unconditional, w = 1 conditional; ε_u is what the denoiser predicts for
the dummy label. v is affine in ε, so the formula holds for both.

Shapes: B latents with their grid and c channels, `(B, *grid, c)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.models.denoisers import Denoiser

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler


@dataclass(frozen=True)
class Guidance:
    """The scale w at each time step.

    Args:
        scale: w; None for no guidance, which is what w = 1 is, and all that there is without labels.
        interval: w is 1 outside of these noise levels, (low, high] (Kynkäänniemi et al., 2024); None: at none.
        noise_levels: of each time step: their σ = √(1/ᾱ − 1), in units of the normalised latents.
    """

    scale: float | None
    interval: tuple[float, float] | None
    noise_levels: Sequence[float]

    @classmethod
    def of(cls, sampling: SamplingConfig, schedule: DDPMScheduler) -> Self:
        """The guidance that `sampling` asks for, in the process of `schedule`."""
        noise_levels = (1 / schedule.alphas_cumprod.double() - 1).sqrt().tolist()
        return cls(sampling.guidance_scale, sampling.guidance_interval, noise_levels)

    def scale_at(self, timestep: int) -> float | None:
        """w at a time step."""
        if self.interval is None:
            return self.scale
        low, high = self.interval
        return self.scale if low < self.noise_levels[timestep] <= high else 1.0

    def evaluations_at(self, timestep: int) -> int:
        """How often the network is evaluated: twice, unless ε_c or ε_u alone is what is asked for."""
        return 1 if self.scale_at(timestep) in (None, 0, 1) else 2


@dataclass(frozen=True)
class GuidedDenoiser:
    """Calling it gives the guided prediction; two evaluations are done as one batch."""

    denoiser: Denoiser
    guidance: Guidance

    def __call__(self, noisy: Tensor, timestep: int, labels: Tensor | None) -> Tensor:
        """Predicted ε or v `(B, *grid, c)`, float32, of noisy latents at one time step and labels `(B,)`."""
        scale = self.guidance.scale_at(timestep)
        timesteps = torch.full((len(noisy),), timestep, device=noisy.device)
        classes = self.denoiser.num_classes
        if labels is None or classes is None or scale is None or scale == 1:
            return self.denoiser(noisy, timesteps, labels).float()
        dummy = torch.full_like(labels, classes)
        if scale == 0:
            return self.denoiser(noisy, timesteps, dummy).float()
        both = self.denoiser(torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), torch.cat([dummy, labels]))
        unconditional, conditional = both.float().chunk(2)
        return unconditional + scale * (conditional - unconditional)
