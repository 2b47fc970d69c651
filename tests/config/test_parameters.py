"""What a user reads when a parameter is wrong: one line for each, with its name and what is allowed."""

import copy
from functools import reduce
from operator import getitem
from pathlib import Path
from types import SimpleNamespace

import pytest
from click import ClickException
from pydantic import ValidationError

from spatial_functa_pipeline.config.meta_learning import FieldConfig
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.hooks.parameters import ParameterHooks
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def sample():
    return CONFIG_LOADER_CLASS(str(CONF), env="sample", **CONFIG_LOADER_ARGS)["parameters"]


@pytest.fixture
def changed(sample):
    """`changed({"diffusion.timesteps": 5, …})` → the parameters with other values."""

    def change(changes):
        parameters = copy.deepcopy(sample)
        for place, value in changes.items():
            *blocks, key = place.split(".")
            reduce(getitem, blocks, parameters)[key] = value
        return parameters

    return change


@pytest.fixture
def message(changed):
    """`message({"diffusion.timesteps": 5, …})` → what the run's first check says, without its headline."""

    def check(changes):
        context = SimpleNamespace(config_loader={"parameters": changed(changes)})
        with pytest.raises(ClickException) as error:
            ParameterHooks().after_context_created(context)
        headline, *lines = str(error.value).splitlines()
        assert headline == "Nothing was run, since parameters are wrong:"
        return lines

    return check


def test_parameters_of_the_project_pass(sample):
    ParameterHooks().after_context_created(SimpleNamespace(config_loader={"parameters": sample}))


@pytest.mark.parametrize(
    ("place", "block", "known"),
    [
        ("diffusoin", "parameters", ("diffusion", "meta_learning", "data_path")),
        ("diffusion.timestep", "diffusion", ("timesteps", "noise_schedule", "unet")),
        ("meta_learning.field.omega", "meta_learning.field", ("omega0", "width", "inner_rate_init")),
        ("classification.training.lr", "classification.training", ("learning_rate", "steps", "clip_norm")),
    ],
)
def test_unknown_key_is_named_beside_the_known_ones(message, place, block, known):
    (line,) = message({place: 1})
    assert line.startswith(f"  {block}: unknown key {place.split('.')[-1]}; known keys: ")
    assert set(known) <= set(line.split("known keys: ")[1].split(", "))


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("meta_learning.training.steps", "many", ("valid integer", "'many'")),
        ("meta_learning.training.steps", 0, ("greater than 0", "(got 0)")),
        ("classification.training.learning_rate", -1e-3, ("greater than 0", "-0.001")),
        ("classification.dropout", 1.0, ("less than 1", "(got 1.0)")),
        ("diffusion.noise_schedule", "quadratic", ("'linear' or 'cosine'", "'quadratic'")),
        ("diffusion.normalisation.kind", "pixel", ("'scalar', 'vector' or 'array'", "'pixel'")),
        ("diffusion.unet.channels", 100, ("multiple of 32", "(got 100)")),
        ("evaluation.sampling.sampler", "rk45", ("'ddim', 'euler', 'heun' or 'dpm_solver'", "'rk45'")),
        ("functaset.storage_type", "uint8", ("'float32' or 'float16'", "'uint8'")),
        ("quantisation.bits", 9, ("less than or equal to 8", "(got 9)")),
        ("interpolation", "cubic", ("'nearest' or 'linear'", "'cubic'")),
        ("seed", -1, ("greater than or equal to 0", "(got -1)")),
    ],
)
def test_value_out_of_bounds_is_shown_with_what_is_allowed(message, place, value, expected):
    (line,) = message({place: value})
    assert line.startswith(f"  {place}: ")
    assert [part for part in expected if part not in line] == []


def test_missing_key_is_named(sample):
    parameters = copy.deepcopy(sample)
    del parameters["diffusion"]["training"]["steps"]
    with pytest.raises(ClickException, match=r"diffusion\.training\.steps: Field required"):
        ParameterHooks().after_context_created(SimpleNamespace(config_loader={"parameters": parameters}))


def test_all_wrong_parameters_are_reported_at_once(message):
    lines = message(
        {"meta_learning.training.steps": 0, "diffusion.objective": "noise", "classification.label_smoothing": 2}
    )
    places = {line.split(":")[0].strip() for line in lines}
    assert places == {"meta_learning.training.steps", "diffusion.objective", "classification.label_smoothing"}


# Latent shapes


@pytest.mark.parametrize(
    "text", ["8,8,16", "16", "8x8x", "x8x8", "8x-8x16", "8x0x16", "8X8X16", "8x8x1.5", "", " 8x8x8"]
)
def test_malformed_latent_shape_says_how_to_write_one(message, text):
    (line,) = message({"latent_shape": text})
    assert line.startswith("  latent_shape: ")
    assert "as in 8x8x16" in line
    assert repr(text) in line


