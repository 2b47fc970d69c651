"""The blocked search against a search by brute force, and copies that it must find."""

import numpy as np
import pytest
import torch

from spatial_functa_pipeline.metrics import neighbours as module
from spatial_functa_pipeline.metrics.neighbours import comparable_images, nearest_images


def random_images(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def reader(images):
    return lambda rows: images[torch.from_numpy(rows)]


def by_brute_force(images, train, neighbours):
    differences = (images.flatten(1)[:, None].double() - train.flatten(1).double()) / 255
    distances = differences.square().mean(dim=-1).sqrt()
    found = distances.sort(dim=1, stable=True)
    return found.indices[:, :neighbours].numpy(), found.values[:, :neighbours].numpy()


@pytest.mark.parametrize("blocks", [(2**26, 2048), (4 * 48 * 7, 5)], ids=["one block", "many blocks"])
@pytest.mark.parametrize("neighbours", [1, 3])
def test_it_finds_what_a_search_by_brute_force_finds(monkeypatch, blocks, neighbours):
    monkeypatch.setattr(module, "_BLOCK_BYTES", blocks[0])
    monkeypatch.setattr(module, "_QUERIES", blocks[1])
    images, train = random_images(23, 4, 4, 3), random_images(60, 4, 4, 3, seed=1)
    found = nearest_images(images, reader(train), len(train), neighbours)
    rows, distances = by_brute_force(images, train, neighbours)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-12)


def test_planted_copies_are_found_at_distance_zero():
    train = random_images(500, 8, 8, 1)
    planted = np.array([499, 0, 7, 7, 123])
    found = nearest_images(train[planted], reader(train), len(train))
    np.testing.assert_array_equal(found.rows[:, 0], planted)
    np.testing.assert_array_equal(found.distances[:, 0], 0)
    assert (found.distances[:, 1] > 0).all()


def test_almost_equal_distances_are_told_apart():
    """Differences that the float32 products round away: bright images, one level apart in one of 12,288 pixels."""
    image = torch.full((1, 64, 64, 3), 255, dtype=torch.uint8)
    train = torch.zeros(4, 64, 64, 3, dtype=torch.uint8)
    train[2, 0, 0, 0] = 1
    found = nearest_images(image, reader(train), len(train), neighbours=2)
    np.testing.assert_array_equal(found.rows, [[2, 0]])  # of equally near ones the first


def test_each_training_image_is_read_once_in_order_and_the_candidates_again():
    train, asked = random_images(40, 4, 4, 1), []

    def read(rows):
        asked.append(rows)
        return train[torch.from_numpy(rows)]

    nearest_images(train[:2], read, len(train), neighbours=1)
    np.testing.assert_array_equal(asked[0], np.arange(40))
    assert len(asked) == 2
    assert len(asked[1]) <= 2 * 4


def test_no_more_neighbours_than_training_images():
    train = random_images(2, 4, 4, 1)
    assert nearest_images(train, reader(train), 2, neighbours=2).rows.shape == (2, 2)
    with pytest.raises(ValueError, match="cannot find 3 nearest of 2"):
        nearest_images(train, reader(train), 2, neighbours=3)


def test_images_of_other_shapes_or_types_are_errors():
    train = random_images(5, 4, 4, 1)
    with pytest.raises(ValueError, match=r"uint8 images of one shape, got \(4, 2, 1\)"):
        nearest_images(random_images(2, 4, 2, 1), reader(train), 5)
    with pytest.raises(ValueError, match=r"float32"):
        nearest_images(torch.rand(2, 4, 4, 1), reader(train), 5)


def test_images_are_rounded_as_in_a_file():
    assert comparable_images(torch.tensor([[[-1.0], [0.5], [2.0]]])).flatten().tolist() == [0, 128, 255]
    images = random_images(3, 8, 8, 3)
    assert torch.equal(comparable_images(images), images)
    assert torch.equal(comparable_images(images, max_side=8), images)


@pytest.mark.parametrize("resolution", [(16,), (16, 8), (16, 8, 4)])
def test_large_images_are_averaged(resolution):
    images = random_images(2, *resolution, 3)
    smaller = comparable_images(images, max_side=8)
    assert smaller.shape == (2, *(min(side, 8) for side in resolution), 3)
    corner = images[(0, slice(0, 2), *[0] * (len(resolution) - 1), 1)]
    # Each pixel of the smaller image is the mean over a block, which for these shapes is two pixels along the first axis.
    assert abs(smaller[(0,) * (len(resolution) + 1) + (1,)].item() - corner.float().mean().item()) <= 0.5
