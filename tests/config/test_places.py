"""Folders are named by what was changed and what an output depends on."""

import copy
from pathlib import Path

import pytest
from kedro.pipeline import Pipeline

from spatial_functa_pipeline.config.block import RESULT_NEUTRAL
from spatial_functa_pipeline.config.places import Change, Places, flatten, nest
from spatial_functa_pipeline.config_loader import ProjectConfigLoader
from spatial_functa_pipeline.hooks.report import REPORT
from spatial_functa_pipeline.pipeline_registry import all_pipelines
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS

CONF = Path(__file__).parents[2] / "conf"
FIELD = "seed, data, meta_learning"
DENOISER = f"{FIELD}, functaset, diffusion"


def places(given, env="test"):
    return ProjectConfigLoader(str(CONF), env, nest(given), **CONFIG_LOADER_ARGS).places


def test_nothing_changed_names_nothing():
    found = places({})
    assert found.of(FIELD) == found.of(DENOISER) == "test_run/4x4x8-nearest"
    assert found.of("seed", "evaluation.frechet") == "test_run/images"
    assert found.name == "test_run/4x4x8-nearest"


def test_a_change_names_what_depends_on_it():
    found = places({"diffusion.normalisation.gamma": 2.5})
    assert found.of(FIELD) == "test_run/4x4x8-nearest"
    assert found.of(DENOISER) == "test_run/4x4x8-nearest/diffusion.normalisation.gamma=2.5"
    assert found.name == "test_run/4x4x8-nearest/diffusion.normalisation.gamma=2.5"
    assert found.folders[found.of(DENOISER)] == {"diffusion.normalisation.gamma": 2.5}


def test_data_set_shape_and_interpolation_are_the_folders_above():
    found = places({"dataset": "mine", "latent_shape": "8x8x4", "interpolation": "linear", "seed": 1})
    assert found.of(FIELD) == "mine/8x8x4-linear/seed=1"
    assert found.of("seed, evaluation.frechet") == "mine/images/seed=1"
    assert found.of("evaluation.frechet") == "mine/images"


@pytest.mark.parametrize(
    "given",
    [
        {"diffusion.normalisation.gamma": 1},  # as it is, in another type
        {"meta_learning.field.kernel_size": 1},  # the default, which no file names
        {"evaluation.sampling.steps": 10},
        {"seed": 0},
        {"runtime.compile": "off", "runtime.device": "cpu"},
        {"diffusion.training.log_every": 7, "diffusion.training.guard.retries": 1, "functaset.encode_batch": 4},
        {"data_path": "/elsewhere"},
        {"data.num_classes": None},  # is only compared with the images'
    ],
)
def test_what_changes_no_result_names_nothing(given):
    assert places(given).of(DENOISER, "evaluation") == "test_run/4x4x8-nearest"


def test_several_changes_are_in_alphabetical_order_and_each_output_has_its_own():
    found = places({"seed": 1, "diffusion.training.steps": 30, "classification.dropout": 0.2})
    assert found.of(DENOISER) == "test_run/4x4x8-nearest/diffusion.training.steps=30,seed=1"
    assert found.of(FIELD) == "test_run/4x4x8-nearest/seed=1"


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"diffusion.unet.multipliers": [1, 1]}, "diffusion.unet.multipliers=1x1"),
        ({"diffusion.min_snr_gamma": 5.0}, "diffusion.min_snr_gamma=5.0"),
        ({"diffusion.timestep_reweighting": True}, "diffusion.timestep_reweighting=true"),
        ({"diffusion.training.guard": None}, "diffusion.training.guard=null"),
        ({"diffusion.training.learning_rate": 1e-5}, "diffusion.training.learning_rate=1e-05"),
    ],
)  # fmt: skip
def test_values_are_readable(given, part):
    assert places(given).of(DENOISER) == f"test_run/4x4x8-nearest/{part}"


def test_no_value_leaves_its_folder_or_is_taken_for_another():
    names = {
        str(Change("a", value, frozenset())) for value in ("../b", "..-b", "a b", "a/b", "a-b", "a=b", "a,b", "", " ")
    }
    assert len(names) == 9
    assert not [name for name in names if set(name) & set("/, ")]


def test_a_long_name_ends_in_a_digest_and_stays_its_own():
    keys = [
        f"diffusion.training.{key}" for key in ("steps", "batch_size", "learning_rate", "warmup_steps", "ema_decay")
    ]
    found = [places(dict(zip(keys, (50, 32, 0.5, steps, 0.5), strict=True))) for steps in (1, 2)]
    folders = [one.of(DENOISER).split("/")[-1] for one in found]
    assert len(set(folders)) == 2
    assert all(len(folder) <= 120 for folder in folders)
    assert all(
        folder.startswith("diffusion.training.batch_size=32,diffusion.training.ema_decay=0.5") for folder in folders
    )
    assert set(found[0].folders[found[0].of(DENOISER)]) == set(keys)


