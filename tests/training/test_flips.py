"""Accuracies of an image and its mirror image together."""

import numpy as np
import pytest
import tiny_trainings as tiny
import torch
from torch import nn

from spatial_functa_pipeline.evaluation.classification import evaluate_classifier
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, write
from spatial_functa_pipeline.images.augmentation import MIRRORED
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.classifier import accuracy, predict_classes, train_classifier
from spatial_functa_pipeline.training.run import TrainingRun

NORMALISER = Normaliser.by_scale(1.0)
IMAGES = 40


def functaset(path, latents, mirrored=None, labels=None):
    """Of these latents, each followed by its mirror image's where there are such."""
    sets = [latents] if mirrored is None else [latents, mirrored]
    source = np.tile(np.arange(len(latents)), len(sets))
    labels = np.arange(len(latents)) % 2 if labels is None else labels
    copy = np.repeat(np.array([0, MIRRORED][: len(sets)], np.int32), len(latents))
    rows = Rows(np.concatenate(sets), labels[source], source, copy, np.full(len(source), 30, np.float32))

    def encode(start, stop):
        return Rows(**{name: column[start:stop] for name, column in vars(rows).items()})

    shape = LatentShape(latents.shape[1:-1], latents.shape[-1])
    header = FunctasetHeader("toy", "test", shape, "nearest", len(source), shard_rows=16, chunk_rows=8)
    write(path, FunctasetPlan(header, encode, progress=False))
    return Functaset.open(path)


@pytest.fixture
def latents():
    return np.random.default_rng(0).normal(size=(2, IMAGES, 2, 2, 3)).astype(np.float32)


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()


def test_an_image_and_its_mirror_image_are_of_one_class(tmp_path, latents, classifier):
    both = functaset(tmp_path / "a.zarr", *latents), functaset(tmp_path / "b.zarr", *latents[::-1])
    alone = [predict_classes(classifier, NORMALISER, each, flips=False) for each in both]
    together = [predict_classes(classifier, NORMALISER, each, flips=True) for each in both]
    assert torch.equal(*together)
    assert not torch.equal(*alone)
    with torch.no_grad():
        probabilities = [classifier(torch.from_numpy(each)).softmax(-1) for each in latents]
    assert torch.equal(together[0], sum(probabilities).argmax(-1))
    assert torch.equal(alone[0], probabilities[0].argmax(-1))


def test_mirror_images_change_nothing_where_they_are_not_asked_for(tmp_path, latents, classifier):
    both, one = functaset(tmp_path / "both.zarr", *latents), functaset(tmp_path / "one.zarr", latents[0])
    predicted = [predict_classes(classifier, NORMALISER, each, flips=False) for each in (both, one)]
    assert torch.equal(*predicted)
    assert len(predicted[0]) == IMAGES
    measured = [evaluate_classifier(classifier, NORMALISER, each, ("a", "b", "c"), 0) for each in (both, one)]
    assert measured[0][0] == measured[1][0]
    assert measured[0][2].equals(measured[1][2])


def test_a_functaset_without_mirror_images_has_no_flips(tmp_path, latents, classifier):
    with pytest.raises(ValueError, match="has no mirrored images"):
        predict_classes(classifier, NORMALISER, functaset(tmp_path / "a.zarr", latents[0]), flips=True)


def test_validation_and_test_accuracies_are_of_both(tmp_path):
    """Only the mirror images tell the classes apart: without them, accuracy is that of a guess."""
    labels = np.arange(IMAGES) % 2
    telling = np.ones((IMAGES, 2, 2, 4), np.float32) * (2 * labels - 1)[:, None, None, None]
    train = functaset(tmp_path / "train.zarr", telling)
    held_out = functaset(tmp_path / "held_out.zarr", np.zeros_like(telling), telling)
    config = tiny.transformer().model_copy(update={"test_time_flips": True})
    run = TrainingRun(0, tiny.RUNTIME, Checkpoint(tmp_path / "c.pt"))
    classifier, history = train_classifier(train, held_out, NORMALISER, config, num_classes=2, run=run)
    assert history.validation_accuracy.max() == 1
    assert accuracy(classifier.eval(), NORMALISER, held_out, flips=False) == 0.5
    metrics, by_class, *_ = evaluate_classifier(classifier, NORMALISER, held_out, ("a", "b"), 0, flips=True)
    assert metrics["top1_accuracy"] == 1
    assert metrics["details"] == {"top1_accuracy": f"{IMAGES} test images with their mirror images, seed 0"}
    assert by_class["images"].tolist() == [IMAGES // 2, IMAGES // 2]
