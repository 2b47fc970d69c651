"""Writing a functaset: one task for each shard, wherever it runs; what is there and intact is kept."""

from __future__ import annotations

import errno
import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from tqdm.auto import tqdm
from zarr.codecs import Crc32cCodec, ZstdCodec

from spatial_functa_pipeline.functasets.location import Location
from spatial_functa_pipeline.functasets.quantisation import quantise
from spatial_functa_pipeline.functasets.scheduling import SYNCHRONOUS, Scheduling
from spatial_functa_pipeline.functasets.store import (
    DamagedShardError,
    FunctasetHeader,
    Rows,
    array_types,
    fill_value,
    read_attributes,
    read_shard,
    shard_file,
)

logger = logging.getLogger(__name__)

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GROUP_FILE = "zarr.json"
_PARTIAL = ".partial"
"""Ending of what is left by a process that was killed while it wrote."""
_ENCODING = threading.Lock()
"""A worker may have several threads, but PyTorch's random numbers and its precision are the process's."""


class StaleFunctasetError(RuntimeError):
    """The functaset that is there was built by another field or with other parameters."""


@dataclass(frozen=True)
class FunctasetPlan:
    """A functaset yet to be written.

    Args:
        header: what it is.
        encode: `(start, stop) ->` its rows start, …, stop − 1. Called once for each shard that is still to be written;
            must depend on the rows alone, and be picklable if other processes are to call it.
        progress: whether to show a progress bar.
        scheduling: which processes call `encode`.
        replace: whether a functaset with another header is replaced.
    """

    header: FunctasetHeader
    encode: Callable[[int, int], Rows]
    progress: bool = True
    scheduling: Scheduling = SYNCHRONOUS
    replace: bool = True


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
                arrays = self._arrays
                psnr = {name: read_shard(self.location, arrays, self.header, name, shard) for name in files}["psnr"]
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
                place = slice(shard, shard + 1) if name in ("low", "high") else slice(start, stop)
                self._arrays[name][place] = columns[name]
            written = self.location.size(*files.values())
        known = psnr[~np.isnan(psnr)].astype(np.float64)
        return ShardReport(shard, stop - start, known.sum().item(), known.size, written, damage)

    @cached_property
    def _arrays(self) -> dict[str, zarr.Array]:
        """In the order in which they are written; opened once by each process."""
        group = zarr.open_group(self.location.store(read_only=False), mode="r+")
        return {name: group[name] for name in array_types(self.header)}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_arrays"}


def write(url: str | Path, plan: FunctasetPlan) -> None:
    """Write the functaset at `url`, or finish it if it has been begun. Finished, it is the same byte for byte, however
    often it was interrupted and whoever wrote its shards.

    Raises:
        StaleFunctasetError: there is a functaset with another header, and the plan does not say to replace it.
        ValueError: `plan.encode` returned a column of a wrong shape, or a latent that is not finite as it is stored.
        TypeError: a column has a type that does not fit the stored one (fractional labels, say).
        FileExistsError: `url` holds something that is not a functaset.
        OSError: there is no room left. What was written is kept.
    """
    location, header = Location(url), plan.header
    try:
        _prepare(location, plan)
        reports = _write_shards(location, plan)
        group = zarr.open_group(location.store(read_only=False), mode="r+")
        ordered = [reports[shard] for shard in range(header.shards)]
        count = sum(report.psnr_count for report in ordered)
        # In the order of the shards: the sum's last bits must not depend on which was finished first.
        mean = sum(report.psnr_sum for report in ordered) / count if count else None
        if not group.attrs["complete"] or group.attrs["mean_psnr"] != mean:
            group.attrs.update({"complete": True, "mean_psnr": mean})
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        kept = len(finished_shards(location))
        raise OSError(
            error.errno,
            f"no room left for functaset {location}: {kept} of its {header.shards} shards are finished and kept. Make room, "
            f"and run the same command again to go on ({error.strerror})",
        ) from error


def _write_shards(location: Location, plan: FunctasetPlan) -> dict[int, ShardReport]:
    header, reports = plan.header, {}
    task = ShardTask(location, header, plan.encode)
    begun = sum(stop - start for start, stop in map(header.bounds, finished_shards(location)))
    written, psnr_sum, psnr_count = 0, 0.0, 0
    if begun:
        logger.info("%d of %d images are there; their checksums are verified first", begun, header.rows)
    with tqdm(
        desc=f"{header.dataset} {header.split}", total=header.rows, unit="image", disable=not plan.progress
    ) as bar:
        for report in plan.scheduling.run(task, range(header.shards)):
            if report.damage:
                logger.warning("%s. It has been built anew.", report.damage)
            reports[report.shard] = report
            written += report.bytes_written
            psnr_sum, psnr_count = psnr_sum + report.psnr_sum, psnr_count + report.psnr_count
            quality = f", {psnr_sum / psnr_count:.2f} dB" if psnr_count else ""
            bar.set_postfix_str(
                f"{len(reports)}/{header.shards} shards, {written / 2**20:.1f} MiB written{quality}", refresh=False
            )
            bar.update(report.rows)
    return reports


