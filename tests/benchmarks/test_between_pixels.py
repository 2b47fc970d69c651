"""The benchmark of what lies between the pixels: its photographs, its contestants, and what it measures."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("skimage")
pytest.importorskip("sklearn")

import between_pixels as benchmark
import photo_tiles

from spatial_functa_pipeline.fields.field import SpatialField


@pytest.fixture
def small_photographs(monkeypatch):
    """Of every photograph the upper left corner: two tiles to train on at least, and one below them."""
    whole = photo_tiles.photograph
    monkeypatch.setattr(photo_tiles, "photograph", lambda name: whole(name)[:192, :176])
    monkeypatch.setattr(benchmark, "STRIDES", {"train": 48, "same": 48, "other": 64})
    monkeypatch.setattr(benchmark, "TRUE_SIDE", 32)
    monkeypatch.setattr(benchmark, "SIDE", 8)
    monkeypatch.setattr(benchmark, "SIDES", (8, 16, 32))


def test_tiles_are_those_of_the_picture_and_averages_keep_its_light():
    picture = np.random.default_rng(0).integers(0, 256, (10, 7, 3), np.uint8)
    found = photo_tiles.tiles(picture, 4, 3)
    assert len(found) == 3 * 2
    np.testing.assert_array_equal(found[3], picture[3:7, 3:7])
    assert photo_tiles.tiles(picture, 8, 1).shape == (0, 8, 8, 3)
    means = photo_tiles.averaged(found, 2)
    np.testing.assert_allclose(means[3, 0, 1], picture[3:5, 5:7].mean((0, 1)), atol=0.5)


def test_what_is_tested_on_was_not_trained_on():
    trained = set(map(bytes, photo_tiles.photo_pixels("train", 32, 32)))
    for part in ("same", "other"):
        assert not trained & set(map(bytes, photo_tiles.photo_pixels(part, 32, 32)))
    for name in photo_tiles.TRAINED_ON:
        picture = photo_tiles.photograph(name)
        assert bytes(picture[:32, :32].copy()) in trained
        assert bytes(picture[-32:, :32].copy()) not in trained


def test_a_contestant_is_the_preset_with_its_changes():
    parameters, config = benchmark.configure(500, {"field.overlap": 0.5, "jitter.share": 0.25})
    preset = parameters.meta_learning
    assert (config.field.overlap, config.jitter.share, config.training.steps) == (0.5, 0.25, 500)
    assert (config.field.resolution, config.field.channels, str(config.field.latent_shape)) == ((32, 32), 3, "8x8x16")
    assert (config.field.kernel_size, config.field.inner_steps, config.training_inner_steps) == (1, 3, None)
    changed = {"latent_shape", "resolution", "channels", "overlap", "kernel_size", "inner_steps"}
    assert config.field.model_dump(exclude=changed) == preset.field.model_dump(exclude=changed)
    assert config.training.learning_rate == preset.training.learning_rate


def test_a_field_that_shows_the_truth_has_the_highest_psnr(small_photographs, monkeypatch):
    """PSNR and seams are of each resolution's own truth; the bicubic picture is of the field's own."""
    _, config = benchmark.configure(1, {"field.resolution": (8, 8), "field.latent_shape": "2x2x4"})
    field, truth = SpatialField(config.field.spec), {}
    for side in benchmark.SIDES:
        pixels = photo_tiles.averaged(photo_tiles.photo_pixels("other", 32, 64), 32 // side)
        truth[side] = torch.from_numpy(pixels).float() / 255
    monkeypatch.setattr(field, "encode", lambda images: images)
    monkeypatch.setattr(field, "decode", lambda latents, resolution=(8, 8): truth[resolution[0]])
    found = benchmark.measure(field, "other")
    for side in benchmark.SIDES:
        assert found[f"psnr_{side}"] > 99
        assert found[f"seams_{side}"] == found[f"true_seams_{side}"]
    assert found["psnr_bicubic_8"] > 99 > found["psnr_bicubic_16"] > found["psnr_bicubic_32"]


@pytest.mark.slow
def test_the_command_trains_and_reports_each_contestant(small_photographs, capsys, tmp_path):
    changes = ["field.width=32", "field.depth=3", "field.latent_shape=2x2x4"]
    changes += ["training.batch_size=2", "validation_images=2"]
    path = tmp_path / "rows.json"
    assert (
        benchmark.main(["--contestants", "cells", "overlap", "--steps", "2", "--json", str(path), "--set", *changes])
        == 0
    )
    printed = capsys.readouterr().out
    assert all(printed.count(name) >= 2 for name in ("cells", "overlap", "trained on", "others"))
    assert len(json.loads(path.read_text())) == 4


def test_changes_reach_into_blocks_and_leave_the_original():
    block = {"a": {"b": 1, "c": 2}, "d": 3}
    assert benchmark.changed(block, {"a.b": 5, "d": 6}) == {"a": {"b": 5, "c": 2}, "d": 6}
    assert block == {"a": {"b": 1, "c": 2}, "d": 3}
