"""Means, standard deviations and ranges of a functaset (Eq. 1, App. C.4.1), computed in one pass with bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self, get_args

import numpy as np
import torch

from spatial_functa_pipeline.config.normalization_stats import RotationKind, rotated_numbers
from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.scales import channel_of_numbers, split_scales
from spatial_functa_pipeline.functasets.folding import fold_latents
from spatial_functa_pipeline.functasets.rotation import random_orthogonal, rotated
from spatial_functa_pipeline.functasets.scheduling import SYNCHRONOUS, Scheduling
from spatial_functa_pipeline.functasets.store import Functaset

NormalisationKind = Literal["scalar", "vector", "array"]
KINDS: tuple[NormalisationKind, ...] = get_args(NormalisationKind)


@dataclass(frozen=True)
class Moments:
    """Mean μ and standard deviation σ over the training images, mirrored ones included, float64: `()`, `(c,)` or
    `(*grid, c)` by kind; of several scales with `(numbers,)` for the last, and the channels of all of them.

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

    With a `rotation` Q, float32, the moments are those of the rotated latents Qz.

    Attributes:
        channels: of latents of several scales, which channel each of their numbers is, int64 `(numbers,)`; None: of one
            grid, `(*grid, c)`.
    """

    count: int
    moments: Mapping[NormalisationKind, Moments]
    rotation: torch.Tensor | None = None
    channels: torch.Tensor | None = None

    def to_tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Float64 tensors `<kind>_mean`, `<kind>_std`, `<kind>_largest`; `rotation` and `channels` if there are any; and
        `count`."""
        tensors = {
            f"{kind}_{name}": value for kind, moments in self.moments.items() for name, value in vars(moments).items()
        }
        some = {"rotation": self.rotation, "channels": self.channels}
        return tensors | {name: tensor for name, tensor in some.items() if tensor is not None}, {"count": self.count}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> LatentStatistics:
        """The inverse of `to_tensors`."""
        names = ("mean", "std", "largest")
        moments = {kind: Moments(*(tensors[f"{kind}_{name}"] for name in names)) for kind in KINDS}
        return cls(metadata["count"], moments, tensors.get("rotation"), tensors.get("channels"))

    def of_numbers(self, kind: NormalisationKind) -> Moments:
        """The moments of a kind in a shape that latents can be normalised by: those of channels for each of their numbers."""
        moments = self.moments[kind]
        if kind != "vector" or self.channels is None:
            return moments
        return Moments(*(value[self.channels] for value in vars(moments).values()))


def compute_statistics(
    functaset: Functaset, scheduling: Scheduling = SYNCHRONOUS, rotation: RotationKind | None = None
) -> LatentStatistics:
    """Statistics in float64 of the latents of images and of mirrored images, all that a denoiser may train on; each is read
    once. Augmented copies do not count.

    `scheduling` says who reads; the result does not depend on it.

    With a `rotation` they are those of latents turned by a random orthogonal matrix. It is drawn from what the functaset's
    header says that the latents depend on: another field, hence another seed of a run, has another one.

    Raises DamagedShardError, and what `Scheduling.run` raises.
    """
    turn = None if rotation is None else _Turn.of(functaset, rotation)
    whole = fold_latents(functaset, partial(_Spread.of, turn=turn), scheduling)
    shape = functaset.latent_shape
    moments: dict[NormalisationKind, Moments] = {
        "scalar": whole.pooled(None),
        "vector": whole.of_channels(shape),
        "array": whole.pooled(()),
    }
    channels = channel_of_numbers(shape) if shape.coarser else None
    return LatentStatistics(whole.count, moments, turn.matrix if turn else None, channels)


@dataclass(frozen=True)
class _Spread:
    """How `count` latents are spread: each number's mean, sum of squared deviations and range, float64 `(*grid, c)`."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, latents: np.ndarray, turn: _Turn | None = None) -> Self:
        """Of latents `(n, *grid, c)`; with a `turn`, of the rotated ones."""
        latents = turn(latents) if turn else latents
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

    def of_channels(self, shape: LatentShape) -> Moments:
        """Moments of each channel `(c,)`, over latents and cells; of several scales one after the other."""
        if not shape.coarser:
            return self.pooled(tuple(range(self.mean.ndim - 1)))
        arrays = (self.mean, self.squares, self.low, self.high)
        scales = zip(*(split_scales(torch.from_numpy(array), shape) for array in arrays), strict=True)
        parts = [
            type(self)(self.count, *(part.flatten(0, -2).numpy() for part in scale)).pooled((0,)) for scale in scales
        ]
        return Moments(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))

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


@dataclass(frozen=True)
class _Turn:
    """Rotates latents by `matrix`, float32, computing in float64.

    What is rotated are differences from one of them, `origin` `(1, *grid, c)`: so the numbers of a cell that never varies
    do not vary afterwards either, not even by rounding.
    """

    matrix: torch.Tensor
    origin: np.ndarray

    @classmethod
    def of(cls, functaset: Functaset, kind: RotationKind) -> Self:
        """The functaset's own."""
        header = functaset.header
        seed = int(short_digest([f"rotation {header.fingerprint} {header.images}".encode()]), 16)
        return cls(random_orthogonal(rotated_numbers(kind, header.latent_shape), seed), functaset.rows(0, 1))

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """`(n, *grid, c)`, float64, of latents so shaped."""
        matrix, origin = self.matrix.double(), torch.from_numpy(self.origin).double()
        deviations = torch.from_numpy(latents.astype(np.float64)) - origin
        return (rotated(deviations, matrix) + rotated(origin, matrix)).numpy()
