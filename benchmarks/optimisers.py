"""Adam beside Muon for the hidden matrices of the field's SIREN: validation PSNR after equal steps.

    python benchmarks/optimisers.py [--steps 400] [--seeds 0] [--contestants Adam:1 Muon:3 …] [--json PATH]

Trains the field of `conf/sample` on the embedded images with `train_field`. Muon (Jordan et al. 2024; `torch.optim.Muon`)
orthogonalises the steps of the hidden layers' W×W matrices; all else stays with Adam at the preset's rates. Each optimiser is
tried at several rates of these matrices, so that both are tuned as much. PSNR is the mean over images, in dB.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from quality import configure
from rich.console import Console
from rich.table import Table
from stability import load_images

from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.field import train_field
from spatial_functa_pipeline.training.run import TrainingRun

VARIANT = "8x8x8-nearest"
CONTESTANTS = (("Adam", 1.0), ("Adam", 2.0), ("Adam", 3.0), ("Muon", 0.3), ("Muon", 1.0), ("Muon", 3.0), ("Muon", 10.0))
"""Optimiser of the hidden matrices, and their rate as a multiple of the preset's learning rate."""


def train(optimiser: str, factor: float, steps: int, seed: int) -> dict[str, Any]:
    """The last validation and the highest one of a training that nothing rolls back."""
    parameters, config = configure(VARIANT, steps)
    changes = {
        "training": config.training.model_copy(update={"guard": None}),
        "hidden_optimizer": optimiser.lower(),
        "learning_rate_factors": config.learning_rate_factors.model_copy(update={"hidden": factor}),
    }
    images = [load_images("nearest", name) for name in ("train_images", "validation_images")]
    with tempfile.TemporaryDirectory() as folder:
        runtime = parameters.runtime.model_copy(update={"progress": False})
        run = TrainingRun(seed, runtime, Checkpoint(Path(folder) / "field.ckpt"))
        _, history = train_field(*images, config.model_copy(update=changes), run=run)
    psnr = history["validation_psnr"].dropna()
    found = {"optimiser": optimiser, "factor": factor, "seed": seed, "steps": steps}
    return {**found, "psnr": float(psnr.iloc[-1]), "best": float(psnr.max())}


def contestant(text: str) -> tuple[str, float]:
    """`Muon:3` → ("Muon", 3.0). Raises ArgumentTypeError."""
    optimiser, _, factor = text.partition(":")
    if optimiser not in ("Adam", "Muon") or not factor:
        raise argparse.ArgumentTypeError(f"a contestant is Adam or Muon and a rate, as in Muon:3, got {text}")
    return optimiser, float(factor)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--contestants", nargs="+", type=contestant, default=CONTESTANTS, help="optimiser:rate of the hidden matrices"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", default=None, help="written after each training")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for optimiser, factor in options.contestants:
        for seed in options.seeds:
            rows.append(train(optimiser, factor, options.steps, seed))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=2) + "\n")
    table = Table(title=f"Validation PSNR in dB after {options.steps} steps, {VARIANT}, conf/sample")
    for heading in ("hidden matrices", "rate ×", "PSNR by seed", "highest"):
        table.add_column(heading, justify="left" if heading == "hidden matrices" else "right")
    for optimiser, factor in options.contestants:
        found = [row for row in rows if (row["optimiser"], row["factor"]) == (optimiser, factor)]
        numbers = [" ".join(f"{row[key]:.2f}" for row in found) for key in ("psnr", "best")]
        table.add_row(optimiser, f"{factor:g}", *numbers)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
