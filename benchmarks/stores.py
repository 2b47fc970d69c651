"""What is measured about one synthetic functaset, each in a process of its own: `python stores.py MEASUREMENT CASE FOLDER`.

Prints one JSON object: `seconds`, `rows` handled in them, and `peak_memory`, the most bytes that were resident at once, the
interpreter and its libraries included. Readers from the page cache add `order`, a digest of the rows that they saw.
"""

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import Tensor
from zarr.codecs import Crc32cCodec

from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.statistics import compute_statistics
from spatial_functa_pipeline.functasets.store import MEMORY_LIMIT, Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, write
from spatial_functa_pipeline.loading.functaset_batches import FunctasetBatches
from spatial_functa_pipeline.loading.ordering import epoch_batches
from spatial_functa_pipeline.loading.windows import windows

Result = dict[str, Any]
Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]

_BLOCK_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**20
_SHARD_BYTES = 32 * 2**20
_SEED = 0


@dataclass(frozen=True)
class StoreCase:
    """`rows` float32 latents of `side`×`side`×`channels`, read in batches; readers read at least `read_bytes`."""

    rows: int
    side: int
    channels: int
    batch: int
    read_bytes: int = 2**30
    zarr_rows: int = 2000

    @property
    def name(self) -> str:
        """As in `10000x8x8x16`."""
        return f"{self.rows}x{self.side}x{self.side}x{self.channels}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one latent."""
        return self.side, self.side, self.channels

    @property
    def row_bytes(self) -> int:
        """Bytes of one latent."""
        return 4 * self.side**2 * self.channels

    @property
    def held(self) -> bool:
        """Whether the loader holds the functaset in memory if it may keep as much as it does by default."""
        return self.rows * self.row_bytes <= MEMORY_LIMIT

    @property
    def steps(self) -> int:
        """Batches that a reader reads: an epoch, or several of a small functaset."""
        return max(self.rows, self.read_bytes // self.row_bytes) // self.batch

    @property
    def epoch_steps(self) -> int:
        """Whole batches in an epoch, at least one."""
        return max(1, self.rows // self.batch)

    @property
    def header(self) -> FunctasetHeader:
        """Chunks of 1 MiB in shards of 32 MiB."""
        chunk_rows = max(1, _CHUNK_BYTES // self.row_bytes)
        return FunctasetHeader(
            dataset="synthetic",
            split="train",
            latent_shape=LatentShape((self.side, self.side), self.channels),
            interpolation="nearest",
            rows=self.rows,
            chunk_rows=chunk_rows,
            shard_rows=max(1, _SHARD_BYTES // _CHUNK_BYTES) * chunk_rows,
        )

    def latents(self, start: int, stop: int) -> np.ndarray:
        """Rows start, …, stop − 1: noise that comes again and again, but the first number of each is the row's."""
        block = _noise(self.shape)
        latents = block[np.arange(start, stop) % len(block)]
        latents[:, 0, 0, 0] = np.arange(start, stop)
        return latents

    def labels(self, start: int, stop: int) -> np.ndarray:
        """Of the same rows."""
        return np.arange(start, stop) % 1000


def measure_apart(measurement: str, case: StoreCase, folder: Path) -> Result:
    """One of MEASUREMENTS in a process of its own."""
    arguments = [sys.executable, __file__, measurement, json.dumps(asdict(case)), str(folder)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def write_functaset(case: StoreCase, folder: Path) -> Result:
    """The store, from latents that cost nothing to make but a copy."""
    case.latents(0, 1)
    start = time.perf_counter()
    write(folder / "functaset.zarr", FunctasetPlan(case.header, _Encoder(case), progress=False))
    return {"seconds": time.perf_counter() - start, "rows": case.rows}


def write_memmap(case: StoreCase, folder: Path) -> Result:
    """The same latents, one after the other in one file."""
    case.latents(0, 1)
    start = time.perf_counter()
    with (folder / "latents.bin").open("wb") as file:
        for shard in range(case.header.shards):
            case.latents(*case.header.bounds(shard)).tofile(file)
    return {"seconds": time.perf_counter() - start, "rows": case.rows}


def read_batches(case: StoreCase, folder: Path) -> Result:
    """The project's loader as a training uses it: a small functaset has been read into memory before."""
    batches, _ = _loader(case, folder, case.steps, MEMORY_LIMIT)
    return _watched(batches) | _timed(batches)


def read_memmap(case: StoreCase, folder: Path) -> Result:
    """NumPy's memory map of the file in the very same order, which is known beforehand; the file is in the page cache."""
    batches, _ = _memmap(case, folder, case.steps, MEMORY_LIMIT)
    return _watched(batches) | _timed(batches)


def stream_batches(case: StoreCase, folder: Path) -> Result:
    """The loader where it may keep nothing in memory; the files are in the page cache."""
    batches, _ = _loader(case, folder, case.steps, 0)
    return _watched(batches) | _timed(batches)


def stream_memmap(case: StoreCase, folder: Path) -> Result:
    """The memory map in the order of `stream_batches`."""
    batches, _ = _memmap(case, folder, case.steps, 0)
    return _watched(batches) | _timed(batches)


def read_batches_from_disk(case: StoreCase, folder: Path) -> Result:
    """One epoch of the loader, which may keep nothing in memory; no file is in the page cache."""
    batches, files = _loader(case, folder, case.epoch_steps, 0)
    return _timed(batches) if _dropped(files) else {"seconds": None, "rows": 0}


def read_memmap_from_disk(case: StoreCase, folder: Path) -> Result:
    """One epoch of the memory map in that order; the file is not in the page cache."""
    batches, files = _memmap(case, folder, case.epoch_steps, 0)
    return _timed(batches) if _dropped(files) else {"seconds": None, "rows": 0}


def read_zarr_rows(case: StoreCase, folder: Path) -> Result:
    """Some of the rows one by one at random, in an array with the functaset's chunks and checksums, but without shards."""
    count = min(case.rows, case.zarr_rows)
    chunk_rows = min(count, case.header.chunk_rows)
    array = zarr.create_array(
        folder / "plain.zarr",
        shape=(count, *case.shape),
        chunks=(chunk_rows, *case.shape),
        dtype=np.float32,
        filters=None,
        compressors=[Crc32cCodec()],
    )
    array[:] = case.latents(0, count)
    array = zarr.open_array(folder / "plain.zarr", mode="r")
    order = np.random.default_rng(_SEED).permutation(count).tolist()
    start = time.perf_counter()
    for row in order:
        if array[row][0, 0, 0] != row:
            raise RuntimeError(f"row {row} of the plain Zarr array is not what was written")
    return {"seconds": time.perf_counter() - start, "rows": count}


def statistics(case: StoreCase, folder: Path) -> Result:
    """Means and deviations of all latents."""
    functaset = Functaset.open(folder / "functaset.zarr", memory_limit=0)
    start = time.perf_counter()
    compute_statistics(functaset)
    return {"seconds": time.perf_counter() - start, "rows": case.rows}


MEASUREMENTS: dict[str, Callable[[StoreCase, Path], Result]] = {
    measurement.__name__: measurement
    for measurement in (
        *(write_functaset, write_memmap, read_batches, read_memmap, stream_batches, stream_memmap),
        *(read_batches_from_disk, read_memmap_from_disk, read_zarr_rows, statistics),
    )
}


@dataclass(frozen=True)
class _Encoder:
    case: StoreCase

    def __call__(self, start: int, stop: int) -> Rows:
        return Rows(
            latents=self.case.latents(start, stop),
            labels=self.case.labels(start, stop),
            source_index=np.arange(start, stop),
            augmentation=np.zeros(stop - start, np.int32),
            psnr=np.full(stop - start, 30, np.float32),
        )


def _noise(shape: tuple[int, ...], kept: dict[tuple[int, ...], np.ndarray] = {}) -> np.ndarray:  # noqa: B006
    if shape not in kept:
        rows = max(1, _BLOCK_BYTES // (4 * int(np.prod(shape))))
        kept[shape] = np.random.default_rng(1).standard_normal((rows, *shape), np.float32)
    return kept[shape]


def _loader(case: StoreCase, folder: Path, steps: int, memory_limit: int) -> tuple[Batches, list[Path]]:
    path = folder / "functaset.zarr"
    functaset = Functaset.open(path, memory_limit)
    batches = FunctasetBatches(functaset, case.batch, _SEED, steps)
    functaset.labels  # noqa: B018 - the memory map has them at once, too
    return lambda: iter(batches), [file for file in path.rglob("*") if file.is_file()]


def _memmap(case: StoreCase, folder: Path, steps: int, memory_limit: int) -> tuple[Batches, list[Path]]:
    path = folder / "latents.bin"
    functaset = Functaset.open(folder / "functaset.zarr", memory_limit)
    order = _order(FunctasetBatches(functaset, case.batch, _SEED, steps)).reshape(-1, case.batch)
    labels = torch.from_numpy(functaset.labels)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        latents = np.memmap(path, np.float32, "r", shape=(case.rows, *case.shape))
        for rows in order:
            yield torch.from_numpy(latents[rows]), labels[rows]

    return batches, [path]


def _watched(batches: Batches) -> Result:
    """A digest of the rows that come. Afterwards the files are in the page cache, if there is room."""
    seen = hashlib.sha256()
    for latents, labels in batches():
        rows = latents[:, 0, 0, 0].to(torch.int64)
        if not torch.equal(labels, rows % 1000):
            raise RuntimeError("a batch has labels of other rows than its latents")
        seen.update(rows.numpy())
    return {"order": seen.hexdigest()}


def _timed(batches: Batches) -> Result:
    count, start = 0, time.perf_counter()
    for latents, _ in batches():
        count += len(latents)
    return {"seconds": time.perf_counter() - start, "rows": count}


def _dropped(files: list[Path]) -> bool:
    """Remove files from the page cache; False where the system has no way to ask for it."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())  # what is not written yet would stay
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def _order(batches: FunctasetBatches) -> np.ndarray:
    """The rows of all batches, one after the other."""
    if batches.functaset.in_memory:
        rows = len(batches.functaset)
        return np.concatenate(list(epoch_batches(rows, batches.batch_size, batches.seed, 0, batches.steps)))
    chunking, last = batches.chunking, batches.steps * batches.batch_size
    order = np.empty(last, np.int64)
    for window in windows(chunking, batches.seed, 0, last):
        rows = np.concatenate([np.arange(*chunking.bounds(chunk)) for chunk in window.chunks])
        placed = np.empty_like(rows)
        placed[window.places] = rows
        order[window.first : window.last] = placed[: last - window.first]
    return order


def _peak_memory() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would be at least the parent's, from before this program was loaded
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _main(measurement: str, case: str, folder: str) -> None:
    result = MEASUREMENTS[measurement](StoreCase(**json.loads(case)), Path(folder))
    print(json.dumps(result | {"peak_memory": _peak_memory()}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
