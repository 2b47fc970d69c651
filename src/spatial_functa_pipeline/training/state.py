"""Where a training is, in one object: what it is made of now, what it can go back to, and what was measured on the way."""

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.training.average import MovingAverage
from spatial_functa_pipeline.training.schedule import build_optimizer

Snapshot = dict[str, Any]
"""What the next step depends on, beside the number of roll-backs: see `TrainingState.snapshot`."""


@dataclass
class TrainingState:
    """All of a training that changes from step to step. A training that goes on from it is, bit for bit, the uninterrupted one.

    Args:
        model: trained in place.
        optimizer: of the model's parameters.
        average: the exponential moving average of the model, if there is to be one.
        loss_sum: `()`, on the model's device: of the steps since the last log line.
        gradient_norm: `()`, so too: of the last step.
        loss_count: how many steps `loss_sum` is of.
        step: how many have been taken.
        measured: whether all that is due after this many steps has been measured. It has not if that takes an image which
            cannot be read.
        best_value: highest so far of the validation metric that the training is to be best in.
        good: what a roll-back goes back to, the last one first to be tried. At most two.
        retried: whether a roll-back went back to the last one already, and there was no better one since.
        rollbacks: how many there were.
        history: one row for each step that something was measured at.
        kept: the weights to evaluate as they were at an earlier step; None: none were kept.
        started: when, by `time.monotonic`; an interrupted training as if it had not been interrupted.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: MovingAverage | None
    loss_sum: Tensor
    gradient_norm: Tensor
    loss_count: int = 0
    step: int = 0
    measured: bool = True
    best_value: float = -math.inf
    good: list[Snapshot] = field(default_factory=list)
    retried: bool = False
    rollbacks: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    kept: dict[str, Tensor] | None = None
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def at_start(
        cls, model: nn.Module, config: TrainingConfig, rate_factors: Mapping[str, float], muon: Collection[str] = ()
    ) -> Self:
        """Before the first step; `model` is on its device already. The rest as `build_optimizer` has it."""
        zero = torch.zeros((), device=next(model.parameters()).device)
        average = None if config.ema_decay is None else MovingAverage(model, config.ema_decay, config.ema_ramp)
        state = cls(model, build_optimizer(model, config, rate_factors, muon), average, zero.clone(), zero)
        state.good = [state.snapshot()]
        return state

    # Steps

    def begin_new_mean(self) -> None:
        """The mean loss is of the steps from here on."""
        self.loss_sum, self.loss_count = torch.zeros_like(self.loss_sum), 0

    @property
    def evaluated_model(self) -> nn.Module:
        """The weights to evaluate: the average, where there is one."""
        return self.average.module if self.average else self.model

    def keep_weights(self) -> None:
        """Keep those to evaluate as they are now."""
        self.kept = copied_to_cpu(self.evaluated_model.state_dict())

    def record(self, metrics: dict[str, float], seconds: float) -> None:
        """A row of the history."""
        self.history.append({"step": self.step, "seconds": seconds, **metrics})

    def latest_metrics(self, rows: int) -> dict[str, float]:
        """The newest value of each metric in the last `rows` rows of the history."""
        latest: dict[str, float] = {}
        for row in self.history[-rows:]:
            latest |= metrics_of(row)
        return latest

    def end(self, best: bool) -> None:
        """The model takes the weights to evaluate: those of the best validation, or the last."""
        if best:
            self._restore(self.good[-1])
        if self.average:
            self.model.load_state_dict(self.average.module.state_dict())
        self.model.eval()

    # Roll-backs

    def snapshot(self) -> Snapshot:
        """A copy, on the CPU: what later steps change stays as it is here."""
        return copied_to_cpu(self._content())

    def keep_as_good(self, value: float | None) -> None:
        """A roll-back from here on goes back to here.

        `value`: of the metric to be best in. Without one, only this state is kept: nothing says that an older one is better.
        """
        older = [] if value is None else self.good[-1:]
        self.best_value = -math.inf if value is None else value
        self.good, self.retried = [*older, self.snapshot()], False

    def roll_back(self) -> None:
        """Back to the last good state; what was measured since then is forgotten.

        If that has been tried, and led nowhere, back to the good state before it: the last one was good by its metric alone.
        """
        self.rollbacks += 1
        if self.retried and len(self.good) > 1:
            self.good.pop()
        self.retried = self.measured = True
        self._restore(self.good[-1])
        self.history = [row for row in self.history if row["step"] <= self.step]

    # Checkpoints

    def to_checkpoint(self) -> dict[str, Any]:
        """The content of a checkpoint; its tensors are the ones in use, not copies."""
        return {
            **self._content(),
            "gradient_norm": self.gradient_norm,
            "measured": self.measured,
            "good": [None if good["step"] == self.step else good for good in self.good],  # None: this state itself
            "retried": self.retried,
            "rollbacks": self.rollbacks,
            "history": self.history,
            **({} if self.kept is None else {"kept": self.kept}),
        }

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Take over the content of a checkpoint."""
        self._restore(checkpoint)
        self.gradient_norm = checkpoint["gradient_norm"].to(self.gradient_norm.device, copy=True)
        self.measured = checkpoint["measured"]
        self.good = [good or self.snapshot() for good in checkpoint["good"]]
        self.retried, self.rollbacks = checkpoint["retried"], checkpoint["rollbacks"]
        self.history, self.kept = checkpoint["history"], checkpoint.get("kept")
        self.started = time.monotonic() - (self.history[-1]["seconds"] if self.history else 0.0)

    def _content(self) -> Snapshot:
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "best_value": self.best_value,
        }

    def _restore(self, content: Snapshot) -> None:
        self.step, self.best_value = content["step"], content["best_value"]
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(copied_to_cpu(content["optimizer"]))  # it would keep, and change, the tensors
        if self.average:
            self.average.load_state_dict(content["average"])
        self.loss_sum = content["loss_sum"].to(self.loss_sum.device, copy=True)
        self.loss_count = content["loss_count"]


def metrics_of(row: dict[str, float]) -> dict[str, float]:
    """A row of a history without its place in time."""
    return {name: value for name, value in row.items() if name not in ("step", "seconds")}


def copied_to_cpu(value: Any) -> Any:
    """The same containers with copies of their tensors, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copied_to_cpu(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(copied_to_cpu, value))
    return value
