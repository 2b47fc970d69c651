"""Nodes of `meta_learning`."""

import pandas as pd

from spatial_functa_pipeline.config.data import DataConfig
from spatial_functa_pipeline.config.meta_learning import MetaLearningConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.config.tree import EncoderKind
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.models.weights import Weights, pack_field
from spatial_functa_pipeline.tracking import mlflow_report
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.field import train_field
from spatial_functa_pipeline.training.run import TrainingRun, nothing_to_train


def meta_learn_field(
    train_images: Images,
    validation_images: Images,
    checkpoint: Checkpoint,
    config: MetaLearningConfig,
    encoder: EncoderKind,
    data: DataConfig,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Weights, pd.DataFrame]:
    """Meta-learn the SIREN, λ and the inner rates on all training images; nothing to do for another encoder."""
    if encoder != "field":
        return nothing_to_train()
    for images in (train_images, validation_images):
        images.require(data)
    field, history = train_field(
        train_images,
        validation_images,
        config,
        run=TrainingRun(seed, runtime, checkpoint, mlflow_report("field")),
    )
    return pack_field(field, config.field), history
