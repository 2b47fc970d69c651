"""What counts as trouble in a training, and the errors that end one which cannot be helped."""

import math

from spatial_functa_pipeline.images.images import ImagesError


class TrainingDivergedError(RuntimeError):
    """The training `name` failed, and rolling back did not help or was not allowed."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


class UnreadableImageError(ImagesError):
    """The training `name` needs an image that cannot be read, and has saved a checkpoint at `step`."""

    def __init__(self, name: str, step: int, problem: str) -> None:
        super().__init__(name, step, problem)
        self.name, self.step, self.problem = name, step, problem

    def __str__(self) -> str:
        return f"{self.name}: stopped at step {self.step}, with a checkpoint: {self.problem}"


class RollBackNeededError(Exception):
    """Something is wrong since the last good state; the training loop answers with a roll-back."""


def given_up(name: str, trouble: RollBackNeededError, rollbacks: int, guarded: bool) -> TrainingDivergedError:
    """The error of a training that has no roll-back left, with what was tried and what can be done."""
    tried = f", after {rollbacks} roll-backs to lower learning rates" if rollbacks else ""
    more = f"{'raise guard.retries' if guarded else 'set a guard'} and run again to go on from it, or "
    return TrainingDivergedError(
        name,
        f"{trouble}{tried}. The last checkpoint, from before that, is kept: {more}"
        "start anew with a lower learning_rate or clip_norm",
    )


def require_finite(step: int, **values: float) -> None:
    """Raises RollBackNeededError if a value is NaN or infinite."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise RollBackNeededError(f"the {name.replace('_', ' ')} is {value} at step {step}")


def require_no_collapse(step: int, name: str, value: float, best: float, margin: float | None) -> None:
    """Raises RollBackNeededError if the validation metric `name` is NaN, or fell more than `margin` below its best value."""
    if math.isnan(value):
        raise RollBackNeededError(f"the {name.replace('_', ' ')} is nan at step {step}")
    if margin is not None and value < best - margin:
        raise RollBackNeededError(
            f"the {name.replace('_', ' ')} fell to {value:.4g} at step {step}, more than {margin:g} below its best, "
            f"{best:.4g}"
        )
