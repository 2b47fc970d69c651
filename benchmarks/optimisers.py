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
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from quality import configure
from rich.console import Console
from rich.table import Table
from stability import load_images
from torch import nn

from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.training import schedule, state
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.field import train_field
from spatial_functa_pipeline.training.run import TrainingRun

VARIANT = "8x8x8-nearest"
CONTESTANTS = (("Adam", 1.0), ("Adam", 2.0), ("Adam", 3.0), ("Muon", 0.3), ("Muon", 1.0), ("Muon", 3.0), ("Muon", 10.0))
"""Optimiser of the hidden matrices, and their rate as a multiple of the preset's learning rate."""


class AdamAndMuon(torch.optim.Optimizer):
    """Muon for the hidden matrices and Adam for all else, as one optimiser to a training."""

    def __init__(self, adam: torch.optim.Optimizer, muon: torch.optim.Optimizer) -> None:
        self.parts = (adam, muon)
        self.param_groups = [*adam.param_groups, *muon.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def step(self, closure: None = None) -> None:
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {str(number): part.state_dict() for number, part in enumerate(self.parts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for number, part in enumerate(self.parts):
            part.load_state_dict(state_dict[str(number)])


def is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether this is a W×W matrix of the SIREN."""
    return name.startswith("layers.") and parameter.ndim == 2 and parameter.shape[0] == parameter.shape[1]


def builder(optimiser: str, factor: float):
    """`build_optimizer` with another optimiser, or another rate, for the hidden matrices."""

    def build(model: nn.Module, config: TrainingConfig, rate_factors: Mapping[str, float] | None = None):
        hidden = {name: parameter for name, parameter in model.named_parameters() if is_hidden(name, parameter)}
        if not hidden:
            raise ValueError("the field has no hidden layer")
        if optimiser == "Adam":
            return schedule.build_optimizer(model, config, {**(rate_factors or {}), **dict.fromkeys(hidden, factor)})
        for parameter in hidden.values():
            parameter.requires_grad_(False)
        adam = schedule.build_optimizer(model, config, rate_factors)
        for parameter in hidden.values():
            parameter.requires_grad_(True)
        groups = [{"params": list(hidden.values()), "rate_factor": factor}]
        return AdamAndMuon(adam, torch.optim.Muon(groups, lr=config.learning_rate, weight_decay=0.0))

    return build


def train(optimiser: str, factor: float, steps: int, seed: int) -> dict[str, Any]:
    """The last validation and the highest one of a training that nothing rolls back."""
    parameters, config = configure(VARIANT, steps)
    config = config.model_copy(update={"training": config.training.model_copy(update={"guard": None})})
    images = [load_images("nearest", name) for name in ("train_images", "validation_images")]
    with tempfile.TemporaryDirectory() as folder, patch.object(state, "build_optimizer", builder(optimiser, factor)):
        runtime = parameters.runtime.model_copy(update={"progress": False})
        run = TrainingRun(seed, runtime, Checkpoint(Path(folder) / "field.ckpt"))
        _, history = train_field(*images, config, run=run)
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
