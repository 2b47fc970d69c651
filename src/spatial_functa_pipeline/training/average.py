"""The exponential moving average of a model's weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


class RampedAverage(AveragedModel):
    """Averages with the decay min(`decay`, (1 + t) / (10 + t)), t being the number of updates so far.

    The rule is that of TensorFlow's `ExponentialMovingAverage` with `num_updates`. With a constant decay of 0.9999 a
    training of some thousand steps would keep its initial weights. t is in the state dict, so an interrupted training goes
    on as it would have.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=self._average)
        self.decay = decay

    @torch.no_grad()
    def _average(self, averages: Tensors, values: Tensors, _: Tensor | int) -> None:
        # `n_averaged` stays on the CPU. What comes as an argument is on the model's device, whose value takes waiting.
        t = int(self.n_averaged)
        torch._foreach_lerp_(averages, values, 1 - min(self.decay, (1 + t) / (10 + t)))
