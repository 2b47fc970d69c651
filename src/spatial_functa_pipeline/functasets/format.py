"""The functaset on disk: a Zarr v3 group of latents and of what is known about each of them.

Arrays, one row per latent, N rows: `latents (N, *grid, c)`, `labels (N,)`, `source_index (N,)`, `augmentation (N,)`,
`psnr (N,)`. Latents are stored raw; normalisation (Eq. 1) is applied when they are used. The rows are written in shards,
each whole and once (`writing`), `psnr` last: a shard whose `psnr` is there has been finished.

Quantised latents are codes, and `ranges (2, *grid, c)` is there as well: the lowest and the highest value of each latent
dimension over the training images, the same for every split and every shard.

A functaset may also be nothing but its attributes, which refer to another one that holds all arrays.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from spatial_functa_pipeline.config.functaset import StorageType
from spatial_functa_pipeline.fields.geometry import Interpolation
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.errors import MissingFunctasetError
from spatial_functa_pipeline.functasets.location import Location

SCHEMA_VERSION = 3
GROUP_FILE = "zarr.json"
"""The file of the group's attributes: without it there is no functaset."""
NO_SOURCE = -1
"""`source_index` of a latent that was sampled rather than fitted to an image."""
RANGES = "ranges"
"""The array of the ranges of quantised latents."""


@dataclass(frozen=True)
class FunctasetHeader:
    """What a functaset is: two stores with equal headers hold the same rows.

    `split` is `train`, `validation`, `test` or `samples`; `fingerprint` stands for everything the latents depend on but
    the images, and `images` is their digest (`describe_images`), empty if there are none, as of samples;
    `storage_type` is that of latents that are not quantised, `bits` those per latent dimension of such that are;
    `settings` is what else a reader should know, as JSON can hold it (of samples: sampler, guidance, seed);
    `refers_to` is the functaset that holds the rows in this one's place, as seen from the folder which this one is in.
    """

    dataset: str
    split: str
    latent_shape: LatentShape
    interpolation: Interpolation
    rows: int
    fingerprint: str = ""
    images: str = ""
    shard_rows: int = 2048
    chunk_rows: int = 64
    storage_type: StorageType = "float32"
    bits: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    refers_to: str | None = None

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"a functaset needs at least one row, but split {self.split!r} has {self.rows}")

    @property
    def shards(self) -> int:
        """Number of shards; the last one may hold fewer than `shard_rows` rows."""
        return -(-self.rows // self.shard_rows)

    def bounds(self, shard: int) -> tuple[int, int]:
        """First row of a shard and the row after its last."""
        return shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.rows)

    @property
    def columns(self) -> dict[str, np.dtype]:
        """The arrays with one row per latent, in the order in which a shard's are written, and their types on disk."""
        return {
            "latents": np.dtype("uint8" if self.bits else self.storage_type),
            "labels": np.dtype(np.int64),
            "source_index": np.dtype(np.int64),
            "augmentation": np.dtype(np.int32),
            "psnr": np.dtype(np.float32),
        }

    @property
    def arrays(self) -> dict[str, np.dtype]:
        """All arrays and their types on disk."""
        return ({RANGES: np.dtype(np.float32)} if self.bits else {}) | self.columns

    def rows_of(self, array: str) -> int:
        """Length of an array's first axis: lowest and highest value for the ranges of quantised latents, else rows."""
        return 2 if array == RANGES else self.rows

    def shape(self, array: str, rows: int) -> tuple[int, ...]:
        """Shape of `rows` rows of an array."""
        return (rows, *self.latent_shape.shape) if array in ("latents", RANGES) else (rows,)

    def to_attributes(self) -> dict[str, Any]:
        """As the attributes of the Zarr group."""
        return asdict(self) | {"schema_version": SCHEMA_VERSION, "latent_shape": str(self.latent_shape)}

    @classmethod
    def from_attributes(cls, attributes: dict[str, Any]) -> FunctasetHeader:
        """The inverse of `to_attributes`; other attributes of the group are left out."""
        values = {field.name: attributes[field.name] for field in fields(cls)}
        return cls(**values | {"latent_shape": LatentShape.parse(values["latent_shape"])})


@dataclass(frozen=True)
class Rows:
    """The columns of n consecutive rows.

    `latents (n, *grid, c)`, raw; `labels (n,)`; `source_index (n,)`: position of the image in its split;
    `augmentation (n,)`: number of the copy, see `augment`, 0 for the image itself; `psnr (n,)` in dB, NaN where unknown.
    """

    latents: np.ndarray
    labels: np.ndarray
    source_index: np.ndarray
    augmentation: np.ndarray
    psnr: np.ndarray

    @classmethod
    def of_samples(cls, latents: np.ndarray, labels: np.ndarray, psnr: np.ndarray | None = None) -> Rows:
        """Rows of latents `(n, *grid, c)` that were sampled: they have no source image and usually no PSNR."""
        n = len(latents)
        return cls(
            latents=latents,
            labels=labels,
            source_index=np.full(n, NO_SOURCE),
            augmentation=np.zeros(n, np.int32),
            psnr=np.full(n, np.nan, np.float32) if psnr is None else psnr,
        )


def read_attributes(url: str | Path) -> dict[str, Any]:
    """Attributes of the functaset at `url`, complete or not: its header, `schema_version`, `complete` and `mean_psnr`.

    Raises MissingFunctasetError.
    """
    location, attributes = Location(url), {}
    if location.exists(GROUP_FILE):
        attributes = zarr.open_group(location.store(read_only=True), mode="r").attrs.asdict()
    if "schema_version" not in attributes:
        raise MissingFunctasetError(str(url))
    return attributes
