"""From latents as they were encoded to latents of b bits, without the encoder."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr

from spatial_functa_pipeline.config.functaset import AugmentationConfig, FunctasetConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.encoding import plan_functaset
from spatial_functa_pipeline.functasets.errors import OtherImagesError, StaleFunctasetError
from spatial_functa_pipeline.functasets.requantising import Pictures, measure_ranges, quantised
from spatial_functa_pipeline.functasets.scheduling import Scheduling
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import write
from spatial_functa_pipeline.images.augmentation import MIRRORED, augment
from spatial_functa_pipeline.images.digest import describe_images
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.images.pixels import unit_images
from spatial_functa_pipeline.metrics.image_quality import per_image_mse, psnr

RUNTIME = RuntimeConfig(device="cpu", progress=False)
CROP, SEED = AugmentationConfig(crop_padding=2), 3


@pytest.fixture
def images():
    ramp = np.linspace(0, 1, 8)
    steps = np.random.default_rng(0).uniform(-100, 100, (40, 2, 1, 1))
    pixels = 128 + steps[:, 0] * ramp + steps[:, 1] * ramp[:, None]  # smooth: an untrained field fits them
    return Images.from_array(pixels.clip(0, 255).astype(np.uint8)[..., None], np.arange(40) % 3, ("a", "b", "c"))


@pytest.fixture
def field():
    torch.manual_seed(0)
    field = SpatialField(FieldSpec(LatentShape((2, 2), 5), (8, 8), 1, "nearest", 16, 3, 10.0)).eval()
    return field.requires_grad_(False)


@pytest.fixture
def make_encoded(tmp_path, images, field):
    """The functaset of the images and of copies of them."""

    def make(name="train", copies=0, **changes):
        settings = {"shard_rows": 16, "chunk_rows": 8, "encode_batch": 8} | changes
        config = FunctasetConfig(augmented_copies=copies, augmentation=CROP, **settings)
        plan = plan_functaset(
            images,
            field,
            config,
            dataset="d",
            split=name,
            copies=copies,
            fingerprint="f",
            seed=SEED,
            runtime=RUNTIME,
        )
        path = tmp_path / f"encoded_{name}_{settings['shard_rows']}.zarr"
        write(path, plan)
        return Functaset.open(path)

    return make


def stored(path, *arguments) -> Functaset:
    write(path, quantised(*arguments))
    return Functaset.open(path)


@pytest.mark.parametrize("shard_rows", [64, 1024])
def test_the_error_is_that_of_set_wide_ranges_whatever_the_shards(tmp_path, make_functaset, shard_rows):
    """C.4.4, naive uniform quantisation: an error spread evenly over bins of one width, range/2^6 of the whole set."""
    latents = np.random.default_rng(0).normal(size=(4096, 2, 2, 5)).astype(np.float32)
    digest = describe_images(NoPictures.images)["digest"]
    encoded = make_functaset(latents, shard_rows=shard_rows, chunk_rows=4, images=digest)
    ranges = measure_ranges(encoded)
    np.testing.assert_array_equal([ranges.low, ranges.high], [latents.min(axis=0), latents.max(axis=0)])
    plan = quantised(encoded, 6, NoPictures(), NoField(), RUNTIME)
    write(tmp_path / "q.zarr", plan)
    error = np.sqrt(np.square(Functaset.open(tmp_path / "q.zarr").rows(0, 4096) - latents).mean(axis=0))
    np.testing.assert_allclose(error, (ranges.high - ranges.low) / 2**6 / np.sqrt(12), rtol=0.05)


class NoPictures:
    """Nothing to compare with."""

    images = Images.from_array(np.zeros((1, 1, 1, 1), np.uint8), [0], ["all"])

    def of(self, source, copy):
        return torch.zeros(len(source), 1, 1)


class NoField(torch.nn.Module):
    """Decodes anything into nothing."""

    spec = FieldSpec(LatentShape((2, 2), 5), (8, 8), 1, "nearest", 16, 3, 10.0)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def decode(self, latents):
        return torch.zeros(len(latents), 1, 1)


def one_class(pixels: np.ndarray) -> Images:
    return Images.from_array(pixels, np.zeros(len(pixels), np.int64), ("all",))


@pytest.mark.parametrize("rows", [[39, *range(40)], range(39), [1, 0, *range(2, 40)], [*range(39), 0]])
def test_pictures_that_came_or_went_since_they_were_encoded_are_refused(tmp_path, field, images, rows):
    """Labels do not tell: all pictures are of one class."""
    pixels = images.batch(range(40)).numpy()
    names = {"dataset": "d", "split": "test", "fingerprint": "f"}
    config = FunctasetConfig(augmented_copies=0, shard_rows=16, chunk_rows=8, encode_batch=8)
    plan = plan_functaset(one_class(pixels), field, config, copies=0, seed=0, runtime=RUNTIME, **names)
    write(tmp_path / "encoded.zarr", plan)
    encoded = Functaset.open(tmp_path / "encoded.zarr")
    quantised(encoded, 8, Pictures(one_class(pixels)), field, RUNTIME)
    with pytest.raises(OtherImagesError, match=f"was not built from these {len(rows)} images"):
        quantised(encoded, 8, Pictures(one_class(pixels[list(rows)])), field, RUNTIME)
    other = plan_functaset(one_class(pixels[::-1]), field, config, copies=0, seed=0, runtime=RUNTIME, **names)
    with pytest.raises(
        StaleFunctasetError, match="differs in images"
    ):  # half of one and half of the other would be worse
        write(tmp_path / "encoded.zarr", other)


@pytest.mark.parametrize("scheduling", [Scheduling(), pytest.param(Scheduling("processes", 2), marks=pytest.mark.slow)])
def test_ranges_are_those_of_the_images_themselves(make_functaset, scheduling, request):
    """How many copies there are, and how far they are distorted, does not change what bits mean."""
    if scheduling.scheduler == "processes":
        request.getfixturevalue("forked_workers")
    latents = np.random.default_rng(0).normal(size=(29, 2, 2, 5)).astype(np.float32)
    latents[10:] *= 100
    functaset = make_functaset(latents, originals=10)  # shards of 4, chunks of 2: the tenth row is amid a shard
    ranges = measure_ranges(functaset, scheduling)
    np.testing.assert_array_equal([ranges.low, ranges.high], [latents[:10].min(axis=0), latents[:10].max(axis=0)])


def test_another_split_takes_the_ranges_of_the_training_split(tmp_path, make_encoded, images, field):
    train, test = make_encoded(), make_encoded("test")
    wider = replace_latents(test, 3)
    pictures = Pictures(images)
    of_train = stored(tmp_path / "train.zarr", train, 4, pictures, field, RUNTIME)
    of_test = stored(tmp_path / "test.zarr", wider, 4, pictures, field, RUNTIME, of_train)
    np.testing.assert_array_equal(of_test.ranges.low, of_train.ranges.low)
    np.testing.assert_array_equal(of_test.ranges.high, of_train.ranges.high)
    latents = of_test.rows(0, 40)
    assert (latents >= of_train.ranges.low).all()
    assert (latents <= of_train.ranges.high).all()
    with pytest.raises(ValueError, match="is not quantised, so it has no ranges"):
        quantised(test, 4, pictures, field, RUNTIME, train)


def replace_latents(functaset: Functaset, factor: float) -> Functaset:
    """With latents that are as much larger."""
    array = zarr.open_group(functaset.location.local, mode="r+")["latents"]
    array[:] = array[:] * factor
    return Functaset.open(functaset.location.url)


@pytest.mark.parametrize("numbers", [(0,), (0, MIRRORED, 1, 2)])
def test_its_psnr_is_that_of_what_is_stored(tmp_path, make_encoded, images, field, numbers):
    encoded = make_encoded(copies=max(numbers), mirror_images=MIRRORED in numbers)
    pictures, quality = Pictures(images, CROP, SEED), {}
    for bits in (8, 6, 4, 2, 1):
        found = stored(tmp_path / f"{bits}.zarr", encoded, bits, pictures, field, RUNTIME)
        assert (found.header.bits, len(found)) == (bits, 40 * len(numbers))
        for column in ("labels", "source_index", "augmentation"):
            np.testing.assert_array_equal(getattr(found, column), getattr(encoded, column))
        source, copy = np.tile(np.arange(40), len(numbers)), np.repeat(numbers, 40)
        targets = unit_images(augment(images, source, copy, CROP, SEED))
        decoded = field.decode(torch.from_numpy(found.rows(0, len(found))))
        expected = psnr(per_image_mse(decoded, targets)).numpy()
        np.testing.assert_allclose(found.psnr, expected, rtol=1e-4)
        assert found.mean_psnr == pytest.approx(expected.mean(dtype=np.float64), rel=1e-5)
        quality[bits] = found.mean_psnr
    assert sorted(quality.values(), reverse=True) == list(quality.values())
    assert abs(encoded.mean_psnr - quality[8]) < 0.2  # distorted copies may be beyond the range
    assert encoded.mean_psnr - quality[1] > 0.2


def test_without_bits_it_is_what_was_encoded(make_encoded, images, field):
    encoded = make_encoded()
    assert quantised(encoded, None, Pictures(images), field, RUNTIME) is encoded


def test_no_image_is_encoded_again(tmp_path, make_encoded, images, field, monkeypatch):
    encoded = make_encoded()
    for name in ("encode", "forward", "_fit"):
        monkeypatch.setattr(SpatialField, name, None)
    for bits in (5, 3):
        assert stored(tmp_path / f"{bits}.zarr", encoded, bits, Pictures(images), field, RUNTIME).header.bits == bits


def test_it_goes_on_where_it_was_interrupted_and_knows_what_it_was_made_from(tmp_path, make_encoded, images, field):
    encoded, path, whole = make_encoded(), tmp_path / "q.zarr", tmp_path / "whole.zarr"
    plan = quantised(encoded, 6, Pictures(images), field, RUNTIME)
    write(whole, plan)
    rows = []

    def encode(start, stop):
        rows.append(start)
        if rows == [0, 16]:
            raise InterruptedError("power cut")
        return plan.encode(start, stop)

    with pytest.raises(InterruptedError):
        write(path, replace(plan, encode=encode))
    write(path, replace(plan, encode=encode))
    assert rows == [0, 16, 16, 32]
    for file in (file for file in whole.rglob("*") if file.is_file()):
        assert (path / file.relative_to(whole)).read_bytes() == file.read_bytes()
    for other in (
        quantised(encoded, 5, Pictures(images), field, RUNTIME),
        quantised(replace_latents(encoded, 2), 6, Pictures(images), field, RUNTIME),
        quantised(make_encoded(shard_rows=8), 6, Pictures(images), field, RUNTIME),
    ):
        with pytest.raises(StaleFunctasetError):
            write(path, other)


def test_other_processes_get_it_without_what_belongs_to_this_one(make_encoded, images, field):
    plan = quantised(make_encoded(), 6, Pictures(images), field, RUNTIME)
    here = plan.encode(3, 20)
    there = pickle.loads(pickle.dumps(plan.encode))(3, 20)
    np.testing.assert_array_equal(here.latents, there.latents)
    np.testing.assert_array_equal(here.psnr, there.psnr)
