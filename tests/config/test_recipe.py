"""`recipe=as_printed`: the paper's values with nothing of ours, what is left open of it, and the data sets without one."""

import logging
import re
from types import SimpleNamespace

import pytest
import yaml
from click import ClickException
from kedro.framework.hooks.manager import _create_hook_manager, _register_hooks
from kedro.io import DataCatalog
from pydantic import ValidationError
from test_environments import (
    CIFAR10_VARIANTS,
    CLASSIFIERS,
    CONF,
    ENVIRONMENTS,
    FIELDS,
    IMAGENET_SHAPES,
    SPLITS,
    UNETS,
    VECTOR_SHAPES,
    get,
    leaves,
    load,
    loader,
    name_of,
    variant,
)

from spatial_functa_pipeline.config.block import RESULT_NEUTRAL
from spatial_functa_pipeline.config.presets import apply_presets, find_field
from spatial_functa_pipeline.config.recipe import inside, without_effect
from spatial_functa_pipeline.hooks.freshness import FreshnessHooks
from spatial_functa_pipeline.hooks.parameters import LeftOpenHooks, ParameterHooks, settings_by_block
from spatial_functa_pipeline.hooks.preflight import PreflightHooks
from spatial_functa_pipeline.pipeline_registry import all_pipelines
from spatial_functa_pipeline.settings import HOOKS

WITH_IT = ("celebahq64", "cifar10", "imagenet256")
AS_PRINTED = {"recipe": "as_printed"}
CELEBAHQ_VECTORS = ("1x1x64", "1x1x128", *VECTOR_SHAPES)

# What the paper prints, typed from it, whole: a key that is in none of these tables is left open.

EVERYWHERE = {"meta_learning.field.inner_steps": 3}  # App. A
NOT_VECTORS = {"meta_learning.field.kernel_size": 1}  # Sec. 4
OF_CIFAR10 = {  # App. B.1, C
    "functaset.augmented_copies": 50,
    "functaset.augmentation.flip": True,
    "functaset.augmentation.crop_padding": 4,
    "functaset.augmentation.resized_crop": False,
    "functaset.augmentation.randaugment_operations": 0,
    "diffusion.min_snr_gamma": None,
    "evaluation.frechet.features": "inception",
}
OF_CIFAR10_SPATIAL = {  # App. C, C.1; the rest in the tables of test_environments.py
    "classification.architecture": "auto",
    "classification.label_smoothing": 0.1,
    "classification.transformer.heads": 16,
    "classification.training.steps": 100_000,
    "classification.training.weight_decay": 0.1,
    "diffusion.architecture": "auto",
    "diffusion.timesteps": 1000,
    "diffusion.objective": "epsilon",
    "diffusion.normalisation.kind": "vector",
    "diffusion.normalisation.gamma": 2.0,
    "diffusion.unet.channels": 320,
    "diffusion.training.steps": 500_000,
    "diffusion.training.batch_size": 256,
    "diffusion.training.learning_rate": 1e-4,
    "diffusion.training.betas": (0.9, 0.999),
    "evaluation.sampling.sampler": "ddpm",
}
ATTENTION_IS_READABLE = {  # in the text at hand, Tab. 6
    (False, "8x8x16", "nearest"),
    (False, "4x4x64", "linear"),
    (True, "8x8x16", "linear"),
    (True, "4x4x64", "nearest"),
    (True, "4x4x64", "linear"),
}
OF_CIFAR10_VECTORS = {  # App. B.1
    "classification.architecture": "auto",
    "classification.training.steps": 300_000,
    "classification.training.batch_size": 256,
    "classification.training.ema_decay": 0.9999,
    "classification.training.keep": "best",
    "diffusion.architecture": "auto",
    "diffusion.conditional": False,
    "diffusion.normalisation.kind": "array",
    "diffusion.normalisation.gamma": 1.0,
    "diffusion.training.steps": 1_000_000,
    "diffusion.training.batch_size": 128,
    "diffusion.training.learning_rate": 3e-4,
    "diffusion.training.schedule": "inverse_sqrt",
    "diffusion.training.warmup_steps": 4000,
    "evaluation.sampling.sampler": "ddpm",
}
BEST_MLP = {
    "classification.normalisation_scale": 0.01,
    "classification.dropout": 0.2,
    "classification.label_smoothing": 0.1,
    "classification.mlp.width": 1024,
    "classification.mlp.blocks": 3,
    "classification.training.learning_rate": 1e-3,
    "classification.training.weight_decay": 0.1,
}
BEST_TRANSFORMER = {
    "classification.normalisation_scale": 0.1,
    "classification.dropout": 0.1,
    "classification.label_smoothing": 0.1,
    "classification.transformer.width": 256,
    "classification.transformer.ffw_width": 512,
    "classification.transformer.blocks": 2,
    "classification.training.learning_rate": 1e-3,
    "classification.training.weight_decay": 0.1,
}
BEST_MLP_DENOISER = {"diffusion.mlp.width": 4096, "diffusion.mlp.blocks": 2}
OF_IMAGENET = {  # Sec. 5.2, App. C
    "functaset.augmentation.flip": True,
    "functaset.augmentation.crop_padding": 0,
    "functaset.augmentation.resized_crop": True,
    "functaset.augmentation.randaugment_operations": 2,
    "functaset.augmentation.randaugment_magnitude": 5,
    "classification.architecture": "auto",
    "classification.mixup": None,
    "diffusion.conditional": True,
    "diffusion.architecture": "auto",
    "diffusion.timesteps": 1000,
    "diffusion.noise_schedule": "cosine",
    "diffusion.objective": "epsilon",
    "diffusion.min_snr_gamma": None,
    "evaluation.sampling.sampler": "ddpm",
    "evaluation.sampling.samples": 50_000,
    "evaluation.sampling.guidance_scale": 5.0,
    "evaluation.frechet.features": "inception",
}
OF_16X16X128 = {  # App. C.3
    "classification.normalisation_scale": 0.005,
    "classification.dropout": 0.2,
    "classification.label_smoothing": 0.1,
    "classification.transformer.width": 768,
    "classification.transformer.ffw_width": 1536,
    "classification.transformer.blocks": 18,
    "classification.transformer.heads": 16,
    "classification.training.steps": 250_228,  # 200 epochs of 1,281,167 images / 1024
    "classification.training.batch_size": 1024,
    "classification.training.learning_rate": 1e-3,
    "classification.training.weight_decay": 0.2,
}
OF_32X32X64 = {  # App. C.3
    "diffusion.dummy_label_share": 0.2,
    "diffusion.normalisation.kind": "vector",
    "diffusion.normalisation.gamma": 2.5,
    "diffusion.unet.channels": 320,
    "diffusion.unet.multipliers": (1, 2, 2, 2),
    "diffusion.unet.residual_blocks": 2,
    "diffusion.unet.attention_resolutions": (8, 16),
    "diffusion.unet.dropout": 0.0,
    "diffusion.training.steps": 1_500_000,
    "diffusion.training.batch_size": 256,
    "diffusion.training.learning_rate": 1e-4,
}


