"""Writing a functaset: one task for each shard, wherever it runs; what is there and intact is kept."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from tqdm.auto import tqdm
from zarr.codecs import Crc32cCodec, ZstdCodec

from spatial_functa_pipeline.functasets.errors import (
    DamagedShardError,
    MissingFunctasetError,
    NoRoomError,
    StaleFunctasetError,
)
from spatial_functa_pipeline.functasets.format import GROUP_FILE, RANGES, FunctasetHeader, Rows, read_attributes
from spatial_functa_pipeline.functasets.location import Location, lacks_room
from spatial_functa_pipeline.functasets.quantisation import Ranges
from spatial_functa_pipeline.functasets.scheduling import SYNCHRONOUS, Scheduling
from spatial_functa_pipeline.functasets.shard_task import ShardReport, ShardTask
from spatial_functa_pipeline.functasets.shards import array_of, fill_value, read_ranges, shard_file
from spatial_functa_pipeline.functasets.store import Functaset

logger = logging.getLogger(__name__)

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
PARTIAL = ".partial"
"""Ending of what is left by a process that was killed while it wrote."""


@dataclass(frozen=True)
class FunctasetPlan:
    """A functaset yet to be written.

    Args:
        header: what it is.
        encode: `(start, stop) ->` its rows start, …, stop − 1. Called once for each shard that is still to be written;
            must depend on the rows alone, and be picklable if other processes are to call it. The latents of a header with
            `bits` are codes, uint8.
        ranges: what such codes are codes of.
        progress: whether to show a progress bar.
        scheduling: which processes call `encode`.
        classes: names of the classes that `labels` are positions in, for readers; nothing is checked by them.
    """

    header: FunctasetHeader
    encode: Callable[[int, int], Rows]
    progress: bool = True
    scheduling: Scheduling = SYNCHRONOUS
    ranges: Ranges | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FunctasetReference:
    """A functaset yet to be written that is nothing but its attributes: they refer to another one, which holds the rows."""

    header: FunctasetHeader
    mean_psnr: float | None
    classes: tuple[str, ...] = ()

    @classmethod
    def to(cls, functaset: Functaset, url: str | Path) -> FunctasetReference:
        """That at `url`, to `functaset`. Both may be moved together, if they are in one file system or object store."""
        path = Location(url).path_to(functaset.location)
        return cls(replace(functaset.header, refers_to=path), functaset.mean_psnr, functaset.classes)


def write(url: str | Path, plan: FunctasetPlan, *, replace: bool = False) -> None:
    """Write the functaset at `url`, or finish it if it has been begun. Finished, it is the same byte for byte, however
    often it was interrupted and whoever wrote its shards.

    Args:
        url: a local folder or an address in an object store.
        plan: what to write.
        replace: whether a functaset with another header is replaced.

    Raises:
        StaleFunctasetError: there is a functaset with another header, and it is not to be replaced.
        ValueError: `plan.encode` returned a column of a wrong shape.
        NonFiniteLatentError: it returned a latent that is not finite as it is stored.
        TypeError: a column has a type that does not fit the stored one (fractional labels, say).
        FileExistsError: `url` holds something that is not a functaset.
        NoRoomError: there is no room left. What was written is kept.
    """
    location, header = Location(url), plan.header
    try:
        state = {"complete": False, "mean_psnr": None, "classes": list(plan.classes)}
        _prepare(location, header, replace, state)
        _prepare_arrays(location, plan)
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
        finished = len(finished_shards(location))
        raise NoRoomError(error.errno, str(location), finished, header.shards, error.strerror or str(error)) from error


def write_reference(url: str | Path, reference: FunctasetReference, *, replace: bool = False) -> None:
    """Write a functaset that refers to another one.

    Raises StaleFunctasetError and FileExistsError as `write` does.
    """
    state = {"complete": True, "mean_psnr": reference.mean_psnr, "classes": list(reference.classes)}
    _prepare(Location(url), reference.header, replace, state)


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


def _prepare(location: Location, header: FunctasetHeader, replace: bool, state: dict[str, Any]) -> None:
    """Leave a functaset with this header at `location`: what is there, or a new one without arrays in this `state`."""
    different = differences(location, header)
    if different and not replace:
        raise StaleFunctasetError(str(location), different)
    _require_room(location, header)
    if different:
        _remove(location, different)
    if not location.exists(GROUP_FILE):
        zarr.create_group(location.store(read_only=False), attributes=header.to_attributes() | state)


def _prepare_arrays(location: Location, plan: FunctasetPlan) -> None:
    """Leave all arrays there, empty or as far as they have been written, and the ranges of quantised latents in full."""
    header = plan.header
    group = zarr.open_group(location.store(read_only=False), mode="r+")
    for name, dtype in header.arrays.items():
        if name not in group:
            _create_array(group, name, dtype, header)
    for key in location.files():
        if key.endswith(PARTIAL):
            location.delete(key)
    if plan.ranges is None:
        return
    try:
        read_ranges(location, group, header)
    except DamagedShardError:  # or not written yet
        array = array_of(group, RANGES)
        location.delete(shard_file(array, 0))  # Zarr may read what it is about to replace
        array[:] = np.stack([plan.ranges.low, plan.ranges.high])


def differences(location: Location, header: FunctasetHeader) -> str:
    """How the header of what is at `location` differs from `header`; empty if it does not, or nothing is there.

    Raises FileExistsError if there is something that is not a functaset.
    """
    if not location.exists():
        return ""
    try:
        stored = read_attributes(location.url)
    except MissingFunctasetError as error:
        if all(key.endswith(PARTIAL) for key in location.files()):
            return ""  # killed before there was anything
        raise FileExistsError(f"{location} exists and is not a functaset; remove it or choose another path") from error
    wanted = header.to_attributes()
    return "; ".join(
        f"{key}: {stored.get(key)!r}, now {value!r}" for key, value in wanted.items() if stored.get(key) != value
    )


def _require_room(location: Location, header: FunctasetHeader) -> None:
    """Raises OSError if what is still to be written certainly does not fit on the disk: better now than after two days."""
    if header.bits or header.refers_to:
        return  # codes are compressed by nobody knows how much, and a reference has no rows
    needed = int(header.rows * np.prod(header.latent_shape.shape) * header.columns["latents"].itemsize)
    if reason := lacks_room([(location, needed)]):
        raise OSError(errno.ENOSPC, reason)


def _remove(location: Location, different: str) -> None:
    logger.warning("Replacing functaset %s, which is stale: it differs in %s.", location, different)
    zarr.open_group(location.store(read_only=False), mode="r+").attrs["complete"] = False
    # Its attributes go last: a removal that is interrupted leaves a functaset that is still stale.
    location.clear(last=GROUP_FILE)


def _create_array(group: zarr.Group, name: str, dtype: np.dtype, header: FunctasetHeader) -> None:
    latents = name == "latents"
    chunk = 2 if name == RANGES else header.chunk_rows if latents else header.shard_rows
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
    return [int(key.rsplit("/", 1)[1]) for key in location.files("psnr/c") if not key.endswith(PARTIAL)]
