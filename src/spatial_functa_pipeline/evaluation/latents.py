"""How the training latents are distributed (Fig. 8, App. C.4.1)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from spatial_functa_pipeline.evaluation.latent_figure import latent_histogram_figure
from spatial_functa_pipeline.evaluation.metrics import Metrics, described
from spatial_functa_pipeline.functasets.distribution import EDGES, LatentDistribution, compute_distribution
from spatial_functa_pipeline.functasets.scheduling import Scheduling
from spatial_functa_pipeline.functasets.statistics import LatentStatistics, Moments
from spatial_functa_pipeline.functasets.store import Functaset

_FAR = 3.0
"""Standard deviations beyond which 0.27 % of a normal distribution lie."""


def analyse_latents(
    train_functaset: Functaset, statistics: LatentStatistics, at_most: int, seed: int, scheduling: Scheduling
) -> tuple[Metrics, pd.DataFrame, Figure]:
    """Excess kurtosis of the channels, a table of their moments, and their histograms; of several scales, the channels of all.

    Args:
        train_functaset: read once, with bounded memory.
        statistics: of all of it.
        at_most: of its latents, about, spread evenly over all.
        seed: of the field's training, for what stands beside the number.
        scheduling: who reads.
    """
    found = compute_distribution(train_functaset, statistics, scheduling, at_most)
    of = f"{statistics.count} {'' if statistics.rotation is None else 'rotated '}training latents, seed {seed}"
    of = of if found.count == statistics.count else f"{found.count} of {of}"
    table = _table(found, statistics.moments["vector"])
    if train_functaset.latent_shape.coarser:
        scales = train_functaset.latent_shape.scales
        table.insert(1, "scale", [str(scale) for scale in scales for _ in range(scale.channels)])
    return _metrics(found, of), table, latent_histogram_figure(found)


def _metrics(found: LatentDistribution, measured_on: str) -> Metrics:
    """`latent_kurtosis`; nothing if no channel varies."""
    kurtosis = found.excess_kurtosis[~np.isnan(found.excess_kurtosis)]
    if not len(kurtosis):
        return described({})
    where = f"{measured_on}: excess (0: normal), mean of {len(kurtosis)} channels"
    return described(
        {"latent_kurtosis": (kurtosis.mean().item(), f"{where}, {kurtosis.min():.3g} to {kurtosis.max():.3g}")}
    )


def _table(found: LatentDistribution, moments: Moments) -> pd.DataFrame:
    """A row for each channel; `largest` and `beyond_3_std` are of (z − μ)/σ."""
    far = (EDGES[:-1] < -_FAR) | (EDGES[:-1] >= _FAR)
    return pd.DataFrame(
        {
            "channel": range(len(moments.mean)),
            "mean": moments.mean.numpy(),
            "std": moments.std.numpy(),
            "largest": moments.largest.numpy(),
            "beyond_3_std": found.histogram[:, far].sum(axis=1) / found.numbers,
            "skewness": found.skewness,
            "excess_kurtosis": found.excess_kurtosis,
        }
    )