def printed_of_field(env, shape):
    names = ("field.omega0", "field.width", "field.depth", "field.kernel_size")
    names += ("training.learning_rate", "training.batch_size", "training.steps")
    values = dict(zip(names, (*FIELDS[env, shape][0], *FIELDS[env, shape][1]), strict=True))
    return {f"meta_learning.{name}": value for name, value in values.items() if value is not None}


def printed_in_table_5(shape, interpolation):
    names = ("normalisation_scale", "transformer.width", "transformer.ffw_width", "transformer.blocks")
    names += ("training.learning_rate", "dropout", "training.batch_size")
    return {
        f"classification.{name}": value for name, value in zip(names, CLASSIFIERS[shape, interpolation], strict=True)
    }


def printed_in_table_6(conditional, shape, interpolation):
    schedule, blocks, multipliers, attention, dropout = UNETS[conditional, shape, interpolation]
    unet = {"residual_blocks": blocks, "multipliers": multipliers, "dropout": dropout}
    if (conditional, shape, interpolation) in ATTENTION_IS_READABLE:
        unet["attention_resolutions"] = attention
    return {
        "diffusion.conditional": conditional,
        "diffusion.noise_schedule": schedule,
        **{f"diffusion.unet.{key}": value for key, value in unet.items()},
        **({"diffusion.dummy_label_share": 0.2} if conditional else {}),
        "evaluation.sampling.guidance_scale": 5.0 if conditional else None,
    }


def cifar10_spatial(shape, interpolation, conditional):
    tables = printed_in_table_5(shape, interpolation) | printed_in_table_6(conditional, shape, interpolation)
    printed = EVERYWHERE | NOT_VECTORS | OF_CIFAR10 | OF_CIFAR10_SPATIAL | printed_of_field("cifar10", shape) | tables
    return "cifar10", variant(shape, interpolation, conditional), printed


def cifar10_vector(shape, *of_the_best, **choice):
    field = {key: value for key, value in printed_of_field("cifar10", shape).items() if "kernel" not in key}
    printed = EVERYWHERE | OF_CIFAR10 | OF_CIFAR10_VECTORS | field
    for best in of_the_best:
        printed |= best
    return "cifar10", variant(shape) | choice, printed


