"""Paths from data to noise: how much of a latent, and how much noise, there is at each noise level.

A noisy latent is x = a x₀ + s ε with ε ~ N(0, 1). A path says which pairs (a, s) there are, which of them a training sees
(`draw`), and over which a sampler goes (`grid`).

Shapes: B latents with their grid and c channels, `(B, *grid, c)`; T time steps of the discrete path.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from spatial_functa_pipeline.config.diffusion import DiffusionConfig

RHO = 7.0
LEAST_NOISE, MOST_NOISE = 0.002, 80.0
"""The levels that EDM samples at, σ_min, σ_max and ρ of Karras et al. (2022), Tab. 1, for data of standard deviation 0.5."""
KARRAS_DATA_STD = 0.5


@dataclass(frozen=True)
class NoiseLevel:
    """One noise level, or one for each latent: x = `signal` x₀ + `noise` ε.

    Attributes:
        signal: a, `()` or `(B,)`.
        noise: s, shaped like it.
        time: what the network is told of the level, shaped like it, in [0, 1000): the step of the discrete path.
    """

    signal: Tensor
    noise: Tensor
    time: Tensor

    @property
    def ratio(self) -> Tensor:
        """σ = s/a, infinite for pure noise: what compares the levels of one path with those of another."""
        return self.noise / self.signal

    def mix(self, clean: Tensor, noise: Tensor) -> Tensor:
        """The noisy latents `(B, *grid, c)` of clean ones and standard normal noise, both so shaped."""
        return self.signal * clean + self.noise * noise

    def over(self, latents: Tensor) -> NoiseLevel:
        """The levels `(B,)` as `(B, 1, …, 1)`, to be multiplied with latents `(B, *grid, c)`, on their device."""
        shape = (-1, *[1] * (latents.ndim - 1))
        return NoiseLevel(*(part.to(latents.device).view(shape) for part in (self.signal, self.noise, self.time)))

    def __getitem__(self, index: int) -> NoiseLevel:
        return NoiseLevel(self.signal[index], self.noise[index], self.time[index])


CLEAN = NoiseLevel(*torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
"""No noise: where every sampler ends."""


class Path(ABC):
    """The noise levels of one kind of process."""

    @abstractmethod
    def draw(self, count: int, generator: torch.Generator) -> NoiseLevel:
        """Levels for a training's `count` latents, `(count,)`, float32, on the CPU."""

    @abstractmethod
    def grid(self, steps: int, time_shift: float = 1.0) -> list[NoiseLevel]:
        """Levels `()` of a sampler's steps, float64, from the most noise to `CLEAN`: `steps` + 1 of them."""

    def excess(self, level: NoiseLevel) -> Tensor | None:
        """What the errors at these levels of `draw` are to be divided by, `(count,)`; None: nothing."""
        return None