def _prepare(location: Location, plan: FunctasetPlan) -> None:
    """Leave a functaset with the plan's header and all its arrays at `location`: a new one or what has been begun."""
    header = plan.header
    different = refuse_to_replace(location, plan) if location.exists() else ""
    _require_room(location, header)
    if different:
        _remove(location, different)
    if not location.exists(_GROUP_FILE):
        attributes = header.to_attributes() | {"complete": False, "mean_psnr": None}
        zarr.create_group(location.store(read_only=False), attributes=attributes)
    group = zarr.open_group(location.store(read_only=False), mode="r+")
    for name, dtype in array_types(header).items():
        if name not in group:
            _create_array(group, name, dtype, header)
    for key in location.files():
        if key.endswith(_PARTIAL):
            location.delete(key)


def refuse_to_replace(location: Location, plan: FunctasetPlan) -> str:
    """How what is at `location` differs from the plan; empty if it does not. Raises as `write` does if it is to be kept."""
    try:
        stored = read_attributes(location.url)
    except FileNotFoundError as error:
        if all(key.endswith(_PARTIAL) for key in location.files()):
            return ""  # killed before there was anything
        raise FileExistsError(f"{location} exists and is not a functaset; remove it or choose another path") from error
    wanted = plan.header.to_attributes()
    different = "; ".join(
        f"{key}: {stored.get(key)!r}, now {value!r}" for key, value in wanted.items() if stored.get(key) != value
    )
    if different and not plan.replace:
        raise StaleFunctasetError(
            f"functaset {location} is stale, and was not touched: it differs in {different}. To replace it, run again with "
            "--params runtime.replace_stale=true, or go back to the former parameters"
        )
    return different


def _require_room(location: Location, header: FunctasetHeader) -> None:
    """Raises OSError if what is still to be written certainly does not fit on the disk: better now than after two days."""
    if location.local is None or header.bits:
        return  # a store without end; codes, which are compressed by nobody knows how much
    # What is there need not be written again, or is removed first.
    there = sum(location.files().values())
    needed = int(header.rows * np.prod(header.latent_shape.shape) * header.columns["latents"].itemsize) - there
    folder = next(folder for folder in (location.local, *location.local.parents) if folder.exists())
    if (free := shutil.disk_usage(folder).free) < needed:
        reason = f"{needed / 1e9:.2f} GB at least are still to be written, and {free / 1e9:.2f} GB are free"
        raise OSError(errno.ENOSPC, reason)


def _remove(location: Location, different: str) -> None:
    logger.warning("Replacing functaset %s, which is stale: it differs in %s.", location, different)
    zarr.open_group(location.store(read_only=False), mode="r+").attrs["complete"] = False
    # Its attributes go last: a removal that is interrupted leaves a functaset that is still stale.
    location.clear(last=_GROUP_FILE)


def _create_array(group: zarr.Group, name: str, dtype: np.dtype, header: FunctasetHeader) -> None:
    latents, of_shards = name == "latents", name in ("low", "high")
    chunk = 1 if of_shards else header.chunk_rows if latents else header.shard_rows
    # Floating-point latents hardly compress. Codes do, to the bits that they need: the upper ones are zero.
    compressors = [ZstdCodec(level=1)] if latents and header.bits else []
    group.create_array(
        name,
        shape=header.shape(name, header.rows_of(name)),
        chunks=header.shape(name, chunk),
        shards=header.shape(name, header.shard_rows) if latents else None,
        dtype=dtype,
        fill_value=fill_value(dtype),
        filters=None,
        compressors=[*compressors, Crc32cCodec()],
    )


def finished_shards(location: Location) -> list[int]:
    """The shards whose last array has been written."""
    return [int(key.rsplit("/", 1)[1]) for key in location.files("psnr/c") if not key.endswith(_PARTIAL)]


def _columns(rows: Rows, header: FunctasetHeader, start: int, stop: int) -> dict[str, np.ndarray]:
    """The arrays of a shard in their storage types. Raises ValueError or TypeError as `write` describes."""
    columns = {}
    for column, dtype in header.columns.items():
        values, shape = np.asarray(getattr(rows, column)), header.shape(column, stop - start)
        if values.shape != shape:
            raise ValueError(f"rows {start}:{stop}: {column} has shape {values.shape}, but {shape} was expected")
        if column == "latents" and header.bits:
            dtype = np.dtype(np.float32)
        with np.errstate(over="ignore"):  # found just below, with its row
            columns[column] = values.astype(dtype, casting="same_kind", copy=False)
    finite = np.isfinite(columns["latents"]).reshape(stop - start, -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"the latent of row {start + np.argmin(finite)} is not finite as {header.storage_type}: the field's inner "
            "loop has diverged for this image, or its values exceed the storage type"
        )
    if header.bits:
        codes, low, high = quantise(columns["latents"], header.bits)
        columns |= {"latents": codes, "low": low[None], "high": high[None]}
    return columns
