"""Batches of images for a training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.images.decoders import UndecodableImageError
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.loading.image_batches import ImageBatches
from spatial_functa_pipeline.loading.ordering import Part


@pytest.fixture(scope="module")
def numbered():
    """Ten 2×3 images; every pixel of image i is i, its label i % 3."""
    pixels = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 2, 3, 1))
    return Images.from_array(pixels, np.arange(10) % 3, ("a", "b", "c"))


def test_batches_pair_each_image_with_its_label_and_cover_an_epoch(numbered):
    batches = ImageBatches(numbered, batch_size=5, seed=1, steps=2)
    pixels, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert len(batches) == 2
    assert (pixels.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert sorted(pixels[:, 0, 0, 0].tolist()) == list(range(10))
    assert (pixels[:, 0, 0, 0] % 3).tolist() == labels.tolist()


def test_restarting_continues_the_uninterrupted_run(numbered):
    whole = list(ImageBatches(numbered, batch_size=4, seed=1, steps=9))
    rest = list(ImageBatches(numbered, batch_size=4, seed=1, steps=9, start_step=5))
    assert len(rest) == 4
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(whole[5:], rest, strict=True))


def test_a_worker_yields_the_same_batches(numbered):
    here = list(ImageBatches(numbered, batch_size=3, seed=2, steps=5))
    there = list(ImageBatches(numbered, batch_size=3, seed=2, steps=5, num_workers=1))
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_image_that_cannot_be_decoded_is_its_own_error_after_the_batches_before_it(numbered, num_workers):
    def read(rows):
        if 7 in rows:
            raise UndecodableImageError("7.png", "truncated")
        return numbered.read(rows)

    batches = ImageBatches(replace(numbered, read=read), batch_size=2, seed=2, steps=5, num_workers=num_workers)
    before = []
    with pytest.raises(UndecodableImageError, match=r"^cannot decode the image 7\.png \(truncated\)") as caught:
        before += batches
    assert (caught.value.path, caught.value.reason) == ("7.png", "truncated")
    whole = [pixels[:, 0, 0, 0].tolist() for pixels, _ in ImageBatches(numbered, batch_size=2, seed=2, steps=5)]
    assert [pixels[:, 0, 0, 0].tolist() for pixels, _ in before] == whole[: [7 in rows for rows in whole].index(True)]


def test_a_process_decodes_its_part_of_each_batch_only(numbered):
    read = []
    counting = replace(numbered, read=lambda rows: read.append(len(rows)) or numbered.read(rows))
    whole = list(ImageBatches(numbered, batch_size=6, seed=1, steps=3))
    parts = [list(ImageBatches(counting, batch_size=6, seed=1, steps=3, part=Part(index, 2))) for index in range(2)]
    assert read == [3] * 6
    for (pixels, labels), *own in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part for part, _ in own]), pixels)
        assert torch.equal(torch.cat([part for _, part in own]), labels)


def test_iterating_leaves_the_global_random_state_alone(numbered):
    before = torch.get_rng_state()
    list(ImageBatches(numbered, batch_size=3, seed=2, steps=2))
    assert torch.equal(torch.get_rng_state(), before)
