import numpy as np
import torch
from evaluated import field, images, latents

from spatial_functa_pipeline.evaluation.features import real_features, reference_features
from spatial_functa_pipeline.functasets.statistics import compute_statistics
from spatial_functa_pipeline.images.pixels import unit_images


class Means:
    """The mean of each image as its only feature."""

    name, width = "means", 1

    def __call__(self, pictures):
        return unit_images(pictures).flatten(1).float().mean(1, keepdim=True)


def test_real_images_are_bounded_in_number():
    train, test = images(70, 0), images(9, 1)
    found = real_features(Means(), train, test, 66)
    assert {name: value.shape for name, value in found.items()} == {"train": (66, 1), "test": (9, 1)}
    np.testing.assert_allclose(found["train"][:, 0], train.batch(range(66)).float().mean((1, 2, 3)) / 255, rtol=1e-5)
    assert len(real_features(Means(), train, test)["train"]) == 70


def test_reference_points_are_as_many_as_samples(make_functaset):
    functaset, decoder, train, test = make_functaset(latents(9)), field(), images(20, 0), images(9, 1)
    statistics = compute_statistics(functaset)
    points = [
        reference_features(Means(), train, test, functaset, decoder, statistics, count, seed=4) for count in (7, 70)
    ]
    assert [{name: len(value) for name, value in found.items()} for found in points] == [
        {"reconstructions": 7, "pca_codes": 7, "noise": 7},
        {"reconstructions": 9, "pca_codes": 9, "noise": 70},
    ]
    assert all(torch.isfinite(value).all() for found in points for value in found.values())
    again = reference_features(Means(), train, test, functaset, decoder, statistics, 70, seed=4)
    assert torch.equal(again["noise"], points[1]["noise"])
