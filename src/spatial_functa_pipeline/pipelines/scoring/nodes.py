"""Nodes of `scoring`."""

import pandas as pd
from matplotlib.figure import Figure

from spatial_functa_pipeline.compute import resolve_device
from spatial_functa_pipeline.config.evaluation import FrechetConfig, ScoresConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.evaluation import features, generation
from spatial_functa_pipeline.evaluation.metrics import Metrics
from spatial_functa_pipeline.functasets.statistics import LatentStatistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.metrics.features import FEATURE_WIDTHS
from spatial_functa_pipeline.models.weights import Weights, pack_feature_network, unpack_encoder
from spatial_functa_pipeline.tracking import mlflow_report
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.feature_network import train_feature_network
from spatial_functa_pipeline.training.run import TrainingRun, nothing_to_train


def train_features(
    train_images: Images,
    validation_images: Images,
    checkpoint: Checkpoint,
    config: FrechetConfig,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Weights, pd.DataFrame]:
    """Train the network behind `frechet_distance_convnet_…` on the real training images; nothing to do for Inception."""
    if config.features == "inception":
        return nothing_to_train()
    network, history = train_feature_network(
        train_images,
        validation_images,
        config.feature_network,
        width=FEATURE_WIDTHS[config.features],
        run=TrainingRun(seed, runtime, checkpoint, mlflow_report("feature_network")),
    )
    return pack_feature_network(network), history


def measure_real_images(
    train_images: Images,
    validation_images: Images,
    test_images: Images,
    network: Weights,
    config: FrechetConfig,
    scores: ScoresConfig,
    runtime: RuntimeConfig,
) -> Weights:
    """Features of the real images, `train` and `test`: what every evaluation of samples needs again."""
    extractor = features.feature_extractor(config, network, resolve_device(runtime.device))
    measured = features.real_features(extractor, train_images, validation_images, test_images, scores)
    held_out = features.held_out(train_images, validation_images, scores, scores.reference_images)
    return features.pack_features(measured, extractor, held_out=held_out)


def measure_reference_points(
    train_images: Images,
    validation_images: Images,
    test_images: Images,
    test_functaset: Functaset,
    encoder: Weights,
    statistics: Weights,
    network: Weights,
    config: FrechetConfig,
    scores: ScoresConfig,
    samples: int,
    seed: int,
    runtime: RuntimeConfig,
) -> Weights:
    """Features of what samples should be compared with: real images, reconstructions, linear codes, decoded noise."""
    device = resolve_device(runtime.device)
    extractor = features.feature_extractor(config, network, device)
    moments = LatentStatistics.from_tensors(statistics.tensors, statistics.config)
    images = (train_images, validation_images, test_images, test_functaset)
    sets = features.reference_features(
        extractor, *images, unpack_encoder(encoder, device), moments, scores, samples, seed
    )
    return features.pack_features(sets, extractor)


def score_samples(
    samples: Functaset,
    encoder: Weights,
    network: Weights,
    real: Weights,
    reference: Weights,
    config: FrechetConfig,
    scores: ScoresConfig,
    interval_resamples: int | None,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Metrics, pd.DataFrame, Figure]:
    """All scores of the decoded samples and of the reference points, to the training and to the test images.

    Returns the metrics, the table of every score of every set, with what it was measured on, and the figure of it.
    """
    device = resolve_device(runtime.device)
    extractor, decoder = features.feature_extractor(config, network, device), unpack_encoder(encoder, device)
    sets = (features.unpack_features(real), features.unpack_features(reference))
    numbers = (scores.pair_images, interval_resamples, real.config["held_out"], seed)
    return generation.score_samples(samples, decoder, extractor, *sets, *numbers)
