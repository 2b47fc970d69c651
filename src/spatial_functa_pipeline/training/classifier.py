"""Training of the classifier on latents (App. B.1, C)."""

from collections.abc import Iterable, Iterator

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatial_functa_pipeline.compute import available_precision, bf16_products, float32_products, resolve_device
from spatial_functa_pipeline.config.classification import ClassificationConfig
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.loading.functaset_batches import FunctasetBatches, consecutive_batches, mirrored_batches
from spatial_functa_pipeline.models.classifiers import build_classifier
from spatial_functa_pipeline.training.launch import several_processes
from spatial_functa_pipeline.training.loop import Training
from spatial_functa_pipeline.training.mixup import mixed
from spatial_functa_pipeline.training.ranks import this_process
from spatial_functa_pipeline.training.run import TrainingRun
from spatial_functa_pipeline.training.schedule import muon_for
from spatial_functa_pipeline.training.seeding import derive_seed
from spatial_functa_pipeline.training.step import Batch

_EVALUATION_BATCH = 256


@torch.no_grad()
@float32_products()
def predict_classes(classifier: nn.Module, normaliser: Normaliser, functaset: Functaset, flips: bool) -> Tensor:
    """Predicted classes `(N,)` of all images, on the CPU; the classifier should be in evaluation mode.

    With `flips` they follow from the mean of the probabilities of an image and of its mirror image. Raises ValueError if
    the functaset has no mirrored images then.
    """
    device = next(classifier.parameters()).device

    def logits(batches: Iterator[Batch]) -> Tensor:
        return torch.cat([classifier(normaliser(latents.to(device))).cpu() for latents, _ in batches])

    scores = logits(consecutive_batches(functaset, _EVALUATION_BATCH))
    if flips:
        scores = scores.softmax(-1) + logits(mirrored_batches(functaset, _EVALUATION_BATCH)).softmax(-1)
    return scores.argmax(-1)


def accuracy(classifier: nn.Module, normaliser: Normaliser, functaset: Functaset, flips: bool) -> float:
    """Top-1 accuracy in [0, 1] on all images; see `predict_classes`."""
    right = predict_classes(classifier, normaliser, functaset, flips) == torch.from_numpy(functaset.image_labels)
    return right.float().mean().item()


@several_processes
def train_classifier(
    train_functaset: Functaset,
    validation_functaset: Functaset,
    normaliser: Normaliser,
    config: ClassificationConfig,
    *,
    num_classes: int,
    run: TrainingRun,
) -> tuple[nn.Module, pd.DataFrame]:
    """Train a classifier; returns its weights, the best by validation accuracy or the last (`keep`), and the history."""
    torch.manual_seed(derive_seed(run.seed, "classifier", "initialisation"))
    classifier = build_classifier(config, train_functaset.latent_shape, num_classes)
    device = resolve_device(run.runtime.device)
    normaliser = normaliser.to(device)
    precision = available_precision(config.precision, device, "classifier")
    training, flips = config.training, bool(config.test_time_flips)

    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        latents, labels = batch
        inputs = normaliser(latents)
        if config.mixup is not None:
            inputs, labels = mixed(inputs, labels, num_classes, config.mixup, generator)
        with bf16_products(precision, device):
            logits = classifier(inputs)
        return F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)

    def batches(start: int) -> Iterable[Batch]:
        order = (training.batch_size, run.seed, training.steps, start)
        return FunctasetBatches(train_functaset, *order, part=this_process().part)

    history = Training(
        name="classifier",
        model=classifier,
        loss=loss,
        batches=batches,
        config=training,
        run=run,
        must_agree={
            "classification": config.model_dump(mode="json", exclude={"training"}),
            "rotated_numbers": normaliser.rotated_numbers,
            "functaset": train_functaset.header.to_attributes(),
        },
        validate=lambda model: {"validation_accuracy": accuracy(model, normaliser, validation_functaset, flips)},
        best="validation_accuracy",
        **muon_for(classifier, classifier.ENDS, config.muon_learning_rate, training),
        precision=precision,
    ).train()
    return classifier, history