def imagenet(shape, *tables, **choice):
    printed = EVERYWHERE | NOT_VECTORS | OF_IMAGENET
    for table in tables:
        printed |= table
    return "imagenet256", variant(shape) | choice, printed


def celebahq(shape):
    field = {"width": 512, "depth": 15, "omega0": 30.0}
    printed = EVERYWHERE | {f"meta_learning.field.{key}": value for key, value in field.items()}
    return "celebahq64", variant(shape), printed | {"meta_learning.training.learning_rate": 3e-6}


FULL = [
    *(cifar10_spatial(*choice, conditional) for choice in CIFAR10_VARIANTS for conditional in (True, False)),
    cifar10_vector("1x1x256", BEST_MLP_DENOISER),
    cifar10_vector(
        "1x1x256",
        BEST_MLP_DENOISER,
        BEST_TRANSFORMER | {"classification.architecture": "transformer"},
        classification={"architecture": "transformer"},
    ),
    cifar10_vector("1x1x512", BEST_MLP),
    cifar10_vector("1x1x1024"),
    ("cifar10", variant("4x4x32"), EVERYWHERE | NOT_VECTORS | OF_CIFAR10),  # no shape of the paper's
    *(imagenet(shape) for shape in IMAGENET_SHAPES if shape not in ("16x16x128", "32x32x64")),
    imagenet("16x16x128", printed_of_field("imagenet256", "16x16x128"), OF_16X16X128),
    imagenet("32x32x64", printed_of_field("imagenet256", "32x32x64"), OF_32X32X64),
    imagenet("32x32x64", OF_32X32X64, meta_learning={"field": {"kernel_size": 1}}),
    ("celebahq64", {}, EVERYWHERE | NOT_VECTORS),
    *map(celebahq, CELEBAHQ_VECTORS),
]


@pytest.fixture(scope="module", params=FULL, ids=lambda row: name_of(*row[:2]))
def case(request):
    """A variant as printed: its parameters, what is left open of them, and what the paper prints."""
    env, choice, printed = request.param
    config = loader(env, choice | AS_PRINTED)
    return config.tree, config.left_open, printed


# The paper prints nothing of these, and nothing is what they do. `null`: off.
OFF = {
    "meta_learning.spectral_penalty.weight": 0,
    **{
        f"meta_learning.learning_rate_factors.{part}": 1
        for part in ("siren", "modulation", "inner_rates", "first_step")
    },
    "meta_learning.jitter.share": 0,
    "meta_learning.seam_penalty.weight": 0,
    "meta_learning.training_inner_steps": None,
    "meta_learning.hidden_optimizer": "adam",
    "meta_learning.learning_rate_factors.hidden": None,
    "meta_learning.field.first_step": "tied",
    "meta_learning.field.kernel_init": "whole",
    "meta_learning.field.initialisation": "random",
    "meta_learning.field.overlap": 0,
    "meta_learning.field.precision": "float32",
    "meta_learning.training.schedule": "constant",
    "meta_learning.training.ema_decay": None,
    "functaset.storage_type": "float32",
    "normalization_stats.rotation": None,
    "classification.mixup": None,
    "classification.drop_path": None,
    "classification.test_time_flips": None,
    **{f"{name}.training.clip_norm": None for name in ("meta_learning", "classification", "diffusion")},
    **{f"{name}.training.guard": None for name in ("meta_learning", "classification", "diffusion")},
    **{f"{name}.training.warmup_steps": 0 for name in ("meta_learning", "classification", "diffusion")},
    **{f"{name}.training.keep": "last" for name in ("meta_learning", "classification", "diffusion")},
    **{f"{name}.training.ema_ramp": False for name in ("meta_learning", "classification", "diffusion")},
    "classification.training.schedule": "constant",
    "classification.training.weight_decay_on": "all",
    "classification.precision": "float32",
    "diffusion.training.schedule": "constant",
    "diffusion.timestep_reweighting": False,
    "evaluation.sampling.guidance_interval": None,
    "evaluation.sampling.clip_denoised": False,
    "functaset.mirror_images": False,
    "diffusion.mirror_images": False,
    "diffusion.augmented_copies": False,
    "evaluation.scores.held_out_in_reference": False,
}


def test_as_printed_has_every_value_that_the_paper_prints(case):
    parameters, _, printed = case
    assert {key: get(parameters, key) for key in printed} == printed


