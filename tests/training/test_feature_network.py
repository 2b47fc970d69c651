"""The feature network where there is nothing to tell apart but how an image was turned."""

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.feature_network import train_feature_network, turn
from spatial_functa_pipeline.training.run import TrainingRun


def upright(count, height, width, seed=0):
    """Images that are bright at their top, and have noise."""
    noise = np.random.default_rng(seed).integers(0, 60, (count, height, width, 1))
    light = np.linspace(180, 0, height)[:, None, None]
    return Images.from_array((noise + light).astype(np.uint8), np.zeros(count, np.int64), ("all",))


def test_images_are_turned_by_their_own_number_of_quarters():
    images = torch.arange(24).reshape(2, 2, 2, 3)[[0, 1, 0, 1]]
    turned = turn(images, torch.tensor([0, 1, 2, 3]))
    for image, before, quarters in zip(turned, images, range(4), strict=True):
        np.testing.assert_array_equal(image, np.rot90(before.numpy(), quarters))


@pytest.mark.parametrize(("size", "turns"), [((16, 16), 4), ((16, 24), 2)])
def test_one_class_is_learned_from_by_turning(tmp_path, size, turns):
    config = TrainingConfig(steps=40, batch_size=16, learning_rate=3e-3, validate_every=40, checkpoint_every=40)
    run = TrainingRun(0, RuntimeConfig(device="cpu", progress=False), Checkpoint(tmp_path / "c.pt"))
    network, history = train_feature_network(upright(64, *size), upright(40, *size, seed=1), config, run=run)
    assert network.num_classes == turns
    assert history.validation_accuracy.dropna().iloc[-1] > 0.9


def test_a_batch_may_be_split(tmp_path):
    """Random numbers of the loss are of a kind that does not depend on the split: others would be refused."""
    config = TrainingConfig(
        steps=2, batch_size=16, learning_rate=3e-3, micro_batch=4, log_every=1, validate_every=1, checkpoint_every=1
    )
    run = TrainingRun(0, RuntimeConfig(device="cpu", progress=False), Checkpoint(tmp_path / "c.pt"))
    _, history = train_feature_network(upright(64, 16, 16), upright(8, 16, 16), config, run=run)
    assert history.loss.notna().all()
