"""The training loop of the field, the classifiers and the denoisers."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from spatial_functa_pipeline.compute import resolve_device
from spatial_functa_pipeline.config.block import RESULT_NEUTRAL
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.training.batch_invariant_random import BatchInvariantRandom
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.guard import (
    RollBackNeededError,
    TrainingDivergedError,
    copied,
    require_finite,
    require_no_collapse,
)
from spatial_functa_pipeline.training.interruption import HeldBackSignals, StopRequestedError, stop_process
from spatial_functa_pipeline.training.ranks import this_process
from spatial_functa_pipeline.training.schedule import build_optimizer, learning_rate_factor
from spatial_functa_pipeline.training.seeding import derive_seed, step_generator

logger = logging.getLogger(__name__)


Batch = Sequence[Tensor]


Report = Callable[[int, dict[str, float]], None]


@dataclass
class Training:
    """One training: call `run`. The model ends with the weights to evaluate (EMA or best ones, where asked for).

    With several processes each of them makes the same `Training` and calls `run`; all end with the same weights and
    history. See `launch`.

    Args:
        name: what is trained, for the progress bar, the log and the random numbers.
        model: trained in place.
        loss: `(batch, generator) -> scalar`, the mean over the batch. Draws random numbers from `generator` only.
        batches: `start_step -> batches`, tuples of tensors with the same first dimension, one for each step: of several
            processes each yields its own part.
        config: steps, rates and the like.
        seed: with `name`, the step and the number of roll-backs, fixes all random numbers.
        runtime: device and progress bar.
        checkpoint: where to continue from and save to.
        identity: what a checkpoint must agree on to be continued, beside `config` and `seed`.
        validate: called in evaluation mode, without gradients, with the weights to evaluate, by the first process only.
        best: name of a validation metric (higher is better): end with the weights that had its highest value.
        report: called by the first process with (step, metrics) whenever something was measured.
        rate_factors: on the learning rate of single parameters, by name.
        before_step: called before each step, for what is to happen once, however the batch is split.
        random: whether the loss or the model draw random numbers. If so, they are drawn in a way which does not depend
            on how the batch is split.
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
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    before_step: Callable[[], None] = lambda: None
    random: bool = True

    def run(self) -> pd.DataFrame:
        """Train to the end, from the checkpoint if there is one.

        Returns the history: one row per measured step, with its metrics; the rows of steps that were rolled back are
        left out, and from the first roll-back on a column `rollbacks` counts them.

        Raises:
            TrainingDivergedError: rolling back did not help, or is not allowed. The checkpoint is kept.
            KeyboardInterrupt, SystemExit: on Ctrl-C or SIGTERM, after saving a checkpoint.
        """
        with torch.random.fork_rng():
            return self._run()

    def _run(self) -> pd.DataFrame:
        config = self.config
        if config.guard and config.guard.margin is not None and self.best is None:
            raise ValueError(f"{self.name}: guard.margin needs a validation metric to be the best in; set it to null")
        self.ranks = this_process()
        self.device = resolve_device(self.runtime.device)
        self.model.to(self.device)
        self.optimizer = build_optimizer(self.model, config, self.rate_factors)
        self.average = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))
            if config.ema_decay is not None
            else None
        )
        self.objective = self.ranks.objective(self.model, self.loss)
        self.step, self.rollbacks, self.best_value = 0, 0, -math.inf
        self.history: list[dict[str, float]] = []
        self.loss_sum, self.loss_count = torch.zeros((), device=self.device), 0
        self.good, self.retried = [copied(self._state())], False
        self._restore()
        self.started = time.monotonic() - (self.history[-1]["seconds"] if self.history else 0.0)
        show = self.runtime.progress and self.ranks.first
        bar = tqdm(total=config.steps, initial=self.step, desc=self.name, unit="step", disable=not show)
        try:
            with bar, HeldBackSignals(self.ranks) as signals:
                while True:
                    try:
                        self._train(signals, bar)
                        break
                    except RollBackNeededError as trouble:
                        self._roll_back(trouble)
                        bar.n = self.step
        except StopRequestedError as stop:
            self._stop(stop)
        # Kept until the node's outputs are stored: then the hook removes it.
        self._save()
        if self.best:
            self._load(self.good[-1])
        if self.average:
            self.model.load_state_dict(self.average.module.state_dict())
        self.model.eval()
        return pd.DataFrame(self.history)

    def _train(self, signals: HeldBackSignals, bar: tqdm) -> None:
        """The steps from here to the end, with what is measured and saved on the way."""
        config = self.config
        for batch in self.batches(self.step):
            self._take_step(batch)
            self.step += 1
            last = self.step == config.steps
            log = last or self.step % config.log_every == 0
            validate = self.validate and (last or self.step % config.validate_every == 0)
            save = not last and self.step % config.checkpoint_every == 0
            measured = {}
            if log or validate or save:  # only here the host waits for the device
                loss, norm = self._loss_and_norm()
                require_finite(self.step, loss=loss, gradient_norm=norm)
            if log:
                rate = config.learning_rate * self._rate_factor(self.step)
                measured = {"loss": loss, "gradient_norm": norm, "learning_rate": rate}
                self.loss_sum, self.loss_count = torch.zeros((), device=self.device), 0
            if validate:
                measured |= self._validate()
            if measured:
                self._record(measured)
                bar.set_postfix({key: f"{value:.4g}" for key, value in self._latest().items()})
            if save:
                self._save()
            bar.update()
            signals.check()
        self.ranks.settle()

    def _take_step(self, batch: Batch) -> None:
        """One outer step, with the whole batch's gradient, however it is split."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * group["rate_factor"] * self._rate_factor(self.step)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        self.before_step()
        rows = len(batch[0])
        size = rows if self.config.micro_batch == "auto" else self.config.micro_batch
        retry = (self.rollbacks,) if self.rollbacks else ()
        for start in range(0, rows, size):
            part = [tensor[start : start + size].to(self.device, non_blocking=True) for tensor in batch]
            torch.manual_seed(derive_seed(self.seed, self.name, "dropout", self.step, *retry))
            generator = step_generator(self.seed, self.name, "loss", self.step, *retry)
            with self.ranks.synchronised(self.objective, wanted=start + size >= rows):
                with self._draws(start, len(part[0]), rows):
                    loss = self.objective(part, generator) * (len(part[0]) / rows)
                loss.backward()
            self.loss_sum += loss.detach()
        self.loss_count += 1
        limit = self.config.clip_norm if self.config.clip_norm is not None else math.inf
        self.norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.model)

    def _loss_and_norm(self) -> tuple[float, float]:
        """Mean loss since the last log line, over all processes, and the last step's gradient norm."""
        total, norm = self.ranks.mean(torch.stack([self.loss_sum, self.norm]))
        if self.ranks.count > 1:  # so that what is saved is right for any number of processes
            self.loss_sum.fill_(total)
        return total / max(1, self.loss_count), norm

    def _draws(self, start: int, count: int, rows: int) -> AbstractContextManager:
        """Random numbers of `count` rows from `start` on of this process's `rows`, as they are in the whole batch."""
        total = rows * self.ranks.count
        if not self.random or count == total:
            return nullcontext()
        start += rows * self.ranks.rank
        return BatchInvariantRandom(slice(start, start + count), total)

    def _rate_factor(self, step: int) -> float:
        lowered = self.config.guard.learning_rate_factor**self.rollbacks if self.rollbacks else 1.0
        return lowered * learning_rate_factor(self.config, step)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        model = self.average.module if self.average else self.model
        model.eval()
        # Only the first process validates: what that does to buffers, as a power iteration's vector, must not stay.
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        metrics = self.ranks.from_first(lambda: self.validate(model))
        for buffer, before in buffers:
            buffer.copy_(before)
        guard = self.config.guard
        for name, value in metrics.items():
            margin = guard.margin if guard and name == self.best else None
            require_no_collapse(self.step, name, value, self.best_value, margin)
        if self.best is None or metrics[self.best] > self.best_value:
            self.best_value = metrics[self.best] if self.best else -math.inf
            kept = self.good[-1:] if self.best else []
            self.good, self.retried = [*kept, copied(self._state())], False
        return metrics

    def _record(self, metrics: dict[str, float]) -> None:
        if self.rollbacks:
            metrics["rollbacks"] = self.rollbacks
        seconds = self.ranks.from_first(lambda: time.monotonic() - self.started)
        self.history.append({"step": self.step, "seconds": seconds, **metrics})
        if self.ranks.first:
            self.report(self.step, metrics)

    def _latest(self) -> dict[str, float]:
        """The newest value of each metric, for the progress bar."""
        latest = {}
        for row in self.history[-2 * max(1, self.config.validate_every // self.config.log_every) :]:
            latest |= row
        return {key: value for key, value in latest.items() if key not in ("step", "seconds", "learning_rate")}

    def _roll_back(self, trouble: RollBackNeededError) -> None:
        """Back to the last good state, on with a lower learning rate and other random numbers.

        If that has been tried, and led nowhere, back to the good state before it: the last one was good by its metric alone.

        Raises TrainingDivergedError if that has been done often enough.
        """
        guard = self.config.guard
        if guard is None or self.rollbacks >= guard.retries:
            tried = f", after {self.rollbacks} roll-backs to lower learning rates" if self.rollbacks else ""
            more = "raise guard.retries and run again to go on from it, or " if guard else "set a guard, or "
            raise TrainingDivergedError(
                f"{self.name}: {trouble}{tried}. The last checkpoint, from before that, is kept: {more}"
                "start anew with a lower training.learning_rate or training.clip_norm"
            ) from None
        self.rollbacks += 1
        failed = self.step
        if self.retried and len(self.good) > 1:
            self.good.pop()
        self.retried = True
        self._load(self.good[-1])
        self.history = [row for row in self.history if row["step"] <= self.step]
        if self.ranks.first:
            logger.warning(
                "%s: %s; back to step %d, on with %g times the learning rate (roll-back %d of at most %d)",
                *(self.name, trouble, self.step, guard.learning_rate_factor, self.rollbacks, guard.retries),
            )
            self.report(failed, {"rollbacks": self.rollbacks})
        self._save()

    def _stop(self, stop: StopRequestedError) -> None:
        """Save, say how to go on, and leave."""
        self.ranks.settle()
        sound = all(map(math.isfinite, self._loss_and_norm()))
        if sound:
            self._save()
        if self.ranks.first:
            place = "there" if sound else "the last checkpoint, as the loss is not finite"
            logger.warning("%s: interrupted at step %d; the same command goes on from %s", self.name, self.step, place)
        stop_process(stop.number)

    # Checkpoints

    def _identity(self) -> dict[str, Any]:
        neutral = dict.fromkeys(RESULT_NEUTRAL, True)
        return {
            **self.identity,
            "training": self.config.model_dump(mode="json", exclude={**neutral, "guard": neutral}),
            "rate_factors": dict(self.rate_factors),
            "seed": self.seed,
        }

    def _state(self) -> dict[str, Any]:
        """What the next step depends on, beside the number of roll-backs."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
            "best_value": self.best_value,
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.step, self.best_value = state["step"], state["best_value"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(copied(state["optimizer"]))  # it would keep, and change, the tensors
        if self.average:
            self.average.load_state_dict(state["average"])
        self.loss_sum, self.loss_count = state["loss_sum"].to(self.device, copy=True), state["loss_count"]

    def _save(self) -> None:
        if not self.ranks.first:
            return
        self.checkpoint.write(
            self._identity(),
            {
                **self._state(),
                "good": [None if good["step"] == self.step else good for good in self.good],  # None: this state itself
                "retried": self.retried,
                "rollbacks": self.rollbacks,
                "history": self.history,
            },
        )

    def _restore(self) -> None:
        """Load the checkpoint, if there is one that fits."""
        state = self.ranks.from_first(lambda: self.checkpoint.read(self._identity()))
        if state is None:
            return
        self._load(state)
        self.good = [good or copied(self._state()) for good in state["good"]]
        self.retried, self.rollbacks, self.history = state["retried"], state["rollbacks"], state["history"]
        if self.ranks.first:
            for row in self.history:
                self.report(row["step"], {key: value for key, value in row.items() if key not in ("step", "seconds")})
            logger.info("%s: going on from the checkpoint at step %d of %d", self.name, self.step, self.config.steps)
