"""The training loop of the field, the classifiers and the denoisers."""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from spatial_functa_pipeline.compute import resolve_device, tf32_products
from spatial_functa_pipeline.config.block import NetworkPrecision, without_neutral
from spatial_functa_pipeline.config.training import GuardConfig, TrainingConfig
from spatial_functa_pipeline.images.images import ImagesError
from spatial_functa_pipeline.training.guard import (
    RollBackNeededError,
    UnreadableImageError,
    given_up,
    require_finite,
    require_no_collapse,
)
from spatial_functa_pipeline.training.interruption import HeldBackSignals, StopRequestedError, stop_process
from spatial_functa_pipeline.training.pace import Pace
from spatial_functa_pipeline.training.ranks import Ranks, this_process
from spatial_functa_pipeline.training.run import TrainingRun
from spatial_functa_pipeline.training.state import TrainingState, metrics_of
from spatial_functa_pipeline.training.step import Batch, Loss, OuterStep, rate_factor

logger = logging.getLogger(__name__)

_VERSION = 2
"""Goes up with a change of what a step does or of what a checkpoint holds: those of other versions are not continued."""


@dataclass
class Training:
    """One training: call `train`. The model ends with the weights to evaluate (EMA or best ones, if `config` says so).

    With several processes each of them makes the same `Training` and calls `train`; all end with the same weights and
    history. See `launch`.

    Args:
        name: what is trained, for the progress bar, the log and the random numbers.
        model: trained in place.
        loss: see `Loss`.
        batches: `start_step -> batches`, one for each step: of several processes each yields its own part.
        config: steps, rates and the like.
        run: seed, device, checkpoint and report.
        must_agree: what must be the same for a checkpoint to be continued, beside `config` and the seed.
        validate: called in evaluation mode, without gradients, with the weights to evaluate, by the first process only.
        best: name of the validation metric (higher is better) that `config.keep` and the guard's margin mean.
        rate_factors: on the learning rate of single parameters, by name.
        muon: names of the matrices that Muon has instead of Adam.
        keep_weights_at: the step after which the weights to evaluate are kept as `state.kept`, whatever becomes of them.
        before_step: called before each step, for what is to happen once, however the batch is split.
        random: whether the loss or the model draw random numbers. If so, they are drawn in a way which does not depend
            on how the batch is split.
        precision: with `tf32` all products on CUDA are so, else none; what bf16 rounds is the loss's own matter.
    """

    name: str
    model: nn.Module
    loss: Loss
    batches: Callable[[int], Iterable[Batch]]
    config: TrainingConfig
    run: TrainingRun
    must_agree: dict[str, Any]
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    best: str | None = None
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    muon: Collection[str] = ()
    keep_weights_at: int | None = None
    before_step: Callable[[], None] = lambda: None
    random: bool = True
    precision: NetworkPrecision = "float32"
    state: TrainingState = field(init=False)
    ranks: Ranks = field(init=False, default_factory=this_process)
    pace: Pace = field(init=False)

    def __post_init__(self) -> None:
        guard = self.config.guard
        if guard and guard.margin is not None and self.best is None:
            raise ValueError(f"{self.name}: guard.margin needs a validation metric to be the best in; set it to null")
        if self.config.keep == "best" and self.best is None:
            raise ValueError(f"{self.name}: keep is best, but there is no validation metric to be the best in")
        self.model.to(self._device)
        self.state = TrainingState.at_start(self.model, self.config, self.rate_factors, self.muon)
        self.pace = Pace(self.config.steps)

    def train(self) -> pd.DataFrame:
        """Train to the end, from the checkpoint if there is one.

        The checkpoint of the end stays: whoever has stored what the training led to deletes it.

        Returns the history: one row per measured step, with its metrics; the rows of steps that were rolled back are
        left out, and from the first roll-back on a column `rollbacks` counts them.

        Raises:
            TrainingDivergedError: rolling back did not help, or is not allowed. The checkpoint is kept.
            UnreadableImageError: an image cannot be read, after saving a checkpoint. A training of the images without it,
                or with another one in its place, goes on from there.
            KeyboardInterrupt, SystemExit: on Ctrl-C or SIGTERM, after saving a checkpoint.
        """
        with torch.random.fork_rng(), tf32_products(self.precision, self._device):
            objective = self.ranks.objective(self.model, self.loss)
            take_step = OuterStep(
                objective, self.name, self.run.seed, self.config, self.ranks, self.before_step, self.random
            )
            self._continue_from_checkpoint()
            try:
                with self._progress_bar() as bar, HeldBackSignals(self.ranks) as signals:
                    while not self._reach_the_end(take_step, bar, signals):
                        bar.n = self.state.step
            except StopRequestedError as stop:
                self._stop(stop)
            except ImagesError as error:
                self._stop_at_image(error)
            self._save()
            self.state.end(best=self.config.keep == "best")
            return pd.DataFrame(self.state.history)

    def _reach_the_end(self, take_step: OuterStep, bar: "tqdm[NoReturn]", signals: HeldBackSignals) -> bool:
        """The steps from here to the end, with what is measured and saved on the way. False if they were rolled back."""
        try:
            if not self.state.measured:
                self._measure(bar)
            for batch in self._read_batches():
                take_step(self.state, batch)
                self.state.step += 1
                if self.state.step == self.keep_weights_at:
                    self.state.keep_weights()
                self._say_if_it_takes_days()
                self._measure(bar)
                if self._is_due(self.config.checkpoint_every) and not self._is_last:
                    self._save()
                bar.update()
                signals.check()
        except RollBackNeededError as trouble:
            self._roll_back(trouble)
            return False
        self.ranks.finish_agreeing()
        return True

    def _read_batches(self) -> Iterator[Batch]:
        """`batches` from here on. An image that one process cannot read is an ImagesError in all, before the same step."""
        batches, batch = iter(self.batches(self.state.step)), None
        while True:
            with self.ranks.failing_together():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    @property
    def _device(self) -> torch.device:
        return resolve_device(self.run.runtime.device)

    # Measuring

    @property
    def _is_last(self) -> bool:
        return self.state.step == self.config.steps

    def _is_due(self, every: int) -> bool:
        return self._is_last or self.state.step % every == 0

    def _measure(self, bar: "tqdm[NoReturn]") -> None:
        """What is due after this step. Raises RollBackNeededError if it is bad, also before a checkpoint is written."""
        config, state = self.config, self.state
        log = self._is_due(config.log_every)
        validate = self.validate if self._is_due(config.validate_every) else None
        if not (log or validate or self._is_due(config.checkpoint_every)):
            return  # only below the host waits for the device
        state.measured = False
        loss, norm = self._loss_and_norm()
        require_finite(state.step, loss=loss, gradient_norm=norm)
        validated = (
            self._validate(validate) if validate else {}
        )  # first: if an image cannot be read, nothing has changed
        metrics = {}
        if log:
            rate = config.learning_rate * rate_factor(config, state)
            metrics = {"loss": loss, "gradient_norm": norm, "learning_rate": rate}
            state.begin_new_mean()
        if validated:
            self._judge(validated)
            metrics |= validated
        if metrics:
            self._record(metrics)
            recent = state.latest_metrics(rows=2 * max(1, config.validate_every // config.log_every))
            bar.set_postfix({name: f"{value:.4g}" for name, value in recent.items() if name != "learning_rate"})
        state.measured = True

    def _loss_and_norm(self) -> tuple[float, float]:
        """Mean loss since the last log line, over all processes, and the last step's gradient norm."""
        state = self.state
        total, norm = self.ranks.mean(torch.stack([state.loss_sum, state.gradient_norm]))
        if self.ranks.count > 1:  # so that what is saved is right for any number of processes
            state.loss_sum.fill_(total)
        return total / max(1, state.loss_count), norm

    @torch.no_grad()
    def _validate(self, validate: Callable[[nn.Module], dict[str, float]]) -> dict[str, float]:
        model = self.state.evaluated_model.eval()
        # Only the first process validates: what that does to buffers, as a power iteration's vector, must not stay.
        buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        try:
            return self.ranks.from_first(lambda: validate(model))
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)

    def _judge(self, metrics: dict[str, float]) -> None:
        """Keep the state if its validation is the best so far. Raises RollBackNeededError if it is bad."""
        state, guard = self.state, self.config.guard
        for name, value in metrics.items():
            margin = guard.margin if guard and name == self.best else None
            require_no_collapse(state.step, name, value, state.best_value, margin)
        score = metrics[self.best] if self.best else None
        if score is None or score > state.best_value:
            state.keep_as_good(score)

    def _record(self, metrics: dict[str, float]) -> None:
        state = self.state
        if state.rollbacks:
            metrics["rollbacks"] = state.rollbacks
        state.record(metrics, self.ranks.from_first(lambda: time.monotonic() - state.started))
        if self.ranks.first:
            self.run.report(state.step, metrics)

    def _progress_bar(self) -> "tqdm[NoReturn]":
        hidden = not (self.run.runtime.progress and self.ranks.first)
        return tqdm(total=self.config.steps, initial=self.state.step, desc=self.name, unit="step", disable=hidden)

    def _say_if_it_takes_days(self) -> None:
        days = self.pace.days_left(self.state.step)
        if days is not None and self.ranks.first:
            device = {"cpu": "this CPU", "cuda": "this GPU"}.get(self.state.loss_sum.device.type, "this device")
            logger.warning(
                "%s: about %.1f days on %s at this rate: fewer steps, a smaller width or a faster device take less; "
                "stopped, it goes on from its last checkpoint",
                *(self.name, days, device),
            )

    # When it goes wrong, or somebody stops it

    def _roll_back(self, trouble: RollBackNeededError) -> None:
        """Back to a good state, on with a lower learning rate and other random numbers.

        Raises TrainingDivergedError if that has been done often enough.
        """
        guard, state, failed = self.config.guard, self.state, self.state.step
        if guard is None or state.rollbacks >= guard.retries:
            raise given_up(self.name, trouble, state.rollbacks, guarded=guard is not None) from None
        state.roll_back()
        if self.ranks.first:
            logger.warning(
                "%s: %s; back to step %d, on with %g times the learning rate (roll-back %d of at most %d)",
                *(self.name, trouble, state.step, guard.learning_rate_factor, state.rollbacks, guard.retries),
            )
            self.run.report(failed, {"rollbacks": state.rollbacks})
        self._save()

    def _stop(self, stop: StopRequestedError) -> NoReturn:
        """Save, say how to go on, and leave."""
        self.ranks.finish_agreeing()
        sound = all(map(math.isfinite, self._loss_and_norm()))
        if sound:
            self._save()
        if self.ranks.first:
            place = "there" if sound else "the last checkpoint, as the loss is not finite"
            logger.warning(
                "%s: interrupted at step %d; the same command goes on from %s", self.name, self.state.step, place
            )
        stop_process(stop.number)

    def _stop_at_image(self, error: ImagesError) -> NoReturn:
        """Save, so that the training can go on without that image, and leave."""
        self.ranks.finish_agreeing()
        loss, norm = self._loss_and_norm()
        try:
            require_finite(self.state.step, loss=loss, gradient_norm=norm)
        except RollBackNeededError as trouble:
            self._roll_back(trouble)
        self._save(unreadable_image=True)
        raise UnreadableImageError(self.name, self.state.step, str(error)) from error

    # Checkpoints

    def _what_must_agree(self) -> dict[str, Any]:
        # As long as nothing goes wrong, a training without a guard is that of the default one: it may be given later.
        config = self.config.model_copy(update={"guard": self.config.guard or GuardConfig()})
        return {
            **self.must_agree,
            "version": _VERSION,
            "training": without_neutral(config.model_dump(mode="json")),
            "rate_factors": dict(self.rate_factors),
            "seed": self.run.seed,
        }

    def _save(self, *, unreadable_image: bool = False) -> None:
        if self.ranks.first:
            content = self.state.to_checkpoint()
            self.run.checkpoint.write(self._what_must_agree(), content, unreadable_image=unreadable_image)

    def _continue_from_checkpoint(self) -> None:
        """If there is one that fits."""
        saved = self.ranks.from_first(lambda: self.run.checkpoint.read(self._what_must_agree()))
        if saved is None:
            return
        self.state.load(saved)
        if self.ranks.first:
            for row in self.state.history:
                self.run.report(int(row["step"]), metrics_of(row))
            step, steps = self.state.step, self.config.steps
            logger.info("%s: going on from the checkpoint at step %d of %d", self.name, step, steps)
