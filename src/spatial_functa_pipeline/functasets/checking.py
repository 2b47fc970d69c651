"""A whole functaset read once: is everything there, intact and of this project's making?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zarr
from tqdm.auto import tqdm

from spatial_functa_pipeline.functasets.errors import (
    DamagedShardError,
    IncompleteFunctasetError,
    MissingFunctasetError,
    SchemaVersionError,
)
from spatial_functa_pipeline.functasets.format import SCHEMA_VERSION, FunctasetHeader, read_attributes
from spatial_functa_pipeline.functasets.location import Location
from spatial_functa_pipeline.functasets.shards import array_of, read_ranges, read_shard
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import PARTIAL, finished_shards


@dataclass
class Findings:
    """What was found: `problems` is empty if the functaset is sound.

    `mendable`: shards are missing or damaged; writing the functaset of `split`, quantised or not, again builds these alone.
    """

    split: str = ""
    quantised: bool = False
    rows: int = 0
    shards: int = 0
    bytes: int = 0
    mean_psnr: float | None = None
    problems: list[str] = field(default_factory=list)
    mendable: bool = False


def check(url: str | Path, progress: bool = True) -> Findings:
    """Read every shard of every array, at the pace of the disk, in the memory of one shard.

    Checked are the schema's version, completeness, the arrays' shapes, every checksum, that latents are finite, and that the
    mean PSNR is the recorded one. Of a functaset that refers to another one: that this can be opened; its rows are its own
    matter.

    Raises MissingFunctasetError.
    """
    attributes, location = read_attributes(url), Location(url)
    if (version := attributes["schema_version"]) != SCHEMA_VERSION:
        return Findings(problems=[f"schema version {version}, but this is version {SCHEMA_VERSION}: build it again"])
    header, files = FunctasetHeader.from_attributes(attributes), location.files()
    found = Findings(header.split, header.bits is not None, header.rows, header.shards, sum(files.values()))
    if header.refers_to is not None:
        return _of_reference(found, url)
    group = zarr.open_group(location.store(read_only=True), mode="r")
    if problems := _of_arrays(group, header):
        found.problems = problems
        return found
    shards = list(range(header.shards))
    if not attributes["complete"]:
        shards = sorted(finished_shards(location))
        found.problems.append(f"{len(shards)} of {header.shards} shards are there")
        found.mendable = True
    found.problems += [f"{key} was left by a process that was killed" for key in files if key.endswith(PARTIAL)]
    _check_ranges(found, location, group, header)
    total, count = 0.0, 0
    for shard in tqdm(shards, header.split, unit="shard", disable=not progress):
        try:
            columns = {name: read_shard(location, array_of(group, name), header, shard) for name in header.columns}
        except DamagedShardError as error:
            found.problems.append(str(error))
            found.mendable = True
            continue
        if not np.isfinite(columns["latents"]).all():
            found.problems.append(f"shard {shard} has latents that are not finite; to replace it, remove its files")
        known = columns["psnr"][~np.isnan(columns["psnr"])].astype(np.float64)
        total, count = total + known.sum().item(), count + known.size
    found.mean_psnr = total / count if count else None
    if attributes["complete"] and not found.problems and found.mean_psnr != attributes["mean_psnr"]:
        found.problems.append(f"the mean PSNR is {found.mean_psnr}, but {attributes['mean_psnr']} is recorded")
    return found


def _check_ranges(found: Findings, location: Location, group: zarr.Group, header: FunctasetHeader) -> None:
    if not header.bits:
        return
    try:
        if not all(np.isfinite(values).all() for values in vars(read_ranges(location, group, header)).values()):
            found.problems.append("the ranges of its codes are not finite")
    except DamagedShardError as error:
        found.problems.append(str(error))
        found.mendable = True


def _of_reference(found: Findings, url: str | Path) -> Findings:
    try:
        found.mean_psnr = Functaset.open(url).mean_psnr
    except (MissingFunctasetError, IncompleteFunctasetError, SchemaVersionError) as error:
        found.problems.append(f"it refers to another one: {error}")
    return found


def _of_arrays(group: zarr.Group, header: FunctasetHeader) -> list[str]:
    """Which arrays are missing, or of another shape or type than the header says."""
    problems = []
    for name, dtype in header.arrays.items():
        shape = header.shape(name, header.rows_of(name))
        if name not in group:
            problems.append(f"the array {name} is missing")
            continue
        array = array_of(group, name)
        if (array.shape, array.dtype) != (shape, dtype):
            problems.append(f"the array {name} is {array.dtype} {array.shape}, not {dtype} {shape}")
    return problems
