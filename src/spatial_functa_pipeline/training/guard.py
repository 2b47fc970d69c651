"""What counts as trouble in a training, and the copy of its state that it rolls back to."""

import math
from typing import Any

from torch import Tensor


class TrainingDivergedError(RuntimeError):
    """The training failed, and rolling back did not help or was not allowed."""


class RollBackNeededError(Exception):
    """Something is wrong since the last good state; the training loop answers with a roll-back."""


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


def copied(state: Any) -> Any:
    """The same containers with copies of the tensors, on the CPU: what later steps change stays as it was here."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(copied, state))
    return state
