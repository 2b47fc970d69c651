"""Nodes of `diffusion`."""

import pandas as pd

from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.statistics import LatentStatistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.models.weights import Weights, pack_model
from spatial_functa_pipeline.tracking import mlflow_report
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.denoiser import train_denoiser
from spatial_functa_pipeline.training.run import TrainingRun


def train_latent_denoiser(
    train_functaset: Functaset,
    validation_functaset: Functaset,
    statistics: Weights,
    checkpoint: Checkpoint,
    config: DiffusionConfig,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Weights, pd.DataFrame]:
    """Train the denoiser on latents normalised by Eq. 1; its moving average is kept. It knows of classes if there are two."""
    classes = train_functaset.num_classes
    config = config.for_classes(classes)
    moments = LatentStatistics.from_tensors(statistics.tensors, statistics.config)
    normaliser = Normaliser.from_statistics(moments, config.normalisation.kind, config.normalisation.gamma)
    denoiser, history, guide = train_denoiser(
        train_functaset,
        validation_functaset,
        normaliser,
        config,
        num_classes=classes,
        run=TrainingRun(seed, runtime, checkpoint, mlflow_report("denoiser")),
    )
    return pack_model(denoiser, normaliser, config, train_functaset.latent_shape, classes, guide), history
