"""Random numbers that do not depend on how a batch is split."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from spatial_functa_pipeline.models.paths import stratified_normal

_DROPOUTS = (F.alpha_dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.feature_alpha_dropout)
_DRAWS = (torch.bernoulli, torch.normal, torch.poisson, torch.randint, torch.randperm)


class BatchInvariantRandom(TorchFunctionMode):
    """Within it, a loss that sees `rows` of a batch of `total` rows draws what it would draw for these in the whole batch.

    `torch.rand`, `torch.randn`, `torch.multinomial` and `stratified_normal` with a generator, and dropout, draw for all
    rows and keep this part's. So a step's result depends neither on the micro-batch nor on the number of processes, if the
    generators are at the same state at the start of each part. Two exceptions, both of dropout: a GPU draws in another
    order, and the convolutions of a CPU may lay out a single row in another order than several.

    Raises NotImplementedError for other draws from a generator and other kinds of dropout: they would depend on it.
    """

    def __init__(self, rows: slice, total: int) -> None:
        super().__init__()
        self._rows, self._count, self._total = rows, rows.stop - rows.start, total

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.dropout:
            return self._dropout(*args, **kwargs)
        if func is stratified_normal:
            count, generator = args
            self._check(func, count)
            return func(self._total, generator)[self._rows]
        if func in _DROPOUTS and (args[2] if len(args) > 2 else kwargs.get("training", True)):
            raise NotImplementedError(f"{func.__name__} would depend on how a batch is split: use dropout")
        if kwargs.get("generator") is not None:
            if func in (torch.rand, torch.randn):
                sizes = args[0] if isinstance(args[0], list | tuple) else args
                self._check(func, sizes[0])
                return func((self._total, *sizes[1:]), **kwargs)[self._rows]
            if func is torch.multinomial:
                weights, count, *rest = args
                self._check(func, count)
                return func(weights, self._total, *rest, **kwargs)[self._rows]
            if func in _DRAWS:
                raise NotImplementedError(f"{func.__name__} would depend on how a batch is split: use rand or randn")
        return func(*args, **kwargs)

    def _check(self, func: Callable[..., Any], count: int) -> None:
        if count != self._count:
            raise NotImplementedError(
                f"{func.__name__} of {count} numbers for {self._count} rows: draw some for each row"
            )

    def _dropout(self, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return values
        self._check(F.dropout, len(values))
        # In the memory order of `values`, as dropout itself draws: row by row, the other axes by their strides.
        order = [0, *sorted(range(1, values.ndim), key=values.stride, reverse=True)]
        sizes = (self._total, *values.shape[1:])
        kept = values.new_empty([sizes[axis] for axis in order]).bernoulli_(1 - p).div_(1 - p)
        kept = kept.permute([order.index(axis) for axis in range(values.ndim)])[self._rows]
        return values.mul_(kept) if inplace else values * kept
