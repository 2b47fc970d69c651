"""Means and standard deviations of a functaset (Eq. 1, App. C.4.1), computed in one pass with bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import dask
import dask.array as da
import numpy as np
import torch
from dask.base import compute

from spatial_functa_pipeline.functasets.store import Functaset

NormalisationKind = Literal["scalar", "vector", "array"]
KINDS: tuple[NormalisationKind, ...] = get_args(NormalisationKind)
_BLOCK_BYTES = 32 * 2**20
"""Latents are reduced in blocks of about this size: the float64 temporaries of a larger one fall out of the cache."""


@dataclass(frozen=True)
class Moments:
    """Mean μ and standard deviation σ over the training set, float64: `()`, `(c,)` or `(*grid, c)` by kind.

    `largest` is the largest |z − μ|/σ in the set: the range to which a denoised latent may be clipped at γ = 1.
    """

    mean: torch.Tensor
    std: torch.Tensor
    largest: float


@dataclass(frozen=True)
class LatentStatistics:
    """The moments of the three kinds of normalisation (App. C.4.1) and the number of latents they are taken over.

    σ is the population's (divided by N), and exactly 0 for an element that never varies; what is then divided by is
    the normaliser's matter.
    """

    count: int
    moments: Mapping[NormalisationKind, Moments]

    def to_tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Float64 tensors `<kind>_mean`, `<kind>_std`, and the metadata `count` and `largest` (by kind)."""
        tensors: dict[str, torch.Tensor] = {}
        for kind, moments in self.moments.items():
            tensors |= {f"{kind}_mean": moments.mean, f"{kind}_std": moments.std}
        return tensors, {"count": self.count, "largest": {kind: self.moments[kind].largest for kind in self.moments}}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> LatentStatistics:
        """The inverse of `to_tensors`."""
        moments = {
            kind: Moments(tensors[f"{kind}_mean"], tensors[f"{kind}_std"], metadata["largest"][kind]) for kind in KINDS
        }
        return cls(metadata["count"], moments)


def compute_statistics(functaset: Functaset) -> LatentStatistics:
    """Statistics of all latents of `functaset` but augmented copies', in float64; each latent is read once.

    Raises DamagedShardError.
    """
    latents = _as_dask(functaset)
    # One thread: the reading is what takes time, and memory stays at a few blocks.
    with dask.config.set(scheduler="synchronous"):
        mean, variance, low, high = compute(
            latents.mean(axis=0, dtype=np.float64),
            latents.var(axis=0, dtype=np.float64),
            latents.min(axis=0),
            latents.max(axis=0),
        )
    low, high = low.astype(np.float64), high.astype(np.float64)
    cells = tuple(range(mean.ndim - 1))
    moments = {
        kind: _pool(mean, variance, low, high, axes) for kind, axes in zip(KINDS, (None, cells, ()), strict=True)
    }
    return LatentStatistics(functaset.originals, moments)


def _as_dask(functaset: Functaset) -> da.Array:
    """The lazy latents `(N, *grid, c)`, float32, in blocks of whole chunks."""
    header = functaset.header
    shape = header.latent_shape.shape
    chunk_bytes = 4 * header.chunk_rows * int(np.prod(shape))
    block_rows = header.chunk_rows * max(1, _BLOCK_BYTES // chunk_bytes)

    def read(block_info: dict[Any, Any]) -> np.ndarray:
        (start, stop), *_ = block_info[None]["array-location"]
        return functaset.rows(start, stop)

    chunks = da.core.normalize_chunks((block_rows, *shape), shape=(functaset.originals, *shape))
    return da.map_blocks(read, chunks=chunks, dtype=np.float32, meta=np.empty((0,) * len(chunks), np.float32))


def _pool(mean: np.ndarray, variance: np.ndarray, low: np.ndarray, high: np.ndarray, axes: Any) -> Moments:
    """Moments over examples and over `axes` of the latent, from those over examples alone, all `(*grid, c)`.

    Law of total variance: σ² is the mean of the elements' variances plus the variance of their means.
    """
    mean, variance = mean.mean(axis=axes), variance.mean(axis=axes) + mean.var(axis=axes)
    low, high = low.min(axis=axes), high.max(axis=axes)
    std = np.where(low == high, 0.0, np.sqrt(variance))  # exactly 0, whatever the rounding of the variance
    distance = np.maximum(high - mean, mean - low)
    largest = np.divide(distance, std, out=np.zeros_like(std), where=std > 0).max()
    return Moments(torch.as_tensor(mean), torch.as_tensor(std), float(largest))
