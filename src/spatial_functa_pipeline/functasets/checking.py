"""A whole functaset read once: is everything there, intact and of this project's making?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zarr
from tqdm.auto import tqdm

from spatial_functa_pipeline.functasets.errors import DamagedShardError
from spatial_functa_pipeline.functasets.format import SCHEMA_VERSION, FunctasetHeader, read_attributes
from spatial_functa_pipeline.functasets.location import Location
from spatial_functa_pipeline.functasets.shards import read_shard
from spatial_functa_pipeline.functasets.writing import finished_shards


@dataclass
class Findings:
    """What was found: `problems` is empty if the functaset is sound.

    `mendable`: shards are missing or damaged; writing the functaset of `split` again builds these alone.
    """

    split: str = ""
    rows: int = 0
    shards: int = 0
    bytes: int = 0
    mean_psnr: float | None = None
    problems: list[str] = field(default_factory=list)
    mendable: bool = False


def check(url: str | Path, progress: bool = True) -> Findings:
    """Read every shard of every array, at the pace of the disk, in the memory of one shard.

    Checked are the schema's version, completeness, the arrays' shapes, every checksum, that latents are finite, and that the
    mean PSNR is the recorded one.

    Raises MissingFunctasetError.
    """
    attributes, location = read_attributes(url), Location(url)
    if (version := attributes["schema_version"]) != SCHEMA_VERSION:
        return Findings(problems=[f"schema version {version}, but this is version {SCHEMA_VERSION}: build it again"])
    header = FunctasetHeader.from_attributes(attributes)
    files = location.files()
    report = Findings(header.split, header.rows, header.shards, sum(files.values()))
    group = zarr.open_group(location.store(read_only=True), mode="r")
    expected = {name: (header.shape(name, header.rows_of(name)), dtype) for name, dtype in header.arrays.items()}
    for name, (shape, dtype) in expected.items():
        if name not in group:
            report.problems.append(f"the array {name} is missing")
        elif (group[name].shape, group[name].dtype) != (shape, dtype):
            report.problems.append(f"the array {name} is {group[name].dtype} {group[name].shape}, not {dtype} {shape}")
    if report.problems:
        return report
    shards = list(range(header.shards))
    if not attributes["complete"]:
        shards = sorted(finished_shards(location))
        report.problems.append(f"{len(shards)} of {header.shards} shards are there")
        report.mendable = True
    report.problems += [f"{key} was left by a process that was killed" for key in files if key.endswith(".partial")]
    total, count = 0.0, 0
    for shard in tqdm(shards, header.split, unit="shard", disable=not progress):
        try:
            columns = {name: read_shard(location, group, header, name, shard) for name in expected}
        except DamagedShardError as error:
            report.problems.append(str(error))
            report.mendable = True
            continue
        numbers = [columns[name] for name in (("low", "high") if header.bits else ("latents",))]
        if not all(np.isfinite(values).all() for values in numbers):
            report.problems.append(f"shard {shard} has latents that are not finite; to replace it, remove its files")
        known = columns["psnr"][~np.isnan(columns["psnr"])].astype(np.float64)
        total, count = total + known.sum().item(), count + known.size
    report.mean_psnr = total / count if count else None
    if attributes["complete"] and not report.problems and report.mean_psnr != attributes["mean_psnr"]:
        report.problems.append(f"the mean PSNR is {report.mean_psnr}, but {attributes['mean_psnr']} is recorded")
    return report
