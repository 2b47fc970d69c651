"""Nodes of `classification`, and of `evaluation` what measures its result."""

import pandas as pd
from matplotlib.figure import Figure

from spatial_functa_pipeline.compute import resolve_device
from spatial_functa_pipeline.config.classification import ClassificationConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.evaluation import classification
from spatial_functa_pipeline.evaluation.metrics import Metrics
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.statistics import LatentStatistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.models.weights import Weights, pack_model, unpack_classifier
from spatial_functa_pipeline.tracking import mlflow_report
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.classifier import train_classifier
from spatial_functa_pipeline.training.run import TrainingRun, nothing_to_train


def train_latent_classifier(
    train_functaset: Functaset,
    validation_functaset: Functaset,
    statistics: Weights,
    checkpoint: Checkpoint,
    config: ClassificationConfig,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Weights, pd.DataFrame]:
    """Train the classifier; the weights with the best validation accuracy are kept. Nothing to do for a single class."""
    if (classes := train_functaset.num_classes) == 1:
        return nothing_to_train()
    known = LatentStatistics.from_tensors(statistics.tensors, statistics.config)
    scale = config.normalisation_scale or known.moments["scalar"].std.item()
    normaliser = Normaliser.by_scale(scale, known.rotation)
    classifier, history = train_classifier(
        train_functaset,
        validation_functaset,
        normaliser,
        config,
        num_classes=classes,
        run=TrainingRun(seed, runtime, checkpoint, mlflow_report("classifier")),
    )
    return pack_model(classifier, normaliser, config, train_functaset.latent_shape, classes), history


def evaluate_classifier(
    test_functaset: Functaset, test_images: Images, classifier: Weights, seed: int, runtime: RuntimeConfig
) -> tuple[Metrics, pd.DataFrame, pd.DataFrame, Figure]:
    """Accuracy on the test set, once, of the classifier that was chosen on the validation set.

    Returns top-1 accuracy, accuracy of each class, and the confusion matrix as table and figure: all empty for one class.
    """
    if not classifier.tensors:
        return classification.nothing_to_classify()
    model, normaliser, config = unpack_classifier(classifier, resolve_device(runtime.device))
    return classification.evaluate_classifier(
        model, normaliser, test_functaset, test_images.classes, seed, flips=bool(config.test_time_flips)
    )
