"""What fewer bits cost: bytes per image, PSNR, and how fast latents are written and read.

    python benchmarks/storage.py [--field PATH] [--images 8000] [--rounds N] [--json PATH]

Encodes embedded images with a field that `kedro run` has trained, stores the latents in every storage type, and quantised
at 8 to 1 bits, in a temporary folder, reads them back and decodes them. Rates are of latents as float32, files in the page
cache: the stores take turns, and the median over the rounds counts. `read` is all rows in their order, `streamed` as a
training reads a functaset that is not held in memory, per second and per second of the processor's time. PSNR is the mean
over images, in dB.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from stability import ROOT, load_images

from spatial_functa_pipeline.compute import accelerated
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.datasets.weights import WeightsDataset
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.checking import check
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.quantisation import Quantiser, Ranges
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, write
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.loading.functaset_batches import FunctasetBatches
from spatial_functa_pipeline.metrics.image_quality import mean_psnr, per_image_mse
from spatial_functa_pipeline.models.weights import unpack_field

FIELD = ROOT / "data/06_models/fashion_mnist_sample/8x8x8-nearest/field.safetensors"
BATCH = 50
READ_BYTES = 2**28
"""Of latents, as float32, that a reader reads in a round, at least."""
STORED: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"storage_type": "float16"},
    **{f"{bits} bit{'s' * (bits > 1)}": {"bits": bits} for bits in range(8, 0, -1)},
}


@torch.no_grad()
def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--field", type=Path, default=FIELD, help="default: that of the default run")
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args(arguments)
    if not options.field.exists():
        parser.error(f"there is no field {options.field}: train it with kedro run --pipeline=meta_learning")
    field = unpack_field(WeightsDataset(filepath=str(options.field)).load(), torch.device("cpu"))
    accelerated(field, RuntimeConfig(device="cpu"), calls=1, device=torch.device("cpu"), name="storage")
    images = load_images("nearest", "train_images")
    count = min(options.images, len(images))
    spans = [(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]
    targets = [unit_images(images.batch(range(*span))) for span in spans]
    latents = torch.cat([field.encode(target) for target in targets]).numpy()
    shape = field.spec.latent_shape

    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: Path(folder) / kind for kind in STORED}
        writing = {
            kind: _seconds(lambda path=path, kind=kind: _write(path, latents, images.labels[:count], shape, kind))
            for kind, path in paths.items()
        }
        reading: dict[str, list[list[float]]] = {kind: [] for kind in STORED}
        for _ in range(options.rounds):
            for kind, path in paths.items():
                reading[kind].append(_reading_rates(path))
        results = []
        for kind, path in paths.items():
            stored = Functaset.open(path).rows(0, count)
            errors = [
                per_image_mse(field.decode(torch.from_numpy(stored[slice(*span)])), target)
                for span, target in zip(spans, targets, strict=True)
            ]
            read, streamed, streamed_cpu = map(median, zip(*reading[kind], strict=True))
            results.append(
                {
                    "stored": kind,
                    "bytes_per_image": check(path, progress=False).bytes / count,
                    "psnr": mean_psnr(torch.cat(errors)).item(),
                    "write_mb_s": latents.nbytes / writing[kind] / 1e6,
                    "read_mb_s": read,
                    "streamed_mb_s": streamed,
                    "streamed_mb_per_cpu_s": streamed_cpu,
                    "rms_error_per_std": _relative_error(stored, latents),
                }
            )
    table = Table(
        *("stored", "bytes per image", "PSNR", "write, MB/s", "read", "streamed", "per CPU second", "error / σ"),
        title=f"{count:,} images, {shape}",
    )
    for result in results:
        rates = [
            f"{result[name]:.0f}" for name in ("write_mb_s", "read_mb_s", "streamed_mb_s", "streamed_mb_per_cpu_s")
        ]
        error = f"{result['rms_error_per_std']:.4f}"
        table.add_row(result["stored"], f"{result['bytes_per_image']:,.0f}", f"{result['psnr']:.2f}", *rates, error)
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _write(path: Path, latents: np.ndarray, labels: np.ndarray, shape: LatentShape, kind: str) -> None:
    """A functaset of these latents, stored as `kind` says."""
    header = FunctasetHeader("benchmark", "train", shape, "nearest", len(latents), **STORED[kind])
    ranges = Ranges.of(latents) if header.bits else None
    quantiser = Quantiser(ranges, header.bits) if ranges and header.bits else None

    def rows(start: int, stop: int) -> Rows:
        part = latents[start:stop]
        return Rows.of_samples(quantiser.codes(part) if quantiser else part, labels[start:stop])

    write(path, FunctasetPlan(header, rows, progress=False, ranges=ranges))


def _reading_rates(path: Path) -> list[float]:
    """MB/s of float32: of all rows in their order; streamed; streamed, per second of the processor's time."""
    functaset = Functaset.open(path, memory_limit=0)
    size = 4 * functaset.header.rows * int(np.prod(functaset.latent_shape.shape))
    epochs = -(-READ_BYTES // size)
    read = _seconds(lambda: deque((functaset.rows(0, len(functaset)) for _ in range(epochs)), maxlen=1))
    before = time.process_time()
    steps = epochs * len(functaset) // BATCH
    streamed = _seconds(lambda: deque(FunctasetBatches(functaset, BATCH, 0, steps), maxlen=1))
    return [epochs * size / seconds / 1e6 for seconds in (read, streamed, time.process_time() - before)]


def _relative_error(stored: np.ndarray, latents: np.ndarray) -> float:
    """Mean over latent dimensions of the root of the mean squared error, divided by the dimension's deviation."""
    deviation = latents.std(axis=0)
    error = np.sqrt(np.square(stored - latents).mean(axis=0))
    return float((error / deviation)[deviation > 0].mean())


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
