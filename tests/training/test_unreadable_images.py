"""An image that cannot be decoded costs no step: without it, or with another one in its place, the same training goes on."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_trainings as tiny
import torch

from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.fields.encoder import CodeSpec
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.images.decoders import UndecodableImageError
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.training.autoencoder import train_autoencoder
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.feature_network import train_feature_network
from spatial_functa_pipeline.training.field import train_field
from spatial_functa_pipeline.training.guard import UnreadableImageError
from spatial_functa_pipeline.training.run import TrainingRun

BROKEN = 7  # not among the images that the digest looks at


@dataclass
class Folder:
    """What reads images, of which one is broken after it has been read `sound` times."""

    read: object
    sound: int
    reads: int = 0

    def __call__(self, rows):
        if BROKEN in rows:
            self.reads += 1
            if self.reads > self.sound:
                raise UndecodableImageError("7.png", "truncated")
        return self.read(rows)


def with_a_broken_one(images, sound=3):
    return replace(images, read=Folder(images.read, sound))


def without_it(images):
    pixels = images.batch(range(len(images))).numpy()
    return Images.from_array(np.delete(pixels, BROKEN, 0), np.delete(images.labels, BROKEN), images.classes)


def run_of(path, **runtime):
    return TrainingRun(0, tiny.RUNTIME.model_copy(update=runtime), Checkpoint(Path(path)))


def field(path, images, validation=None, num_workers=0, **training):
    config = tiny.field_config(**training)
    return train_field(images, validation or tiny.images(16, 1), config, run=run_of(path, num_workers=num_workers))


def feature_network(path, images, validation=None, **training):
    config = TrainingConfig(**{**tiny.STEPS, **training})
    return train_feature_network(images, validation or tiny.images(16, 1), config, run=run_of(path))


def autoencoder(path, images, validation=None, num_workers=0, **training):
    config, spec = tiny.autoencoder_config(**training), CodeSpec(LatentShape((2, 2), 4), (8, 8), 1)
    run = run_of(path, num_workers=num_workers)
    return train_autoencoder(images, validation or tiny.images(16, 1), spec, config, run=run)


BY_TRAINING = pytest.mark.parametrize("train", [field, feature_network, autoencoder])


def assert_same(result, expected):
    (model, history), (other, other_history) = result, expected
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    columns = other_history.columns.drop("seconds")
    pd.testing.assert_frame_equal(history[columns], other_history[columns])


@BY_TRAINING
def test_the_step_before_it_is_saved_and_gone_on_from_without_it(tmp_path, train, caplog):
    caplog.set_level("INFO")
    images = tiny.images(32, 0)
    with pytest.raises(
        UnreadableImageError, match=r"stopped at step \d+, with a checkpoint: cannot .* remove the"
    ) as caught:
        train(tmp_path / "c.pt", with_a_broken_one(images))
    step = caught.value.step
    assert step > 8
    assert torch.load(tmp_path / "c.pt")["state"]["step"] == step
    _, history = train(tmp_path / "c.pt", without_it(images))
    assert (
        "c.pt: the images have changed: 32 → 31; going on, since there was one that could not be decoded" in caplog.text
    )
    assert f"going on from the checkpoint at step {step} of 30" in caplog.text
    assert history.step.tolist() == [5, 10, 15, 20, 25, 30]
    assert not list(tmp_path.glob("*.old*"))


@BY_TRAINING
def test_repaired_it_leaves_no_trace(tmp_path, train):
    images = tiny.images(32, 0)
    whole = train(tmp_path / "whole.pt", images)
    with pytest.raises(UnreadableImageError):
        train(tmp_path / "c.pt", with_a_broken_one(images))
    assert_same(train(tmp_path / "c.pt", images), whole)


def test_workers_that_decode_ahead_stop_it_at_the_same_step(tmp_path, caplog):
    images, steps = tiny.images(32, 0), []
    for num_workers in (0, 2):
        path = tmp_path / f"{num_workers}.pt"
        with pytest.raises(UnreadableImageError, match=r"with a checkpoint: cannot decode the image 7\.png") as caught:
            field(path, with_a_broken_one(images, sound=0), num_workers=num_workers)
        steps.append(caught.value.step)
        field(path, without_it(images), num_workers=num_workers)
        assert f"{path.name}: the images have changed: 32 → 31; going on" in caplog.text
    assert steps[0] == steps[1]


@BY_TRAINING
@pytest.mark.parametrize("log_every", [5, 7])
def test_a_validation_that_cannot_be_done_is_done_later(tmp_path, train, log_every):
    """At step 20, which is saved before it is measured: the row of the history, with its mean loss, comes all the same."""
    images, validation = tiny.images(32, 0), tiny.images(16, 1)
    whole = train(tmp_path / "whole.pt", images, validation, log_every=log_every)
    with pytest.raises(UnreadableImageError, match="stopped at step 20, with"):
        train(tmp_path / "c.pt", images, with_a_broken_one(validation, sound=1), log_every=log_every)
    assert_same(train(tmp_path / "c.pt", images, validation, log_every=log_every), whole)


def test_other_images_are_gone_on_with_after_such_a_stop_alone(tmp_path, caplog):
    """And not a second time: the training that went on is one of its own images."""
    images = tiny.images(32, 0)
    with pytest.raises(UnreadableImageError):
        field(tmp_path / "c.pt", with_a_broken_one(images))
    field(tmp_path / "c.pt", without_it(images))
    assert "is of another training" not in caplog.text
    field(tmp_path / "c.pt", images)
    assert "c.pt is of another training (images.count was 31, is 32; images.digest was " in caplog.text


@BY_TRAINING
def test_what_is_found_broken_before_the_training_meets_it_may_be_removed(tmp_path, train, caplog):
    caplog.set_level("INFO")
    images, checkpoint = tiny.images(32, 0), Checkpoint(tmp_path / "c.pt")
    checkpoint.allow_other_images()  # nothing is begun yet
    assert not checkpoint.path.exists()
    train(checkpoint.path, images)
    checkpoint.allow_other_images()
    train(checkpoint.path, without_it(images))
    assert "32 → 31; going on, since there was one that could not be decoded" in caplog.text
    assert "going on from the checkpoint at step 30 of 30" in caplog.text
    assert not list(tmp_path.glob("*.old*"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images: replace(images, classes=("a", "c")), "images.classes was ['a', 'b'], is ['a', 'c']"),
        (
            lambda images: Images.from_array(np.zeros((32, 16, 16, 1), np.uint8), images.labels, images.classes),
            "resolution",
        ),
    ],
)
def test_images_of_other_classes_or_another_size_are_another_training(tmp_path, caplog, change, said):
    images = tiny.images(32, 0)
    with pytest.raises(UnreadableImageError):
        feature_network(tmp_path / "c.pt", with_a_broken_one(images))
    changed = change(images)
    validation = Images.from_array(np.zeros((4, *changed.resolution, 1), np.uint8), np.zeros(4), images.classes)
    feature_network(tmp_path / "c.pt", changed, validation)
    assert "c.pt is of another training" in caplog.text
    assert said in caplog.text


def test_another_parameter_makes_it_another_training(tmp_path, caplog):
    images = tiny.images(32, 0)
    with pytest.raises(UnreadableImageError):
        field(tmp_path / "c.pt", with_a_broken_one(images))
    field(tmp_path / "c.pt", without_it(images), learning_rate=1e-3)
    assert "c.pt is of another training (images.count was 32, is 31; images.digest was " in caplog.text
    assert "training.learning_rate was 0.003, is 0.001)" in caplog.text


def test_the_first_picture_of_all_may_be_the_broken_one(tmp_path, caplog):
    images = tiny.images(32, 0)
    with pytest.raises(UnreadableImageError, match="stopped at step"):
        field(tmp_path / "c.pt", with_a_broken_one(images, sound=0))
    field(tmp_path / "c.pt", without_it(images))
    assert "going on, since" in caplog.text


def test_a_loss_that_is_not_finite_is_not_saved(tmp_path, caplog):
    """It is rolled back first, as it would have been soon."""
    images = tiny.images(32, 0)
    with pytest.raises(UnreadableImageError, match="stopped at step 0, with a checkpoint"):
        feature_network(
            tmp_path / "c.pt", with_a_broken_one(images), learning_rate=1e38, log_every=30, validate_every=30,
            checkpoint_every=30, ema_decay=None,
        )  # fmt: skip
    assert "back to step 0" in caplog.text
    assert torch.load(tmp_path / "c.pt")["state"]["rollbacks"] == 1
