"""A lazy set of images: going through all of it, and whether it is what was described."""

import pickle

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.config.data import DataConfig
from spatial_functa_pipeline.images.images import Images, UnexpectedImagesError

IMAGES = Images.from_array(
    np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 2, 3, 1)), np.arange(10) % 3, "abc"
)


def test_a_batch_keeps_the_order_asked_for_and_survives_pickling():
    images = pickle.loads(pickle.dumps(IMAGES))
    batch = images.batch([7, 0, 7])
    assert batch.shape == (3, 2, 3, 1)
    assert batch.dtype == torch.uint8
    assert batch[:, 0, 0, 0].tolist() == [7, 0, 7]
    assert (len(images), images.resolution, images.channels) == (10, (2, 3), 1)
    assert images.labels.dtype == np.int64


def test_writing_into_a_batch_leaves_the_images_alone():
    IMAGES.batch([3]).zero_()
    assert IMAGES.batch([3]).unique().tolist() == [3]


def test_pixels_and_labels_must_agree():
    with pytest.raises(ValueError, match="3 images and 2 labels"):
        Images.from_array(np.zeros((3, 2, 2, 1), np.uint8), [0, 0], ("a",))
    with pytest.raises(ValueError, match="float64"):
        Images.from_array(np.zeros((3, 2, 2, 1)), [0, 0, 0], ("a",))


@pytest.mark.parametrize("count", [None, 0, 1, 4, 7, 10, 12])
@pytest.mark.parametrize("size", [1, 4, 10, 64])
def test_batches_are_the_first_images_in_order(size, count):
    batches = list(IMAGES.batches(size, count))
    expected = list(range(10))[:count]
    assert [batch[:, 0, 0, 0].tolist() for batch in batches] == [
        expected[start : start + size] for start in range(0, len(expected), size)
    ]
    assert all(batch.dtype == torch.uint8 and batch.shape[1:] == (2, 3, 1) for batch in batches)


def test_an_image_is_read_when_its_batch_is_asked_for():
    read = []
    images = Images(
        lambda rows: read.append(rows.tolist()) or np.zeros((len(rows), 2, 2, 1), np.uint8),
        np.zeros(5, np.int64),
        ("a",),
        (2, 2),
        1,
    )
    batches = images.batches(2)
    assert read == []
    next(batches)
    assert read == [[0, 1]]


def test_images_are_those_described_or_the_differences_are_named():
    IMAGES.require(DataConfig(resolution=(2, 3), channels=1, num_classes=3))
    with pytest.raises(UnexpectedImagesError) as error:
        IMAGES.require(DataConfig(resolution=(4, 6), channels=1, num_classes=5))
    assert error.value.differences == {"resolution": ((4, 6), (2, 3)), "num_classes": (5, 3)}
    assert str(error.value) == (
        "resolution should be (4, 6), but the images have (2, 3); num_classes should be 5, but the images have 3"
    )
