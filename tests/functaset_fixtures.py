from pathlib import Path

import numpy as np
import pytest

from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.quantisation import Quantiser, Ranges
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, write


class RecordingEncoder:
    """Rows of known latents; remembers what it was asked for, and can fail when asked for one row."""

    def __init__(self, latents: np.ndarray, originals: int) -> None:
        n = len(latents)
        self.all = Rows(
            latents=latents,
            labels=np.arange(n) % 10,
            source_index=np.arange(n) // 2,
            augmentation=np.arange(n) // originals,
            psnr=20 + np.arange(n, dtype=np.float32),
        )
        self.calls: list[tuple[int, int]] = []
        self.fails_at: int | None = None

    def __call__(self, start: int, stop: int) -> Rows:
        if self.fails_at is not None and start <= self.fails_at < stop:
            raise InterruptedError("power cut")
        self.calls.append((start, stop))
        return Rows(**{name: column[start:stop] for name, column in vars(self.all).items()})


def plan_of(latents: np.ndarray, originals: int = 3, **changes) -> FunctasetPlan:
    """A plan for `latents (N, *grid, c)` in shards of 4 rows and chunks of 2; copies follow `originals` images.

    With `bits` they are quantised over the ranges of all of them.
    """
    _, *grid, channels = latents.shape
    values = {
        "dataset": "toy",
        "split": "train",
        "latent_shape": LatentShape(tuple(grid), channels),
        "interpolation": "nearest",
        "rows": len(latents),
        "fingerprint": "f00",
        "shard_rows": 4,
        "chunk_rows": 2,
    }
    header, ranges = FunctasetHeader(**values | changes), None
    if header.bits:
        ranges = Ranges.of(latents)
        latents = Quantiser(ranges, header.bits).codes(latents)
    return FunctasetPlan(header, RecordingEncoder(latents, originals), progress=False, ranges=ranges)


@pytest.fixture
def make_plan():
    return plan_of


@pytest.fixture
def make_functaset(tmp_path: Path):
    """Write latents, by default all of images themselves, and open the result."""

    def make(latents: np.ndarray, originals: int | None = None, **changes) -> Functaset:
        write(tmp_path / "made.zarr", plan_of(latents, originals or len(latents), **changes))
        return Functaset.open(tmp_path / "made.zarr")

    return make


@pytest.fixture
def latents() -> np.ndarray:
    """11 latents of 2×2×3: two full shards of 4 and one of 3."""
    return np.random.default_rng(0).normal(size=(11, 2, 2, 3)).astype(np.float32)
