"""The functaset on disk: a Zarr v3 group of latents and of what is known about each of them.

Arrays, one row per latent, N rows: `latents (N, *grid, c)`, `labels (N,)`, `source_index (N,)`, `augmentation (N,)`,
`psnr (N,)`. Latents are stored raw; normalisation (Eq. 1) is applied when they are used. The rows are written in
shards, each whole and once, and `shard_done` is set last, so that an interrupted build continues where it stopped.

Nothing wrong is read silently: every chunk carries a checksum, and the arrays' fill values are numbers that no stored
column contains, so that a lost file is noticed as well.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import zarr
from tqdm import tqdm
from zarr.codecs import Crc32cCodec

from spatial_functa_pipeline.config import Interpolation, LatentShape

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
NO_SOURCE = -1
"""`source_index` of a latent that was sampled rather than fitted to an image."""
_HOW_TO_BUILD = "kedro run --pipeline=functaset_build (for samples: kedro run --pipeline=evaluation)"


class DamagedShardError(RuntimeError):
    """A shard's file is lost or does not pass its checksum."""


@dataclass(frozen=True)
class FunctasetHeader:
    """What a functaset is: two stores with equal headers hold the same rows.

    `split` is `train`, `validation`, `test` or `samples`; `fingerprint` stands for everything the latents depend on.
    """

    dataset: str
    split: str
    latent_shape: LatentShape
    interpolation: Interpolation
    rows: int
    fingerprint: str = ""
    shard_rows: int = 2048
    chunk_rows: int = 64
    storage_dtype: Literal["float32", "float16"] = "float32"

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


@dataclass(frozen=True)
class FunctasetPlan:
    """A functaset yet to be written: `encode(start, stop)` returns its rows start, …, stop − 1.

    `encode` is called once for each shard that is still to be written, and must depend on the rows alone.
    """

    header: FunctasetHeader
    encode: Callable[[int, int], Rows]
    progress: bool = True


def write(path: str | Path, plan: FunctasetPlan) -> None:
    """Write the functaset at `path`, or finish it if it has been begun.

    Shards that are there and intact are kept. A functaset with another header is replaced by a new one.

    Raises:
        ValueError: `plan.encode` returned a column of a wrong shape, or a latent that is not finite as it is stored.
        TypeError: a column has a type that does not fit the stored one (fractional labels, say).
        FileExistsError: `path` holds something that is not a functaset.
    """
    path, header = Path(path), plan.header
    if path.exists():
        _remove_if_different(path, header)
    if not path.exists():
        _create(path, header)

    group = zarr.open_group(path, mode="r+")
    psnr = np.full(header.rows, np.nan)
    begun = np.flatnonzero(group["shard_done"][:]).tolist()
    pending = sorted(set(range(header.shards)) - set(begun))
    for shard in tqdm(begun, f"checking {path.name}", unit="shard", leave=False, disable=not (plan.progress and begun)):
        start, stop = header.bounds(shard)
        try:
            psnr[start:stop] = _read_shard(path, group, header, shard)["psnr"]
        except DamagedShardError as damage:
            logger.warning("%s Building it anew.", damage)
            pending.append(shard)
    if not pending and group.attrs["complete"]:
        return

    group.attrs["complete"] = False
    with tqdm(
        desc=f"{header.dataset} {header.split}",
        total=header.rows,
        initial=header.rows - sum(stop - start for start, stop in map(header.bounds, pending)),
        unit="image",
        disable=not plan.progress,
    ) as bar:
        for shard in pending:
            start, stop = header.bounds(shard)
            columns = _checked_columns(plan.encode(start, stop), header, start, stop)
            _write_shard(path, group, shard, columns, start, stop)
            psnr[start:stop] = columns["psnr"]
            if (mean := _mean_psnr(psnr)) is not None:
                bar.set_postfix_str(f"{mean:.2f} dB", refresh=False)
            bar.update(stop - start)
    group.attrs.update({"complete": True, "mean_psnr": _mean_psnr(psnr)})


