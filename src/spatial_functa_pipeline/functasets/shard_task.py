"""Building one shard: what is there and intact is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from zarr.core.array_spec import ArrayConfigParams
from zarr.types import AnyArray

from spatial_functa_pipeline.functasets.errors import DamagedShardError, NonFiniteLatentError
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.location import Location
from spatial_functa_pipeline.functasets.shards import array_of, read_shard, shard_file

_ENCODING = threading.Lock()
"""A worker may have several threads, but PyTorch's random numbers and its precision are the process's."""


@dataclass(frozen=True)
class ShardReport:
    """What comes back from the process that wrote, or checked, a shard."""

    shard: int
    rows: int
    psnr_sum: float
    psnr_count: int
    bytes_written: int
    damage: str | None = None


@dataclass(frozen=True)
class ShardTask:
    """Makes sure that a shard is there and intact. It opens the store itself."""

    location: Location
    header: FunctasetHeader
    encode: Callable[[int, int], Rows]

    def __call__(self, shard: int) -> ShardReport:
        """Keep the shard if all of it passes its checksums, else encode and write it.

        Raises ValueError or TypeError for rows that cannot be stored, see `write`.
        """
        files = {name: shard_file(array, shard) for name, array in self._arrays.items()}
        start, stop = self.header.bounds(shard)
        psnr, damage, written = None, None, 0
        if self.location.exists(files["psnr"]):
            try:
                stored = {
                    name: read_shard(self.location, array, self.header, shard) for name, array in self._arrays.items()
                }
                psnr = stored["psnr"]
            except DamagedShardError as error:
                damage = str(error)
        if psnr is None:
            with _ENCODING:
                rows = self.encode(start, stop)
            columns = _columns(rows, self.header, start, stop)
            psnr = columns["psnr"]
            # Zarr may read what it is about to replace, which fails if that is damaged; psnr, which says that a shard is
            # finished, goes first and comes last.
            for name in reversed(files):
                self.location.delete(files[name])
            for name in files:
                self._arrays[name][start:stop] = columns[name]
            written = self.location.size(*files.values())
        known = psnr[~np.isnan(psnr)].astype(np.float64)
        return ShardReport(shard, stop - start, known.sum().item(), known.size, written, damage)

    @cached_property
    def _arrays(self) -> dict[str, AnyArray]:
        """In the order in which they are written; opened once by each process."""
        group = zarr.open_group(self.location.store(read_only=False), mode="r+")
        # By default Zarr writes no file where all is the fill value, as a shard of 8-bit codes may be.
        written: ArrayConfigParams = {"write_empty_chunks": True}
        return {name: array_of(group, name).with_config(written) for name in self.header.columns}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_arrays"}


def _columns(rows: Rows, header: FunctasetHeader, start: int, stop: int) -> dict[str, np.ndarray]:
    """The arrays of a shard in their storage types. Raises ValueError or TypeError as `write` describes."""
    columns = {}
    for column, dtype in header.columns.items():
        values, shape = np.asarray(getattr(rows, column)), header.shape(column, stop - start)
        if values.shape != shape:
            raise ValueError(f"rows {start}:{stop}: {column} has shape {values.shape}, but {shape} was expected")
        with np.errstate(over="ignore"):  # found just below, with its row
            columns[column] = values.astype(dtype, casting="same_kind", copy=False)
    finite = np.isfinite(columns["latents"]).reshape(stop - start, -1).all(axis=1)
    if not finite.all():
        raise NonFiniteLatentError(header.split, start + int(np.argmin(finite)), header.storage_type)
    return columns
