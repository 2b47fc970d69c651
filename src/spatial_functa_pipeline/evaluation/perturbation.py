"""What a change of one latent number does to the picture (App. B.3, C.5).

Shapes: N latents `(N, *grid, c)` of S cells, pictures `(N, *resolution, channels)`, which are not clamped. A channel is
perturbed by a constant, the same for all images, in two ways: in the middle cell alone, or in all cells at once.

Latents of several scales are `(N, numbers)`. Cells and channels are then those of the finest grid, `(N, *grid, its own c)`;
the other numbers stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.config.evaluation import PerturbationConfig
from spatial_functa_pipeline.evaluation import perturbation_figures as figures
from spatial_functa_pipeline.evaluation.decoding import BATCH, decode
from spatial_functa_pipeline.evaluation.metrics import Metrics, described
from spatial_functa_pipeline.fields.cells import cut_into_cells
from spatial_functa_pipeline.fields.encoder import Encoder
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.scales import finest_part
from spatial_functa_pipeline.functasets.rotation import rotated, rotated_back
from spatial_functa_pipeline.functasets.statistics import LatentStatistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.metrics.perturbation import (
    cell_distances,
    changed_share,
    effective_area,
    energy_by_distance,
    linear_fit,
    pattern_correlation,
    pixel_energy,
)

RANGE = 2.0
"""Of the strengths in Fig. 13, in standard deviations of the channel that varies most: there ±0.2 where "the typical range
of the latent modulations is ≤ 0.1"."""
_SIZES = (0.25, 0.5, 0.75, 1.0)
"""The strengths as shares of that range, on either side of 0."""