@pytest.mark.parametrize("value", [16, [8, 8, 16], None])
def test_latent_shape_of_another_type_says_how_to_write_one(message, value):
    (line,) = message({"latent_shape": value})
    assert line.startswith("  latent_shape: ")
    assert "as in 8x8x16" in line


def set_latent_shape(text):
    """The two places that one runtime parameter `latent_shape` sets."""
    return {"latent_shape": text, "meta_learning.field.latent_shape": text}


def test_latent_shape_that_does_not_divide_the_resolution(message):
    (line,) = message(set_latent_shape("6x6x16"))
    assert line.startswith("  meta_learning.field: ")
    assert "latent_shape 6x6x16 does not fit the resolution 32x32" in line
    assert "each grid side must divide it" in line


@pytest.mark.parametrize("text", ["8x16", "4x8x8x16"])
def test_latent_shape_with_the_wrong_number_of_sides(message, text):
    line = message(set_latent_shape(text))[0]
    assert line.startswith("  meta_learning.field: ")
    assert f"latent_shape {text} has a {text.count('x')}-dimensional grid, but the data are 2-dimensional" in line
    assert "write 2 grid sides, then the channels" in line


@pytest.mark.parametrize(
    ("text", "grid", "channels", "cells"),
    [
        ("8x8x16", (8, 8), 16, 64),
        ("1x1x512", (1, 1), 512, 1),
        ("16x8x4", (16, 8), 4, 128),
        ("50x16", (50,), 16, 50),
        ("4x4x4x32", (4, 4, 4), 32, 64),
    ],
)
def test_latent_shape_is_read_and_written_back(text, grid, channels, cells):
    shape = LatentShape.parse(text)
    assert (shape.grid, shape.channels, shape.cells, shape.shape) == (grid, channels, cells, (*grid, channels))
    assert str(shape) == text
    assert LatentShape.parse(shape) is shape


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"interpolation": "linear", "meta_learning.field.interpolation": "linear"},
            "need interpolation nearest (got linear)",
        ),
        ({"meta_learning.field.initialisation": "data"}, "field.initialisation random (got data)"),
        ({"encoder": "pca"}, "several scales, which are a field's, but encoder is pca: choose one grid, such as 8x8x3"),
        ({"normalization_stats.rotation": "within_cells"}, "several scales: set it to whole, or choose one grid"),
        (
            {"diffusion.architecture": "unet"},
            "unet needs latents of one grid, and 1x1x64+8x8x3 has several scales; choose dit or mlp",
        ),
    ],
)
def test_what_latents_of_several_scales_cannot_have_is_said(message, changed, changes, said):
    shape = set_latent_shape("1x1x64+8x8x3")
    PipelineParameters.model_validate(changed(shape))
    (line,) = message({**shape, "meta_learning.field.overlap": 0.0, "meta_learning.jitter.share": 0.0, **changes})
    assert said in line


def test_scales_stand_from_coarse_to_fine(message):
    (line,) = message({"latent_shape": "8x8x3+1x1x64"})
    assert line.startswith("  latent_shape: ")
    assert "from coarse to fine" in line


@pytest.mark.parametrize(
    ("block", "architecture", "shape", "expected"),
    [
        *((block, "auto", "1x1x512", "mlp") for block in ("classification", "diffusion")),
        *((block, "mlp", "8x8x16", "mlp") for block in ("classification", "diffusion")),
        ("classification", "auto", "8x8x16", "convnext"),  # whose sizes are given
        ("classification", "transformer", "1x1x512", "transformer"),
        ("diffusion", "auto", "8x8x16", "unet"),
        ("diffusion", "auto", "1x1x64+8x8x3", "mlp"),
        ("classification", "auto", "1x1x64+8x8x3", "convnext"),
        ("diffusion", "unet", "1x1x512", "unet"),
    ],
)
def test_auto_takes_the_mlp_where_there_is_no_one_grid(changed, block, architecture, shape, expected):
    config = getattr(PipelineParameters.model_validate(changed({f"{block}.architecture": architecture})), block)
    assert config.architecture_on(LatentShape.parse(shape)) == expected


# Conditions between parameters


def test_kernel_size_must_be_odd(message):
    (line,) = message({"meta_learning.field.kernel_size": 2})
    assert "kernel_size must be odd, got 2" in line


@pytest.mark.parametrize("rates", [[0.1, 0.005], [0.1, 0.1], [0.5, 1.5]])
def test_inner_rates_must_be_a_range_up_to_one(message, rates):
    (line,) = message({"meta_learning.field.inner_rate_init": rates})
    assert "inner_rate_init must be (low, high) with low < high ≤ 1" in line


