"""The project's own field as a contestant, accelerated as a training would have it, encoding as `functaset_build` does."""

import os
from typing import Literal

import torch
from cases import Case, Precision
from torch import Tensor

from spatial_functa_pipeline.compute import accelerated
from spatial_functa_pipeline.config.runtime import RuntimeConfig

_CALLS = 10**6
"""More than enough to repay any compilation, as in a long training."""


def use_all_cores() -> int:
    """Let torch use the cores that the process may use, as XLA does whatever OMP_NUM_THREADS is; returns their number."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(cores)
    return cores


class Ours:
    """Outer step and encoding of `case` at `precision`, with `runtime.compile` left at `auto` unless it is given."""

    def __init__(self, case: Case, precision: Precision, compile: Literal["auto", "off"] = "auto") -> None:
        self.field = case.field(precision)
        self.encode_batch = 16  # as in conf/sample
        name, cpu = f"{case.name} {precision}", torch.device("cpu")
        self._forward = accelerated(self.field, RuntimeConfig(compile=compile), calls=_CALLS, device=cpu, name=name)
        self._encode = self.field.encode
        if self._forward is not self.field:  # no kernel for it on this machine, so that torch.compile is used
            self._encode = torch.compile(self.field.encode, fullgraph=True, dynamic=False)

    def outer(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean squared error of the batch and its gradient; neither penalty nor optimiser's step."""
        self.field.zero_grad()
        loss = (self._forward(images)[0] - images).square().mean()
        loss.backward()
        return loss.detach(), {name: parameter.grad for name, parameter in self.field.named_parameters()}

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, s, s, c), a batch at a time."""
        return torch.cat([self._encode(part) for part in images.split(self.encode_batch)])
