"""Training of the classifier on latents (App. B.1, C)."""

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..compute import resolve_device
from ..config import ClassificationConfig, RuntimeConfig
from ..functasets.batches import FunctasetBatches, consecutive_batches
from ..functasets.normalisation import Normaliser
from ..functasets.store import Functaset
from ..models.classifiers import build_classifier
from .checkpoint import Checkpoint
from .launch import several_processes
from .loop import Batch, Report, Training
from .ranks import this_process
from .seeding import derive_seed

_EVALUATION_BATCH = 256


@torch.no_grad()
def predict_classes(classifier: nn.Module, normaliser: Normaliser, functaset: Functaset) -> Tensor:
    """Predicted classes `(N,)` of all rows, on the CPU; the classifier should be in evaluation mode."""
    device = next(classifier.parameters()).device
    batches = consecutive_batches(functaset, _EVALUATION_BATCH)
    return torch.cat([classifier(normaliser(latents.to(device))).argmax(-1).cpu() for latents, _ in batches])


def accuracy(classifier: nn.Module, normaliser: Normaliser, functaset: Functaset) -> float:
    """Top-1 accuracy in [0, 1] on all rows."""
    return (
        (predict_classes(classifier, normaliser, functaset) == torch.from_numpy(functaset.labels)).float().mean().item()
    )


@several_processes
def train_classifier(
    train_functaset: Functaset,
    validation_functaset: Functaset,
    normaliser: Normaliser,
    config: ClassificationConfig,
    *,
    num_classes: int,
    seed: int,
    runtime: RuntimeConfig,
    checkpoint: Checkpoint,
    report: Report,
) -> tuple[nn.Module, pd.DataFrame]:
    """Train a classifier; returns the weights with the best validation accuracy, and the history."""
    torch.manual_seed(derive_seed(seed, "classifier", "initialisation"))
    classifier = build_classifier(config, train_functaset.latent_shape, num_classes)
    normaliser = normaliser.to(resolve_device(runtime.device))
    training = config.training

    def loss(batch: Batch, generator: torch.Generator) -> Tensor:
        latents, labels = batch
        return F.cross_entropy(classifier(normaliser(latents)), labels, label_smoothing=config.label_smoothing)

    history = Training(
        name="classifier",
        model=classifier,
        loss=loss,
        batches=lambda start: FunctasetBatches(
            train_functaset, training.batch_size, seed, training.steps, start, part=this_process().part
        ),
        config=training,
        seed=seed,
        runtime=runtime,
        checkpoint=checkpoint,
        identity={
            "classification": config.model_dump(mode="json"),
            "functaset": train_functaset.header.to_attributes(),
        },
        validate=lambda model: {"validation_accuracy": accuracy(model, normaliser, validation_functaset)},
        best="validation_accuracy",
        report=report,
    ).run()
    return classifier, history
