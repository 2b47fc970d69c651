"""The functaset on disk: a Zarr v3 group of latents and of what is known about each of them.

Arrays, one row per latent, N rows: `latents (N, *grid, c)`, `labels (N,)`, `source_index (N,)`, `augmentation (N,)`,
`psnr (N,)`; quantised latents have `low` and `high (shards, *grid, c)` as well. Latents are stored raw; normalisation
(Eq. 1) is applied when they are used. The rows are written in shards, each whole and once (`writing`), `psnr` last: a
shard whose `psnr` is there has been finished.

Nothing wrong is read silently: every chunk carries a checksum, and the arrays' fill values are numbers that no stored
column contains, so that a lost file is noticed as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from spatial_functa_pipeline.config.functaset import StorageType
from spatial_functa_pipeline.fields.geometry import Interpolation
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.location import Location
from spatial_functa_pipeline.functasets.quantisation import MISSING, bits_of, dequantise

SCHEMA_VERSION = 2
MEMORY_LIMIT = 2 * 2**30
"""Bytes of latents, as they are stored, that each process holds in memory; more are streamed."""
NO_SOURCE = -1
"""`source_index` of a latent that was sampled rather than fitted to an image."""
_BUILDERS = {split: f"build_{split}_functaset" for split in ("train", "validation", "test")} | {
    "samples": "sample_latents"
}


class DamagedShardError(RuntimeError):
    """A shard's file is lost or does not pass its checksum."""


@dataclass(frozen=True)
class FunctasetHeader:
    """What a functaset is: two stores with equal headers hold the same rows.

    `split` is `train`, `validation`, `test` or `samples`; `fingerprint` stands for everything the latents depend on;
    `settings` is what else a reader should know, as JSON can hold it (of samples: sampler, guidance, seed).
    """

    dataset: str
    split: str
    latent_shape: LatentShape
    interpolation: Interpolation
    rows: int
    fingerprint: str = ""
    shard_rows: int = 2048
    chunk_rows: int = 64
    storage_type: StorageType = "float32"
    settings: dict[str, Any] = field(default_factory=dict)

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
    def bits(self) -> int | None:
        """Bits per latent dimension if the latents are quantised, else None."""
        return bits_of(self.storage_type)

    @property
    def how_to_build(self) -> str:
        """The command that builds the functaset, or what is missing or damaged of it."""
        return f"kedro run --nodes={_BUILDERS.get(self.split, f'build_{self.split}_functaset')}"

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

    def rows_of(self, array: str) -> int:
        """Length of an array's first axis: shards for the ranges of quantised latents, else rows."""
        return self.shards if array in ("low", "high") else self.rows

    def shape(self, column: str, rows: int) -> tuple[int, ...]:
        """Shape of `rows` rows of a column."""
        return (rows, *self.latent_shape.shape) if column in ("latents", "low", "high") else (rows,)

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
    `augmentation (n,)`: number of the augmented copy, 0 for the image itself; `psnr (n,)` in dB, NaN where unknown.
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