class Functaset:
    """A complete functaset, opened for reading.

    Nothing is read before it is used; the columns of one number per row are then kept. It is pickled as its path, so
    that each process opens its own files.
    """

    def __init__(self, path: str | Path, memory_limit: int = 2 * 2**30) -> None:
        """Use `Functaset.open`."""
        attributes = read_attributes(path)
        if (version := attributes["schema_version"]) != SCHEMA_VERSION:
            raise ValueError(
                f"functaset {path} has schema version {version}, but this is version {SCHEMA_VERSION}; "
                f"build it again: {_HOW_TO_BUILD}"
            )
        if not attributes["complete"]:
            raise ValueError(f"functaset {path} is incomplete; run again to finish: {_HOW_TO_BUILD}")
        self.path = Path(path)
        self.header = FunctasetHeader.from_attributes(attributes)
        self.mean_psnr: float | None = attributes["mean_psnr"]
        self._memory_limit = memory_limit
        self._group = zarr.open_group(self.path, mode="r")

    @classmethod
    def open(cls, path: str | Path, memory_limit: int = 2 * 2**30) -> Functaset:
        """Open the functaset at `path`; `batch` holds its latents in memory if they are at most `memory_limit` bytes.

        Raises:
            FileNotFoundError: there is no functaset at `path`.
            ValueError: it is incomplete or of another schema version.
        """
        return cls(path, memory_limit)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self._memory_limit)

    def __len__(self) -> int:
        return self.header.rows

    def __repr__(self) -> str:
        return f"Functaset({str(self.path)!r}, {len(self)} × {self.latent_shape})"

    @property
    def latent_shape(self) -> LatentShape:
        """Shape `(*grid, c)` of one latent."""
        return self.header.latent_shape

    @property
    def latents(self) -> zarr.Array:
        """The lazy array `(N, *grid, c)` in the storage type; `rows` and `batch` notice a lost shard, this does not."""
        return self._group["latents"]

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

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Latents `(stop − start, *grid, c)` of consecutive rows as float32. Raises DamagedShardError, IndexError."""
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start}:{stop} are not within the {len(self)} rows of {self.path}")
        return self._read("latents", start, stop).astype(np.float32, copy=False)

    def batch(self, indices: Sequence[int] | np.ndarray | torch.Tensor) -> torch.Tensor:
        """Latents `(B, *grid, c)` of any rows in any order as float32. Raises DamagedShardError, IndexError."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"row {indices.min()} or {indices.max()} is not among the {len(self)} rows of {self.path}")
        if self._in_memory is not None:
            return self._in_memory[torch.from_numpy(indices)].float()
        latents = np.empty((len(indices), *self.latent_shape.shape), np.float32)
        # A chunk is the least that can be read, so each is read once for all the rows wanted from it.
        chunks = indices // self.header.chunk_rows
        for chunk in np.unique(chunks):
            start = chunk * self.header.chunk_rows
            stop = min(start + self.header.chunk_rows, len(self))
            wanted = chunks == chunk
            latents[wanted] = self._read("latents", start, stop)[indices[wanted] - start]
        return torch.from_numpy(latents)

    @cached_property
    def _in_memory(self) -> torch.Tensor | None:
        """All latents in the storage type, or None if they exceed the limit."""
        if self.latents.nbytes > self._memory_limit:
            return None
        return torch.from_numpy(self._read("latents", 0, len(self)))

    def _read(self, column: str, start: int, stop: int) -> np.ndarray:
        array, shard_rows = self._group[column], self.header.shard_rows
        values = np.empty((stop - start, *array.shape[1:]), array.dtype)
        while start < stop:
            end = min((start // shard_rows + 1) * shard_rows, stop)
            values[len(values) - (stop - start) :][: end - start] = _read_within_shard(self.path, array, start, end)
            start = end
        return values


def read_attributes(path: str | Path) -> dict[str, Any]:
    """Attributes of the functaset at `path`, complete or not: its header, `schema_version`, `complete` and `mean_psnr`.

    Raises FileNotFoundError if there is no functaset.
    """
    attributes: dict[str, Any] = {}
    if (Path(path) / "zarr.json").exists():
        attributes = zarr.open_group(path, mode="r").attrs.asdict()
    if "schema_version" not in attributes:
        raise FileNotFoundError(f"there is no functaset at {path}; build it first: {_HOW_TO_BUILD}")
    return attributes


def _columns(header: FunctasetHeader) -> dict[str, np.dtype]:
    return {
        "latents": np.dtype(header.storage_dtype),
        "labels": np.dtype(np.int64),
        "source_index": np.dtype(np.int64),
        "augmentation": np.dtype(np.int32),
        "psnr": np.dtype(np.float32),
    }


def _shape(column: str, rows: int, header: FunctasetHeader) -> tuple[int, ...]:
    return (rows, *header.latent_shape.shape) if column == "latents" else (rows,)


def _remove_if_different(path: Path, header: FunctasetHeader) -> None:
    """Keep the functaset at `path` only if its header is `header`."""
    try:
        stored = read_attributes(path)
    except FileNotFoundError as error:
        raise FileExistsError(f"{path} exists and is not a functaset; remove it or choose another path") from error
    wanted = header.to_attributes()
    different = [
        f"{key}: {stored.get(key)!r}, now {value!r}" for key, value in wanted.items() if stored.get(key) != value
    ]
    if different:
        logger.warning("Replacing functaset %s, which differs in %s.", path, "; ".join(different))
        # Renamed first: a removal that is interrupted must not leave half a functaset under the functaset's name.
        _remove(retired := path.with_name(f"{path.name}.replaced"))
        path.rename(retired)
        _remove(retired)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _create(path: Path, header: FunctasetHeader) -> None:
    """Make the empty functaset beside `path` and rename it, so that what is at `path` always has all its arrays."""
    _remove(new := path.with_name(f"{path.name}.new"))
    attributes = header.to_attributes() | {"complete": False, "mean_psnr": None}
    group = zarr.create_group(new, attributes=attributes)
    for column, dtype in _columns(header).items():
        sharded = column == "latents"
        group.create_array(
            column,
            shape=_shape(column, header.rows, header),
            chunks=_shape(column, header.chunk_rows if sharded else header.shard_rows, header),
            shards=_shape(column, header.shard_rows, header) if sharded else None,
            dtype=dtype,
            fill_value=-np.inf if dtype.kind == "f" else np.iinfo(dtype).min,
            filters=None,
            compressors=[Crc32cCodec()],  # latents hardly compress, and a checksum runs at the speed of the disk
        )
    group.create_array("shard_done", shape=(header.shards,), chunks=(1,), dtype="uint8", fill_value=0)
    new.rename(path)


def _checked_columns(rows: Rows, header: FunctasetHeader, start: int, stop: int) -> dict[str, np.ndarray]:
    """The columns in their storage types. Raises ValueError or TypeError as `write` describes."""
    columns = {}
    for column, dtype in _columns(header).items():
        values, shape = np.asarray(getattr(rows, column)), _shape(column, stop - start, header)
        if values.shape != shape:
            raise ValueError(f"rows {start}:{stop}: {column} has shape {values.shape}, but {shape} was expected")
        with np.errstate(over="ignore"):  # found just below, with its row
            columns[column] = values.astype(dtype, casting="same_kind", copy=False)
    finite = np.isfinite(columns["latents"]).reshape(stop - start, -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"the latent of row {start + np.argmin(finite)} is not finite as {header.storage_dtype}: the field's inner "
            "loop has diverged for this image, or its values exceed the storage type"
        )
    return columns


def _write_shard(
    path: Path, group: zarr.Group, shard: int, columns: dict[str, np.ndarray], start: int, stop: int
) -> None:
    for column, values in columns.items():
        # Zarr may read a shard that it is about to replace, which fails if that one is damaged.
        _shard_file(path, group[column], shard).unlink(missing_ok=True)
        group[column][start:stop] = values
    group["shard_done"][shard] = 1


def _read_shard(path: Path, group: zarr.Group, header: FunctasetHeader, shard: int) -> dict[str, np.ndarray]:
    """All columns of one shard. Raises DamagedShardError."""
    return {column: _read_within_shard(path, group[column], *header.bounds(shard)) for column in _columns(header)}


def _read_within_shard(path: Path, array: zarr.Array, start: int, stop: int) -> np.ndarray:
    """Rows of one shard. Raises DamagedShardError if its file fails its checksum, or is lost, in whole or in part."""
    try:
        values, reason = array[start:stop], "is lost or truncated"
        # Zarr reads the fill value where there is nothing to read; a stored row never contains it.
        intact = not (values.reshape(stop - start, -1)[:, 0] == array.fill_value).any()
    except ValueError as error:
        if "checksum" not in str(error):
            raise
        intact, reason = False, f"fails its checksum ({error})"
    if not intact:
        shard = start // (array.shards or array.chunks)[0]
        file = _shard_file(path, array, shard).relative_to(path)
        raise DamagedShardError(
            f"functaset {path}: shard {shard} of array {array.basename!r} ({file}) {reason}; "
            f"run again to mend it: {_HOW_TO_BUILD}."
        )
    return values


def _shard_file(path: Path, array: zarr.Array, shard: int) -> Path:
    return path / array.path / array.metadata.encode_chunk_key((shard, *(0,) * (array.ndim - 1)))


def _mean_psnr(psnr: np.ndarray) -> float | None:
    """Mean over the rows that have a PSNR, or None if none has."""
    known = psnr[~np.isnan(psnr)]
    return float(known.mean()) if known.size else None
