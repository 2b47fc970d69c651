"""What a field reconstructs: test PSNR by latent shape, interpolation and λ kernel, after equal training times.

    python benchmarks/quality.py [--seconds 60] [--variants 8x8x8-nearest 8x8x8-nearest-k1 …] [--json PATH]

Trains the field of `conf/sample` on the embedded images with `train_field`, each variant with its rows of `presets`, for as
much processor time as asked for (measured on some steps before), and measures it on the test images: as trained, with 1 to 10
inner steps, encoded with bfloat16 products, and decoded at twice the resolution, beside their bicubic interpolation. Beside it
stands PCA of the same size. PSNR is the mean over images, in dB.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from stability import ROOT, load_configuration, load_images

from spatial_functa_pipeline.compute import accelerated
from spatial_functa_pipeline.config.meta_learning import MetaLearningConfig
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.metrics.image_quality import mean_psnr, pca_psnr, per_image_mse
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.field import train_field
from spatial_functa_pipeline.training.run import TrainingRun

VARIANTS = (
    "8x8x4-nearest",
    "8x8x8-nearest",
    "8x8x8-nearest-k1",
    "8x8x8-linear",
    "4x4x32-nearest",
    "1x1x512-nearest",
)
"""Latent shape, interpolation and, if it is not the preset's, k with the side of λ's kernel."""
PROBE_STEPS = 40
INNER_STEPS = range(1, 11)


def configure(variant: str, steps: int) -> tuple[PipelineParameters, MetaLearningConfig]:
    """The preset's parameters, and its meta-learning block for `variant` and `steps`."""
    shape, interpolation, *kernel = variant.split("-")
    found = load_configuration(interpolation, latent_shape=shape)["parameters"]
    parameters = PipelineParameters.model_validate(found)
    block = parameters.meta_learning.model_dump(mode="json")
    if kernel:
        block["field"]["kernel_size"] = int(kernel[0].removeprefix("k"))
    warmup = min(block["training"]["warmup_steps"], steps // 10)
    block["training"] |= {"steps": steps, "warmup_steps": warmup, "validate_every": max(1, steps // 20)}
    return parameters, MetaLearningConfig.model_validate(block)


def train(variant: str, steps: int, probe: bool = False) -> tuple[SpatialField, float]:
    """The trained field, and the seconds of processor time that it took."""
    parameters, config = configure(variant, steps)
    images = [load_images("nearest", name) for name in ("train_images", "validation_images")]
    if probe:
        config = config.model_copy(update={"validation_images": 1})
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        field, _ = train_field(
            *images,
            config,
            run=TrainingRun(
                parameters.seed,
                parameters.runtime.model_copy(update={"progress": False}),
                Checkpoint(Path(folder) / "field.ckpt"),
            ),
        )
        seconds = time.process_time() - start
    accelerated(field, parameters.runtime, calls=1, device=next(field.parameters()).device, name=variant)
    return field.eval(), seconds


@torch.no_grad()
def reconstruction_psnr(field: SpatialField, steps: int | None = None) -> float:
    """Mean PSNR over the test images after that many inner steps."""
    images, errors = load_images("nearest", "test_images"), []
    for start in range(0, len(images), 50):
        batch = unit_images(images.batch(range(start, min(start + 50, len(images)))))
        errors.append(per_image_mse(field.decode(field.encode(batch, steps)), batch))
    return mean_psnr(torch.cat(errors)).item()


@torch.no_grad()
def enlarged_psnr(field: SpatialField) -> float:
    """Mean PSNR over the test images of what is decoded at twice their resolution, to their bicubic interpolation."""
    images, errors = load_images("nearest", "test_images"), []
    resolution = tuple(2 * n for n in field.spec.resolution)
    for start in range(0, len(images), 50):
        batch = unit_images(images.batch(range(start, min(start + 50, len(images)))))
        truth = F.interpolate(batch.movedim(-1, 1), size=resolution, mode="bicubic").movedim(1, -1)
        errors.append(per_image_mse(field.decode(field.encode(batch), resolution), truth))
    return mean_psnr(torch.cat(errors)).item()


def measure(variant: str, seconds: float) -> dict[str, Any]:
    """One row of the table."""
    train(variant, 2, probe=True)
    _, probed = train(variant, PROBE_STEPS, probe=True)
    steps = max(20, round(seconds / probed * PROBE_STEPS))
    field, taken = train(variant, steps)
    spec = field.spec
    train_images, test_images = (
        images.batch(range(len(images)))
        for images in (load_images("nearest", name) for name in ("train_images", "test_images"))
    )
    result = {
        "variant": variant,
        "steps": steps,
        "seconds": taken,
        "psnr_pca": pca_psnr(train_images, test_images, spec.cell, spec.latent_shape.channels),
        "spectral_radius": field.spectral_radius(100).item(),
        "psnr_enlarged": enlarged_psnr(field),
        "psnr_by_inner_steps": {steps: reconstruction_psnr(field, steps) for steps in INNER_STEPS},
    }
    for precision in ("float32", "bf16"):  # one of them is what it was trained with
        field.spec = replace(spec, precision=precision)
        result[f"psnr_{precision}"] = reconstruction_psnr(field)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="processor time of each training")
    parser.add_argument(
        "--variants", nargs="+", default=VARIANTS, help="latent shape, interpolation, k with λ's kernel"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", default=None, help="written after each variant")
    options = parser.parse_args(arguments)
    rows = []
    for variant in options.variants:
        rows.append(measure(variant, options.seconds))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")
    table = Table(title=f"Test PSNR in dB after {options.seconds:.0f} s of processor time ({ROOT.name}, conf/sample)")
    inner = (1, 2, 3, 4, 6, 10)
    for heading in ("variant", "steps", "float32", "bf16", "at 64×64", "PCA", "λ_max", *(f"{n} inner" for n in inner)):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for row in rows:
        numbers = [row[f"psnr_{name}"] for name in ("float32", "bf16", "enlarged", "pca")] + [row["spectral_radius"]]
        numbers += [row["psnr_by_inner_steps"][n] for n in inner]
        table.add_row(row["variant"], str(row["steps"]), *(f"{number:.2f}" for number in numbers))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
