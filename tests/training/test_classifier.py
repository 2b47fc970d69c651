"""The classifier's training, which no interruption changes."""

import os
import signal

import numpy as np
import pytest
import tiny_trainings as tiny
import torch

from spatial_functa_pipeline.evaluation.classification import evaluate_classifier
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.training import classifier as module
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.run import TrainingRun, report_nothing


@pytest.mark.parametrize("config", [tiny.transformer(), tiny.convnext()], ids=["transformer", "convnext"])
def test_an_interrupted_classifier_ends_as_the_uninterrupted_one(tmp_path, config):
    folder = tiny.write_functasets(tmp_path)

    def train(path, report=report_nothing):
        splits = (module.Functaset.open(folder / f"{split}.zarr") for split in ("train", "validation"))
        return module.train_classifier(
            *splits,
            Normaliser.by_scale(1.0),
            config,
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


def test_a_trained_classifier_is_measured_on_a_test_set(tmp_path):
    folder = tiny.write_functasets(tmp_path)
    train, test = (module.Functaset.open(folder / f"{split}.zarr") for split in ("train", "validation"))
    run = TrainingRun(0, tiny.RUNTIME, Checkpoint(tmp_path / "c.pt"))
    normaliser = Normaliser.by_scale(1.0)
    classifier, history = module.train_classifier(train, test, normaliser, tiny.transformer(), num_classes=2, run=run)
    metrics, by_class, confusion, figure = evaluate_classifier(classifier.eval(), normaliser, test, ("a", "b"), 0)
    assert metrics["top1_accuracy"] == pytest.approx(history.validation_accuracy.max())
    assert metrics["top1_accuracy"] > 0.9
    assert metrics["details"] == {"top1_accuracy": "32 test images, seed 0"}
    assert by_class["images"].tolist() == [16, 16]
    counts = confusion[["a", "b"]].to_numpy()
    assert np.trace(counts) / counts.sum() == pytest.approx(metrics["top1_accuracy"])
    assert confusion["true_class"].tolist() == ["a", "b"]
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), 100 * counts / 16)