def test_as_printed_has_nothing_of_ours(case):
    parameters, _, printed = case
    off = {key: value for key, value in OFF.items() if key not in printed}
    if parameters.dataset == "celebahq64":  # the paper has no classifier of one class; vectors have B.1's denoiser
        off = {key: value for key, value in off.items() if not key.startswith("classification")}
        if parameters.latent_shape.cells == 1:
            off |= {"diffusion.training.schedule": "inverse_sqrt", "diffusion.training.warmup_steps": 4000}
    assert {key: get(parameters, key) for key in off} == off


def test_what_is_left_open_is_all_that_has_an_effect_and_is_not_printed(case):
    """So a row calls printed exactly what the paper prints."""
    parameters, left_open, printed = case
    tree = leaves(parameters.model_dump(mode="json"))
    named_above = {f"meta_learning.field.{key}" for key in ("latent_shape", "interpolation", "resolution", "channels")}
    settings = {
        key
        for key in tree
        if key.split(".")[0]
        in ("meta_learning", "functaset", "quantisation", "classification", "diffusion", "evaluation")
        and key.split(".")[-1] not in RESULT_NEUTRAL
        and not inside(key, without_effect(parameters))
    }
    assert set(left_open) == settings - named_above - set(printed)
    assert left_open == {key: tree[key] for key in left_open}


@pytest.mark.parametrize("env", [env for env in ENVIRONMENTS if env not in WITH_IT])
def test_a_data_set_without_it_says_so_and_names_those_that_have_it(env):
    with pytest.raises(ClickException) as error:
        ParameterHooks().after_context_created(SimpleNamespace(config_loader=loader(env, AS_PRINTED), project_path="."))
    assert str(error.value) == (
        "Nothing was run: recipe is as_printed, but this data set has no row of presets for it; those that have one: "
        "celebahq64, cifar10, imagenet256"
    )


def test_the_reference_of_scores_holds_no_test_images():
    """As printed, the validation images are the test images."""
    with pytest.raises(ValidationError, match="held_out_in_reference is true, but recipe is as_printed"):
        load("cifar10", {**AS_PRINTED, "evaluation": {"scores": {"held_out_in_reference": True}}})


def test_another_recipe_is_an_error():
    with pytest.raises(ValidationError, match="'ours' or 'as_printed'"):
        load("cifar10", {"recipe": "theirs"})


def lines_of_ours(env):
    """The dotted keys of a data set's parameters that stand in a line, or under a line, with the comment "ours"."""
    text = (CONF / env / "parameters.yml").read_text()
    marked = {number for number, line in enumerate(text.splitlines()) if re.search(r"#.*\bours\b", line)}

    def walk(node, prefix):
        if not isinstance(node, yaml.MappingNode):
            yield prefix, node.start_mark.line
            return
        for key, value in node.value:
            yield from walk(value, f"{prefix}.{key.value}" if prefix else key.value)

    root = yaml.compose(text)
    return {key for key, line in walk(root, "") if line in marked and not key.startswith("presets")}


@pytest.mark.parametrize("env", ["base", *WITH_IT])
def test_a_value_marked_as_ours_is_left_open_or_another_one(env):
    for name in WITH_IT if env == "base" else (env,):
        ours, config = load(name), loader(name, AS_PRINTED)
        tree, left_open = config.tree, config.left_open
        here, there = (leaves(one.model_dump(mode="json")) for one in (ours, tree))
        marked = {key for key in lines_of_ours(env) if not inside(key, {"runtime", *without_effect(tree)})}
        assert len(marked) >= 2
        kept = {key for key in marked if there.get(key) == here[key] and key.split(".")[-1] not in RESULT_NEUTRAL}
        assert kept - set(left_open) == set()


@pytest.mark.parametrize("env", WITH_IT)
def test_no_key_that_is_described_as_ours_is_called_printed(env):
    config = loader(env, AS_PRINTED)
    settings = leaves(config.tree.model_dump(mode="json"))
    ours = {key for key in settings if (find_field(key).description or "").startswith("ours")}
    assert "meta_learning.training.clip_norm" in ours
    idle = without_effect(config.tree)
    assert {key for key in ours if not inside(key, idle)} - set(config.left_open) == set()


def test_a_row_may_call_no_unknown_key_printed():
    row = {"when": {}, "keys": {"diffusion.unet": ["chanels"]}}
    with pytest.raises(ValidationError, match=r"unknown key diffusion\.unet\.chanels"):
        apply_presets({"printed": [row]}, {})


# Images

TRAINED_ON = {"cifar10": 50_000, "imagenet256": 1_281_167, "celebahq64": 27_000}


