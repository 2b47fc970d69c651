"""What a denoiser is trained on: images; mirrored ones, or all copies with their kinds, if it is asked for."""

import numpy as np
import pytest
import tiny_trainings as tiny

from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.requantising import measure_ranges
from spatial_functa_pipeline.functasets.statistics import compute_statistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, write
from spatial_functa_pipeline.images.augmentation import MIRRORED, CopyKind
from spatial_functa_pipeline.training import denoiser
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.run import TrainingRun

IMAGES = 8


def functaset(folder, copies):
    """8 latents 4×4×4 of each of the `copies`; each latent holds the number of its copy throughout."""
    augmentation = np.repeat(np.array(copies, np.int32), IMAGES)
    latents = np.broadcast_to(augmentation[:, None, None, None], (len(augmentation), 4, 4, 4)).astype(np.float32)
    source = np.tile(np.arange(IMAGES), len(copies))
    rows = Rows(latents, source % 2, source, augmentation, np.full(len(source), 30, np.float32))

    def encode(start, stop):
        return Rows(**{name: column[start:stop] for name, column in vars(rows).items()})

    header = FunctasetHeader("toy", "train", LatentShape((4, 4), 4), "nearest", len(source), shard_rows=8, chunk_rows=4)
    write(folder, FunctasetPlan(header, encode, progress=False))
    return Functaset.open(folder)


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains for two epochs of the rows that are read; returns the numbers of the copies that were read."""

    def train(copies, known=None, **options):
        known = set() if known is None else known
        made, read, batches = functaset(tmp_path / "f.zarr", copies), [], denoiser.FunctasetBatches
        asked = denoiser.diffusion_loss

        def spy(*arguments):
            for latents, *others in batches(*arguments):
                read.extend(latents[:, 0, 0, 0].tolist())
                yield latents, *others

        def listen(model, latents, *others):
            *_, kinds = others
            if kinds is not None:
                known.update(zip(latents[:, 0, 0, 0].tolist(), kinds.tolist(), strict=True))
            return asked(model, latents, *others)

        monkeypatch.setattr(denoiser, "FunctasetBatches", spy)
        monkeypatch.setattr(denoiser, "diffusion_loss", listen)
        config = DiffusionConfig.model_validate({**tiny.diffusion("mlp", steps=8).model_dump(), **options})
        run = TrainingRun(0, tiny.RUNTIME, Checkpoint(tmp_path / "c.pt"))
        denoiser.train_denoiser(made, made, Normaliser.by_scale(1.0), config, num_classes=2, run=run)
        return read

    return train


def test_mirrored_images_are_trained_on_as_often_as_images(train):
    read = train([0, MIRRORED, 1, 2], mirror_images=True)
    assert sorted(read) == [MIRRORED] * 32 + [0] * 32


@pytest.mark.parametrize("copies", [[0, MIRRORED, 1, 2], [0, 1]])
def test_without_being_asked_a_denoiser_trains_on_images_alone(train, copies):
    assert train(copies) == [0] * 64


def test_mirrored_images_that_are_not_there_are_an_error(train):
    with pytest.raises(ValueError, match=r"mirror_images is true, but .* has no mirrored images"):
        train([0, 1], mirror_images=True)


@pytest.mark.parametrize(("mirror_images", "mirrored"), [(False, CopyKind.MIRRORED), (True, CopyKind.ORIGINAL)])
def test_all_copies_are_trained_on_with_their_kinds(train, mirror_images, mirrored):
    """Where samples may be mirrored images, these count as originals."""
    known = set()
    read = train([0, MIRRORED, 1, 2], known, augmented_copies=True, mirror_images=mirror_images)
    assert {copy: read.count(copy) for copy in set(read)} == {0: 16, MIRRORED: 16, 1: 16, 2: 16}
    of_training = {(0, CopyKind.ORIGINAL), (MIRRORED, mirrored), (1, CopyKind.AUGMENTED), (2, CopyKind.AUGMENTED)}
    assert known == of_training  # validated on images alone


@pytest.mark.parametrize("copies", [[0], [0, MIRRORED]])
def test_augmented_copies_that_are_not_there_are_an_error(train, copies):
    with pytest.raises(ValueError, match=r"augmented_copies is true, but .* has no augmented copies"):
        train(copies, augmented_copies=True)


def test_statistics_and_ranges_are_of_images_and_mirrored_images(tmp_path):
    """A denoised mirror image must not be clipped at what images alone span."""
    made = functaset(tmp_path / "f.zarr", [0, MIRRORED, 2])
    statistics, ranges = compute_statistics(made), measure_ranges(made)
    assert statistics.count == 2 * IMAGES
    moments = statistics.moments["array"]
    assert (moments.mean == -0.5).all()
    assert (moments.std == 0.5).all()
    assert (moments.largest == 1).all()
    assert (np.unique(ranges.low), np.unique(ranges.high)) == (MIRRORED, 0)
