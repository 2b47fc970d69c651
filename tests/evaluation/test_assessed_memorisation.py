import numpy as np
import pytest
import torch
from evaluated import field, images, latents

from spatial_functa_pipeline.config.evaluation import MemorisationConfig
from spatial_functa_pipeline.evaluation.decoding import decode
from spatial_functa_pipeline.evaluation.memorisation import assess_memorisation
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.metrics.neighbours import comparable_images


def test_samples_that_are_training_images_are_found(make_functaset):
    """Samples decode to training images; test images and their reconstructions are others."""
    rows, decoder = latents(12), field()
    samples = make_functaset(rows)
    copies = comparable_images(decode(decoder, torch.from_numpy(rows))).numpy()
    train = Images.from_array(copies, np.arange(12) % 10, tuple("abcdefghij"))
    test = images(12, 5)
    config = MemorisationConfig(images=8)
    metrics, table, distances, shown = assess_memorisation(samples, train, test, samples, decoder, config, 4, seed=2)
    assert metrics["nearest_train_distance"] == 0
    assert metrics["nearest_train_distance_test_images"] > 0
    assert metrics["near_copies"] == 1
    assert "near_copies_test_images" not in metrics
    assert metrics["details"]["near_copies"] == (
        "8 of 12 samples, nearest of 12 training images, seed 2: share; 0.01: like test images"
    )
    whole = table[table["class"] == "all"].set_index("images")
    assert whole["count"].to_dict() == {"samples": 8, "test_images": 8, "reconstructions": 8}
    assert len(distances.axes) == 2
    assert len(shown.axes) == 2 * (1 + 3) * 4


@pytest.mark.parametrize(
    ("settings", "known"),
    [({"mirror_images": True}, True), ({"augmented_copies": True}, True), ({"mirror_images": False}, False)],
)
def test_a_denoiser_that_repeats_mirrored_images_is_found_out(make_functaset, settings, known):
    """Its samples are training images mirrored: copies, if it was trained on those, or on copies that may be mirrored."""
    rows, decoder = latents(12), field()
    samples = make_functaset(rows, settings=settings)
    copies = comparable_images(decode(decoder, torch.from_numpy(rows))).numpy()
    train = Images.from_array(copies[:, :, ::-1], np.arange(12) % 10, tuple("abcdefghij"))
    test = images(12, 5)
    metrics, table, _, _ = assess_memorisation(samples, train, test, samples, decoder, MemorisationConfig(), 4, seed=2)
    assert (metrics["nearest_train_distance"] == 0) is known
    among = "12 training images and their mirror images" if known else "12 training images"
    assert metrics["details"]["nearest_train_distance"] == f"12 samples, nearest of {among}, seed 2: median"
    whole = table[table["class"] == "all"].set_index("images")
    assert whole["train_images"].to_dict() == {"samples": 12, "test_images": 12, "reconstructions": 12}
    if known:
        assert whole["distinct"]["samples"] == 12
