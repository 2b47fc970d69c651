"""The rows of `presets`: which hold, what they set, what wins, and what a user reads when one is wrong."""

from types import SimpleNamespace

import pytest
from click import ClickException
from pydantic import ValidationError
from test_environments import load, loader

from spatial_functa_pipeline.config.presets import apply_presets
from spatial_functa_pipeline.hooks.parameters import ParameterHooks

UNET = {"channels": 64, "multipliers": [1, 2], "residual_blocks": 1}


def tree(*presets, **parameters):
    return {"latent_shape": "8x8x16", "diffusion": {"unet": UNET, "timesteps": 10}, **parameters, "presets": presets}


def row(when, **changes):
    return {"when": when, "set": {key.replace("__", "."): value for key, value in changes.items()}}


def test_without_presets_parameters_stay_as_they_are():
    parameters = {"seed": 3, "diffusion": {"unet": UNET}}
    assert apply_presets(parameters, {}) == parameters


def test_a_row_that_holds_changes_what_it_sets_and_nothing_else():
    rows = (
        row({"latent_shape": "8x8x16"}, diffusion__unet__channels=128, seed=1),
        row({"latent_shape": "4x4x64"}, diffusion__timesteps=5),
    )
    parameters = tree(*rows)
    applied = apply_presets(parameters, {})
    unet = {**UNET, "channels": 128}
    assert applied == {"latent_shape": "8x8x16", "diffusion": {"unet": unet, "timesteps": 10}, "seed": 1}
    assert parameters == tree(*rows)  # as it was


@pytest.mark.parametrize(
    "changes",
    [
        {"diffusion": {"unet": {"multipliers": [2, 2, 2], "dropout": 0.5}}},
        {"diffusion__unet": {"multipliers": [2, 2, 2], "dropout": 0.5}},
        {"diffusion__unet__multipliers": [2, 2, 2], "diffusion__unet__dropout": 0.5},
    ],
)
def test_a_part_of_a_block_is_set_however_it_is_written(changes):
    unet = apply_presets(tree(row({}, **changes)), {})["diffusion"]["unet"]
    assert unet == {**UNET, "multipliers": [2, 2, 2], "dropout": 0.5}


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ({}, True),
        ({"latent_shape": ["4x4x64", "8x8x16"]}, True),
        ({"latent_shape": ["4x4x64", "1x1x64"]}, False),
        ({"latent_shape": "8x8x16", "diffusion.timesteps": 10}, True),
        ({"latent_shape": "8x8x16", "diffusion.timesteps": 11}, False),
        ({"diffusion.conditional": True}, True),  # the default of a key that stands nowhere
        ({"diffusion.conditional": False}, False),
        ({"classification.architecture": ["auto", "mlp"]}, True),  # its whole block stands nowhere
        ({"seed": 0}, False),  # has no default and stands nowhere
        ({"classification.normalisation_scale": None}, True),
    ],
)
def test_a_row_holds_where_every_key_has_one_of_its_values(when, holds):
    assert ("seed" in apply_presets(tree(row(when, seed=5)), {})) == holds


def test_a_later_row_wins_and_sees_what_earlier_rows_set():
    rows = (
        row({}, diffusion__timesteps=20, seed=1),
        row({"diffusion.timesteps": 20}, diffusion__timesteps=30),
        row({"diffusion.timesteps": 20}, seed=2),
    )
    applied = apply_presets(tree(*rows), {})
    assert (applied["diffusion"]["timesteps"], applied["seed"]) == (30, 1)


@pytest.mark.parametrize(
    ("given", "unet"),
    [
        ({"dropout": 0.3}, {"channels": 128, "multipliers": [2, 2], "residual_blocks": 1, "dropout": 0.3}),
        ({"multipliers": [4]}, {"channels": 128, "multipliers": [4], "residual_blocks": 1}),
    ],
)
def test_the_command_line_wins_over_every_row(given, unet):
    rows = (
        row({}, diffusion__unet={"channels": 128, "multipliers": [2, 2]}),
        row({"diffusion.unet.dropout": 0.3}, diffusion__unet__dropout=0.7),
    )
    parameters = tree(*rows, diffusion={"unet": {**UNET, **given}})
    assert apply_presets(parameters, {"diffusion": {"unet": given}})["diffusion"]["unet"] == unet


