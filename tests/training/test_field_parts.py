"""What is ours in the meta-learning of a field: rates by group, the start from the data, the loss beside the pixels."""

from dataclasses import replace

import pandas as pd
import pytest
import tiny_trainings as tiny
import torch
from pydantic import ValidationError

from spatial_functa_pipeline.config.meta_learning import LearningRateFactors
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.images.shifting import shifted
from spatial_functa_pipeline.metrics.image_quality import PatchPCA, pca_psnr
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.field import rate_factors, seam_error, start_from_components, train_field
from spatial_functa_pipeline.training.run import TrainingRun

GROUPS = {
    "siren": "layers",
    "modulation": "modulation",
    "inner_rates": "inner_rates",
    "first_step": "first_step",
    "linear": "linear",
}


def config_of(given=None, field=None, **training):
    config = tiny.field_config(**training)
    parts = {"field": {"first_step": "free", "initialisation": "data", **(field or {})}, **(given or {})}
    content = config.model_dump(mode="json")
    for key, part in parts.items():
        content[key] = {**content[key], **part} if isinstance(part, dict) else part
    return type(config).model_validate(content)


def train(folder, config):
    run = TrainingRun(0, tiny.RUNTIME, Checkpoint(folder / "field.ckpt"))
    return train_field.__wrapped__(tiny.images(32, 0), tiny.images(16, 1), config, run=run)


def test_every_parameter_of_a_field_is_in_one_group():
    field = SpatialField(config_of().field.spec)
    factors = LearningRateFactors(**{group: number for number, group in enumerate(GROUPS, start=1)})
    found = rate_factors(field, factors)
    assert set(found) == set(dict(field.named_parameters()))
    assert {group: {name for name in found if found[name] == getattr(factors, group)} for group in GROUPS} == {
        group: {name for name in found if name.startswith(prefix)} for group, prefix in GROUPS.items()
    }
    assert set(found.values()) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("group", GROUPS)
def test_a_factor_of_zero_leaves_a_group_as_it_starts(tmp_path, group):
    """And the others are trained. (From the data the SIREN has no output at first, and without one λ has no gradient.)"""
    field = {"initialisation": "data" if group == "linear" else "random"}
    trained, start = (
        train(
            tmp_path / name, config_of({"learning_rate_factors": factors}, field, steps=3, ema_decay=None, keep="last")
        )[0]
        for name, factors in (("trained", {group: 0}), ("start", dict.fromkeys(GROUPS, 0)))
    )
    at_start = dict(start.named_parameters())
    for name, parameter in trained.named_parameters():
        assert torch.equal(parameter, at_start[name]) == name.startswith(GROUPS[group]), name


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
@pytest.mark.parametrize("first_step", ["free", "tied"])
def test_a_start_from_the_data_is_as_good_as_the_linear_code(interpolation, first_step):
    field = SpatialField(config_of(field={"interpolation": interpolation, "first_step": first_step}).field.spec)
    train_images, others = tiny.images(32, 0), tiny.images(16, 1)
    start_from_components(field, train_images)
    pixels = others.batch(range(16))
    reconstructions = field.decode(field.encode(pixels.float() / 255)).detach()
    error = (reconstructions - pixels.float() / 255).square().flatten(1).mean(1)
    assert (-10 * error.log10()).mean().item() == pytest.approx(
        pca_psnr(train_images.batch(range(32)), pixels, (4, 4), 4), abs=0.01
    )


def test_more_latents_than_a_cell_has_pixels():
    """The further channels have no part in the linear code, which is then exact."""
    field = SpatialField(config_of(field={"latent_shape": "4x4x6"}).field.spec)  # 2×2 pixels a cell
    images = tiny.images(32, 0)
    start_from_components(field, images)
    pixels = images.batch(range(4)).float() / 255
    torch.testing.assert_close(field.decode(field.encode(pixels)), pixels, atol=1e-4, rtol=0)


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_the_loss_beside_the_pixels_is_of_the_images_there(tmp_path, overlap):
    """A field trained only there reconstructs the images between the pixels better than one trained at the pixels."""
    psnr = {}
    for share in (0.0, 1.0):
        given = {"jitter": {"share": share}, "learning_rate_factors": {"inner_rates": 1}}
        parts = {"initialisation": "random", "width": 32, "overlap": overlap if share else 0.0}
        config = config_of(given, parts, steps=150, learning_rate=2e-3)
        field, _ = train(tmp_path / str(share), config)
        fine = tiny_images_between_pixels()
        found = field.decode(field.encode(tiny.images(16, 1).batch(range(16)).float() / 255), (16, 16))[:, 1::2, 1::2]
        error = (found - fine).square().mean()
        psnr[share] = -10 * error.log10().item()
    assert psnr[1.0] > psnr[0.0] + 1


def tiny_images_between_pixels():
    """Of `tiny.images(16, 1)`, a quarter of a pixel below and to the right of each pixel's centre."""
    return shifted(tiny.images(16, 1).batch(range(16)).float() / 255, torch.tensor([0.25, 0.25]))


def test_the_offset_is_the_same_for_all_parts_of_a_batch(tmp_path):
    given = {"jitter": {"share": 0.5}}
    whole, _ = train(tmp_path / "whole", config_of(given, steps=6))
    parts, _ = train(tmp_path / "parts", config_of(given, steps=6, micro_batch=1))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("grid", [(2, 3), (4, 1), (2, 1, 2), (3,)])
