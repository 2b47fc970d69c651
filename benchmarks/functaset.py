"""How fast functasets are written, read for training, and summed up, beside a memory map and a plain Zarr array.

    python benchmarks/functaset.py [--json PATH] [--folder PATH] [--rounds N] [--quick]

The loader and the memory map read the same rows in the same order and must agree on what they saw: as a training reads
(stores of at most 2 GiB are held in memory, larger ones streamed), streamed whatever the size, both from the page cache,
and, one epoch, streamed from the disk, as any store must be that is larger than memory. They take turns, and the median
over the rounds counts. Each measurement is a process of its own. Progress goes to stderr, the table to stdout.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from builds import SHARDS, build_overhead, two_workers_speedup
from rich.console import Console
from rich.table import Table
from stores import Result, StoreCase, measure_apart

CASES = (
    StoreCase(10**4, 8, 16, batch=256),
    StoreCase(10**5, 8, 16, batch=256),
    StoreCase(10**6, 8, 16, batch=256),
    StoreCase(10**3, 32, 64, batch=64),
    StoreCase(10**4, 32, 64, batch=64),
)
"""The first and the last of one latent shape are compared for growth with the number of rows."""
QUICK = (
    StoreCase(2000, 8, 16, batch=64, read_bytes=2**24, zarr_rows=50),
    StoreCase(8000, 8, 16, batch=64, read_bytes=2**24, zarr_rows=50),
)
BUILD_IMAGES, QUICK_BUILD_IMAGES = 16384, 16 * SHARDS

READERS = ("read_batches", "read_memmap")
STREAMERS = ("stream_batches", "stream_memmap")
FROM_DISK = ("read_batches_from_disk", "read_memmap_from_disk")


class NoRoomError(RuntimeError):
    """The folder cannot hold what is to be written."""


class DisagreementError(RuntimeError):
    """The readers did not see the same rows in the same order: their times cannot be compared."""


def needed_bytes(cases: Sequence[StoreCase]) -> int:
    """Free space that the largest case needs: the functaset, the file beside it, and some for the plain array."""
    return max(int(2.1 * case.rows + case.zarr_rows) * case.row_bytes for case in cases)


def require_room(folder: Path, cases: Sequence[StoreCase]) -> None:
    """Raises NoRoomError if the cases do not fit."""
    free, needed = shutil.disk_usage(folder).free, needed_bytes(cases)
    if free < needed:
        raise NoRoomError(
            f"{needed / 1e9:.1f} GB are needed in {folder}, which has {free / 1e9:.1f} GB left: make room, choose another "
            "folder with --folder, or measure small stores with --quick"
        )


def measure(case: StoreCase, rounds: int, folder: Path) -> Result:
    """The details of one case. Rates are in MB/s, 10⁶ bytes of float32 latents a second; memory in bytes."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        progress(f"{case.name}: writing")
        written = {key: measure_apart(key, case, place) for key in ("write_functaset", "write_memmap")}
        names = (*READERS, *(STREAMERS if case.held else ()), *FROM_DISK)
        reading: dict[str, list[Result]] = {name: [] for name in names}
        for index in range(rounds):
            for key, results in reading.items():
                results.append(measure_apart(key, case, place))
            rates = ", ".join(f"{key} {rate(case, results[-1]):.0f} MB/s" for key, results in reading.items())
            progress(f"{case.name}: round {index + 1}: {rates}")
        for pair in (READERS, STREAMERS):
            if len({result["order"] for name in pair for result in reading.get(name, ())}) > 1:
                raise DisagreementError(
                    f"{case.name}: the loader and the memory map did not see the same rows in the same order"
                )
        progress(f"{case.name}: statistics, and rows of a plain Zarr array")
        others = {key: measure_apart(key, case, place) for key in ("statistics", "read_zarr_rows")}
    if not case.held:
        reading |= dict(zip(STREAMERS, (reading[name] for name in READERS), strict=True))
    medians = {key: statistics.median(rate(case, result) for result in results) for key, results in reading.items()}
    loader, memmap, streamed, streamed_memmap, from_disk, memmap_from_disk = (
        medians[name] for name in (*READERS, *STREAMERS, *FROM_DISK)
    )
    zarr_rows = rate(case, others["read_zarr_rows"])
    return {
        "case": case.name,
        "held_in_memory": case.held,
        "write_mb_per_s": rate(case, written["write_functaset"]),
        "memmap_write_mb_per_s": rate(case, written["write_memmap"]),
        "loader_mb_per_s": loader,
        "memmap_mb_per_s": memmap,
        "streamed_mb_per_s": streamed,
        "streamed_rows_per_s": streamed * 1e6 / case.row_bytes,
        "streamed_memmap_mb_per_s": streamed_memmap,
        "loader_from_disk_mb_per_s": from_disk,
        "memmap_from_disk_mb_per_s": memmap_from_disk,
        "zarr_rows_mb_per_s": zarr_rows,
        "loader_vs_memmap": loader / memmap,
        "streamed_vs_memmap": streamed / streamed_memmap,
        "loader_vs_memmap_from_disk": from_disk / memmap_from_disk if memmap_from_disk else None,
        "loader_vs_zarr_rows": min(loader, streamed) / zarr_rows,
        "statistics_seconds": others["statistics"]["seconds"],
        "statistics_peak_memory": others["statistics"]["peak_memory"],
        "write_peak_memory": written["write_functaset"]["peak_memory"],
        "streamed_peak_memory": max(result["peak_memory"] for result in reading[STREAMERS[0]]),
        "memmap_peak_memory": max(result["peak_memory"] for result in reading[STREAMERS[1]]),
    }


