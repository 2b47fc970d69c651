"""What to do about errors that come up in the middle of a run."""

import re

import pytest
from pydantic import BaseModel

from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.datasets.functaset import build_command, what_to_do
from spatial_functa_pipeline.functasets.errors import (
    DamagedShardError,
    IncompleteFunctasetError,
    MissingFunctasetError,
    NonFiniteLatentError,
    NoRoomError,
    OtherImagesError,
    SchemaVersionError,
    StaleFunctasetError,
    WorkersDiedError,
)
from spatial_functa_pipeline.hooks.advice_table import advice_on
from spatial_functa_pipeline.images.images import UnexpectedImagesError
from spatial_functa_pipeline.metrics.features import InceptionDownloadError
from spatial_functa_pipeline.pipeline_registry import register_pipelines

ERRORS = {
    DamagedShardError("f.zarr", "validation", 3, "labels/c/3", "is lost or truncated"): (
        "kedro run --nodes=build_validation_functaset --params runtime.replace_stale=false "
        "(and the --env and --params that it was built with)"
    ),
    DamagedShardError("s.zarr", "samples", 0, "labels/c/0", "is lost or truncated"): "kedro run --nodes=sample_latents",
    DamagedShardError("f.zarr", "test", 3, "labels/c/3", "is lost or truncated", quantised=True): (
        "kedro run --nodes=quantise_test_functaset --params runtime.replace_stale=false"
    ),
    NoRoomError(28, "f.zarr", 3, 7, "No space left"): "make room, and run the same command again",
    WorkersDiedError("they died"): "runtime.workers",
    NonFiniteLatentError("test", 6, "float32"): (
        "has diverged for this image, look at the field's training curve, and train it with a lower "
        "meta_learning.training.learning_rate"
    ),
    NonFiniteLatentError("train", 6, "float16"): "--params functaset.storage_type=float32",
    NonFiniteLatentError("samples", 6, "float32"): "a lower diffusion.training.learning_rate",
    OtherImagesError("f.zarr", "train", 6): (
        "kedro run --nodes=build_train_functaset,quantise_train_functaset, with the --env and --params of this run"
    ),
    UnexpectedImagesError({"resolution": ((8, 8), (4, 4)), "channels": (1, 3)}): "data.resolution, data.channels",
    InceptionDownloadError("no network"): "evaluation.frechet.inception_weights",
}


@pytest.mark.parametrize(("error", "expected"), ERRORS.items(), ids=lambda value: type(value).__name__)
def test_each_error_has_its_advice(error, expected):
    assert expected in advice_on(error)


def test_a_functasets_command_names_a_node_that_makes_it():
    nodes = {node.name: node for node in register_pipelines()["__default__"].nodes}
    expected = {"samples": {False: "samples"}}
    for split in ("train", "validation", "test"):
        expected[split] = {False: f"encoded_{split}_functaset", True: f"{split}_functaset"}
    for split, outputs in expected.items():
        for quantised, output in outputs.items():
            name = build_command(split, quantised).removeprefix("kedro run --nodes=")
            assert nodes[name].outputs == [output]


def exists(path):
    """Whether there is a parameter `a.b.c`."""
    block = PipelineParameters
    for name in path.split("."):
        if not (isinstance(block, type) and issubclass(block, BaseModel)) or name not in block.model_fields:
            return False
        block = block.model_fields[name].annotation
    return True


def test_the_parameters_and_pipelines_named_in_advice_exist():
    of_datasets = [
        MissingFunctasetError("f"),
        IncompleteFunctasetError("f", "train"),
        SchemaVersionError("f", 1, 2),
        StaleFunctasetError("f", "rows"),
    ]
    texts = [advice_on(error) for error in ERRORS] + [what_to_do(error) for error in of_datasets]
    found = {path for text in texts for path in re.findall(r"\b(?:[a-z_]+\.)+[a-z_]+\b", text)}
    assert len(found) >= 6
    assert [path for path in sorted(found) if not exists(path)] == []
    pipelines = {name for text in texts for name in re.findall(r"--pipeline=(\w+)", text)}
    assert pipelines
    assert pipelines <= set(register_pipelines())