def test_the_seam_error_is_of_the_errors_on_both_sides_of_borders(grid):
    resolution = tuple(2 * cells for cells in grid)
    errors = torch.randn(2, *resolution, 3)
    steps = []
    for axis, cells in enumerate(grid):
        for border in range(2, 2 * cells, 2):
            here, there = ((slice(None),) * (axis + 1) + (pixel,) for pixel in (border - 1, border))
            steps.append((errors[here] - errors[there]).flatten())
    torch.testing.assert_close(seam_error(errors, grid), torch.cat(steps).square().mean())


def test_one_cell_has_no_seams():
    assert seam_error(torch.randn(2, 4, 4, 1), (1, 1)) == 0


def test_a_penalty_on_seams_makes_them_smaller(tmp_path):
    found = {}
    for weight in (0.0, 10.0):
        given = {"seam_penalty": {"weight": weight}, "learning_rate_factors": {"inner_rates": 1}}
        config = config_of(given, {"initialisation": "random", "width": 32}, steps=100, learning_rate=2e-3)
        field, _ = train(tmp_path / str(weight), config)
        pixels = tiny.images(16, 1).batch(range(16)).float() / 255
        found[weight] = seam_error(field(pixels)[0] - pixels, field.spec.latent_shape.grid).item()
    assert found[10.0] < 0.9 * found[0.0]


def test_training_with_fewer_inner_steps_validates_with_those_of_encoding(tmp_path):
    """With two steps, other weights than with three; and the history's best is what three steps reconstruct."""
    field, history = train(tmp_path, config_of({"training_inner_steps": 2}, steps=4))
    three, _ = train(tmp_path / "three", config_of(steps=4))
    assert not torch.equal(field.inner_rates, three.inner_rates)
    pixels = tiny.images(16, 1).batch(range(16)).float() / 255
    error = (field.decode(field.encode(pixels, 3)) - pixels).square().flatten(1).mean(1)
    best = history["validation_psnr"].max()
    assert (-10 * error.log10()).mean().item() == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({"training_inner_steps": 1}, {}, "leaves the meta-SGD rates as they start"),
        ({}, {"inner_steps": 1}, "leaves the meta-SGD rates as they start"),
        ({"seam_penalty": {"weight": 1}}, {"latent_shape": "1x1x4"}, "where no cells meet"),
        ({"seam_penalty": {"weight": 1}}, {"interpolation": "linear"}, "where no cells meet"),
        ({}, {"latent_shape": "1x1x4", "resolution": (128, 128)}, "more cells, or initialisation random"),
    ],
)
def test_what_would_do_nothing_or_take_for_ever_is_refused(given, field, message):
    with pytest.raises(ValidationError, match=message):
        config_of(given, field)


def test_components_are_found_batch_by_batch(monkeypatch):
    """Of some evenly spaced images, a few at a time: the same as of all of them at once."""
    monkeypatch.setattr("spatial_functa_pipeline.training.linear_code._IMAGES_AT_ONCE", 7)
    read, images = [], tiny.images(32, 0)
    field = SpatialField(config_of().field.spec)
    start_from_components(field, replace(images, read=lambda rows: read.append(len(rows)) or images.read(rows)))
    assert sum(read) == 32
    assert max(read) <= 7
    code = PatchPCA(images.batch(range(32)), (4, 4), 4)
    torch.testing.assert_close(field.linear.bias.double() + 0.5, code.mean, rtol=1e-5, atol=1e-6)


OURS = {
    "hidden_optimizer": "muon",
    "jitter": {"share": 0.5},
    "training_inner_steps": 2,
    "seam_penalty": {"weight": 0.1},
}


class StopError(Exception):
    pass


def stop_at_10(step, metrics):
    if step == 10:
        raise StopError


@pytest.mark.parametrize("initialisation", ["random", "data"])
def test_a_training_with_all_of_ours_goes_on_as_if_it_had_not_been_stopped(tmp_path, initialisation):
    """From its file: Muon's state, the offsets, and the start from the data, which the checkpoint overrules."""
    config = config_of(OURS, {"initialisation": initialisation, "overlap": 0.5, "kernel_size": 3}, steps=16)
    whole, history = train(tmp_path / "whole", config)
    checkpoint = Checkpoint(tmp_path / "cut.ckpt")
    splits = tiny.images(32, 0), tiny.images(16, 1)
    with pytest.raises(StopError):
        train_field.__wrapped__(*splits, config, run=TrainingRun(0, tiny.RUNTIME, checkpoint, stop_at_10))
    resumed, resumed_history = train_field.__wrapped__(*splits, config, run=TrainingRun(0, tiny.RUNTIME, checkpoint))
    for (name, one), other in zip(resumed.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other), name
    columns = [name for name in history if name != "seconds"]
    pd.testing.assert_frame_equal(resumed_history[columns], history[columns])


@pytest.mark.slow
def test_two_processes_train_all_of_ours_as_one_does(tmp_path):
    """The start is found by the first one; every parameter has a gradient, and all take the same offsets."""
    config = config_of(OURS, {"overlap": 0.5}, steps=6, micro_batch=1)
    alone, _ = train(tmp_path / "alone", config)
    two = TrainingRun(0, tiny.RUNTIME.model_copy(update={"processes": 2}), Checkpoint(tmp_path / "two.ckpt"))
    together, _ = train_field(tiny.images(32, 0), tiny.images(16, 1), config, run=two)
    for (name, one), other in zip(together.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, msg=name)
