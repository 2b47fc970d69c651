"""How the latents of a functaset are distributed: histograms and higher moments of each channel (App. C.4.1).

The paper finds them "non-Gaussian", with "heavy tails": in the kurtosis that is a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch

from spatial_functa_pipeline.functasets.folding import fold_latents
from spatial_functa_pipeline.functasets.rotation import rotated
from spatial_functa_pipeline.functasets.scheduling import SYNCHRONOUS, Scheduling
from spatial_functa_pipeline.functasets.statistics import LatentStatistics
from spatial_functa_pipeline.functasets.store import Functaset

EDGES = np.linspace(-12, 12, 97)
"""Of the bins of the histograms, in standard deviations from the mean; the outermost two hold what lies beyond them."""


@dataclass(frozen=True)
class LatentDistribution:
    """Of each channel, over `count` latents and their cells; x = (z − μ)/σ with the μ and σ that it was measured with.

    Attributes:
        count: of latents.
        histogram: how many x lie in each bin between `EDGES`, int64 `(c, bins)`.
        sums: of x, x², x³ and x⁴, float64 `(4, c)`.
        numbers: how many x each channel has, int64 `(c,)`: `count` times the cells.
    """

    count: int
    histogram: np.ndarray
    sums: np.ndarray
    numbers: np.ndarray

    @classmethod
    def of(
        cls,
        latents: np.ndarray,
        mean: np.ndarray,
        std: np.ndarray,
        rotation: torch.Tensor | None = None,
        channels: np.ndarray | None = None,
    ) -> Self:
        """Of latents `(n, *grid, c)`, rotated if there is a rotation; a channel whose σ is 0 has x = 0.

        Those of several scales are `(n, numbers)`, and `channels` says which channel each number is.
        """
        exact = latents.astype(np.float64)
        if rotation is not None:
            exact = rotated(torch.from_numpy(exact), rotation.double()).numpy()
        x = exact.reshape(-1, latents.shape[-1])
        channels = np.arange(len(mean)) if channels is None else channels
        x -= mean[channels]
        x *= np.divide(1, std, out=np.zeros_like(std), where=std > 0)[channels]
        powers = np.empty((4, len(mean)))
        power = x
        for order in range(4):
            powers[order] = np.bincount(channels, power.sum(axis=0))
            power = power * x
        bins = len(EDGES) - 1
        bin_of = ((x - EDGES[0]) / (EDGES[1] - EDGES[0])).clip(0, bins - 1).astype(np.int64)
        bin_of += bins * channels
        histogram = np.bincount(bin_of.ravel(), minlength=bins * len(mean)).reshape(-1, bins)
        return cls(len(latents), histogram, powers, len(x) * np.bincount(channels))

    def joined(self, other: Self) -> Self:
        """Of the latents of both."""
        return type(self)(
            self.count + other.count,
            self.histogram + other.histogram,
            self.sums + other.sums,
            self.numbers + other.numbers,
        )

    @property
    def skewness(self) -> np.ndarray:
        """E[(x − E x)³]/Var(x)^{3/2}, float64 `(c,)`: 0 of a symmetric distribution; NaN of a channel that never varies."""
        m1, m2, m3, _ = self.sums / self.numbers
        return _ratio(m3 - 3 * m1 * m2 + 2 * m1**3, (m2 - m1**2).clip(0) ** 1.5)

    @property
    def excess_kurtosis(self) -> np.ndarray:
        """E[(x − E x)⁴]/Var(x)² − 3, float64 `(c,)`: 0 of a normal distribution, above it with heavy tails; NaN of a channel
        that never varies.
        """
        m1, m2, m3, m4 = self.sums / self.numbers
        return _ratio(m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4, (m2 - m1**2) ** 2) - 3

    @property
    def density(self) -> np.ndarray:
        """The histograms as densities of x, float64 `(c, bins)`."""
        return self.histogram / (self.numbers[:, None] * np.diff(EDGES))


def compute_distribution(
    functaset: Functaset, statistics: LatentStatistics, scheduling: Scheduling = SYNCHRONOUS, at_most: int | None = None
) -> LatentDistribution:
    """The distribution of each channel in one pass with bounded memory (see `fold_latents`).

    Args:
        functaset: latents of images and of mirrored images count.
        statistics: its own; where latents are rotated, the distribution is that of rotated ones, too.
        scheduling: who reads.
        at_most: of the latents, about, spread evenly over all; None: all of them.

    Raises as `fold_latents` does.
    """
    moments = statistics.moments["vector"]
    mean, std = moments.mean.numpy(), moments.std.numpy()
    channels = None if statistics.channels is None else statistics.channels.numpy()
    measure = partial(LatentDistribution.of, mean=mean, std=std, rotation=statistics.rotation, channels=channels)
    return fold_latents(functaset, measure, scheduling, at_most)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
