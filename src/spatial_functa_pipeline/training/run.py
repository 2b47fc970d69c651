"""What every training is given beside its data and its parameters."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.models.weights import Weights
from spatial_functa_pipeline.training.checkpoint import Checkpoint

Report = Callable[[int, dict[str, float]], None]
"""Called with (step, metrics) whenever something was measured."""


def report_nothing(step: int, metrics: dict[str, float]) -> None:
    """The `Report` of a training that nobody follows."""


def nothing_to_train() -> tuple[Weights, pd.DataFrame]:
    """Weights and history of a training that is left out: there are no numbers, and there was no step."""
    return Weights({}), pd.DataFrame({"step": []})


@dataclass(frozen=True)
class TrainingRun:
    """One run of a training: what it is started with, wherever its data come from.

    Args:
        seed: fixes all random numbers, together with the training's name, the step and the number of roll-backs.
        runtime: device, processes and progress bar.
        checkpoint: where to continue from and save to.
        report: called by the first process only. With several processes it must be picklable.
    """

    seed: int
    runtime: RuntimeConfig
    checkpoint: Checkpoint
    report: Report = report_nothing
