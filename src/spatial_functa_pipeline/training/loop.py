"""The training loop of the field, the classifiers and the denoisers."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from ..compute import resolve_device
from ..config import RESULT_NEUTRAL, RuntimeConfig, TrainingConfig
from .checkpoint import Checkpoint
from .seeding import derive_seed, step_generator

logger = logging.getLogger(__name__)

Batch = Sequence[Tensor]
Report = Callable[[int, dict[str, float]], None]


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite."""


def learning_rate_factor(config: TrainingConfig, step: int) -> float:
    """Factor on the learning rate at `step` (from 0): linear warm-up, then the schedule."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "inverse_sqrt":
        return math.sqrt(max(1, config.warmup_steps) / (step + 1))
    return 1.0


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Adam; with `weight_decay`, AdamW on all that has two or more axes (not biases, norms and inner rates)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def interruptible(batches: Iterable[Batch]) -> Iterator[Batch]:
    """`batches`, with Ctrl-C held back until the next one is asked for, when the last step is done and recorded.

    Interrupted in the middle of a step, weights, optimiser and average would no longer belong together. A second
    Ctrl-C is not held back. Outside the main thread, where signals never arrive, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield from batches
        return
    asked = False

    def ask(signal_number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    previous = signal.signal(signal.SIGINT, ask)
    try:
        for batch in batches:
            yield batch
            if asked:
                raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, previous)