def test_what_a_preset_changes_along_is_named_by_what_was_given():
    """One parameter chooses another row, which sets parameters of another block."""

    def load(given):
        tree = copy.deepcopy(BASE)
        tree["diffusion"]["conditional"] = given.get("diffusion", {}).get("conditional", True)
        tree["evaluation"]["sampling"]["guidance_scale"] = 2.0 if tree["diffusion"]["conditional"] else None
        tree["seed"] = given.get("seed", 0)
        return tree

    BASE = ProjectConfigLoader(str(CONF), "test", **CONFIG_LOADER_ARGS)["parameters"]
    found = Places.of_run(load, {"diffusion": {"conditional": False}, "seed": 3})
    assert found.of("evaluation.sampling, meta_learning").endswith("/diffusion.conditional=false")
    assert found.of("evaluation.scores, meta_learning") == "test_run/4x4x8-nearest"
    assert found.of("seed, evaluation.sampling, meta_learning").endswith("/diffusion.conditional=false,seed=3")


CONDITIONAL, DROPOUT = "diffusion.conditional", "diffusion.unet.dropout"
PRESET, STEPS, SAMPLER = (f"evaluation.sampling.{name}" for name in ("preset", "steps", "sampler"))


@pytest.mark.parametrize(
    ("env", "given", "part"),
    [
        # cifar10's row of unconditional models has a dropout of 0.4, the conditional one 0.1
        ("cifar10", {CONDITIONAL: False}, "diffusion.conditional=false"),
        ("cifar10", {CONDITIONAL: False, DROPOUT: 0.4}, "diffusion.conditional=false"),
        ("cifar10", {CONDITIONAL: False, DROPOUT: 0.1}, "diffusion.conditional=false,diffusion.unet.dropout=0.1"),
        ("cifar10", {CONDITIONAL: False, "evaluation.sampling.guidance_scale": None}, "diffusion.conditional=false"),
        ("cifar10", {PRESET: "fast"}, "evaluation.sampling.preset=fast"),
        ("cifar10", {PRESET: "fast", STEPS: 1000}, "evaluation.sampling.preset=fast,evaluation.sampling.steps=1000"),
        (
            "cifar10",
            {PRESET: "fast", SAMPLER: "ddpm"},
            "evaluation.sampling.preset=fast,evaluation.sampling.sampler=ddpm",
        ),
        ("cifar10", {PRESET: "fast", STEPS: 12, SAMPLER: "dpm_solver"}, "evaluation.sampling.preset=fast"),
        ("cifar10", {PRESET: "paper", STEPS: 1000}, ""),
        (
            "sample",
            {"diffusion.training.guard": None, "diffusion.training.steps": 1200},
            "diffusion.training.guard=null",
        ),
    ],
)
def test_two_runs_have_one_folder_exactly_if_their_parameters_are_the_same(env, given, part):
    found = places(given, env)
    assert found.of(DENOISER, "evaluation.sampling") == "/".join(filter(None, [found.dataset, found.variant, part]))


def test_without_what_is_given_a_data_set_may_be_wrong():
    tokens = {"classification.transformer.vector_tokens": 20, "classification.architecture": "transformer"}
    found = places({"latent_shape": "1x1x500", **tokens})
    assert found.of(FIELD) == "test_run/1x1x500-nearest"
    assert found.of("meta_learning, classification").endswith(
        "/classification.architecture=transformer,classification.transformer.vector_tokens=20"
    )


def test_trees_and_keys():
    tree = {"a": {"b": 1, "c": {}}, "d": [1]}
    assert dict(flatten(tree)) == {"a.b": 1, "a.c": {}, "d": [1]}
    assert nest(dict(flatten(tree))) == tree


def test_the_catalog_names_exactly_the_blocks_that_the_flow_depends_on(monkeypatch):
    """`${place:…}` of every output against the parameters of its node and of all nodes before it."""
    asked = {}

    class Recorder:
        def of(self, *blocks):
            names = frozenset(block.strip() for argument in blocks for block in argument.split(","))
            folder = f"place{len(asked)}"
            asked[folder] = names
            return folder

    loader = ProjectConfigLoader(str(CONF), "test", **CONFIG_LOADER_ARGS)
    monkeypatch.setattr(ProjectConfigLoader, "places", Recorder())
    named = {}
    for name, entry in loader["catalog"].items():
        for part in entry["filepath"].split("/"):
            if part in asked:
                named[name] = smallest(asked[part])
    flow = all_pipelines()
    outputs = set(flow.all_outputs()) | {name for name in flow.inputs() if name.endswith("_checkpoint")} | {REPORT}
    assert set(named) == outputs
    different = {
        name: (sorted(named[name]), sorted(depends_on(flow, name)))
        for name in outputs
        if named[name] != depends_on(flow, name)
    }
    assert different == {}


def smallest(blocks):
    """Without those that are inside of others."""
    return {block for block in blocks if not any(block.startswith(f"{other}.") for other in blocks)}


def depends_on(flow: Pipeline, output: str) -> set[str]:
    if output.endswith("_checkpoint"):
        (node,) = [node for node in flow.nodes if output in node.inputs]
        output = node.outputs[0]
    before = flow if output == REPORT else flow.to_outputs(output)  # it shows what there is of all
    names = {
        name.removeprefix("params:") for node in before.nodes for name in node.inputs if name.startswith("params:")
    }
    names -= {"runtime", "dataset"}
    names |= {"recipe"}  # it chooses the images that are trained on
    return smallest({name for name in names if name.split(".")[-1] not in RESULT_NEUTRAL})
