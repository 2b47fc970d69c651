"""What a storage type costs: bytes per image, PSNR, and how fast latents are written and read.

    python benchmarks/storage.py [--field PATH] [--images 8000] [--json PATH]

Encodes embedded images with a field that `kedro run` has trained, stores the latents in every storage type in a temporary
folder, reads them back and decodes them. Rates are of latents as float32, files in the page cache; PSNR is the mean over
images, in dB.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from stability import ROOT, load_images

from spatial_functa_pipeline.compute import accelerated
from spatial_functa_pipeline.config.functaset import StorageType
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.datasets.weights import WeightsDataset
from spatial_functa_pipeline.functasets.checking import check
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, write
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.metrics.image_quality import mean_psnr, per_image_mse
from spatial_functa_pipeline.models.weights import unpack_field

FIELD = ROOT / "data/06_models/fashion_mnist_sample/8x8x8-nearest/field.safetensors"
BATCH = 50


@torch.no_grad()
def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--field", type=Path, default=FIELD, help="default: that of the default run")
    parser.add_argument("--images", type=int, default=8000)
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

    def rows(start: int, stop: int) -> Rows:
        return Rows.of_samples(latents[start:stop], images.labels[start:stop])

    results = []
    for kind in get_args(StorageType):
        header = FunctasetHeader("benchmark", "train", shape, field.spec.interpolation, count, storage_type=kind)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "f.zarr"
            start = time.perf_counter()
            write(path, FunctasetPlan(header, rows, progress=False))
            written = time.perf_counter() - start
            start = time.perf_counter()
            stored = Functaset.open(path).rows(0, count)
            read = time.perf_counter() - start
            size = check(path, progress=False).bytes
        errors = [
            per_image_mse(field.decode(torch.from_numpy(stored[slice(*span)])), target)
            for span, target in zip(spans, targets, strict=True)
        ]
        results.append(
            {
                "storage_type": kind,
                "bytes_per_image": size / count,
                "psnr": mean_psnr(torch.cat(errors)).item(),
                "write_mb_s": latents.nbytes / written / 1e6,
                "read_mb_s": latents.nbytes / read / 1e6,
                "largest_error": float(np.abs(stored - latents).max()),
            }
        )
    table = Table(
        "storage type", "bytes per image", "PSNR", "write, MB/s", "read, MB/s", title=f"{count:,} images, {shape}"
    )
    for result in results:
        numbers = (f"{result['psnr']:.2f}", f"{result['write_mb_s']:.0f}", f"{result['read_mb_s']:.0f}")
        table.add_row(result["storage_type"], f"{result['bytes_per_image']:,.0f}", *numbers)
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