def test_guidance_needs_a_conditional_model(message):
    (line,) = message({"diffusion.conditional": False})
    assert "evaluation.sampling.guidance_scale is 1.5, but diffusion.conditional is false" in line
    assert "set the scale to null" in line


def test_guidance_needs_dummy_labels(message):
    (line,) = message({"diffusion.dummy_label_share": 0})
    assert "evaluation.sampling.guidance_scale is 1.5, but diffusion.dummy_label_share is 0" in line
    assert "set a share above 0, or the scale to null" in line


@pytest.mark.parametrize(
    "changes",
    [
        {"diffusion.conditional": False, "evaluation.sampling.guidance_scale": None},
        {"diffusion.dummy_label_share": 0, "evaluation.sampling.guidance_scale": None},
        {"diffusion.dummy_label_share": 0, "evaluation.sampling.guidance_scale": 1},
    ],
)
def test_models_that_cannot_be_guided_may_be_sampled_without(changed, changes):
    PipelineParameters.model_validate(changed(changes))


def test_sampler_cannot_have_more_steps_than_the_diffusion(message):
    (line,) = message(
        {
            "diffusion.objective": "epsilon",
            "diffusion.noise_level.mean": None,
            "diffusion.timesteps": 20,
            "evaluation.sampling.steps": 50,
        }
    )
    assert "evaluation.sampling.steps (50) must not exceed diffusion.timesteps (20)" in line


def test_unet_levels_must_fit_the_grid(message):
    (line,) = message({**set_latent_shape("4x4x32"), "diffusion.unet.multipliers": [1, 2, 2, 2]})
    assert "diffusion.unet.multipliers has 4 levels" in line
    assert "each side of latent_shape 4x4x32 must be a multiple of 8" in line


def test_attention_must_be_on_a_level_of_the_unet(message):
    (line,) = message({"diffusion.unet.attention_resolutions": [16, 4]})
    assert "diffusion.unet.attention_resolutions has [16]" in line
    assert "grid sides [8, 4]: choose among them" in line


ONE_DIMENSIONAL = {**set_latent_shape("8x16"), "data.resolution": [32], "meta_learning.field.resolution": [32]}


def test_unet_needs_a_two_dimensional_grid(message):
    (line,) = message({**ONE_DIMENSIONAL, "functaset.augmented_copies": 0})
    assert "diffusion.architecture unet needs a two-dimensional grid" in line
    assert "8x16; choose mlp or dit" in line


def test_augmentation_is_for_images_only(message):
    (line,) = message({**ONE_DIMENSIONAL, "diffusion.architecture": "mlp"})
    assert "functaset.augmentation is for images: set augmented_copies to 0" in line


def test_mirrored_images_are_images(message):
    (line,) = message({**ONE_DIMENSIONAL, "functaset.mirror_images": True, "diffusion.architecture": "mlp"})
    assert "functaset.mirror_images is for images" in line


def test_a_denoiser_cannot_train_on_mirrored_images_that_nobody_makes(message):
    (line,) = message({"diffusion.mirror_images": True, "functaset.mirror_images": False})
    assert "diffusion.mirror_images is true, but functaset.mirror_images is false" in line


@pytest.mark.parametrize("missing", [None, False])
def test_a_classifier_cannot_flip_test_images_whose_mirror_images_nobody_makes(message, missing):
    (line,) = message({"classification.test_time_flips": True, "functaset.mirror_held_out": missing})
    assert "classification.test_time_flips is true, but functaset.mirror_held_out is not" in line


def test_held_out_images_that_are_mirrored_are_images(message):
    (line,) = message({**ONE_DIMENSIONAL, "functaset.mirror_held_out": True, "diffusion.architecture": "mlp"})
    assert "functaset.mirror_held_out is for images" in line


def test_only_even_sides_are_halved(message):
    convnext = {"width": 8, "blocks": 1, "downsampled_blocks": 1}
    given = {"classification.architecture": "convnext", "classification.convnext": convnext}
    shape = dict.fromkeys(("latent_shape", "meta_learning.field.latent_shape"), "1x1x64")
    (line,) = message({**shape, "diffusion.architecture": "mlp", **given})
    assert "classification.convnext.downsampled_blocks is 1" in line
    assert "latent_shape 1x1x64 has an odd one: set it to 0" in line


def test_a_denoiser_cannot_train_on_augmented_copies_that_nobody_makes(message):
    (line,) = message({"diffusion.augmented_copies": True, "functaset.augmented_copies": 0})
    assert "diffusion.augmented_copies is true, but functaset.augmented_copies is 0" in line