class Functaset:
    """A complete functaset, opened for reading.

    Nothing is read before it is used; the columns of one number per row are then kept. It is pickled as its location,
    so that each process opens its own files.
    """

    def __init__(self, url: str | Path, memory_limit: int = MEMORY_LIMIT) -> None:
        """Use `Functaset.open`."""
        attributes = read_attributes(url)
        if (version := attributes["schema_version"]) != SCHEMA_VERSION:
            raise ValueError(
                f"functaset {url} has schema version {version}, but this is version {SCHEMA_VERSION}; build it again, "
                "as in: kedro run --pipeline=functaset_build --params runtime.replace_stale=true"
            )
        self.header = FunctasetHeader.from_attributes(attributes)
        if not attributes["complete"]:
            raise ValueError(f"functaset {url} is incomplete; run again to finish: {self.header.how_to_build}")
        self.location = Location(url)
        self.mean_psnr: float | None = attributes["mean_psnr"]
        self._memory_limit = memory_limit
        self._group = zarr.open_group(self.location.store(read_only=True), mode="r")

    @classmethod
    def open(cls, url: str | Path, memory_limit: int = MEMORY_LIMIT) -> Functaset:
        """Open the functaset at `url`; `batch` holds its latents in memory if they are at most `memory_limit` bytes.

        Raises:
            FileNotFoundError: there is no functaset at `url`.
            ValueError: it is incomplete or of another schema version.
        """
        return cls(url, memory_limit)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.location.url, self._memory_limit)

    def __len__(self) -> int:
        return self.header.rows

    def __repr__(self) -> str:
        return f"Functaset({self.location.url!r}, {len(self)} × {self.latent_shape})"

    @property
    def latent_shape(self) -> LatentShape:
        """Shape `(*grid, c)` of one latent."""
        return self.header.latent_shape

    @cached_property
    def labels(self) -> np.ndarray:
        """Class of each row, int64 `(N,)`."""
        return self._read("labels", 0, len(self))

    @cached_property
    def source_index(self) -> np.ndarray:
        """Position in its split of the image behind each row, int64 `(N,)`; `NO_SOURCE` for samples."""
        return self._read("source_index", 0, len(self))

    @cached_property
    def augmentation(self) -> np.ndarray:
        """Number of the augmented copy, int32 `(N,)`; 0 for the image itself."""
        return self._read("augmentation", 0, len(self))

    @cached_property
    def psnr(self) -> np.ndarray:
        """PSNR of each row's reconstruction in dB, float32 `(N,)`; NaN where unknown."""
        return self._read("psnr", 0, len(self))

    @cached_property
    def originals(self) -> int:
        """Number of rows that are images themselves; augmented copies come after all of them."""
        return int((self.augmentation == 0).sum())

    @cached_property
    def in_memory(self) -> bool:
        """Whether `batch` holds all latents in memory."""
        return self._group["latents"].nbytes <= self._memory_limit

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Latents `(stop − start, *grid, c)` of consecutive rows as float32. Raises DamagedShardError, IndexError."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start}:{stop} are not within the {len(self)} rows of {self.location}")
        return self._decoded(self._read("latents", start, stop), np.arange(start, stop))

    def batch(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """Latents `(B, *grid, c)` of any rows in any order as float32. Raises DamagedShardError, IndexError."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(
                f"row {indices.min()} or {indices.max()} is not among the {len(self)} rows of {self.location}"
            )
        if self.in_memory:
            return torch.from_numpy(self._decoded(self._stored.take(indices, axis=0), indices))
        latents = np.empty((len(indices), *self.latent_shape.shape), np.float32)
        # A chunk is the least that can be read, so each is read once for all the rows wanted from it.
        chunks = indices // self.header.chunk_rows
        for chunk in np.unique(chunks):
            start = chunk * self.header.chunk_rows
            stop = min(start + self.header.chunk_rows, len(self))
            wanted = chunks == chunk
            latents[wanted] = self.rows(start, stop)[indices[wanted] - start]
        return torch.from_numpy(latents)

    @cached_property
    def _stored(self) -> np.ndarray:
        """All latents as they are stored."""
        return self._read("latents", 0, len(self))

    @cached_property
    def _ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """Range of each latent dimension in each shard, `low` and `high (shards, *grid, c)`, of quantised latents."""
        shards = range(self.header.shards)
        low, high = (
            np.concatenate([read_shard(self.location, self._group, self.header, column, shard) for shard in shards])
            for column in ("low", "high")
        )
        return low, high

    def _decoded(self, stored: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Latents of the rows `indices`, float32, of what is stored."""
        if not (bits := self.header.bits):
            return stored.astype(np.float32, copy=False)
        shards = indices // self.header.shard_rows
        low, high = self._ranges
        if shards.size and (shards == shards[0]).all():
            shards = shards[0]  # broadcast: rows that are read together are mostly of one shard
        return dequantise(stored, low[shards], high[shards], bits)

    def _read(self, column: str, start: int, stop: int) -> np.ndarray:
        array, shard_rows = self._group[column], self.header.shard_rows
        values = np.empty((stop - start, *array.shape[1:]), array.dtype)
        while start < stop:
            end = min((start // shard_rows + 1) * shard_rows, stop)
            rows = slice(start, end)
            values[len(values) - (stop - start) :][: end - start] = _checked(
                self.location, array, self.header, rows, start // shard_rows
            )
            start = end
        return values


def read_attributes(url: str | Path) -> dict[str, Any]:
    """Attributes of the functaset at `url`, complete or not: its header, `schema_version`, `complete` and `mean_psnr`.

    Raises FileNotFoundError if there is no functaset.
    """
    location, attributes = Location(url), {}
    if location.exists("zarr.json"):
        attributes = zarr.open_group(location.store(read_only=True), mode="r").attrs.asdict()
    if "schema_version" not in attributes:
        raise FileNotFoundError(
            f"there is no functaset at {url}; build it first: kedro run --pipeline=functaset_build "
            "(for samples: kedro run --pipeline=evaluation)"
        )
    return attributes


def array_types(header: FunctasetHeader) -> dict[str, np.dtype]:
    """All arrays in the order in which a shard's are written, and their types."""
    ranges = {"low": np.dtype(np.float32), "high": np.dtype(np.float32)} if header.bits else {}
    return ranges | header.columns


def read_shard(
    location: Location,
    arrays: Mapping[str, zarr.Array] | zarr.Group,
    header: FunctasetHeader,
    column: str,
    shard: int,
) -> np.ndarray:
    """What one array holds of a shard, as it is stored. Raises DamagedShardError."""
    rows = slice(shard, shard + 1) if column in ("low", "high") else slice(*header.bounds(shard))
    return _checked(location, arrays[column], header, rows, shard)


def shard_file(array: zarr.Array, shard: int) -> str:
    """The file, relative to the functaset, of what one array holds of a shard."""
    return f"{array.path}/{array.metadata.encode_chunk_key((shard, *(0,) * (array.ndim - 1)))}"


def fill_value(dtype: np.dtype) -> Any:
    """A number that no stored column contains."""
    if dtype.kind == "f":
        return -np.inf
    return MISSING if dtype == np.uint8 else np.iinfo(dtype).min


def _checked(location: Location, array: zarr.Array, header: FunctasetHeader, rows: slice, shard: int) -> np.ndarray:
    """Rows of one shard. Raises DamagedShardError if its file fails its checksum, or is lost, in whole or in part."""
    try:
        values, reason = array[rows], "is lost or truncated"
        # Zarr reads the fill value where there is nothing to read; a stored row never contains it.
        intact = not (values.reshape(len(values), -1)[:, 0] == array.fill_value).any()
    except ValueError as error:
        if "checksum" not in str(error):
            raise
        intact, reason = False, f"fails its checksum ({error})"
    if not intact:
        raise DamagedShardError(
            f"functaset {location}: shard {shard} of array {array.basename!r} ({shard_file(array, shard)}) {reason}; "
            f"this builds that shard alone again: {header.how_to_build} --params runtime.replace_stale=false "
            "(and the --env and --params that it was built with)"
        )
    return values
