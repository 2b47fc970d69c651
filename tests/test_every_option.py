"""Every option acts: each key of the parameters changes the outputs that `option_table` says, and no others.

A key is set to another value, and the nodes that are given it run on the inputs that they had. The nodes that are not
cannot change but by their inputs, which the flow's graph says. What differs is compared with the table, values bit for
bit; keys that change no result may do so by rounding.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import logging
import textwrap
from collections.abc import Callable
from functools import cache
from types import CodeType
from typing import Any

import numpy as np
import pytest
import torch
from kedro_project import ROOT
from option_table import BASE, CLASSIFIER, DENOISER, OF_CHANNELS, OPTIONS, Row
from pydantic import ValidationError
from tiny_flow import TinyFlow, difference, parameters

from spatial_functa_pipeline.config.block import RESULT_NEUTRAL
from spatial_functa_pipeline.config.meta_learning import FieldConfig
from spatial_functa_pipeline.config.places import flatten
from spatial_functa_pipeline.config.presets import block_in
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.config_loader import ProjectConfigLoader
from spatial_functa_pipeline.functasets.encoding import plan_functaset
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.models.weights import Weights
from spatial_functa_pipeline.pipelines.diffusion.nodes import train_latent_denoiser
from spatial_functa_pipeline.pipelines.functaset_build.nodes import _plan as build_plan
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS
from spatial_functa_pipeline.training.classifier import train_classifier

ROUNDING = 1e-3
"""How far values may differ for a key that changes no result, see `difference`. Dropout that depends on how a batch is
split makes 2e-2, a learning rate that is a tenth higher 2e-3 to 7e-3, rounding at most 3e-4 (in 4 steps of Adam)."""
WHERE_TO_RUN = "runtime."
"""Parameters that are no options of a result; tests/test_compute.py and others look at them."""


def rows_of(key: str) -> list[Row]:
    rows = OPTIONS[key]
    return rows if isinstance(rows, list) else [rows]


def is_neutral(key: str) -> bool:
    return key.split(".")[-1] in RESULT_NEUTRAL


def keys_of(block, prefix=""):
    """All keys of a block and of those in it; a block that may be null is itself a key."""
    for name, field in block.model_fields.items():
        inner, optional = block_in(field.annotation), type(None) in getattr(field.annotation, "__args__", ())
        if inner is None or optional:
            yield f"{prefix}{name}"
        if inner:
            yield from keys_of(inner, f"{prefix}{name}.")


def images(count: int, seed: int) -> Images:
    """Grey 8×8 pictures of two classes, stripes of any direction that are light or dark."""
    generator = np.random.default_rng(seed)
    angle, phase = generator.uniform(0, 2 * np.pi, (2, count, 1, 1))
    labels = generator.permutation(np.arange(count) % 2)
    row, column = np.mgrid[:8, :8] / 8
    pixels = 127 + 60 * np.sin(5 * (np.cos(angle) * row + np.sin(angle) * column) + phase)
    pixels += 40 * (labels[:, None, None] - 0.5)
    return Images.from_array(pixels[..., None].astype(np.uint8), labels, ("dark", "light"))


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    sets = {"train_images": images(24, 0), "validation_images": images(32, 1), "test_images": images(12, 2)}
    return TinyFlow(tmp_path_factory.mktemp("flow"), sets)


class StandInForInception:
    """Features that depend on the images and on which file of weights was asked for: the real network takes minutes."""

    name, width = "inception", 16

    def __init__(self, weights, device):
        self.weights_sha256 = hashlib.sha256(str(weights).encode()).hexdigest()
        self.generator_seed = int(self.weights_sha256[:8], 16)

    def __call__(self, images):
        pixels = images.flatten(1).float()
        pixels = pixels / 255 if images.dtype == torch.uint8 else pixels
        generator = torch.Generator().manual_seed(self.generator_seed)
        return pixels @ torch.randn((pixels.shape[1], self.width), generator=generator)


@pytest.fixture(autouse=True)
def everything_is_there(monkeypatch):
    """What a machine may lack: the weights of Inception, and products in bfloat16 that are no slower."""
    for module in ("features", "generation"):
        monkeypatch.setattr(f"spatial_functa_pipeline.evaluation.{module}.InceptionFeatures", StandInForInception)
    monkeypatch.setattr(logging.getLogger("kedro.pipeline.node"), "disabled", True)
    monkeypatch.setattr("spatial_functa_pipeline.compute.has_bf16_products", lambda device: True)


def changed_keys(tree: PipelineParameters, other: PipelineParameters) -> frozenset[str]:
    flat, others = (dict(flatten(each.model_dump(mode="json"))) for each in (tree, other))
    return frozenset(key for key in {*flat, *others} if flat.get(key, ...) != others.get(key, ...))


def what_changes(flow: TinyFlow, key: str, row: Row, *, anew: bool = False) -> set[str]:
    """The outputs that differ, as `Row.changes` names them; `anew`: none that was made before is looked at."""
    before = parameters(BASE, row.given)
    try:
        after = parameters(BASE, row.given, {key: row.value})
    except ValidationError:
        return {"parameters: ValidationError"}
    keys = changed_keys(before, after)
    assert any(f"{changed}.".startswith(f"{key}.") for changed in keys), f"{key} is {row.value} already"
    found: set[str] = set()
    for node in flow.takers(keys):
        outputs = flow.run(node, before, before) if anew else flow.outputs(node, before)
        try:
            others = flow.run(node, after, before)
        except Exception as error:
            found.add(f"{node.name}: {type(error).__name__}")
        else:
            found |= differing(outputs, others, ROUNDING if is_neutral(key) else 0.0)
    return found


def differing(outputs, others, tolerance=0.0) -> set[str]:
    """Names of the outputs of one node, from two runs of it, that differ, and in what."""
    aspects = {name: difference(output, others[name], tolerance) for name, output in outputs.items()}
    return {name if aspect == "values" else f"{name} ({aspect})" for name, aspect in aspects.items() if aspect}


CASES = [(key, row) for key in OPTIONS for row in rows_of(key)]


def names(cases):
    return [f"{key}={row.value}" for key, row, *_ in cases]


@pytest.mark.slow
@pytest.mark.parametrize(("key", "row"), CASES, ids=names(CASES))
def test_an_option_changes_what_it_should_and_nothing_else(flow, key, row):
    found = what_changes(flow, key, row)
    unexpected, missing = sorted(found - row.changes), sorted(row.changes - found)
    assert (unexpected, missing) == ([], [])


USED = [(key, row) for key, row in CASES if row.in_use is not None]


@pytest.mark.slow
@pytest.mark.parametrize(("key", "row"), USED, ids=names(USED))
def test_weights_are_used_as_their_configuration_says(flow, key, row):
    """The same numbers, saved with the other value: the option is not for the training alone, or is for it alone."""
    before, after = parameters(BASE, row.given), parameters(BASE, row.given, {key: row.value})
    found = set()
    for node in flow.takers(changed_keys(before, after)):
        (name, weights), *_ = flow.outputs(node, before).items()
        other = Weights(weights.tensors, flow.run(node, after, before)[name].config)
        names = {name, "encoder"} if name == before.encoder else {name}
        for user in flow.nodes:
            taken = dict.fromkeys(names & set(user.inputs), other)
            if taken and user.outputs != ["encoder"]:  # which hands it on as it is
                found |= differing(flow.outputs(user, before), flow.run(user, before, before, **taken))
    assert found == row.in_use


@pytest.mark.slow
@pytest.mark.parametrize("rotation", ["within_cells", "whole"])
def test_a_rotation_reaches_all_that_read_the_statistics(flow, rotation):
    before, after = parameters(BASE), parameters(BASE, {"normalization_stats.rotation": rotation})
    (maker,) = (node for node in flow.nodes if "latent_statistics" in node.outputs)
    statistics = flow.run(maker, after, before)["latent_statistics"]
    found: set[str] = set()
    for node in flow.nodes:
        if "latent_statistics" in node.inputs:
            others = flow.run(node, before, before, latent_statistics=statistics)
            found |= differing(flow.outputs(node, before), others)
            for name in {"classifier", "denoiser"} & set(others):
                assert torch.equal(others[name].tensors["normaliser.rotation"], statistics.tensors["rotation"])
    of_latents = {"latent_channels", "latent_metrics", "latent_distribution", "latent_histograms"}
    of_cells = {"perturbation_profile"} if rotation == "whole" else set()  # whose effect stays where it is
    assert found == CLASSIFIER | DENOISER | OF_CHANNELS | of_latents | of_cells | {"reference_features"}


def test_every_key_has_a_row_and_every_row_a_key():
    keys = {key for key in keys_of(PipelineParameters) if not key.startswith(WHERE_TO_RUN)}
    assert (keys - set(OPTIONS), set(OPTIONS) - keys) == (set(), set())


def test_every_key_acts_unless_it_is_declared_to_change_no_result():
    for key in OPTIONS:
        changed = set().union(*(row.changes for row in rows_of(key)))
        if is_neutral(key):
            results = {name for name in changed if ": " not in name} - HISTORIES  # an error makes no result
            assert not results, key
        else:
            assert changed or key in {*NAMES_THE_PLACE, "recipe"}, key


HISTORIES = {f"{model}_history" for model in ("field", "autoencoder", "classifier", "denoiser", "feature_network")}
NAMES_THE_PLACE = {"dataset", "data_path", "latent_shape", "interpolation"}
ENVIRONMENTS = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir() and path.name != "base")


@cache
def places(env, *given):
    catalog = ProjectConfigLoader(str(ROOT / "conf"), env, dict(given), **CONFIG_LOADER_ARGS)["catalog"]
    return {name: entry["filepath"] for name, entry in catalog.items() if not name.startswith("_")}


@pytest.mark.parametrize("key", sorted(NAMES_THE_PLACE))
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_an_option_that_names_a_place_does_so_in_every_environment(env, key):
    value = {**BASE, "latent_shape": "4x4x4", "interpolation": "linear"}[key]
    before, after = places(env), places(env, (key, value))
    images = {f"{split}_images" for split in ("train", "validation", "test")}
    of_images = images | {name for name in before if "/images/" in before[name]}
    expected = {"dataset": set(before) - images, "data_path": images}.get(key, set(before) - of_images)
    assert {name for name in before if before[name] != after[name]} == expected


# Options that do nothing: what such a table is for.


def mutated(function: Callable[..., Any], old: str, new: str) -> CodeType:
    """The code of a function in whose text `old` stands once, with `new` in its place."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{old} is not in {function.__name__}"
    tree = ast.parse(source.replace(old, new))
    tree.body[0].decorator_list = []
    found = dict(function.__globals__)
    exec(compile(tree, inspect.getsourcefile(function), "exec"), found)
    return found[function.__name__].__code__


SPEC = "in fields(FieldSpec)}"
MUTANTS = [  # a key, the function that hands it on, and what stands in the place of it
    ("diffusion.normalisation.gamma", train_latent_denoiser, "config.normalisation.gamma", "1.0"),
    ("classification.label_smoothing", train_classifier, "=config.label_smoothing", "=0.0"),
    ("meta_learning.field.omega0", FieldConfig.spec.fget, SPEC, f"{SPEC} | {{'omega0': 10.0}}"),
    ("functaset.augmented_copies", build_plan, "=config.augmented_copies", "=min(1, config.augmented_copies)"),
    ("functaset.storage_type", plan_functaset, "=config.storage_type", "='float32'"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("key", "function", "old", "new"), MUTANTS, ids=[key for key, *_ in MUTANTS])
def test_an_option_that_is_not_heeded_is_noticed(flow, monkeypatch, key, function, old, new):
    row = rows_of(key)[0]
    assert what_changes(flow, key, row) == row.changes
    monkeypatch.setattr(inspect.unwrap(function), "__code__", mutated(inspect.unwrap(function), old, new))
    found = what_changes(flow, key, row, anew=True)
    assert {name for name in found if not name.endswith("(words)")} == set()
