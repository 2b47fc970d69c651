"""Nodes of `meta_learning`: the field, or what it is compared with, and the choice. What is not chosen is not made."""

import pandas as pd

from spatial_functa_pipeline.config.autoencoder import AutoencoderConfig
from spatial_functa_pipeline.config.data import DataConfig
from spatial_functa_pipeline.config.meta_learning import MetaLearningConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.config.tree import EncoderKind
from spatial_functa_pipeline.fields.encoder import CodeSpec
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.models.weights import Weights, pack_autoencoder, pack_field, pack_linear_encoder
from spatial_functa_pipeline.tracking import mlflow_report
from spatial_functa_pipeline.training.autoencoder import train_autoencoder
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.field import train_field
from spatial_functa_pipeline.training.linear_code import fit_linear_encoder
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


def fit_linear_code(train_images: Images, encoder: EncoderKind, latent_shape: str, data: DataConfig) -> Weights:
    """The principal components of the training images' cells, or their pixels as they are."""
    if encoder not in ("pca", "pixels"):
        return Weights({})
    train_images.require(data)
    spec = CodeSpec(LatentShape.parse(latent_shape), data.resolution, data.channels)
    return pack_linear_encoder(fit_linear_encoder(train_images, spec, encoder))


def train_image_autoencoder(
    train_images: Images,
    validation_images: Images,
    checkpoint: Checkpoint,
    config: AutoencoderConfig | None,
    encoder: EncoderKind,
    latent_shape: str,
    data: DataConfig,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Weights, pd.DataFrame]:
    """Train the autoencoder on all training images."""
    if encoder != "autoencoder" or config is None:
        return nothing_to_train()
    for images in (train_images, validation_images):
        images.require(data)
    spec = CodeSpec(LatentShape.parse(latent_shape), data.resolution, data.channels)
    run = TrainingRun(seed, runtime, checkpoint, mlflow_report("autoencoder"))
    autoencoder, history = train_autoencoder(train_images, validation_images, spec, config, run=run)
    return pack_autoencoder(autoencoder, config), history


def choose_encoder(field: Weights, linear_code: Weights, autoencoder: Weights, encoder: EncoderKind) -> Weights:
    """The one that makes the latents, and decodes them."""
    return {"field": field, "pca": linear_code, "pixels": linear_code, "autoencoder": autoencoder}[encoder]
