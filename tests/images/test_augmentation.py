import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from spatial_functa_pipeline.config.functaset import AugmentationConfig
from spatial_functa_pipeline.images.augmentation import MIRRORED, augment

FLIP = AugmentationConfig()
FLIP_AND_CROP = AugmentationConfig(crop_padding=4)  # CIFAR-10's
CROP = AugmentationConfig(flip=False, crop_padding=2)
RESIZED_CROP = AugmentationConfig(flip=False, crop_padding=0, resized_crop=True)
RANDAUGMENT = AugmentationConfig(flip=False, crop_padding=0, randaugment_operations=2)
EVERYTHING = AugmentationConfig(crop_padding=4, resized_crop=True, randaugment_operations=2)


def random_images(count, height=6, width=8, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=generator)


def copies_of_one_image(count, config, **shape):
    """One image (H, W, channels) and its copies 1 … count."""
    image = random_images(1, **shape)
    indices = np.zeros(count, np.int64)
    return image[0], augment(image.repeat(count, 1, 1, 1), indices, np.arange(1, count + 1), config, seed=0)


def test_copy_zero_is_the_image_itself_in_a_new_tensor():
    images = random_images(4)
    augmented = augment(images, np.arange(4), np.array([0, 1, 0, 2]), EVERYTHING, seed=0)
    assert torch.equal(augmented[[0, 2]], images[[0, 2]])
    assert not torch.equal(augmented[1], images[1])
    augmented.zero_()
    assert torch.equal(images, random_images(4))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("config", [FLIP_AND_CROP, RESIZED_CROP, RANDAUGMENT, EVERYTHING])
def test_a_copy_does_not_depend_on_its_batch(config, channels):
    images = random_images(6, channels=channels)
    indices, copies = np.arange(10, 16), np.array([1, 2, 3, 1, 2, 3])
    together = augment(images, indices, copies, config, seed=5)
    assert together.shape == images.shape
    assert together.dtype == torch.uint8
    order = [4, 0, 5]
    assert torch.equal(augment(images[order], indices[order], copies[order], config, seed=5), together[order])


@pytest.mark.parametrize("config", [FLIP, CROP, RESIZED_CROP, RANDAUGMENT])
def test_image_copy_and_seed_each_change_the_draw(config):
    images = random_images(1).repeat(24, 1, 1, 1)
    rows, ones = np.arange(24), np.ones(24, np.int64)
    per_image = augment(images, rows, ones, config, seed=0)
    per_copy = augment(images, np.zeros(24, np.int64), rows + 1, config, seed=0)
    assert len(per_image.unique(dim=0)) > 1
    assert len(per_copy.unique(dim=0)) > 1
    assert not torch.equal(augment(images, rows, ones, config, seed=1), per_image)


def test_flip_mirrors_half_of_the_copies():
    image, copies = copies_of_one_image(400, FLIP)
    flipped = (copies == image.flip(1)).flatten(1).all(1)
    assert torch.equal(~flipped, (copies == image).flatten(1).all(1))
    assert 150 < flipped.sum() < 250  # 400 fair coins leave this range once in two million runs


def test_crop_draws_every_window_of_the_zero_padded_image():
    image, copies = copies_of_one_image(400, CROP)
    padded = np.pad(image.numpy(), ((2, 2), (2, 2), (0, 0)))
    windows = {padded[top : top + 6, left : left + 8].tobytes() for top in range(5) for left in range(5)}
    assert {copy.numpy().tobytes() for copy in copies} == windows


def test_cifar10s_copies_are_flipped_then_cropped_by_four():
    image, copies = copies_of_one_image(1500, FLIP_AND_CROP)
    windows = set()
    for flipped in (image, image.flip(1)):
        padded = np.pad(flipped.numpy(), ((4, 4), (4, 4), (0, 0)))
        windows |= {padded[top : top + 6, left : left + 8].tobytes() for top in range(9) for left in range(9)}
    assert {copy.numpy().tobytes() for copy in copies} == windows


def test_no_operation_changes_nothing():
    image, copies = copies_of_one_image(5, AugmentationConfig(flip=False, crop_padding=0))
    assert torch.equal(copies, image.expand_as(copies))


def test_resized_crop_magnifies_a_box_without_leaving_the_image():
    # On a ramp from left to right any box is a ramp again, no steeper than the image and without padding.
    ramp = torch.arange(0, 64, dtype=torch.uint8).mul(4)[None, None, :, None].repeat(50, 64, 1, 1)
    boxes = augment(ramp, np.arange(50), np.ones(50, np.int64), RESIZED_CROP, seed=0).int()
    spread = boxes[:, 32, -1, 0] - boxes[:, 32, 0, 0]
    assert (boxes.diff(dim=2) >= 0).all()
    assert (boxes.diff(dim=1).abs() <= 1).all()
    assert (spread <= 252).all()
    # The narrowest box allowed has 8 % of the area at aspect ratio 3/4: a quarter of the width.
    assert spread.min() > 252 * 0.2
    assert spread.float().std() > 20


@pytest.mark.parametrize("config", [CROP, EVERYTHING])
def test_the_mirrored_copy_is_mirrored_and_nothing_else(config):
    images, rows = random_images(4), np.arange(4)
    made = augment(images, rows, np.array([0, MIRRORED, 1, MIRRORED]), config, seed=0)
    assert torch.equal(made[[1, 3]], images[[1, 3]].flip(2))
    assert torch.equal(made[0], images[0])
    assert torch.equal(made[2], augment(images[2:3], rows[2:3], np.array([1]), config, seed=0)[0])


def test_randaugment_magnitude_ten_is_the_strongest():
    config = AugmentationConfig(flip=False, crop_padding=0, randaugment_operations=1, randaugment_magnitude=10)
    image, copies = copies_of_one_image(200, config, height=16, width=16)
    channel_first = image.permute(2, 0, 1)
    seen = {copy.numpy().tobytes() for copy in copies}
    for strongest in (
        F.rotate(channel_first, 30),
        F.adjust_brightness(channel_first, 1.9),
        F.posterize(channel_first, 4),
    ):
        assert strongest.permute(1, 2, 0).contiguous().numpy().tobytes() in seen


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    copies_of_one_image(3, EVERYTHING)
    assert torch.equal(torch.get_rng_state(), before)


def test_wrong_input_is_refused():
    images = random_images(2)
    with pytest.raises(ValueError, match="uint8"):
        augment(images.float(), np.arange(2), np.ones(2, int), FLIP, seed=0)
    with pytest.raises(ValueError, match=r"\(6, 8, 3\)"):
        augment(images[0], np.arange(2), np.ones(2, int), FLIP, seed=0)
    with pytest.raises(ValueError, match="1 source indices"):
        augment(images, np.arange(1), np.ones(2, int), FLIP, seed=0)
