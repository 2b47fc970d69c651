"""From images to rows: which image, which copy, and the field's own latents."""

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.config.functaset import AugmentationConfig, FunctasetConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.fields.cells import cut_into_cells
from spatial_functa_pipeline.fields.encoder import CodeSpec
from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.encoding import plan_functaset
from spatial_functa_pipeline.images.augmentation import MIRRORED, augment
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.metrics.image_quality import per_image_mse, psnr
from spatial_functa_pipeline.training.linear_code import fit_linear_encoder

RUNTIME = RuntimeConfig(device="cpu", progress=False)
CROP = AugmentationConfig(crop_padding=4)


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), np.uint8)
    return Images.from_array(pixels, np.arange(11) % 3, ("a", "b", "c"))


@pytest.fixture
def field():
    torch.manual_seed(0)
    return SpatialField(FieldSpec(LatentShape((2, 2), 5), (8, 8), 3, "nearest", 16, 3, 10.0)).eval()


def plan(images, field, copies=0, **settings):
    defaults = {"augmented_copies": copies, "augmentation": CROP, "shard_rows": 64, "chunk_rows": 8, "encode_batch": 4}
    config = FunctasetConfig(**{**defaults, **settings})
    return plan_functaset(
        images, field, config, dataset="d", split="train", copies=copies, fingerprint="f", seed=3, runtime=RUNTIME
    )


def test_rows_are_the_fields_latents_with_the_psnr_of_their_reconstruction(images, field):
    rows = plan(images, field).encode(2, 9)
    targets = unit_images(images.batch(range(2, 9)))
    with torch.no_grad():
        expected = field.encode(targets)
        quality = psnr(per_image_mse(field.decode(expected), targets))
    np.testing.assert_allclose(rows.latents, expected.numpy(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(rows.psnr, quality.numpy(), rtol=1e-5)
    assert rows.labels.tolist() == images.labels[2:9].tolist()
    assert rows.source_index.tolist() == list(range(2, 9))
    assert rows.augmentation.tolist() == [0] * 7


def test_mirrored_images_follow_the_images_and_leave_the_copies_as_they_are(images, field):
    made = plan(images, field, copies=2, mirror_images=True)
    assert made.header.rows == 44
    rows = made.encode(0, 44)
    assert rows.source_index.tolist() == [*range(11)] * 4
    assert rows.augmentation.tolist() == [0] * 11 + [MIRRORED] * 11 + [1] * 11 + [2] * 11
    original, mirrored, *copies = np.split(rows.latents, 4)
    with torch.no_grad():
        expected = field.encode(unit_images(images.batch(range(11)).flip(2)))
    np.testing.assert_allclose(mirrored, expected.numpy(), rtol=1e-4, atol=1e-6)
    without = plan(images, field, copies=2).encode(0, 33).latents
    np.testing.assert_allclose(np.concatenate([original, *copies]), without, rtol=1e-4, atol=1e-6)


def test_copies_follow_the_images_and_are_augmented(images, field):
    made = plan(images, field, copies=2)
    assert made.header.rows == 33
    rows = made.encode(0, 33)
    assert rows.source_index.tolist() == [*range(11)] * 3
    assert rows.augmentation.tolist() == [0] * 11 + [1] * 11 + [2] * 11
    assert rows.labels.tolist() == images.labels.tolist() * 3
    original, first, second = np.split(rows.latents, 3)
    assert (abs(original - first).max(axis=(1, 2, 3)) > 1e-6).sum() >= 9  # flips and crops rarely leave an image alone
    assert abs(first - second).max() > 1e-6


def test_rows_do_not_depend_on_shards_or_batches(images, field):
    whole = plan(images, field, copies=1, encode_batch=16).encode(0, 22)
    parts = [plan(images, field, copies=1, encode_batch=3).encode(start, start + 11) for start in (0, 11)]
    np.testing.assert_allclose(np.concatenate([p.latents for p in parts]), whole.latents, rtol=1e-4, atol=1e-7)


def test_without_augmentation_copies_are_equal(images, field):
    settings = {"augmentation": AugmentationConfig(flip=False, crop_padding=0)}
    rows = plan(images, field, copies=1, **settings).encode(0, 22)
    np.testing.assert_allclose(rows.latents[:11], rows.latents[11:], rtol=1e-4, atol=1e-7)


def test_rows_of_pixels_are_the_augmented_pictures_themselves(images):
    """Divided by their deviation, as a classifier has them, they are pixels less their mean, over their deviation."""
    encoder = fit_linear_encoder(images, CodeSpec(LatentShape((2, 2), 48), (8, 8), 3), "pixels")
    made = plan(images, encoder, copies=1)
    rows = made.encode(0, 22)
    pixels = unit_images(augment(images, rows.source_index, rows.augmentation, CROP, 3))
    originals = unit_images(images.batch(range(11)))
    normalised = (pixels - originals.mean()) / originals.std(correction=0)
    deviation = rows.latents[:11].std()
    np.testing.assert_allclose(
        rows.latents / deviation, cut_into_cells(normalised, (2, 2)).flatten(-2), rtol=0, atol=1e-5
    )
    assert (rows.psnr == 100).all()  # nothing is lost
    assert made.header.interpolation == "nearest"