@pytest.mark.parametrize(
    ("given", "row_sets", "expected"),
    [
        ({"guard": None}, {"guard": {"margin": 2.0}}, None),
        ({"guard": {"margin": 1.0}}, {"guard": None}, {"margin": 1.0}),
    ],
)
def test_the_command_line_wins_where_a_block_can_be_null(given, row_sets, expected):
    parameters = {"meta_learning": {"training": given}, "presets": [row({}, meta_learning__training=row_sets)]}
    applied = apply_presets(parameters, {"meta_learning": {"training": given}})
    assert applied["meta_learning"]["training"] == {"guard": expected}


@pytest.mark.parametrize(
    ("preset", "place", "parts"),
    [
        (row({"latent_shap": "8x8x16"}), "when", ("unknown key latent_shap", "latent_shape, interpolation")),
        (row({"diffusion.unet.chanels": 64}), "when", ("unknown key diffusion.unet.chanels", "channels, multipliers")),
        (row({"seed.of": 1}), "when", ("unknown key seed.of", "before of")),
        (row({"interpolation": "nearst"}), "when", ("interpolation can never be 'nearst'", "'nearest' or 'linear'")),
        (row({"latent_shape": ["8x8x16", "8x8"]}), "when", ("latent_shape can never be '8x8x'",)),
        (row({"meta_learning.field.depth": 1}), "when", ("depth can never be 1", "greater than or equal to 2")),
        (row({}, diffusion__timestep=3), "set", ("unknown key diffusion.timestep", "timesteps, noise_schedule")),
        (row({}, diffusion={"unet": {"width": 3}}), "set", ("unknown key diffusion.unet.width", "channels")),
        (row({}, meta_learning__training__guard__retry=1), "set", ("unknown key meta", "retries")),
    ],
)
def test_a_row_of_unknown_keys_or_impossible_values_is_an_error_even_where_it_does_not_hold(preset, place, parts):
    never = {**preset, "when": {**preset["when"], "latent_shape": preset["when"].get("latent_shape", "1x1x3")}}
    if parts == ("latent_shape can never be '8x8x'",):
        never["when"]["latent_shape"] = ["8x8x16", "8x8x"]
    with pytest.raises(ValidationError) as error:
        apply_presets(tree(row({}), never), {})
    (problem,) = error.value.errors()
    assert problem["loc"] == ("presets", 1, place)
    assert [part for part in parts if part not in problem["msg"]] == []


def test_all_wrong_rows_are_shown_at_once_by_the_runs_first_check():
    presets = [row({"seeds": 1}, data={"chanels": 1}), {"if": {}, "set": {}}, row({"seed": -1})]
    context = SimpleNamespace(config_loader=loader("cifar10", {"presets": presets}))
    with pytest.raises(ClickException) as error:
        ParameterHooks().after_context_created(context)
    headline, *lines = str(error.value).splitlines()
    assert headline == "Nothing was run, since parameters are wrong:"
    places = [line.split(":")[0].strip() for line in lines]
    assert places == ["presets.0.when", "presets.0.set", "presets.1", "presets.2.when"]
    assert "unknown key if; known keys: when, set" in lines[2]


# Through the loader


def test_nodes_see_no_rows_but_every_default():
    parameters = loader("cifar10")["parameters"]
    assert "presets" not in parameters
    assert parameters["diffusion"]["unet"]["attention_resolutions"] == [8, 4]
    assert parameters["runtime"]["compile"] == "auto"
    assert parameters["meta_learning"]["field"]["resolution"] == [32, 32]


def test_other_configuration_is_read_as_it_is():
    config = loader("cifar10")
    assert set(config["globals"]) >= {"dataset", "latent_shape", "interpolation", "seed"}
    assert "field" in config["catalog"]


def test_one_runtime_parameter_chooses_the_unconditional_half_of_table_6():
    parameters = load("cifar10", {"diffusion": {"conditional": False}})
    assert parameters.evaluation.sampling.guidance_scale is None
    assert (parameters.diffusion.noise_schedule, parameters.diffusion.unet.dropout) == ("linear", 0.4)
