"""Boxes of the original picture, resized once."""

import numpy as np
import pytest
from PIL import Image

from spatial_functa_pipeline.config.functaset import AugmentationConfig
from spatial_functa_pipeline.datasets.image_folder import ImageFolderDataset
from spatial_functa_pipeline.images.augmentation import augment
from spatial_functa_pipeline.images.boxes import distorted_box, resize_boxes

BOXES = AugmentationConfig(flip=False, resized_crop=True)


@pytest.mark.parametrize("size", [(300, 200), (64, 64), (7, 5), (1, 1), (1000, 20), (20, 1000)])
def test_a_distorted_box_lies_within_the_picture(size):
    width, height = size
    for seed in range(200):
        left, top, right, bottom = distorted_box(np.random.default_rng(seed))(width, height)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


def test_boxes_have_the_areas_and_ratios_of_inception():
    found = [distorted_box(np.random.default_rng(seed))(900, 900) for seed in range(3000)]
    sides = np.array([(right - left, bottom - top) for left, top, right, bottom in found])
    share, ratio = sides.prod(axis=1) / 900**2, sides[:, 0] / sides[:, 1]
    assert 0.079 < share.min() < 0.1
    assert share.max() > 0.9
    assert 0.745 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.34
    small = share < 0.5  # which always fit: uniform in the area, and in the logarithm of the ratio
    assert np.median(share[small]) == pytest.approx((0.08 + 0.5) / 2, abs=0.02)
    assert np.log(ratio[small]).mean() == pytest.approx(0, abs=0.02)


def test_a_box_in_memory_is_cut_and_resized():
    pixels = np.zeros((2, 32, 32, 2), np.uint8)
    pixels[:, :16, 16:] = [50, 200]
    cut = resize_boxes(pixels, [lambda width, height: (16, 0, 32, 16), None])
    assert (cut[0, :-8, 8:] == [50, 200]).all()  # the filter reaches over the box's edge
    assert cut[0, :, 0, 1].max() < 200
    np.testing.assert_array_equal(cut[1], pixels[1])


@pytest.fixture
def marked(tmp_path):
    """A wide picture: its central square is blue, and only its left end is red."""
    pixels = np.zeros((40, 160, 3), np.uint8)
    pixels[..., 2] = 255
    pixels[:, :30] = [255, 0, 0]
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    return ImageFolderDataset(filepath=str(tmp_path), resolution=[16, 16]).load()


def test_copies_show_what_the_centre_crop_leaves_out(marked):
    copies = np.arange(40)
    pixels = augment(marked, np.zeros(40, np.int64), copies, BOXES, seed=0).numpy()
    reddest = pixels[..., 0].astype(int).reshape(40, -1).max(axis=1)
    assert reddest[0] == 0  # the picture itself is the centre
    assert (reddest > 250).sum() >= 3
    assert (reddest == 0).sum() >= 10  # most boxes lie elsewhere


def test_a_box_is_resized_from_the_originals_pixels(tmp_path):
    """A fine pattern outside of the centre keeps its contrast in a small box; the resized picture has lost it."""
    columns = np.zeros((64, 256), np.uint8)
    columns[:, 1::4] = columns[:, ::4] = 255
    Image.fromarray(columns).save(tmp_path / "columns.png")
    images = ImageFolderDataset(filepath=str(tmp_path), resolution=[16, 16], channels=1).load()
    box = images.boxes(np.array([0]), [lambda width, height: (200, 0, 216, 16)])[0]
    np.testing.assert_array_equal(box[..., 0].numpy(), columns[:16, 200:216])
    assert images.batch([0]).float().std() < 20


def test_a_copy_of_a_file_depends_on_seed_row_and_copy_alone(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    images = ImageFolderDataset(filepath=str(tmp_path), resolution=[16, 16]).load()
    rows = np.zeros(6, np.int64)
    whole = augment(images, rows, np.arange(6), BOXES, seed=3)
    assert len(whole.unique(dim=0)) == 6
    alone = augment(images, rows[:1], np.array([4]), BOXES, seed=3)
    assert (alone[0] == whole[4]).all()
    assert not (augment(images, rows, np.arange(6), BOXES, seed=4)[1:] == whole[1:]).all()
