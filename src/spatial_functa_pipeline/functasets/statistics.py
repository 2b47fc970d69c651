"""Means, standard deviations and ranges of a functaset (Eq. 1, App. C.4.1), computed in one pass with bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
import torch

from spatial_functa_pipeline.functasets.folding import fold_latents
from spatial_functa_pipeline.functasets.scheduling import SYNCHRONOUS, Scheduling
from spatial_functa_pipeline.functasets.store import Functaset

NormalisationKind = Literal["scalar", "vector", "array"]
KINDS: tuple[NormalisationKind, ...] = get_args(NormalisationKind)


@dataclass(frozen=True)
class Moments:
    """Mean μ and standard deviation σ over the training images, mirrored ones included, float64: `()`, `(c,)` or
    `(*grid, c)` by kind.

    `largest`, of the same shape, is the largest |z − μ|/σ of the numbers that share a μ: the range to which denoised ones
    may be clipped at γ = 1. A number that hardly varies may have a large one, and then has it alone. It is 0 where σ is 0.
    """

    mean: torch.Tensor
    std: torch.Tensor
    largest: torch.Tensor


@dataclass(frozen=True)
class LatentStatistics:
    """The moments of the three kinds of normalisation (App. C.4.1) and the number of latents they are taken over.

    σ is the population's (divided by N), and exactly 0 for an element that never varies; what is then divided by is
    the normaliser's matter.
    """

    count: int
    moments: Mapping[NormalisationKind, Moments]

    def to_tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Float64 tensors `<kind>_mean`, `<kind>_std` and `<kind>_largest`, and the metadata `count`."""
        tensors = {
            f"{kind}_{name}": value for kind, moments in self.moments.items() for name, value in vars(moments).items()
        }
        return tensors, {"count": self.count}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> LatentStatistics:
        """The inverse of `to_tensors`."""
        names = ("mean", "std", "largest")
        moments = {kind: Moments(*(tensors[f"{kind}_{name}"] for name in names)) for kind in KINDS}
        return cls(metadata["count"], moments)


def compute_statistics(functaset: Functaset, scheduling: Scheduling = SYNCHRONOUS) -> LatentStatistics:
    """Statistics in float64 of the latents of images and of mirrored images, all that a denoiser may train on; each is read
    once. Augmented copies do not count.

    `scheduling` says who reads; the result does not depend on it.

    Raises DamagedShardError, and what `Scheduling.run` raises.
    """
    whole = fold_latents(functaset, _Spread.of, scheduling)
    axes = {"scalar": None, "vector": tuple(range(whole.mean.ndim - 1)), "array": ()}
    return LatentStatistics(whole.count, {kind: whole.pooled(axes[kind]) for kind in KINDS})


@dataclass(frozen=True)
class _Spread:
    """How `count` latents are spread: each number's mean, sum of squared deviations and range, float64 `(*grid, c)`."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, latents: np.ndarray) -> Self:
        """Of latents `(n, *grid, c)`."""
        low, high, deviations = latents.min(axis=0), latents.max(axis=0), latents.astype(np.float64)
        mean = deviations.mean(axis=0)
        deviations -= mean
        squares = np.square(deviations, out=deviations).sum(axis=0)
        return cls(len(latents), mean, squares, low.astype(np.float64), high.astype(np.float64))

    def joined(self, other: Self) -> Self:
        """Of both together (Chan et al., 1979): a large mean does not swallow small deviations, as in E[z²] − E[z]²."""
        count, step = self.count + other.count, other.mean - self.mean
        return type(self)(
            count,
            self.mean + step * (other.count / count),
            self.squares + other.squares + np.square(step) * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def pooled(self, axes: tuple[int, ...] | None) -> Moments:
        """Moments over latents and over `axes` of the latent.

        Law of total variance: σ² is the mean of the numbers' variances plus the variance of their means.
        """
        variance = (self.squares / self.count).mean(axis=axes) + self.mean.var(axis=axes)
        mean, low, high = self.mean.mean(axis=axes), self.low.min(axis=axes), self.high.max(axis=axes)
        std = np.where(low == high, 0.0, np.sqrt(variance))  # exactly 0, whatever the rounding of the variance
        distance = np.maximum(high - mean, mean - low)
        largest = np.divide(distance, std, out=np.zeros_like(std), where=std > 0)
        return Moments(torch.as_tensor(mean), torch.as_tensor(std), torch.as_tensor(largest))
