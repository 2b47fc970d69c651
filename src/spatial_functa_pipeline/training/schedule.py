"""The optimiser, and its learning rate over the steps."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from spatial_functa_pipeline.config.training import TrainingConfig


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


def build_optimizer(
    model: nn.Module, config: TrainingConfig, rate_factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Adam; with `weight_decay`, AdamW on all parameters, or on those of two or more axes (`weight_decay_on`).

    `rate_factors` multiply the learning rate of single parameters, given by their names in the model. Raises ValueError
    if there is no such parameter.
    """
    factors = dict(rate_factors or {})
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factor = factors.pop(name, 1.0)
        if parameter.requires_grad:
            decays = config.weight_decay_on == "all" or parameter.ndim >= 2
            decay = config.weight_decay if decays else 0.0
            groups.setdefault((decay, factor), []).append(parameter)
    if factors:
        raise ValueError(f"no parameter is named {', '.join(factors)}")
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "rate_factor": factor}
            for (decay, factor), parameters in groups.items()
        ],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,
    )
