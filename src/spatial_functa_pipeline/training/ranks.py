"""The processes that train one model together, as one of them sees them.

A process that trains alone is rank 0 of 1, and everything here costs it nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from ctypes import c_int
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spatial_functa_pipeline.images.images import ImagesError
from spatial_functa_pipeline.loading.ordering import Part

T = TypeVar("T")


class Objective(nn.Module):
    """A loss as the forward pass of a module, which is where DistributedDataParallel hooks itself in."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: list[Tensor], generator: torch.Generator) -> Tensor:
        """The loss of a batch, a scalar."""
        return self._loss(batch, generator)


@dataclass
class Ranks:
    """Rank `rank` of `count` processes.

    `relayed` is memory shared with the process that launched this one: the number of the signal that it received, or 0.
    """

    rank: int = 0
    count: int = 1
    relayed: c_int | None = None
    _asked: tuple[dist.Work, Tensor] | None = field(default=None, init=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, logs and shows progress."""
        return self.rank == 0

    @property
    def part(self) -> Part:
        """Which part of every batch is this process's."""
        return Part(self.rank, self.count)

    def objective(self, model: nn.Module, loss: Callable[..., Tensor]) -> nn.Module:
        """`loss` as a module: after a backward pass through it, all processes have the mean of their gradients."""
        objective = Objective(model, loss)
        # Buffers are constants in all models of this project: they are sent to all processes once.
        return objective if self.count == 1 else DistributedDataParallel(objective, forward_sync_buffers=False)

    def synchronised(self, objective: nn.Module, wanted: bool) -> AbstractContextManager[object]:
        """Where a backward pass leaves the gradients to this process alone unless `wanted`: for all but the last part."""
        return objective.no_sync() if isinstance(objective, DistributedDataParallel) and not wanted else nullcontext()

    def mean(self, values: Tensor) -> list[float]:
        """Mean of each of the numbers `values` over all processes."""
        if self.count > 1:
            values = values.detach().cpu()
            dist.all_reduce(values)
            values /= self.count
        return values.tolist()

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns in the first process, which alone calls it. It must be picklable.

        An ImagesError is raised in all of them.
        """
        if self.count == 1:
            return make()
        box: list[Any] = [None]
        with self.failing_together():
            box = [make() if self.first else None]
        dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """To be entered by all processes: an ImagesError that any of them raises within it is raised in all at its end."""
        error = None
        try:
            yield
        except ImagesError as caught:
            error = caught
        if self.count > 1:
            failed = torch.tensor(0 if error is None else self.rank + 1)
            dist.all_reduce(failed, dist.ReduceOp.MAX)
            if failed:
                box: list[Any] = [error]
                dist.broadcast_object_list(box, src=int(failed) - 1, device=torch.device("cpu"))
                error = box[0]
        if error is not None:
            raise error

    def agreed(self, number: int) -> int:
        """The greatest number that any process had at its last call of this, and so the same in all of them.

        It is one call late so that nobody waits for the answer; alone, a process has it at once.
        """
        if self.count == 1:
            return number
        answer = 0
        if self._asked:
            work, box = self._asked
            work.wait()
            answer = int(box)
        box = torch.tensor(max(number, self.relayed.value if self.relayed else 0))
        self._asked = (dist.all_reduce(box, dist.ReduceOp.MAX, async_op=True), box)
        return answer

    def finish_agreeing(self) -> None:
        """Wait for what `agreed` left under way."""
        if self._asked:
            self._asked[0].wait()
            self._asked = None


_this_process = Ranks()


def this_process() -> Ranks:
    """This process's rank."""
    return _this_process


def set_this_process(ranks: Ranks) -> None:
    """For the launched processes, before they train."""
    global _this_process
    _this_process = ranks
