"""Stochastic depth: residual branches that are left out at random (Huang et al., 2016)."""

import torch.nn.functional as F
from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, leaves a residual branch out of a share of a batch's rows, and scales it up in the others.

    So its mean is what the branch is. In evaluation, and with a share of 0, it does nothing, and draws nothing.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, branch: Tensor) -> Tensor:
        """`(B, …)` -> `(B, …)`: what is to be added to the input of a block."""
        if not self.training or not self.share:
            return branch
        # Dropout of one number for each row: that is what does not depend on how a batch is split.
        return branch * F.dropout(branch.new_ones(len(branch), *[1] * (branch.ndim - 1)), self.share)

    def extra_repr(self) -> str:
        """For `print`."""
        return f"share={self.share}"


def drop_shares(last: float, blocks: int) -> list[float]:
    """Of each block: they rise linearly, to `last` in the last one."""
    return [last * block / blocks for block in range(1, blocks + 1)]
