"""Nodes of `classification`."""

import pandas as pd

from spatial_functa_pipeline.config import ClassificationConfig, DataConfig, RuntimeConfig
from spatial_functa_pipeline.datasets.weights import Weights
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.statistics import LatentStatistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.pipelines.weights import pack_model
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.classifier import train_classifier
from spatial_functa_pipeline.training.reporting import mlflow_report


def train_latent_classifier(
    train_functaset: Functaset,
    validation_functaset: Functaset,
    statistics: Weights,
    checkpoint: Checkpoint,
    config: ClassificationConfig,
    data: DataConfig,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Weights, pd.DataFrame]:
    """Train the classifier; the weights with the best validation accuracy are kept."""
    scale = config.normalisation_scale
    if scale is None:
        moments = LatentStatistics.from_tensors(statistics.tensors, statistics.config).moments["scalar"]
        scale = moments.std.item()
    normaliser = Normaliser.by_scale(scale)
    classifier, history = train_classifier(
        train_functaset,
        validation_functaset,
        normaliser,
        config,
        num_classes=data.num_classes,
        seed=seed,
        runtime=runtime,
        checkpoint=checkpoint,
        report=mlflow_report("classifier"),
    )
    return pack_model(classifier, normaliser, config, train_functaset.latent_shape, data.num_classes), history
