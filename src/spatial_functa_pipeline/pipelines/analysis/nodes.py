"""Nodes of `analysis`."""

import pandas as pd
from matplotlib.figure import Figure

from spatial_functa_pipeline.compute import resolve_device
from spatial_functa_pipeline.config.evaluation import PerturbationConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.evaluation import latents, perturbation
from spatial_functa_pipeline.evaluation.latent_figure import latent_statistics_figure
from spatial_functa_pipeline.evaluation.metrics import Metrics
from spatial_functa_pipeline.functasets.scheduling import Scheduling
from spatial_functa_pipeline.functasets.statistics import LatentStatistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.models.weights import Weights, unpack_encoder


def draw_latent_channels(statistics: Weights) -> Figure:
    """Mean and standard deviation of the latent channels (Fig. 8), rotated ones where they are rotated."""
    known = LatentStatistics.from_tensors(statistics.tensors, statistics.config)
    moments, rotation = known.moments["vector"], known.rotation
    return latent_statistics_figure(moments.mean, moments.std, None if rotation is None else len(rotation))


def analyse_latents(
    train_functaset: Functaset, statistics: Weights, at_most: int, seed: int, runtime: RuntimeConfig
) -> tuple[Metrics, pd.DataFrame, Figure]:
    """Excess kurtosis of the latent channels, a table of their moments, and their histograms (App. C.4.1)."""
    moments = LatentStatistics.from_tensors(statistics.tensors, statistics.config)
    scheduling = Scheduling(runtime.scheduler, runtime.workers)
    return latents.analyse_latents(train_functaset, moments, at_most, seed, scheduling)


def analyse_perturbations(
    test_functaset: Functaset,
    encoder: Weights,
    statistics: Weights,
    config: PerturbationConfig,
    figure_images: int,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Metrics, pd.DataFrame, pd.DataFrame, Figure, Figure, Figure, Figure, Figure]:
    """Perturb single latent channels, and see what it does to the pictures (App. B.3, C.5).

    Returns the metrics, the table of channels, that of distances from a perturbed cell, and the figures: of single
    dimensions (Fig. 4), of one channel in all cells (Fig. 12), of all patterns, of strengths (Fig. 13), of locality.
    """
    decoder = unpack_encoder(encoder, resolve_device(runtime.device))
    moments = LatentStatistics.from_tensors(statistics.tensors, statistics.config)
    return perturbation.analyse_perturbations(test_functaset, decoder, moments, config, figure_images, seed)
