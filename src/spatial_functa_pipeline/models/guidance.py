"""Guidance: a wrapper of the denoiser that moves its prediction away from a worse one (App. C.4.2).

D = D₋ + w (D₊ − D₋), for all channels, where D₊ is the prediction for the class. D₋ is that for the dummy label
(classifier-free guidance; Ho & Salimans, 2022), so that w = 0 is unconditional; or that of a network of less training for
the same class (autoguidance; Karras et al., 2024), for which there need be no classes. w = 1 is D₊ alone. What a network
predicts is affine in x₀ for a given input, so the formula means the same for every objective.

Shapes: B latents with their grid and c channels, `(B, *grid, c)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.models.denoisers import Denoiser, OfOriginals
from spatial_functa_pipeline.models.paths import NoiseLevel


@dataclass(frozen=True)
class Guidance:
    """The scale w at each noise level.

    Args:
        scale: w; None for no guidance, which is what w = 1 is.
        interval: w is 1 outside of these noise levels σ = s/a, (low, high] (Kynkäänniemi et al., 2024); None: at none.
            They are in units of the normalised latents.
    """

    scale: float | None
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, sampling: SamplingConfig) -> Self:
        """The guidance that `sampling` asks for."""
        return cls(sampling.guidance_scale, sampling.guidance_interval)

    def scale_at(self, level: NoiseLevel) -> float | None:
        """w at a noise level `()`."""
        if self.interval is None:
            return self.scale
        low, high = self.interval
        return self.scale if low < level.ratio <= high else 1.0

    def evaluations_at(self, level: NoiseLevel) -> int:
        """How often a network is evaluated: twice, unless D₊ or D₋ alone is what is asked for."""
        return 1 if self.scale_at(level) in (None, 0, 1) else 2


@dataclass(frozen=True)
class GuidedDenoiser:
    """Calling it gives the guided prediction; two evaluations of one network are done as one batch.

    Args:
        denoiser: predicts D₊.
        guidance: the scale.
        guide: predicts D₋; None: the denoiser does, of the dummy label.
    """

    denoiser: Denoiser | OfOriginals
    guidance: Guidance
    guide: Denoiser | OfOriginals | None = None

    def __call__(self, inputs: Tensor, level: NoiseLevel, labels: Tensor | None) -> Tensor:
        """The networks' output `(B, *grid, c)`, float32, of inputs so shaped at a level `()`, and labels `(B,)`."""
        scale = self.guidance.scale_at(level)
        times = torch.full((len(inputs),), level.time.item(), device=inputs.device)
        if scale is None or scale == 1:
            return self.denoiser(inputs, times, labels).float()
        if self.guide is not None:
            worse = self.guide(inputs, times, labels).float()
            return worse if scale == 0 else worse + scale * (self.denoiser(inputs, times, labels).float() - worse)
        classes = self.denoiser.num_classes
        if labels is None or classes is None:
            return self.denoiser(inputs, times, labels).float()
        dummy = torch.full_like(labels, classes)
        if scale == 0:
            return self.denoiser(inputs, times, dummy).float()
        both = self.denoiser(torch.cat([inputs, inputs]), torch.cat([times, times]), torch.cat([dummy, labels]))
        unconditional, conditional = both.float().chunk(2)
        return unconditional + scale * (conditional - unconditional)