@dataclass
class Training:
    """One training: call `run`. The model ends with the weights to evaluate (EMA or best ones, where asked for).

    Args:
        name: what is trained, for the progress bar, the log and the random numbers.
        model: trained in place.
        loss: `(batch, generator) -> scalar`, the mean over the batch. Draws random numbers from `generator` only.
        batches: `start_step -> batches`, tuples of tensors with the same first dimension, one for each step.
        config: steps, rates and the like.
        seed: with `name` and the step, fixes all random numbers.
        runtime: device and progress bar.
        checkpoint: where to continue from and save to.
        identity: what a checkpoint must agree on to be continued, beside `config` and `seed`.
        validate: called in evaluation mode, without gradients, with the weights to evaluate.
        best: name of a validation metric (higher is better): end with the weights that had its highest value.
        report: called with (step, metrics) whenever something was measured.
    """

    name: str
    model: nn.Module
    loss: Callable[[Batch, torch.Generator], Tensor]
    batches: Callable[[int], Iterable[Batch]]
    config: TrainingConfig
    seed: int
    runtime: RuntimeConfig
    checkpoint: Checkpoint
    identity: dict[str, Any]
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    best: str | None = None
    report: Report = lambda step, metrics: None

    def run(self) -> pd.DataFrame:
        """Train to the end, from the checkpoint if there is one.

        Returns the history: one row per measured step, with its metrics.
        Raises TrainingDivergedError if the loss is not finite; the last checkpoint is kept, from before that.
        """
        with torch.random.fork_rng():
            return self._run()

    def _run(self) -> pd.DataFrame:
        config = self.config
        self.device = resolve_device(self.runtime.device)
        self.model.to(self.device)
        self.optimizer = build_optimizer(self.model, config)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(config, step)
        )
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
            if config.ema_decay is not None
            else None
        )
        self.history: list[dict[str, float]] = []
        self.best_value, self.best_state = -math.inf, None
        start = step = self._restore()
        elapsed = self.history[-1]["seconds"] if self.history else 0.0
        self.started = time.monotonic() - elapsed
        bar = tqdm(total=config.steps, initial=start, desc=self.name, unit="step", disable=not self.runtime.progress)
        loss_sum, loss_count = torch.zeros((), device=self.device), 0
        try:
            for batch in interruptible(self.batches(start)):
                loss, norm = self._step(step, batch)
                loss_sum, loss_count = loss_sum + loss, loss_count + 1
                step += 1
                measure = {}
                if step % config.log_every == 0 or step == config.steps:
                    measure = {"loss": loss_sum.item() / loss_count, "gradient_norm": norm.item()}
                    self._check_finite(step, **measure)
                    measure["learning_rate"] = self.optimizer.param_groups[0]["lr"]
                    loss_sum, loss_count = torch.zeros((), device=self.device), 0
                if self.validate and (step % config.validate_every == 0 or step == config.steps):
                    measure |= self._validate()
                if measure:
                    self._record(step, measure)
                    bar.set_postfix({key: f"{value:.4g}" for key, value in self._latest().items()})
                if step % config.checkpoint_every == 0 and step < config.steps:
                    self._check_finite(step, loss=loss.item(), gradient_norm=norm.item())
                    self._save(step)
                bar.update()
        except KeyboardInterrupt:
            self._check_finite(step, loss=loss_sum.item())
            self._save(step)
            logger.warning("%s: interrupted at step %d; the same command goes on from there", self.name, step)
            raise
        finally:
            bar.close()
        # Kept until the node's outputs are stored: then the hook removes it.
        self._save(step)
        if self.best:
            self.model.load_state_dict(self.best_state)
        elif self.average:
            self.model.load_state_dict(self.average.module.state_dict())
        self.model.eval()
        return pd.DataFrame(self.history)

    def _step(self, step: int, batch: Batch) -> tuple[Tensor, Tensor]:
        """One outer step; the gradient is accumulated over micro-batches and equals the whole batch's."""
        torch.manual_seed(derive_seed(self.seed, self.name, "dropout", step))
        generator = step_generator(self.seed, self.name, "loss", step)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        size = len(batch[0])
        total = torch.zeros((), device=self.device)
        parts = zip(*(tensor.split(self.config.micro_batch or size) for tensor in batch), strict=True)
        for part in parts:
            part = [tensor.to(self.device, non_blocking=True) for tensor in part]
            loss = self.loss(part, generator) * (len(part[0]) / size)
            loss.backward()
            total += loss.detach()
        limit = self.config.clip_norm if self.config.clip_norm is not None else math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.optimizer.step()
        self.scheduler.step()
        if self.average:
            self.average.update_parameters(self.model)
        return total, norm

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        model = self.average.module if self.average else self.model
        model.eval()
        metrics = self.validate(model)
        if self.best and metrics[self.best] > self.best_value:
            self.best_value = metrics[self.best]
            self.best_state = {key: value.detach().clone() for key, value in model.state_dict().items()}
        return metrics

    def _record(self, step: int, metrics: dict[str, float]) -> None:
        self.history.append({"step": step, "seconds": time.monotonic() - self.started, **metrics})
        self.report(step, metrics)

    def _latest(self) -> dict[str, float]:
        """The newest value of each metric, for the progress bar."""
        latest = {}
        for row in self.history[-2 * max(1, self.config.validate_every // self.config.log_every) :]:
            latest |= row
        return {key: value for key, value in latest.items() if key not in ("step", "seconds", "learning_rate")}

    def _check_finite(self, step: int, **values: float) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingDivergedError(
                    f"{self.name}: the {name.replace('_', ' ')} is {value} at step {step}. The last checkpoint is from "
                    "before that. Lower training.learning_rate or training.clip_norm and run again"
                )

    def _identity(self) -> dict[str, Any]:
        return {
            **self.identity,
            "training": self.config.model_dump(mode="json", exclude=RESULT_NEUTRAL),
            "seed": self.seed,
        }

    def _save(self, step: int) -> None:
        self.checkpoint.write(
            self._identity(),
            {
                "step": step,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "average": self.average.state_dict() if self.average else None,
                "best_value": self.best_value,
                "best_state": self.best_state,
                "history": self.history,
            },
        )

    def _restore(self) -> int:
        """Load the checkpoint, if there is one that fits; returns the step to go on from."""
        state = self.checkpoint.read(self._identity())
        if state is None:
            return 0
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.best_value, self.best_state = state["best_value"], state["best_state"]
        self.history = state["history"]
        for row in self.history:
            self.report(row["step"], {key: value for key, value in row.items() if key not in ("step", "seconds")})
        logger.info("%s: going on from the checkpoint at step %d of %d", self.name, state["step"], self.config.steps)
        return state["step"]