@dataclass(frozen=True)
class DiscretePath(Path):
    """a² + s² = 1 at T time steps, of which ε and v are predicted: a = √ᾱ_t.

    Attributes:
        alpha_bars: ᾱ_t `(T,)`, float32.
        probabilities: of a training's drawing each time step, `(T,)`, float64.
        reweighted: whether the loss is to have the expectation of uniform time steps.
    """

    alpha_bars: Tensor
    probabilities: Tensor
    reweighted: bool

    def at(self, timesteps: Tensor) -> NoiseLevel:
        """The levels of time steps `(…)`, int64, in the precision of `alpha_bars`."""
        alpha_bars = self.alpha_bars[timesteps]
        return NoiseLevel(alpha_bars.sqrt(), (1 - alpha_bars).sqrt(), timesteps.to(alpha_bars.dtype))

    def draw(self, count: int, generator: torch.Generator) -> NoiseLevel:
        """By `probabilities` (App. C.4.3)."""
        return self.at(torch.multinomial(self.probabilities, count, replacement=True, generator=generator))

    def excess(self, level: NoiseLevel) -> Tensor | None:
        """p(t)·T, how much more often than others a time step is drawn, if they are `reweighted`."""
        return self.probabilities[level.time.long()] * len(self.probabilities) if self.reweighted else None

    def grid(self, steps: int, time_shift: float = 1.0) -> list[NoiseLevel]:
        """Evenly spaced time steps from the last on: the first latent is pure noise, as it was in training."""
        count = len(self.alpha_bars)
        timesteps = torch.tensor([count * step // steps - 1 for step in range(steps, 0, -1)])
        exact = DiscretePath(self.alpha_bars.double(), self.probabilities, self.reweighted)
        return _levels(exact.at(timesteps))


@dataclass(frozen=True)
class StraightPath(Path):
    """x_u = (1 − u) x₀ + u ε for u in [0, 1], of which the velocity is predicted (flow matching; Lipman et al., 2023).

    Attributes:
        mean, std: of log(u/(1 − u)) = log(s/a), which is normal in a training (Esser et al., 2024).
    """

    mean: float
    std: float

    def at(self, share: Tensor) -> NoiseLevel:
        """The levels of u `(…)`."""
        return NoiseLevel(1 - share, share, 1000 * share)

    def draw(self, count: int, generator: torch.Generator) -> NoiseLevel:
        """Logit-normal u."""
        return self.at(_log_ratios(self, count, generator).sigmoid())

    def grid(self, steps: int, time_shift: float = 1.0) -> list[NoiseLevel]:
        """Even u, shifted towards noise by `time_shift` > 1: u ↦ su/(1 + (s − 1)u) (Esser et al., 2024, Eq. 23)."""
        share = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1]
        return _levels(self.at(time_shift * share / (1 + (time_shift - 1) * share)))


@dataclass(frozen=True)
class ExplodingPath(Path):
    """x_σ = x₀ + σ ε, EDM's (Karras et al., 2022).

    Attributes:
        mean, std: of log σ, which is normal in a training.
        data_std: standard deviation of the latents; the sampler's levels are in units of it.
    """

    mean: float
    std: float
    data_std: float

    def at(self, noise: Tensor) -> NoiseLevel:
        """The levels of σ `(…)`."""
        return NoiseLevel(torch.ones_like(noise), noise, 1000 * noise / (1 + noise))

    def draw(self, count: int, generator: torch.Generator) -> NoiseLevel:
        """Log-normal σ."""
        return self.at(_log_ratios(self, count, generator).exp())

    def grid(self, steps: int, time_shift: float = 1.0) -> list[NoiseLevel]:
        """Even in σ^(1/ρ) from σ_max to σ_min, then none (Karras et al., 2022, Eq. 5)."""
        most, least = (self.data_std / KARRAS_DATA_STD * noise for noise in (MOST_NOISE, LEAST_NOISE))
        return _levels(
            self.at(torch.linspace(most ** (1 / RHO), least ** (1 / RHO), steps, dtype=torch.float64) ** RHO)
        )


def build_path(config: DiffusionConfig) -> Path:
    """The path of the objective of `config`."""
    match config.objective:
        case "epsilon" | "v_prediction":
            probabilities = timestep_probabilities(config.timesteps, config.timestep_ratio)
            return DiscretePath(noise_schedule(config), probabilities, config.timestep_reweighting)
        case "flow_matching":
            return StraightPath(*_training_levels(config, mean=0.0, std=1.0))
        case "edm":
            # Tab. 1 of Karras et al. (2022) is for data of standard deviation 0.5.
            shift = math.log(config.data_std / KARRAS_DATA_STD)
            return ExplodingPath(*_training_levels(config, mean=-1.2 + shift, std=1.2), config.data_std)


def noise_schedule(config: DiffusionConfig) -> Tensor:
    """ᾱ_t for t = 0, …, T − 1, `(T,)`, float32: cosine (Nichol & Dhariwal, 2021) or linear (Ho et al., 2020).

    The linear β of Ho et al. run from 1e-4 to 0.02 in 1,000 steps; for another T they are scaled by 1000/T, so that
    the last step is pure noise for every T. `DiffusionConfig` sees to it that they stay below 1.
    """
    if config.noise_schedule == "linear":
        scale = 1000 / config.timesteps
        betas = torch.linspace(1e-4 * scale, 0.02 * scale, config.timesteps)
    else:
        signals = [
            math.cos((step / config.timesteps + 0.008) / 1.008 * math.pi / 2) ** 2
            for step in range(config.timesteps + 1)
        ]
        betas = torch.tensor([min(1 - after / before, 0.999) for before, after in pairwise(signals)])
    return (1 - betas).cumprod(0)


def timestep_probabilities(timesteps: int, ratio: float) -> Tensor:
    """Probabilities `(T,)`, float64, of drawing each time step: linear, with p(0) / p(T − 1) = `ratio` (App. C.4.3)."""
    weights = torch.linspace(ratio, 1, timesteps, dtype=torch.float64)
    return weights / weights.sum()


def _training_levels(config: DiffusionConfig, mean: float, std: float) -> tuple[float, float]:
    """Mean and standard deviation of log(s/a) in training: those of `config`, or else these."""
    given = config.noise_level
    return (mean if given.mean is None else given.mean, std if given.std is None else given.std)


def stratified_normal(count: int, generator: torch.Generator) -> Tensor:
    """Standard normal numbers `(count,)`, float32: one from each of as many equal shares of the distribution, in any order.

    So each batch of a training sees all noise levels, which makes its loss less random. As a function of torch to those
    who override them, it can be made to draw for a whole batch at once.
    """
    if has_torch_function((generator,)):
        return handle_torch_function(stratified_normal, (generator,), count, generator)
    shares = torch.randperm(count, generator=generator) + torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.special.ndtri(shares / count).float()


def _log_ratios(path: StraightPath | ExplodingPath, count: int, generator: torch.Generator) -> Tensor:
    """log(s/a) `(count,)` of a training's latents."""
    return path.mean + path.std * stratified_normal(count, generator)


def _levels(levels: NoiseLevel) -> list[NoiseLevel]:
    """The levels `(N,)` one by one, and then `CLEAN`."""
    return [*(levels[index] for index in range(len(levels.signal))), CLEAN]