@pytest.mark.parametrize("env", WITH_IT)
def test_as_printed_holds_no_image_out(env):
    config, parts = loader(env, AS_PRINTED)["catalog"], SPLITS[env][0]
    train, validation, test = (config[f"{name}_images"] for name in ("train", "validation", "test"))
    part = train.get("part", train["filepath"].split("/")[-1])
    assert len(range(parts[part])[slice(*train.get("rows", (None,)))]) == TRAINED_ON[env]
    assert validation == test
    assert train != test


def test_imagenets_classifier_is_trained_for_200_epochs_of_all_images():
    training = load("imagenet256", AS_PRINTED).classification.training
    assert training.steps * training.batch_size / 1_281_167 == pytest.approx(200, abs=1e-3)


# Places


@pytest.mark.parametrize("env", WITH_IT)
def test_every_output_lies_in_one_folder_of_its_own(env):
    ours, printed = loader(env)["catalog"], loader(env, AS_PRINTED)["catalog"]
    for name, entry in ours.items():
        if not name.endswith("_images"):
            *folders, file = entry["filepath"].split("/")
            below = folders.index("checkpoints") if "checkpoints" in folders else len(folders)
            expected = [*folders[:below], "recipe=as_printed", *folders[below:], file]
            assert printed[name]["filepath"] == "/".join(expected)


def test_another_change_is_named_beside_it():
    places = loader("cifar10", AS_PRINTED | {"diffusion": {"normalisation": {"gamma": 3.0}}}).places
    assert places.of("recipe, seed, data, meta_learning").endswith("/8x8x16-nearest/recipe=as_printed")
    assert places.of("recipe, meta_learning, diffusion").endswith(
        "/diffusion.normalisation.gamma=3.0,recipe=as_printed"
    )


def test_a_row_of_the_recipe_given_by_hand_is_named_as_it_is():
    given = {"meta_learning": {"training": {"guard": None}}}
    assert loader("cifar10", given).places.name.endswith("/meta_learning.training.guard=null")
    assert loader("cifar10", given | AS_PRINTED).places.name.endswith("-nearest/recipe=as_printed")


@pytest.mark.parametrize("env", WITH_IT)
def test_no_output_of_one_recipe_counts_as_one_of_the_other(env):
    """Also where somebody copies it into the other's folder: the fingerprints differ."""

    def fingerprints(given):
        config = loader(env, given)
        catalog = DataCatalog.from_config(config["catalog"])
        FreshnessHooks().after_catalog_created(catalog, {"parameters": config["parameters"]})
        outputs = {name: catalog.get(name) for name in all_pipelines().all_outputs()}
        return {name: output.expected.digest for name, output in outputs.items()}

    ours, printed = fingerprints({}), fingerprints(AS_PRINTED)
    assert {name for name in ours if ours[name] == printed[name]} == set()
    assert fingerprints(AS_PRINTED) == printed


# What a run says


def said(caplog, env, given):
    hooks, config = LeftOpenHooks(), loader(env, given)
    hooks.after_context_created(SimpleNamespace(config_loader=config, project_path="."))
    with caplog.at_level(logging.INFO):
        hooks.before_pipeline_run()
    return config, [record.getMessage() for record in caplog.records]


def test_a_run_lists_what_the_paper_leaves_open_and_what_it_takes(caplog):
    config, (block,) = said(caplog, "cifar10", AS_PRINTED | {"seed": 3})
    headline, *lines = block.splitlines()
    assert headline == "The paper leaves these settings open; this run takes"
    assert lines[:-1] == [f"  {line}" for line in settings_by_block(config.left_open)]
    ours = 'first_step="tied", initialisation="random", inner_rate_init=[0.005, 0.1], overlap=0.0, precision="float32"'
    field = f"depth=6, {ours}, width=256"
    assert f"  meta_learning.field: {field}" in lines
    assert lines[-1] == "  given: seed=3"


def test_it_is_listed_before_a_check_can_stop_the_run():
    manager = _create_hook_manager()
    _register_hooks(manager, HOOKS)
    called = [type(one.plugin) for one in reversed(manager.hook.before_pipeline_run.get_hookimpls())]
    assert called.index(LeftOpenHooks) < min(called.index(PreflightHooks), called.index(FreshnessHooks))


def test_our_own_recipe_lists_nothing(caplog):
    assert said(caplog, "cifar10", {})[1] == []


def test_settings_are_a_line_for_each_block():
    flat = {"b.d": 1, "a": None, "b.c": (1, 2), "b.e.f": "x"}
    assert settings_by_block(flat) == ["of all: a=null", "b: c=[1, 2], d=1", 'b.e: f="x"']