@dataclass(frozen=True)
class Probe:
    """Latents that are perturbed, and what makes pictures of them.

    Attributes:
        decode: latents `(B, *grid, c)` → pictures on the CPU.
        latents: unperturbed, `(N, *grid, c)`.
        shape: of one of them.
    """

    decode: Callable[[Tensor], Tensor]
    latents: Tensor
    shape: LatentShape

    @property
    def grid(self) -> tuple[int, ...]:
        """Cells along each axis."""
        return self.shape.grid

    @property
    def middle(self) -> tuple[int, ...]:
        """The cell that is perturbed alone."""
        return tuple(side // 2 for side in self.grid)

    @cached_property
    def pictures(self) -> Tensor:
        """Of the unperturbed latents."""
        return self._pictures(self.latents)

    def differences(self, channel: int, by: float, cell: Sequence[int] | None = None) -> Tensor:
        """Perturbed − unperturbed pictures: a channel changed `by` so much in one cell (None: in all)."""
        perturbed = self.latents.clone()
        place: tuple[slice | int, ...] = (slice(None), *(cell if cell is not None else [slice(None)] * len(self.grid)))
        finest_part(perturbed, self.shape)[(*place, channel)] += by
        return self._pictures(perturbed) - self.pictures

    def turned(self, rotation: Tensor | None) -> Probe:
        """The same pictures, whose latents are rotated (None: not), see `functasets.rotation`: what is then perturbed."""
        if rotation is None:
            return self
        turned = rotated(self.latents, rotation)
        return Probe(lambda latents: self.decode(rotated_back(latents, rotation)), turned, self.shape)

    def of_first(self, count: int) -> Probe:
        """The same of the first latents only."""
        return Probe(self.decode, self.latents[:count], self.shape)

    def _pictures(self, latents: Tensor) -> Tensor:
        return torch.cat([self.decode(part) for part in latents.split(BATCH)])


@dataclass(frozen=True)
class Perturbations:
    """What the perturbation of each channel does, mean over images; K distances from the perturbed cell, n strengths.

    Those of the middle cell, by `steps`: `mae`, `changed`, `area`, `by_distance`, `energy`. Those of all cells, by `steps`:
    `patterns`, `correlation`; by `strengths`: `errors`, `slope`, `r2`. NaN where a perturbation changes nothing.

    Attributes:
        steps: by how much each channel is changed: so many standard deviations of its own, `(c,)`.
        mae: mean absolute error over the picture, `(c,)`.
        changed: share of the pixels that change noticeably, `(c,)`.
        area: share of the picture over which the energy is spread, `(c,)`.
        by_distance: share of the energy at each distance in cells, `(c, K)`.
        energy: of the pixels, mean over channels, each of which counts as 1, `(*resolution,)`.
        patterns: mean difference of a cell, `(c, *cell, channels)`.
        correlation: of each cell's difference with the mean of the others, mean over them, `(c,)`.
        strengths: the same for all channels, `(n,)`.
        errors: RMSE of the cells, `(c, n)`.
        slope: RMSE ÷ |strength|, `(c,)`.
        r2: of that straight line, `(c,)`.
    """

    steps: Tensor
    mae: Tensor
    changed: Tensor
    area: Tensor
    by_distance: Tensor
    energy: Tensor
    patterns: Tensor
    correlation: Tensor
    strengths: Tensor
    errors: Tensor
    slope: Tensor
    r2: Tensor

    def table(self) -> pd.DataFrame:
        """A row for each channel."""
        columns = {
            "perturbed_by": self.steps,
            "mae": self.mae,
            "changed_pixels": self.changed,
            "area": self.area,
            "energy_inside_cell": self.by_distance[:, 0],
            "pattern_rms": self.patterns.flatten(1).square().mean(dim=1).sqrt(),
            "pattern_correlation": self.correlation,
            "slope": self.slope,
            "r2": self.r2,
        }
        table = pd.DataFrame({name: values.double().numpy() for name, values in columns.items()})
        table.insert(0, "channel", range(len(table)))
        return table


def measure_perturbations(probe: Probe, std: Tensor, strength: float) -> Perturbations:
    """Perturb every channel alone, in the middle cell and in all cells.

    Args:
        probe: the latents, and what decodes them.
        std: standard deviation of each channel, `(c,)`.
        strength: of the perturbations but those of `RANGE`, in each channel's own standard deviations.
    """
    steps = strength * std
    largest = RANGE * std.max()
    strengths = largest * torch.tensor([-size for size in reversed(_SIZES)] + list(_SIZES), dtype=std.dtype)
    alone = [_alone(probe, channel, step) for channel, step in enumerate(steps.tolist())]
    everywhere = [_everywhere(probe, channel, step) for channel, step in enumerate(steps.tolist())]
    errors = torch.stack([_errors(probe, channel, strengths) for channel in range(len(std))])
    fits = torch.tensor([linear_fit(strengths, row) for row in errors])
    mae, changed, area, by_distance, energy = (torch.stack(values) for values in zip(*alone, strict=True))
    patterns, correlation = (torch.stack(values) for values in zip(*everywhere, strict=True))
    return Perturbations(
        steps=steps,
        mae=mae,
        changed=changed,
        area=area,
        by_distance=by_distance,
        energy=energy.nanmean(dim=0),
        patterns=patterns,
        correlation=correlation,
        strengths=strengths,
        errors=errors,
        slope=fits[:, 0],
        r2=fits[:, 1],
    )


def _alone(probe: Probe, channel: int, step: float) -> tuple[Tensor, ...]:
    """Of a channel of the middle cell: what `Perturbations` says of it, its energy relative to that of all pixels."""
    differences = probe.differences(channel, step, probe.middle)
    energy, resolution = pixel_energy(differences), differences.shape[1:-1]
    by_distance = energy_by_distance(energy, cell_distances(resolution, probe.grid, probe.middle))
    return (
        differences.abs().mean(dtype=torch.float64),
        changed_share(differences).mean(),
        effective_area(energy).nanmean(),
        by_distance.nanmean(dim=0),
        (energy.mean(dim=0) / energy.mean(dim=0).sum()).double(),
    )


def _everywhere(probe: Probe, channel: int, step: float) -> tuple[Tensor, Tensor]:
    """Of a channel of all cells: the pattern `(*cell, channels)`, and how well cells agree in it."""
    differences = probe.differences(channel, step)
    cells = cut_into_cells(differences, probe.grid).flatten(0, len(probe.grid))  # (N·S, P, channels)
    sides = [n // s for n, s in zip(differences.shape[1:-1], probe.grid, strict=True)]
    pattern = cells.double().mean(dim=0).reshape(*sides, -1)
    return pattern, pattern_correlation(cells.flatten(1)).nanmean()


def _errors(probe: Probe, channel: int, strengths: Tensor) -> Tensor:
    """RMSE of a cell, mean over cells and images, at each strength: `(n,)`."""
    return torch.stack(
        [
            cut_into_cells(probe.differences(channel, by), probe.grid)
            .double()
            .square()
            .mean(dim=(-2, -1))
            .sqrt()
            .mean()
            for by in strengths.tolist()
        ]
    )


def perturbation_metrics(found: Perturbations, where: str) -> Metrics:
    """The means over channels; what is not defined is left out, as is the share inside a cell where there is only one.

    Args:
        found: of all channels.
        where: on what it was measured, for what stands beside the numbers.
    """
    numbers = {
        "perturbation_pattern_correlation": (found.correlation, "all cells perturbed, each cell with the others' mean"),
        "perturbation_linear_r2": (found.r2, f"all cells perturbed, strengths within ±{found.strengths.max():.3g}"),
        "perturbation_area": (found.area, "one cell perturbed, share of the picture"),
    }
    if found.by_distance.shape[1] > 1:
        numbers["perturbation_energy_inside_cell"] = (
            found.by_distance[:, 0],
            "one cell perturbed, share of the energy",
        )
    measured = {
        name: (values.nanmean().item(), f"{where}: {text}; least of a channel {values[~values.isnan()].min():.4g}")
        for name, (values, text) in numbers.items()
        if not values.isnan().all()
    }
    return described(measured)


def analyse_perturbations(
    test_functaset: Functaset,
    encoder: Encoder,
    statistics: LatentStatistics,
    config: PerturbationConfig,
    figure_images: int,
    seed: int,
) -> tuple[Metrics, pd.DataFrame, pd.DataFrame, Figure, Figure, Figure, Figure, Figure]:
    """Perturb each channel of the first test latents alone, and see what it does to the pictures.

    Returns the metrics; the table of channels; that of distances from a perturbed cell; and the figures: single dimensions
    (Fig. 4), one channel in all cells (Fig. 12), the patterns of all channels, RMSE against strength (Fig. 13), locality.

    Args:
        test_functaset: whose first latents are perturbed; of several scales the finest.
        encoder: decodes them.
        statistics: of the training latents; where these are rotated, the channels are those of rotated latents.
        config: how many latents, and how far.
        figure_images: columns of the figure of single dimensions, at most.
        seed: of the encoder's training, for what stands beside the numbers.
    """
    latents = torch.from_numpy(test_functaset.rows(0, min(config.images, test_functaset.originals)))
    shape = test_functaset.latent_shape
    probe = Probe(partial(decode, encoder), latents, shape).turned(statistics.rotation)
    finest = shape.scales[-1]
    found = measure_perturbations(probe, statistics.moments["vector"].std[-finest.channels :], config.strength)
    channels = f"{len(found.steps)} {'' if statistics.rotation is None else 'rotated '}channels"
    channels += f" of {finest}" if shape.coarser else ""
    where = f"{len(latents)} test images, seed {seed}, {channels} by {config.strength:g} σ"
    return (
        perturbation_metrics(found, where),
        found.table(),
        _profile(found, probe),
        _draw_dimensions(found, probe.of_first(figure_images)),
        _draw_channel(found, probe.of_first(2)),
        figures.pattern_figure(found.patterns, config.strength),
        figures.strength_figure(found.strengths, found.errors, found.slope, found.r2),
        figures.locality_figure(found.energy, probe.grid, probe.middle, found.by_distance, found.area),
    )


def _profile(found: Perturbations, probe: Probe) -> pd.DataFrame:
    """The share of the energy at each distance from the perturbed cell, mean over channels, and how many cells that is."""
    cells = cell_distances(probe.grid, probe.grid, probe.middle).flatten().bincount()
    shares = found.by_distance.nanmean(dim=0)
    return pd.DataFrame({"distance": range(len(shares)), "cells": cells.numpy(), "energy_share": shares.numpy()})


def _draw_dimensions(found: Perturbations, probe: Probe) -> Figure:
    """Pictures in which the dimension of largest, median and smallest effect was changed (Fig. 4)."""
    order = found.mae.argsort(descending=True, stable=True).tolist()
    chosen = {"largest": order[0], "median": order[len(order) // 2], "smallest": order[-1]}
    changes = {
        f"{name} effect:\nchannel {channel}": probe.differences(channel, found.steps[channel].item(), probe.middle)
        for name, channel in chosen.items()
    }
    return figures.dimension_figure(probe.pictures, changes)


def _draw_channel(found: Perturbations, probe: Probe) -> Figure:
    """The channel of median effect perturbed in all cells of some pictures (Fig. 12)."""
    effects = found.patterns.flatten(1).square().mean(dim=1)
    channel = int(effects.argsort(stable=True)[len(effects) // 2])
    by = found.steps[channel].item()
    return figures.channel_figure(
        probe.pictures, probe.differences(channel, by), probe.grid, f"channel {channel} + {by:.3g}"
    )