def test_a_dit_needs_sizes(message):
    (line,) = message({"diffusion.architecture": "dit"})
    assert "architecture is dit, but the block dit is not given: this data set has no sizes for one" in line


def test_chunks_must_fill_shards(message):
    (line,) = message({"functaset.shard_rows": 100})
    assert line.startswith("  functaset: shard_rows (100) must be a multiple of chunk_rows (64)")


def test_warm_up_cannot_be_longer_than_the_training(message):
    (line,) = message({"classification.training.steps": 50})
    assert line.startswith("  classification.training: warmup_steps (100) must not exceed steps (50)")


def test_micro_batch_cannot_be_larger_than_the_batch(message):
    (line,) = message({"diffusion.training.micro_batch": 256, "diffusion.training.batch_size": 128})
    assert line.startswith("  diffusion.training: micro_batch (256) must not exceed batch_size (128)")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"classification.training.batch_size": 63},
            "training.batch_size (63) must be a multiple of 2",
        ),
        (
            {"classification.training.micro_batch": 3},
            "training.micro_batch (3) must be a multiple of 2",
        ),
        (
            {"classification.training.batch_size": 6, "runtime.processes": 2},
            "training.batch_size (6) must be a multiple of 4, as there are 2 processes",
        ),
    ],
)
def test_mixup_needs_pairs(message, changed, changes, said):
    even = {f"{block}.training.batch_size": 64 for block in ("meta_learning", "diffusion")} | changes
    (line,) = message({"classification.mixup": 0.2, **even})
    assert "classification.mixup is 0.2, which mixes rows in pairs" in line
    assert said in line
    PipelineParameters.model_validate(changed(even))


@pytest.mark.parametrize(
    ("rotation", "shape", "advice"),
    [
        ("whole", "16x16x33", "over 8448 numbers has 0.3 GiB"),
        ("whole", "16x16x128", "choose a smaller latent_shape, or within_cells"),
        (
            "within_cells",
            "1x1x9000",
            "at most 8192 numbers are rotated together (256 MiB); choose a smaller latent_shape (",
        ),
    ],
)
def test_a_rotation_has_to_fit_into_memory(message, changed, rotation, shape, advice):
    shapes = set_latent_shape(shape)
    (line,) = message({"normalization_stats.rotation": rotation, **shapes})
    assert f"normalization_stats.rotation is {rotation}, but a matrix over" in line
    assert advice in f"{line} ("
    PipelineParameters.model_validate(changed(shapes))
    fitting = {"normalization_stats.rotation": "whole", **set_latent_shape("16x16x32")}
    PipelineParameters.model_validate(changed(fitting))


def test_heads_must_divide_the_width_unless_their_size_is_given(message, changed):
    (line,) = message({"classification.transformer.heads": 5, "classification.transformer.width": 96})
    assert line.startswith("  classification.transformer: heads (5) must divide width (96) unless head_dim is given")
    changes = {"classification.transformer.heads": 5, "classification.transformer.head_dim": 20}
    PipelineParameters.model_validate(changed(changes))


def test_the_field_cannot_differ_from_the_variant_its_files_are_named_after(message):
    (line,) = message({"meta_learning.field.latent_shape": "4x4x8"})
    assert "meta_learning.field.latent_shape is 4x4x8, but latent_shape is 8x8x8: set latent_shape instead" in line
    (line,) = message({"meta_learning.field.channels": 3})
    assert "meta_learning.field.channels is 3, but data.channels is 1: set data.channels instead" in line


def test_a_linear_schedule_needs_enough_timesteps(message):
    changes = {
        "diffusion.objective": "epsilon",
        "diffusion.noise_level.mean": None,
        "diffusion.timesteps": 20,
        "diffusion.noise_schedule": "linear",
        "evaluation.sampling.steps": 20,
    }
    (line,) = message(changes)
    assert "noise_schedule linear needs more than 20 timesteps" in line


def test_a_device_is_one_that_torch_knows(message):
    (line,) = message({"runtime.device": "gpu"})
    assert "runtime.device: a device is auto, cpu, mps, cuda, or cuda:1 and the like (got 'gpu')" in line


@pytest.mark.parametrize("shape", ["2x2x128", "4x4x32", "16x16x2", "32x32x1", "1x1x512"])
def test_the_sample_takes_every_grid(changed, shape):
    """The denoiser's attention is on the coarsest level, whatever that is."""
    PipelineParameters.model_validate(changed(set_latent_shape(shape)))


def test_blocks_cannot_be_changed_after_the_check(sample):
    field = PipelineParameters.model_validate(sample).meta_learning.field
    assert isinstance(field, FieldConfig)
    with pytest.raises(ValidationError, match="frozen"):
        field.width = 1
