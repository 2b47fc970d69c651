"""Diffusion on normalised latents: a process, and the loss of a network that undoes it (App. C, C.4.3).

A process is a path to noise (`paths`) and what the network predicts on it (`objectives`); `samplers` go back along it.

Shapes: B latents with their grid and c channels, `(B, *grid, c)`; T time steps; K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.models.objectives import Objective, build_objective
from spatial_functa_pipeline.models.paths import NoiseLevel, Path, build_path


@dataclass(frozen=True)
class Process:
    """The path from latents to noise, and what a network predicts on it."""

    path: Path
    objective: Objective

    @classmethod
    def of(cls, config: DiffusionConfig) -> Self:
        """That of `config`."""
        return cls(build_path(config), build_objective(config))


def min_snr_weights(objective: Objective, level: NoiseLevel, gamma: float) -> Tensor:
    """Weights of the squared error at noise levels, shaped like them (Min-SNR-γ; Hang et al., 2023, Sec. 3.4).

    All of them weight the error of the x₀ that the output stands for by min(SNR, γ), SNR = a²/s²: the error of ε is √SNR
    times that of x₀, the error of v √(SNR + 1) times.
    """
    return (1 / level.ratio**2).clamp(max=gamma) / objective.error_ratio(level) ** 2


def diffusion_loss(
    denoiser: nn.Module,
    latents: Tensor,
    labels: Tensor | None,
    process: Process,
    config: DiffusionConfig,
    num_classes: int,
    generator: torch.Generator,
    kinds: Tensor | None = None,
) -> Tensor:
    """Mean squared error of the network's output, a scalar: for ε and v the simple loss of Ho et al. (2020).

    Noise levels are drawn as the path does; for ε and v, with `timestep_reweighting`, each latent's error is divided by
    p(t)·T, so that the loss has the expectation of uniform time steps. `min_snr_gamma` weights it by
    `min_snr_weights`. Each label becomes the dummy label K with probability `dummy_label_share` (App. C.1).

    Args:
        denoiser: a `Denoiser`, wrapped or not (DistributedDataParallel, `torch.compile`).
        latents: `(B, *grid, c)`, normalised, float32.
        labels: `(B,)` int64, None for an unconditional model.
        process: `Process.of(config)`.
        config: of the labels and the weights.
        num_classes: K.
        generator: on the CPU, the source of all noise levels, noise and dummy labels, whatever the device.
        kinds: `(B,)` int64, the numbers of `CopyKind`, for a denoiser that knows them.

    Raises:
        ValueError: labels are missing for a conditional model, or given to an unconditional one.
    """
    if config.conditional != (labels is not None):
        raise ValueError(f"conditional is {config.conditional}, but labels is {type(labels).__name__}")
    batch, device, objective = len(latents), latents.device, process.objective

    level = process.path.draw(batch, generator)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    if labels is not None:
        dropped = torch.rand(batch, generator=generator) < config.dummy_label_share
        labels = labels.masked_fill(dropped.to(device), num_classes)

    here = level.over(latents)
    noisy, target = here.mix(latents, noise), objective.target(latents, noise, here)
    known = () if kinds is None else (kinds,)
    output = denoiser(objective.network_input(noisy, here), level.time.to(device), labels, *known)
    errors = F.mse_loss(output.float(), target, reduction="none").flatten(1).mean(dim=1)  # (B,)
    if (excess := process.path.excess(level)) is not None:
        errors = errors / excess.to(errors)
    if config.min_snr_gamma is not None:
        errors = errors * min_snr_weights(objective, level, config.min_snr_gamma).to(errors)
    return errors.mean()
