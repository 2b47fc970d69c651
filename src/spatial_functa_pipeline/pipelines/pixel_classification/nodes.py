"""Nodes of `pixel_classification`: the classifier's, with raw patches of pixels in the place of latents."""

import pandas as pd
from matplotlib.figure import Figure

from spatial_functa_pipeline.compute import resolve_device
from spatial_functa_pipeline.config.classification import ClassificationConfig
from spatial_functa_pipeline.config.functaset import FunctasetConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.evaluation import classification
from spatial_functa_pipeline.evaluation.metrics import Metrics
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.loading.pixel_patches import PixelPatches
from spatial_functa_pipeline.models.weights import Weights, pack_model, unpack_classifier
from spatial_functa_pipeline.tracking import mlflow_report
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.classifier import train_classifier
from spatial_functa_pipeline.training.run import TrainingRun, nothing_to_train


def train_pixel_classifier(
    train_functaset: Functaset,
    validation_functaset: Functaset,
    train_images: Images,
    validation_images: Images,
    checkpoint: Checkpoint,
    config: ClassificationConfig,
    functaset: FunctasetConfig,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Weights, pd.DataFrame]:
    """Train the classifier on the images, and the augmented copies of them, that the functasets were built from.

    The weights with the best validation accuracy are kept. Nothing to do for a single class.
    """
    if (classes := len(train_images.classes)) == 1:
        return nothing_to_train()
    train = PixelPatches(train_images, train_functaset, functaset.augmentation, seed)
    normaliser = Normaliser.centred(*train.moments)
    classifier, history = train_classifier(
        train,
        PixelPatches(validation_images, validation_functaset, functaset.augmentation, seed),
        normaliser,
        config,
        num_classes=classes,
        run=TrainingRun(seed, runtime, checkpoint, mlflow_report("pixel_classifier")),
    )
    return pack_model(classifier, normaliser, config, train.latent_shape, classes), history


def evaluate_pixel_classifier(
    test_functaset: Functaset,
    test_images: Images,
    classifier: Weights,
    functaset: FunctasetConfig,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Metrics, pd.DataFrame, pd.DataFrame, Figure]:
    """Accuracy on the pixels of the test set, once, of the classifier that was chosen on the validation set.

    Returns top-1 accuracy, accuracy of each class, and the confusion matrix as table and figure: all empty for one class.
    """
    if not classifier.tensors:
        return classification.nothing_to_classify()
    model, normaliser = unpack_classifier(classifier, resolve_device(runtime.device))
    test = PixelPatches(test_images, test_functaset, functaset.augmentation, seed)
    classes, name = test_images.classes, "top1_accuracy_pixels"
    return classification.evaluate_classifier(model, normaliser, test, classes, name, seed)
