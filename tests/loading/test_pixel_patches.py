"""Pixels in the rows of a functaset."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.config.functaset import AugmentationConfig
from spatial_functa_pipeline.fields.cells import cut_into_cells
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.errors import OtherImagesError
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.augmentation import augment
from spatial_functa_pipeline.images.digest import describe_images
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.loading.pixel_patches import PixelPatches

AUGMENTATION = AugmentationConfig(flip=True, crop_padding=2)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 12, 3), np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])
IMAGES = Images.from_array(PIXELS, LABELS, ["a", "b", "c"])


def patches(images, grid):
    return cut_into_cells(images, grid).flatten(-2)


class Rows:
    """The columns of a functaset: six images, then one augmented copy of each."""

    location = "toy.zarr"
    header = SimpleNamespace(split="train", images=describe_images(IMAGES)["digest"])
    require_images = Functaset.require_images
    latent_shape = LatentShape((4, 3), 5)
    labels = np.tile(LABELS, 2)
    source_index = np.tile(np.arange(6), 2)
    augmentation = np.repeat([0, 1], 6).astype(np.int32)

    def __len__(self):
        return 12


@pytest.fixture
def pixels():
    return PixelPatches(IMAGES, Rows(), AUGMENTATION, seed=3)


def test_a_cells_patch_is_the_pixels_below_it():
    cut = patches(torch.from_numpy(PIXELS), (4, 3))
    assert cut.shape == (6, 4, 3, 2 * 4 * 3)
    np.testing.assert_array_equal(cut[5, 2, 1], PIXELS[5, 4:6, 4:8].ravel())


@pytest.mark.parametrize(("shape", "grid"), [((10, 2), (5,)), ((4, 6, 2, 1), (2, 3, 1))])
def test_patches_of_any_dimension_hold_all_numbers_once(shape, grid):
    images = torch.arange(2 * np.prod(shape)).view(2, *shape)
    cut = patches(images, grid)
    assert cut.shape[:-1] == (2, *grid)
    assert sorted(cut.flatten().tolist()) == list(range(images.numel()))


def test_a_grid_that_does_not_divide_the_image_is_refused():
    with pytest.raises(ValueError, match=r"\(8, 12\) pixels cannot be cut into a grid of \(3, 3\)"):
        patches(torch.from_numpy(PIXELS), (3, 3))


def test_rows_are_the_images_and_copies_that_the_functaset_was_built_from(pixels):
    indices = np.array([11, 0, 7])
    copies = augment(IMAGES, np.array([5, 0, 1]), np.array([1, 0, 1]), AUGMENTATION, 3)
    assert not torch.equal(copies[0], IMAGES.batch([5])[0])
    assert torch.equal(pixels.batch(indices), patches(copies, (4, 3)))
    assert torch.equal(pixels.batch(indices)[1], patches(IMAGES.batch([0]), (4, 3))[0])
    np.testing.assert_array_equal(pixels.rows(6, 12), pixels.batch(np.arange(6, 12)).numpy())


def test_shape_labels_and_moments(pixels):
    assert pixels.latent_shape == LatentShape((4, 3), 24)
    assert len(pixels) == len(pixels.labels) == 12
    assert pixels.moments == pytest.approx((PIXELS.mean(), PIXELS.std()))


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [(PIXELS, LABELS[::-1]), (PIXELS[:2], LABELS[:2]), (PIXELS[[3, 1, 2, 0, 4, 5]], LABELS)],
    ids=["other labels", "fewer", "others of the same labels"],
)
def test_a_functaset_of_other_images_is_refused(pixels, labels):
    others = Images.from_array(pixels, labels.copy(), ["a", "b", "c"])
    with pytest.raises(OtherImagesError, match=f"not built from these {len(labels)} images"):
        PixelPatches(others, Rows(), AUGMENTATION, seed=3)
