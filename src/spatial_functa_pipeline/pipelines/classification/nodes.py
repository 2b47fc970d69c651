"""Nodes of `classification`, and of `evaluation` what measures its result."""

import logging

import pandas as pd
from matplotlib.figure import Figure

from spatial_functa_pipeline.compute import resolve_device
from spatial_functa_pipeline.config.classification import ClassificationConfig
from spatial_functa_pipeline.config.data import DataConfig
from spatial_functa_pipeline.config.functaset import FunctasetConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.evaluation.classification_figure import confusion_figure
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.statistics import LatentStatistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.loading.pixel_patches import PixelPatches
from spatial_functa_pipeline.metrics.classification import class_accuracies, confusion_matrix, confusion_table
from spatial_functa_pipeline.models.weights import Weights, pack_model, unpack_classifier
from spatial_functa_pipeline.tracking import mlflow_report
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.classifier import Examples, predict_classes, train_classifier

logger = logging.getLogger(__name__)

Metrics = dict[str, float | dict[str, str]]


def train_latent_classifier(
    train_functaset: Functaset,
    validation_functaset: Functaset,
    statistics: Weights,
    train_images: Images,
    validation_images: Images,
    checkpoint: Checkpoint,
    config: ClassificationConfig,
    functaset: FunctasetConfig,
    data: DataConfig,
    seed: int,
    runtime: RuntimeConfig,
    pixels: bool = False,
) -> tuple[Weights, pd.DataFrame]:
    """Train the classifier; the weights with the best validation accuracy are kept.

    With `pixels` it is trained on the images, and the augmented copies of them, that the functasets were built from.
    """
    train: Examples = train_functaset
    validation: Examples = validation_functaset
    if pixels:
        train = PixelPatches(train_images, train_functaset, functaset.augmentation, seed)
        validation = PixelPatches(validation_images, validation_functaset, functaset.augmentation, seed)
        normaliser = Normaliser.centred(*train.moments)
    else:
        scale = config.normalisation_scale
        if scale is None:
            moments = LatentStatistics.from_tensors(statistics.tensors, statistics.config).moments["scalar"]
            scale = moments.std.item()
        normaliser = Normaliser.by_scale(scale)
    classifier, history = train_classifier(
        train,
        validation,
        normaliser,
        config,
        num_classes=data.num_classes,
        seed=seed,
        runtime=runtime,
        checkpoint=checkpoint,
        report=mlflow_report("pixel_classifier" if pixels else "classifier"),
    )
    return pack_model(classifier, normaliser, config, train.latent_shape, data.num_classes), history


def evaluate_classifier(
    test_functaset: Functaset,
    test_images: Images,
    classifier: Weights,
    functaset: FunctasetConfig,
    seed: int,
    runtime: RuntimeConfig,
    pixels: bool = False,
) -> tuple[Metrics, pd.DataFrame, pd.DataFrame, Figure]:
    """Accuracy on the test set, once, of the classifier that was chosen on the validation set.

    Returns top-1 accuracy, accuracy of each class, and the confusion matrix as table and figure.
    """
    model, normaliser = unpack_classifier(classifier, resolve_device(runtime.device))
    test = PixelPatches(test_images, test_functaset, functaset.augmentation, seed) if pixels else test_functaset
    predicted = predict_classes(model, normaliser, test).numpy()
    confusion = confusion_matrix(test.labels, predicted, len(test_images.classes))
    name = "top1_accuracy_pixels" if pixels else "top1_accuracy"
    accuracy = float((predicted == test.labels).mean())
    measured_on = f"{len(test)} test images, seed {seed}"
    logger.info("%s: %.4f (%s)", name, accuracy, measured_on)
    return (
        {name: accuracy, "details": {name: measured_on}},
        class_accuracies(confusion, test_images.classes),
        confusion_table(confusion, test_images.classes).reset_index(),
        confusion_figure(confusion, test_images.classes, f"{name} {accuracy:.4f}, {measured_on}"),
    )
