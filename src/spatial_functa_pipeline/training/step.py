"""One outer step: the gradient of the whole batch, however it is split, and what follows from it."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.training.batch_invariant_random import BatchInvariantRandom
from spatial_functa_pipeline.training.ranks import Ranks
from spatial_functa_pipeline.training.schedule import learning_rate_factor
from spatial_functa_pipeline.training.seeding import derive_seed, step_generator
from spatial_functa_pipeline.training.state import TrainingState

Batch = Sequence[Tensor]
"""Tensors with the same first dimension, the rows."""

Loss = Callable[[Batch, torch.Generator], Tensor]
"""`(batch, generator) -> ()`: the mean over the batch. Draws random numbers from `generator`, or as dropout does."""


def rate_factor(config: TrainingConfig, state: TrainingState) -> float:
    """Factor on the learning rate of the next step: the schedule's, lowered by each roll-back."""
    lowered = config.guard.learning_rate_factor**state.rollbacks if config.guard and state.rollbacks else 1.0
    return lowered * learning_rate_factor(config, state.step)


@dataclass(frozen=True)
class OuterStep:
    """Calling it takes one step of a training; see `Training` for what it is made of.

    Random numbers derive from seed, name, step and the number of roll-backs.
    """

    objective: nn.Module
    name: str
    seed: int
    config: TrainingConfig
    ranks: Ranks
    before: Callable[[], None]
    random: bool

    def __call__(self, state: TrainingState, batch: Batch) -> None:
        """Gradient, clipping, Adam, average; counts the loss, but not the step."""
        for group in state.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * group["rate_factor"] * rate_factor(self.config, state)
        state.model.train()
        state.optimizer.zero_grad(set_to_none=True)
        self.before()
        self._add_up_gradients(state, batch)
        limit = self.config.clip_norm if self.config.clip_norm is not None else math.inf
        state.gradient_norm = nn.utils.clip_grad_norm_(state.model.parameters(), limit)
        state.optimizer.step()
        if state.average:
            state.average.update_parameters(state.model)

    def _add_up_gradients(self, state: TrainingState, batch: Batch) -> None:
        """Of the batch's parts of at most `micro_batch` rows; with several processes, of the batch's part in each."""
        rows, device = len(batch[0]), state.loss_sum.device
        size = rows if self.config.micro_batch == "auto" else self.config.micro_batch
        moment = (state.step, state.rollbacks) if state.rollbacks else (state.step,)
        for start in range(0, rows, size):
            part = [tensor[start : start + size].to(device, non_blocking=True) for tensor in batch]
            torch.manual_seed(derive_seed(self.seed, self.name, "dropout", *moment))
            generator = step_generator(self.seed, self.name, "loss", *moment)
            with self.ranks.synchronised(self.objective, wanted=start + size >= rows):
                with self._as_in_the_whole_batch(start, len(part[0]), rows):
                    loss = self.objective(part, generator) * (len(part[0]) / rows)
                loss.backward()
            state.loss_sum += loss.detach()
        state.loss_count += 1

    def _as_in_the_whole_batch(self, start: int, count: int, rows: int) -> AbstractContextManager[object]:
        """Random numbers of `count` rows from `start` on of this process's `rows`, as they are in the whole batch."""
        total = rows * self.ranks.count
        if not self.random or count == total:
            return nullcontext()
        start += rows * self.ranks.rank
        return BatchInvariantRandom(slice(start, start + count), total)