def rate(case: StoreCase, result: Result) -> float:
    """MB/s of one measurement; 0 if it could not be made."""
    return 0.0 if not result["rows"] else result["rows"] * case.row_bytes / result["seconds"] / 1e6


def summarise(cases: Sequence[StoreCase], details: Sequence[Result]) -> Result:
    """The worst ratios of all cases, and the growth of time per row and memory from few streamed rows to many."""
    few, many = (details[index] for index in growing(cases))
    ratios = (detail["loader_vs_memmap_from_disk"] for detail in details)
    from_disk = [ratio for ratio in ratios if ratio is not None]
    return {
        "loader_vs_memmap": min(detail["loader_vs_memmap"] for detail in details),
        "streamed_vs_memmap": min(detail["streamed_vs_memmap"] for detail in details),
        "loader_vs_memmap_from_disk": min(from_disk, default=None),
        "loader_vs_zarr_rows": min(detail["loader_vs_zarr_rows"] for detail in details),
        "row_time_growth": few["streamed_rows_per_s"] / many["streamed_rows_per_s"] - 1,
        "memory_growth": many["streamed_peak_memory"] / few["streamed_peak_memory"] - 1,
    }


def growing(cases: Sequence[StoreCase]) -> tuple[int, int]:
    """Positions of the cases with the fewest and the most rows among those of the first case's latent shape."""
    alike = [index for index, case in enumerate(cases) if case.shape == cases[0].shape]
    return min(alike, key=lambda index: cases[index].rows), max(alike, key=lambda index: cases[index].rows)


def measure_builds(images: int, folder: Path) -> Result:
    """Overhead of a build and speed-up by a second worker; null where there is one core."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        progress(f"building functasets of {images} images")
        overhead = build_overhead(images, Path(name))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        speedup = two_workers_speedup(images, Path(name))["two_workers_speedup"] if cores > 1 else None
    return {"build_overhead": overhead["build_overhead"], "two_workers_speedup": speedup}


def progress(message: str) -> None:
    """A line on stderr, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def table(details: Sequence[Result]) -> Table:
    """What was measured of the stores."""
    out = Table(title="Functasets of float32 latents: MB/s (10⁶ bytes), peak memory in MB")
    out.add_column("rows × shape", no_wrap=True)
    columns = {
        "write": ("write_mb_per_s", ".0f", 1),
        "loader": ("loader_mb_per_s", ".0f", 1),
        "memmap": ("memmap_mb_per_s", ".0f", 1),
        "ratio": ("loader_vs_memmap", ".2f", 1),
        "streamed": ("streamed_mb_per_s", ".0f", 1),
        "memmap ": ("streamed_memmap_mb_per_s", ".0f", 1),
        "ratio ": ("streamed_vs_memmap", ".2f", 1),
        "disk: loader": ("loader_from_disk_mb_per_s", ".0f", 1),
        "memmap  ": ("memmap_from_disk_mb_per_s", ".0f", 1),
        "Zarr rows": ("zarr_rows_mb_per_s", ".1f", 1),
        "ratio   ": ("loader_vs_zarr_rows", ".0f", 1),
        "statistics, s": ("statistics_seconds", ".2f", 1),
        "peak: streamed": ("streamed_peak_memory", ".0f", 1e-6),
        "memmap    ": ("memmap_peak_memory", ".0f", 1e-6),
        "statistics": ("statistics_peak_memory", ".0f", 1e-6),
    }
    for heading in columns:
        out.add_column(heading, justify="right", no_wrap=True)
    for detail in details:
        out.add_row(detail["case"], *(format(detail[key] * scale, style) for key, style, scale in columns.values()))
    return out


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results there")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where stores are written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small stores, to see that it works")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    if not options.folder.is_dir():
        parser.error(f"--folder: there is no folder {options.folder}")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; returns the exit status."""
    options = parse(arguments)
    cases, images = (QUICK, QUICK_BUILD_IMAGES) if options.quick else (CASES, BUILD_IMAGES)
    try:
        require_room(options.folder, cases)
        details = [measure(case, options.rounds, options.folder) for case in cases]
    except (NoRoomError, DisagreementError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results = summarise(cases, details) | measure_builds(images, options.folder)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table(details))
    for name, value in results.items():
        console.print(f"{name}: {'–' if value is None else format(value, '.3g')}")
    if options.json:
        options.json.write_text(json.dumps(results | {"cases": details}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
