"""Cluttered images: what is drawn, from what, and that it is the same in every batch."""

import pickle
from itertools import product

import numpy as np
import pytest

from spatial_functa_pipeline.images.clutter import ClutteredImages, ClutterProtocol

PLAIN = ClutterProtocol(resolution=(24, 20), scale=(1.0, 1.0), pieces=0, piece_size=3, seed=0)


def protocol(**changed):
    return ClutterProtocol(**{**vars(PLAIN), **changed})


def flat(count, side=8):
    """Objects, each of a brightness of its own: 255, 254, …"""
    return np.stack([np.full((side, side), 255 - number, np.uint8) for number in range(count)])


def test_an_object_is_whole_and_somewhere_on_the_canvas():
    objects = np.random.default_rng(0).integers(1, 256, (40, 8, 8), np.uint8)
    images = ClutteredImages(objects, PLAIN)(np.arange(40))
    assert (images.shape, images.dtype) == ((40, 24, 20, 1), np.uint8)
    places = set()
    for image, one in zip(images[..., 0], objects, strict=True):
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        places.add((rows[0], columns[0]))
        np.testing.assert_array_equal(image[rows[0] : rows[0] + 8, columns[0] : columns[0] + 8], one)
        assert np.count_nonzero(image) == 64
    tops, lefts = map(set, zip(*places, strict=True))
    assert len(places) > 30
    assert tops <= set(range(17))
    assert lefts <= set(range(13))
    assert min(len(tops), len(lefts)) > 8


def test_objects_are_scaled_within_the_range():
    images = ClutteredImages(flat(200), protocol(scale=(0.5, 2.0)))(np.arange(200))[..., 0] > 0
    heights, widths = images.any(axis=2).sum(axis=1), images.any(axis=1).sum(axis=1)
    assert (heights == widths).all()
    assert set(heights.tolist()) == set(range(4, 17))


def test_pieces_are_of_other_objects_and_the_brighter_one_is_seen():
    images = ClutteredImages(flat(5), protocol(pieces=4))(np.arange(5))[..., 0]
    for row, image in enumerate(images):
        own = image == 255 - row
        others = image[(image > 0) & ~own]
        assert len(others) > 0
        assert set(np.unique(others).tolist()) <= {255 - other for other in range(5)} - {255 - row}
        assert len(others) <= 4 * 9
    assert (images[0] == 255).sum() == 64  # nothing is brighter than the first


def test_every_other_object_and_every_part_of_it_can_be_a_piece():
    objects = np.zeros((4, 4, 4), np.uint8)
    objects[1:] = np.arange(1, 49, dtype=np.uint8).reshape(3, 4, 4)
    seen = {
        int(pixel)
        for seed in range(60)
        for pixel in np.unique(ClutteredImages(objects, protocol(pieces=6, piece_size=1, seed=seed))(np.array([0])))
    }
    assert seen == set(range(49))


def test_an_image_hangs_on_seed_and_row_alone():
    objects = np.random.default_rng(0).integers(0, 256, (30, 8, 8), np.uint8)
    settings = protocol(scale=(0.5, 1.5), pieces=5, seed=3)
    images = ClutteredImages(objects, settings)
    whole = images(np.arange(30))
    order = np.random.default_rng(1).permutation(30)
    np.testing.assert_array_equal(np.concatenate([images(part) for part in np.split(order, [7, 8])]), whole[order])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(images))(np.array([-1, 4])), whole[[-1, 4]])
    assert (ClutteredImages(objects, protocol(scale=(0.5, 1.5), pieces=5, seed=4))(np.arange(30)) != whole).any()
    assert (ClutteredImages(objects, settings, first_row=30)(np.arange(30)) != whole).any()
    with pytest.raises(IndexError):
        images(np.array([30]))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"scale": (0.0, 1.0)}, "0 < smallest ≤ largest"),
        ({"scale": (1.0, 0.5)}, "0 < smallest ≤ largest"),
        ({"scale": (0.01, 1.0)}, "leaves no pixel"),
        ({"scale": (1.0, 2.6)}, "does not fit the canvas"),
        ({"pieces": -1}, "not negative, got -1 and 0"),
        ({"seed": -1}, "not negative, got 0 and -1"),
        ({"piece_size": 0}, "from 1 to 8"),
        ({"piece_size": 9}, "from 1 to 8"),
        ({"resolution": (4, 20), "scale": (0.5, 0.5), "piece_size": 5}, "from 1 to 4"),
    ],
)
def test_a_protocol_that_cannot_be_followed_is_refused(changed, reason):
    PLAIN.require_fitting(8)
    with pytest.raises(ValueError, match=reason):
        protocol(**changed).require_fitting(8)


def test_what_just_fits_is_made():
    for low, pieces in product((0.25, 2.5), (0, 2)):
        settings = protocol(scale=(low, 2.5), pieces=pieces, piece_size=8)
        settings.require_fitting(8)
        assert ClutteredImages(flat(3), settings)(np.arange(3)).any(axis=(1, 2, 3)).all()
