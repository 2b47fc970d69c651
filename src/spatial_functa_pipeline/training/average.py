"""The exponential moving average of a model's weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


class MovingAverage(AveragedModel):
    """Averages with a constant `decay`, or, with `ramp`, with min(`decay`, (1 + t) / (10 + t)) after t updates.

    The ramp is that of TensorFlow's `ExponentialMovingAverage` with `num_updates`. With a constant decay of 0.9999 a
    training of some thousand steps would keep its initial weights. t is in the state dict, so an interrupted training goes
    on as it would have.
    """

    def __init__(self, model: nn.Module, decay: float, ramp: bool = True) -> None:
        super().__init__(model, multi_avg_fn=self._average)
        self.decay, self.ramp = decay, ramp

    @torch.no_grad()
    def _average(self, averages: Tensors, values: Tensors, _: Tensor | int) -> None:
        # `n_averaged` stays on the CPU. What comes as an argument is on the model's device, whose value takes waiting.
        t = int(self.n_averaged)
        decay = min(self.decay, (1 + t) / (10 + t)) if self.ramp else self.decay
        torch._foreach_lerp_(averages, values, 1 - decay)
