"""Nodes of `meta_learning`."""

import pandas as pd

from spatial_functa_pipeline.config import DataConfig, MetaLearningConfig, RuntimeConfig
from spatial_functa_pipeline.datasets.images import Images
from spatial_functa_pipeline.datasets.weights import Weights
from spatial_functa_pipeline.pipelines.weights import pack_field
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.field import train_field
from spatial_functa_pipeline.training.reporting import mlflow_report


def meta_learn_field(
    train_images: Images,
    validation_images: Images,
    checkpoint: Checkpoint,
    config: MetaLearningConfig,
    data: DataConfig,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Weights, pd.DataFrame]:
    """Meta-learn the SIREN, λ and the inner rates on all training images."""
    for images in (train_images, validation_images):
        images.require(data)
    field, history = train_field(
        train_images,
        validation_images,
        config,
        seed=seed,
        runtime=runtime,
        checkpoint=checkpoint,
        report=mlflow_report("field"),
    )
    return pack_field(field, config.field), history
