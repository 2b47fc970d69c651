"""The optimiser, and its learning rate over the steps."""

import math
from collections.abc import Collection, Mapping
from itertools import chain
from typing import Any

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


def hidden_weights(network: nn.Module, ends: Collection[str]) -> list[str]:
    """Names of the weights of linear layers and convolutions, but for those of layers whose names start with one of `ends`.

    They are what Muon is made for: between embedding and output, its steps change all directions of a layer alike. A depthwise
    convolution mixes no channels: it is no matrix, and none of them.
    """
    return [
        f"{name}.weight"
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
        and getattr(layer, "groups", 1) == 1
        and not name.startswith(tuple(ends))
    ]


def muon_for(
    network: nn.Module, ends: Collection[str], learning_rate: float | None, config: TrainingConfig
) -> dict[str, Any]:
    """The arguments of `Training` by which Muon has a network's hidden weights, at its own rate; see `hidden_weights`.

    Without a rate there are none: Adam has all weights.
    """
    if learning_rate is None:
        return {}
    names = hidden_weights(network, ends)
    return {"muon": names, "rate_factors": dict.fromkeys(names, learning_rate / config.learning_rate)}


class AdamAndMuon(torch.optim.Optimizer):
    """Muon for some parameters and Adam for all else, as one optimiser to a training.

    A parameter of more than two axes, as a convolution's, is to Muon the matrix of its output channels against all else.

    Args:
        adam: the optimiser of the others.
        groups: of Muon's parameters, each of two axes or more, with their settings.
        learning_rate: of Muon.
    """

    def __init__(self, adam: torch.optim.Optimizer, groups: list[dict[str, Any]], learning_rate: float) -> None:
        super().__init__([*adam.param_groups, *groups], {"lr": learning_rate})
        matrices = [[_as_matrix(parameter) for parameter in group["params"]] for group in groups]
        ours = [group | {"params": params} for group, params in zip(groups, matrices, strict=True)]
        self.parts = (adam, torch.optim.Muon(ours, lr=learning_rate))
        parameters = (parameter for group in groups for parameter in group["params"])
        pairs = zip(parameters, chain.from_iterable(matrices), strict=True)
        self.views = [(parameter, matrix) for parameter, matrix in pairs if matrix is not parameter]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of either, at the rates that stand in this one's groups."""
        for parameter, matrix in self.views:
            matrix.data = parameter.detach().view_as(matrix)  # anew: the parameter may have been moved
            matrix.grad = None if parameter.grad is None else parameter.grad.flatten(1)
        groups = iter(self.param_groups)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = next(groups)["lr"]
            part.step()
        for _, matrix in self.views:
            matrix.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Of either."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)


def _as_matrix(parameter: nn.Parameter) -> nn.Parameter:
    """The parameter `(out, …)` as a matrix `(out, in)` in the same memory."""
    return parameter if parameter.ndim == 2 else nn.Parameter(parameter.detach().view(len(parameter), -1))


def build_optimizer(
    model: nn.Module,
    config: TrainingConfig,
    rate_factors: Mapping[str, float] | None = None,
    muon: Collection[str] = (),
) -> torch.optim.Optimizer:
    """Adam; with `weight_decay`, AdamW on all parameters, or on those of two or more axes (`weight_decay_on`).

    `rate_factors` multiply the learning rate of single parameters, given by their names in the model; `muon` names those of
    two or more axes that Muon has instead of Adam (Jordan et al. 2024). Raises ValueError if there is no such parameter.
    """
    factors, named = dict(rate_factors or {}), dict(model.named_parameters())
    if unknown := {*factors, *muon} - set(named):
        raise ValueError(f"no parameter is named {', '.join(sorted(unknown))}")
    groups: dict[tuple[bool, float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        if parameter.requires_grad:
            decays = config.weight_decay_on == "all" or parameter.ndim >= 2
            decay = config.weight_decay if decays else 0.0
            groups.setdefault((name in muon, decay, factors.get(name, 1.0)), []).append(parameter)

    def of(with_muon: bool) -> list[dict[str, Any]]:
        return [
            {"params": parameters, "weight_decay": decay, "rate_factor": factor}
            for (is_muons, decay, factor), parameters in groups.items()
            if is_muons == with_muon
        ]

    adam = torch.optim.AdamW(of(False), lr=config.learning_rate, betas=config.betas, fused=True)
    return AdamAndMuon(adam, of(True), config.learning_rate) if muon else adam
