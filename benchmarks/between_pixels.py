"""What a field shows between the pixels that it was trained on, against pictures that have them.

    python benchmarks/between_pixels.py [--contestants cells jitter overlap] [--steps 1000] [--seeds 0]
                                        [--set KEY=VALUE …] [--json PATH]

Tiles of 128×128 pixels of photographs (photo_tiles.py), averaged to 32×32, train the field of `conf/sample` with latents of
8×8×16, a 1×1 λ and three inner steps. It encodes averaged tiles that it was not trained on, of the same photographs and of
others, and decodes them at 64×64 and 128×128, where the truth is known. Beside it stands the bicubic enlargement of what it
decodes at 32×32. PSNR is the mean over images, in dB; seams are steps between pixels across the borders of cells ÷ within
cells, of the field's picture / of the true one.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from photo_tiles import Part, averaged, photo_images, photo_pixels
from rich.console import Console
from rich.table import Table
from stability import load_configuration
from torch import Tensor

from spatial_functa_pipeline.compute import accelerated
from spatial_functa_pipeline.config.meta_learning import MetaLearningConfig
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.metrics.image_quality import mean_psnr, per_image_mse
from spatial_functa_pipeline.metrics.seams import SeamSteps
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.field import train_field
from spatial_functa_pipeline.training.run import TrainingRun

SIDE, TRUE_SIDE = 32, 128
SIDES = (32, 64, 128)
STRIDES: dict[Part, int] = {"train": 16, "same": 32, "other": 64}
CONTESTANTS: dict[str, dict[str, Any]] = {
    "cells": {"jitter.share": 0.0, "field.overlap": 0.0},
    "jitter": {"jitter.share": 0.5, "field.overlap": 0.0},
    "overlap": {"jitter.share": 0.5, "field.overlap": 0.5},
}


def changed(block: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a nested block with other values for some dotted keys."""
    result = dict(block)
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        result[first] = changed(result[first], {rest: value}) if rest else value
    return result


def configure(steps: int, changes: Mapping[str, Any]) -> tuple[PipelineParameters, MetaLearningConfig]:
    """The preset's parameters, and its meta-learning block for the photographs and so many steps."""
    parameters = PipelineParameters.model_validate(load_configuration("nearest")["parameters"])
    training = parameters.meta_learning.training
    of_photographs = {
        "field.latent_shape": "8x8x16",
        "field.resolution": (SIDE, SIDE),
        "field.channels": 3,
        # The preset's 3×3 λ diverges on photographs at the preset's rate.
        "field.kernel_size": 1,
        "field.inner_steps": 3,
        "training_inner_steps": None,
        "hidden_optimizer": "adam",
        "learning_rate_factors.hidden": None,
        "training.steps": steps,
        "training.warmup_steps": min(training.warmup_steps, steps // 10),
        "training.validate_every": max(1, steps // 5),
    }
    block = changed(parameters.meta_learning.model_dump(mode="json"), of_photographs | dict(changes))
    return parameters, MetaLearningConfig.model_validate(block)


def train(steps: int, seed: int, changes: Mapping[str, Any]) -> SpatialField:
    """The field, trained on averaged tiles and validated on others of the same photographs."""
    parameters, config = configure(steps, changes)
    pixels = (photo_pixels(part, TRUE_SIDE, STRIDES[part]) for part in ("train", "same"))
    images = [photo_images(averaged(one, TRUE_SIDE // SIDE)) for one in pixels]
    runtime = parameters.runtime.model_copy(update={"progress": False})
    with tempfile.TemporaryDirectory() as folder:
        field, _ = train_field(*images, config, run=TrainingRun(seed, runtime, Checkpoint(Path(folder) / "field.ckpt")))
    accelerated(field, runtime, calls=1, device=next(field.parameters()).device, name="field")
    return field.eval()


def enlarged(images: Tensor, side: int) -> Tensor:
    """Images `(B, …, …, channels)` at another resolution, by bicubic interpolation."""
    return F.interpolate(images.movedim(-1, 1), size=(side, side), mode="bicubic").movedim(1, -1)


def seam_ratio(images: Tensor, grid: Sequence[int]) -> float | None:
    seams = SeamSteps(grid)
    seams.update(images)
    return seams.ratio()


@torch.no_grad()
def measure(field: SpatialField, part: Part) -> dict[str, Any]:
    """PSNR and seams of a part of the photographs at each of `SIDES`."""
    pixels = photo_pixels(part, TRUE_SIDE, STRIDES[part])
    device = next(field.parameters()).device
    truth = {side: unit_images(torch.from_numpy(averaged(pixels, TRUE_SIDE // side))) for side in SIDES}
    latents = field.encode(truth[SIDE].to(device))
    own = field.decode(latents).cpu()
    result: dict[str, Any] = {"part": part, "images": len(pixels)}
    for side in SIDES:
        decoded = field.decode(latents, (side, side)).cpu()
        result[f"psnr_{side}"] = mean_psnr(per_image_mse(decoded, truth[side])).item()
        result[f"psnr_bicubic_{side}"] = mean_psnr(per_image_mse(enlarged(own, side), truth[side])).item()
        grid = field.spec.latent_shape.grid
        result[f"seams_{side}"], result[f"true_seams_{side}"] = seam_ratio(decoded, grid), seam_ratio(truth[side], grid)
    return result


def report(rows: Sequence[Mapping[str, Any]], steps: int) -> Table:
    table = Table(title=f"PSNR in dB, field / bicubic of its own {SIDE}×{SIDE}, after {steps:,} steps")
    sides = [f"{side}²" for side in SIDES]
    for heading in ("contestant", "seed", "photographs", *sides, *(f"seams {side}" for side in sides)):
        table.add_column(heading, justify="left" if heading == "contestant" else "right")
    for row in rows:
        psnr = [f"{row[f'psnr_{side}']:.2f} / {row[f'psnr_bicubic_{side}']:.2f}" for side in SIDES[1:]]
        seams = [f"{row[f'seams_{side}']:.3f} / {row[f'true_seams_{side}']:.3f}" for side in SIDES]
        whose = {"same": "trained on", "other": "others"}[row["part"]]
        table.add_row(row["contestant"], str(row["seed"]), whose, f"{row[f'psnr_{SIDE}']:.2f}", *psnr, *seams)
    return table


def main(arguments: list[str] | None = None) -> int:
    """Train, measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--steps", type=int, default=1000, help="outer steps of each training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="parameters of `meta_learning`, for all contestants"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", default=None, help="written after each training")
    options = parser.parse_args(arguments)
    common = {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in options.set)}
    rows: list[dict[str, Any]] = []
    for contestant in options.contestants:
        for seed in options.seeds:
            field = train(options.steps, seed, CONTESTANTS[contestant] | common)
            for part in ("same", "other"):
                rows.append({"contestant": contestant, "seed": seed, **measure(field, part)})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=2) + "\n")
    Console(width=None if sys.stdout.isatty() else 140).print(report(rows, options.steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
