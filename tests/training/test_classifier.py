"""The classifier on latents and on pixels: the same training on the same rows, which no interruption changes."""

import os
import signal

import numpy as np
import pytest
import tiny_trainings as tiny
import torch

from spatial_functa_pipeline.config.classification import ClassificationConfig
from spatial_functa_pipeline.config.functaset import AugmentationConfig, FunctasetConfig
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.loading.pixel_patches import PixelPatches
from spatial_functa_pipeline.pipelines.pixel_classification import nodes
from spatial_functa_pipeline.training import classifier as module
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.run import TrainingRun, report_nothing

AUGMENTATION = AugmentationConfig(flip=True, crop_padding=1)
FUNCTASET = FunctasetConfig(
    augmented_copies=1, augmentation=AUGMENTATION, shard_rows=64, chunk_rows=64, encode_batch=16
)
CLASSES = ("left", "right", "neither")


def images(count, seed):
    """8×8 images of three classes, of another brightness each: augmented copies keep it."""
    labels = np.arange(count) % 3
    noise = np.random.default_rng(seed).integers(0, 30, (count, 8, 8, 1))
    return Images.from_array((noise + 80 * labels[:, None, None, None]).astype(np.uint8), labels, CLASSES)


def config(**options):
    training = {**tiny.STEPS, "steps": 60, "batch_size": 8, "learning_rate": 1e-2, "keep": "best"}
    small = {"width": 16, "ffw_width": 16, "blocks": 1, "heads": 2}
    return ClassificationConfig(transformer=small, mlp={"width": 16, "blocks": 1}, training=training, **options)


@pytest.fixture
def pixels():
    """Training and validation images, and functasets of them."""
    train, validation = images(24, 0), images(12, 1)
    return tiny.RowsOf(train.labels, 0, 1), tiny.RowsOf(validation.labels, 0), train, validation


def train_node(pixels, path, **options):
    train, validation, train_images, validation_images = pixels
    return nodes.train_pixel_classifier(
        train,
        validation,
        train_images,
        validation_images,
        Checkpoint(path),
        config(**options),
        FUNCTASET,
        0,
        tiny.RUNTIME,
    )


def test_the_pixel_baseline_learns_from_pixels_and_is_measured_on_them(pixels, tmp_path):
    weights, history = train_node(pixels, tmp_path / "c.pt")
    assert history.validation_accuracy.max() > 0.9  # the latents, all zero, would give a third
    assert weights.config["latent_shape"] == "2x2x16"
    test = images(30, 2)
    metrics, by_class, confusion, figure = nodes.evaluate_pixel_classifier(
        tiny.RowsOf(test.labels, 0), test, weights, FUNCTASET, 0, tiny.RUNTIME
    )
    assert set(metrics) == {"top1_accuracy_pixels", "details"}
    assert metrics["top1_accuracy_pixels"] > 0.9
    assert metrics["details"] == {"top1_accuracy_pixels": "30 test images, seed 0"}
    assert by_class["images"].tolist() == [10, 10, 10]
    counts = confusion[list(CLASSES)].to_numpy()
    assert np.trace(counts) / counts.sum() == pytest.approx(metrics["top1_accuracy_pixels"])
    assert confusion["true_class"].tolist() == list(CLASSES)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), 10 * counts)


def test_latents_and_pixels_of_the_same_rows_are_read_in_the_same_order(pixels, tmp_path, monkeypatch):
    """What a step reads is recorded where the loss sees it: labels are those of the same rows."""
    seen = []

    class Recorder(torch.nn.Module):
        def __init__(self, shape):
            super().__init__()
            self.layer = torch.nn.Linear(shape.cells * shape.channels, 3)

        def forward(self, inputs):
            return self.layer(inputs.flatten(1))

    def cross_entropy(logits, labels, label_smoothing):
        seen.append(labels.tolist())
        return logits.square().mean()

    monkeypatch.setattr(module, "build_classifier", lambda config, shape, classes: Recorder(shape))
    monkeypatch.setattr(module.F, "cross_entropy", cross_entropy)
    folder = tiny.write_functasets(tmp_path)
    functasets = [module.Functaset.open(folder / f"{split}.zarr") for split in ("train", "validation")]
    rng = np.random.default_rng(0)
    stand_ins = []
    for functaset in functasets:
        content = rng.integers(0, 256, (len(functaset), 8, 8, 1), np.uint8)
        stand_in = tiny.RowsOf(functaset.labels, 0)
        stand_ins.append(PixelPatches(Images.from_array(content, functaset.labels, CLASSES), stand_in, AUGMENTATION, 0))
    orders = []
    for name, examples in (("latents", functasets), ("pixels", stand_ins)):
        seen.clear()
        module.train_classifier(
            *examples,
            Normaliser.by_scale(1.0),
            config(),
            num_classes=3,
            run=TrainingRun(0, tiny.RUNTIME, Checkpoint(tmp_path / f"{name}.pt")),
        )
        orders.append(list(seen))
    assert len(orders[0]) == 60
    assert len({tuple(labels) for labels in orders[0]}) > 1
    assert orders[0] == orders[1]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_an_interrupted_pixel_baseline_ends_as_the_uninterrupted_one(pixels, tmp_path, monkeypatch, precision):
    whole, history = train_node(pixels, tmp_path / "whole.pt", precision=precision)
    cut = tmp_path / "cut.pt"
    journal = tiny.Journal(tmp_path / "journal", os.getpid(), signal.SIGINT, interrupt_at=25)
    with monkeypatch.context() as patch:
        patch.setattr(nodes, "mlflow_report", lambda prefix: journal)
        with pytest.raises(KeyboardInterrupt):
            train_node(pixels, cut, precision=precision)
    resumed, resumed_history = train_node(pixels, cut, precision=precision)
    assert all(torch.equal(resumed.tensors[name], value) for name, value in whole.tensors.items())
    columns = [name for name in history if name != "seconds"]
    assert resumed_history[columns].equals(history[columns])


def test_an_interrupted_classifier_on_latents_ends_as_the_uninterrupted_one(tmp_path):
    folder = tiny.write_functasets(tmp_path)

    def train(path, report=report_nothing):
        splits = (module.Functaset.open(folder / f"{split}.zarr") for split in ("train", "validation"))
        return module.train_classifier(
            *splits,
            Normaliser.by_scale(1.0),
            tiny.transformer(),
            num_classes=2,
            run=TrainingRun(0, tiny.RUNTIME, Checkpoint(path), report),
        )

    whole, history = train(tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut.pt", tiny.Journal(tmp_path / "journal", os.getpid(), signal.SIGINT, interrupt_at=15))
    resumed, resumed_history = train(tmp_path / "cut.pt")
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state_dict().items())
    columns = [name for name in history if name != "seconds"]
    assert resumed_history[columns].equals(history[columns])
