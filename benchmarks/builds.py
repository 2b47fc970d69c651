"""What a functaset's build costs beside encoding, and what a second worker brings."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import CASES

from spatial_functa_pipeline.config.functaset import FunctasetConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.functasets.encoding import plan_functaset
from spatial_functa_pipeline.functasets.format import Rows
from spatial_functa_pipeline.functasets.scheduling import Scheduling
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, write
from spatial_functa_pipeline.images.images import Images

SHARDS = 8


@dataclass(frozen=True)
class TimedEncoder:
    """Encodes with `encode` on `threads` threads, and adds a line with the times of begin and end to the file `log`."""

    encode: Callable[[int, int], Rows]
    log: Path
    threads: int

    def __call__(self, start: int, stop: int) -> Rows:
        """See `FunctasetPlan.encode`."""
        torch.set_num_threads(self.threads)
        begin = time.time()
        rows = self.encode(start, stop)
        with self.log.open("a") as log:
            log.write(f"{begin} {time.time()}\n")
        return rows


def build_plan(images: int, log: Path, scheduling: Scheduling, threads: int) -> FunctasetPlan:
    """A build of the field benchmark's first case, of random images, in SHARDS shards."""
    case = CASES[0]
    pixels = (case.images(images) * 255).to(torch.uint8).numpy()
    config = FunctasetConfig(
        augmented_copies=0, shard_rows=images // SHARDS, chunk_rows=images // SHARDS, encode_batch=16
    )
    plan = plan_functaset(
        Images.from_array(pixels, np.zeros(images, np.int64), ["any"]),
        case.field(),
        config,
        dataset="synthetic",
        split="train",
        copies=0,
        fingerprint="",
        seed=0,
        runtime=RuntimeConfig(device="cpu", progress=False),
    )
    encode = TimedEncoder(plan.encode, log, threads)
    return FunctasetPlan(plan.header, encode, progress=False, scheduling=scheduling)


def build_overhead(images: int, folder: Path) -> dict[str, Any]:
    """Seconds of a build in this process beyond those of encoding, as a share of them."""
    log = folder / "overhead.log"
    plan = build_plan(images, log, Scheduling(), torch.get_num_threads())
    plan.encode(0, plan.header.shard_rows)  # compiles the kernel
    log.unlink()
    start = time.time()
    write(folder / "overhead.zarr", plan)
    total = time.time() - start
    encoding = sum(end - begin for begin, end in _times(log))
    return {"build_overhead": (total - encoding) / encoding, "seconds": total, "images": images}


def two_workers_speedup(images: int, folder: Path) -> dict[str, Any]:
    """How many times sooner two worker processes of one thread each are done than one; their start is not counted."""
    seconds = {}
    for workers in (1, 2):
        log = folder / f"workers_{workers}.log"
        write(folder / f"workers_{workers}.zarr", build_plan(images, log, Scheduling("processes", workers), 1))
        begins, ends = zip(*_times(log), strict=True)
        seconds[workers] = max(ends) - min(begins)
    return {"two_workers_speedup": seconds[1] / seconds[2], "seconds": seconds, "images": images}


def _times(log: Path) -> list[tuple[float, float]]:
    return [(float(begin), float(end)) for begin, end in map(str.split, log.read_text().splitlines())]
