"""How well a classifier recognises the test set."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from spatial_functa_pipeline.evaluation.classification_figure import confusion_figure
from spatial_functa_pipeline.evaluation.metrics import Metrics, described
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.metrics.classification import class_accuracies, confusion_matrix, confusion_table
from spatial_functa_pipeline.training.classifier import predict_classes

logger = logging.getLogger(__name__)

_ACCURACY = "top1_accuracy"


def nothing_to_classify() -> tuple[Metrics, pd.DataFrame, pd.DataFrame, Figure]:
    """What `evaluate_classifier` gives, for a single class: no metric, tables without rows, and a figure that says why."""
    confusion, classes = np.zeros((1, 1), np.int64), ("",)
    tables = class_accuracies(confusion, classes), confusion_table(confusion, classes).reset_index()
    figure = Figure(figsize=(4, 1))
    figure.text(0.5, 0.5, "one class: nothing to classify", ha="center", va="center")
    accuracies, confusions = (table.iloc[:0] for table in tables)
    return described({}), accuracies, confusions[["true_class"]], figure


def evaluate_classifier(
    classifier: nn.Module,
    normaliser: Normaliser,
    test: Functaset,
    classes: Sequence[str],
    seed: int,
    *,
    flips: bool = False,
) -> tuple[Metrics, pd.DataFrame, pd.DataFrame, Figure]:
    """Top-1 accuracy on the test set, accuracy of each class, and the confusion matrix as table and figure.

    Args:
        classifier: in evaluation mode.
        normaliser: what it was trained with.
        test: the latents of the test images.
        classes: their names.
        seed: of the classifier's training, for what stands beside the numbers.
        flips: see `predict_classes`.
    """
    predicted, labels = predict_classes(classifier, normaliser, test, flips).numpy(), test.image_labels
    confusion = confusion_matrix(labels, predicted, len(classes))
    accuracy = float((predicted == labels).mean())
    measured_on = f"{len(labels)} test images{' with their mirror images' if flips else ''}, seed {seed}"
    logger.info("%s: %.4f (%s)", _ACCURACY, accuracy, measured_on)
    return (
        described({_ACCURACY: (accuracy, measured_on)}),
        class_accuracies(confusion, classes),
        confusion_table(confusion, classes).reset_index(),
        confusion_figure(confusion, classes, f"{_ACCURACY} {accuracy:.4f}, {measured_on}"),
    )
