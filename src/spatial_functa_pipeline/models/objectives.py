"""What a network predicts of the latent x₀ and the noise ε in its input x = a x₀ + s ε: p x₀ + q ε, whatever the objective.

So x₀ follows from an input and an output by two equations with two unknowns, and two outputs for one input differ by a
multiple of the difference of their x₀: guidance is the same in any of them.

Shapes: B latents with their grid and c channels, `(B, *grid, c)`; levels `()`, or `(B, 1, …, 1)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.models.paths import NoiseLevel


class Objective(ABC):
    """What a network is trained to predict, by the mean squared error of its output."""

    @abstractmethod
    def parts(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """p and q of the output p x₀ + q ε, shaped like the level."""

    def network_input(self, noisy: Tensor, level: NoiseLevel) -> Tensor:
        """What the network sees of noisy latents `(B, *grid, c)`, so shaped."""
        return noisy

    def target(self, clean: Tensor, noise: Tensor, level: NoiseLevel) -> Tensor:
        """What the network should give, `(B, *grid, c)`, of latents and noise so shaped."""
        p, q = self.parts(level)
        return p * clean + q * noise

    def clean(self, output: Tensor, noisy: Tensor, level: NoiseLevel) -> Tensor:
        """The x₀ `(B, *grid, c)` that an output stands for, of the noisy latents `(B, *grid, c)`."""
        p, q = self.parts(level)
        return (q * noisy - level.noise * output) / (q * level.signal - p * level.noise)

    def error_ratio(self, level: NoiseLevel) -> Tensor:
        """By how much an error of the output is larger than that of the x₀ it stands for, shaped like the level."""
        p, q = self.parts(level)
        return ((q * level.signal - p * level.noise) / level.noise).abs()


class Epsilon(Objective):
    """The noise (Ho et al., 2020; the paper's choice)."""

    def parts(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """ε."""
        return torch.zeros_like(level.noise), torch.ones_like(level.noise)


class Velocity(Objective):
    """v = a ε − s x₀, where a² + s² = 1 (Salimans & Ho, 2022)."""

    def parts(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """v."""
        return -level.noise, level.signal


class StraightVelocity(Objective):
    """dx/du = ε − x₀ of the straight path (flow matching; Lipman et al., 2023)."""

    def parts(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """The velocity."""
        return -torch.ones_like(level.noise), torch.ones_like(level.noise)


@dataclass(frozen=True)
class Preconditioned(Objective):
    """(x₀ − c_skip x)/c_out from c_in x (Karras et al., 2022, Tab. 1).

    The network's error is that of x₀ over c_out, so the weight λ(σ) = 1/c_out² of theirs is in it already.

    Attributes:
        data_std: σ_data, of the latents.
    """

    data_std: float

    def parts(self, level: NoiseLevel) -> tuple[Tensor, Tensor]:
        """c_skip = σ_data²/(σ² + σ_data²) and c_out = σ σ_data/√(σ² + σ_data²) put in, where x = x₀ + σ ε."""
        total = self._total(level)
        return level.noise / (self.data_std * total), -self.data_std / total

    def network_input(self, noisy: Tensor, level: NoiseLevel) -> Tensor:
        """c_in x with c_in = 1/√(σ² + σ_data²): of variance 1."""
        return noisy / self._total(level)

    def _total(self, level: NoiseLevel) -> Tensor:
        """Standard deviation of a noisy latent."""
        return (level.noise**2 + self.data_std**2).sqrt()


def build_objective(config: DiffusionConfig) -> Objective:
    """What `config` lets the network predict."""
    match config.objective:
        case "epsilon":
            return Epsilon()
        case "v_prediction":
            return Velocity()
        case "flow_matching":
            return StraightVelocity()
        case "edm":
            return Preconditioned(config.data_std)
