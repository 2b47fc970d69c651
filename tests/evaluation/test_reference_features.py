import numpy as np
import pytest
import torch
from evaluated import field, images, latents

from spatial_functa_pipeline.config.evaluation import ScoresConfig
from spatial_functa_pipeline.evaluation import features as module
from spatial_functa_pipeline.evaluation.features import (
    held_out,
    pack_features,
    real_features,
    reference_features,
    unpack_features,
)
from spatial_functa_pipeline.functasets.rotation import rotated
from spatial_functa_pipeline.functasets.statistics import compute_statistics
from spatial_functa_pipeline.images.pixels import unit_images


class Means:
    """The mean of each image as its only feature."""

    name, width = "means", 1

    def __call__(self, pictures):
        return unit_images(pictures).flatten(1).float().mean(1, keepdim=True)


def means(*sets):
    return torch.cat([Means()(pictures.batch(range(len(pictures)))) for pictures in sets])


def test_the_training_images_are_all_that_were_published():
    """The validation images are cut from them; there is no bound unless one is given."""
    train, validation, test = images(70, 0), images(8, 2), images(9, 1)
    found = real_features(Means(), train, validation, test, ScoresConfig())
    assert {name: len(features) for name, features in found.items()} == {"train": 78, "test": 9}
    torch.testing.assert_close(found["train"].paired, means(train, validation))
    torch.testing.assert_close(found["train"].moments.mean(), means(train, validation).double().mean(0))
    assert held_out(train, validation, ScoresConfig()) == 8


def test_validation_images_that_were_published_apart_are_no_training_images():
    scores = ScoresConfig(held_out_in_reference=False)
    train, validation, test = images(70, 0), images(8, 2), images(9, 1)
    assert len(real_features(Means(), train, validation, test, scores)["train"]) == 70
    assert held_out(train, validation, scores) == 0


@pytest.mark.parametrize(("limit", "train_images", "validation_images"), [(66, 66, 0), (75, 70, 5), (90, 70, 8)])
def test_real_images_are_bounded_in_number(limit, train_images, validation_images):
    train, validation, test = images(70, 0), images(8, 2), images(9, 1)
    scores = ScoresConfig(reference_images=limit, pair_images=6)
    found = real_features(Means(), train, validation, test, scores)
    assert len(found["train"]) == train_images + validation_images
    assert held_out(train, validation, scores, limit) == validation_images
    assert len(found["train"].paired) == len(found["test"].paired) == 6
    pixels = np.concatenate([s.batch(range(len(s))) for s in (train, validation)])[: len(found["train"])]
    np.testing.assert_allclose(found["train"].moments.mean()[0], pixels.mean() / 255, rtol=1e-5)


def test_reference_points_are_as_many_as_samples(make_functaset):
    functaset, decoder = make_functaset(latents(9)), field()
    sets = (images(20, 0), images(5, 2), images(9, 1), functaset, decoder, compute_statistics(functaset))
    points = [reference_features(Means(), *sets, ScoresConfig(), count, seed=4) for count in (7, 70)]
    assert [{name: len(value) for name, value in found.items()} for found in points] == [
        dict.fromkeys(("train_images", "test_images", "reconstructions", "pca_codes", "noise"), 7),
        {"train_images": 25, "test_images": 9, "reconstructions": 9, "pca_codes": 9, "noise": 70},
    ]
    assert all(torch.isfinite(value.paired).all() for found in points for value in found.values())
    again = reference_features(Means(), *sets, ScoresConfig(), 70, seed=4)
    assert torch.equal(again["noise"].paired, points[1]["noise"].paired)


@pytest.mark.parametrize("rotation", ["within_cells", "whole"])
def test_noise_has_the_deviations_of_rotated_numbers_and_is_rotated_back(make_functaset, monkeypatch, rotation):
    """So it is what a denoiser of rotated latents starts from, as raw latents, which the field decodes."""
    known, drawn = compute_statistics(make_functaset(latents(50) + 3), rotation=rotation), []
    monkeypatch.setattr(module, "decode", lambda field, noise: drawn.append(noise))
    list(module._decoded_noise(known, None, 20_000, seed=1))
    noise, moments = torch.cat(drawn).double(), known.moments["array"]
    turned = rotated(noise, known.rotation.double())
    torch.testing.assert_close(turned.mean(0), moments.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(turned.std(0), moments.std, atol=0, rtol=0.03)
    torch.testing.assert_close(noise.mean(0), torch.full((2, 2, 3), 3.0).double(), atol=0.5, rtol=0)


def test_stored_features_are_the_same():
    sets = real_features(Means(), images(30, 0), images(5, 2), images(9, 1), ScoresConfig(pair_images=6))
    stored = pack_features(sets, Means(), held_out=5)
    assert stored.config == {"features": "means", "held_out": 5}
    again = unpack_features(stored)
    for name, features in sets.items():
        assert len(again[name]) == len(features)
        assert torch.equal(again[name].paired, features.paired)
        assert torch.equal(again[name].moments.covariance(), features.moments.covariance())
