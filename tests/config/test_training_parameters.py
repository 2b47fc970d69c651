"""What a user reads when the parameters of the processes or of the guard do not fit together."""

import copy
from pathlib import Path

import pytest
from pydantic import ValidationError

from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.config.training import TrainingConfig
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def sample():
    return CONFIG_LOADER_CLASS(str(CONF), env="sample", **CONFIG_LOADER_ARGS)["parameters"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"machines": 2}, r"machines is 2: set rendezvous to host:port"),
        ({"rendezvous": "node1:29500"}, r"rendezvous is node1:29500, but machines is 1"),
        ({"machines": 2, "rendezvous": "node1"}, r"rendezvous\n.*should match pattern"),
        ({"processes": 2, "device": "cuda:1"}, r"device cuda:1 is one device, but there are 2 processes"),
        ({"processes": 2, "device": "mps"}, r"device mps is one device"),
        ({"processes": 0}, r"greater than 0"),
    ],
)
def test_processes_that_cannot_be(changes, message):
    with pytest.raises(ValidationError, match=message):
        RuntimeConfig(**changes)


@pytest.mark.parametrize(("read", "meant"), [(True, "on"), (False, "off"), ("auto", "auto"), ("off", "off")])
def test_on_and_off_may_be_written_as_yaml_has_them(read, meant):
    assert RuntimeConfig(compile=read).compile == meant


def test_all_machines_processes_are_counted():
    assert RuntimeConfig(processes=4, machines=2, rendezvous="node1:29500").ranks == 8


@pytest.mark.parametrize("name", ["meta_learning", "classification", "diffusion"])
def test_every_batch_must_be_divisible_by_the_number_of_processes(sample, name):
    parameters = copy.deepcopy(sample)
    parameters["runtime"]["processes"] = 4
    PipelineParameters.model_validate(parameters)
    parameters[name]["training"]["batch_size"] = 10
    with pytest.raises(ValidationError, match=rf"{name}\.training\.batch_size \(10\) must be divisible by .* = 4"):
        PipelineParameters.model_validate(parameters)


@pytest.mark.parametrize("name", ["diffusion.training", "evaluation.frechet.feature_network"])
def test_a_margin_needs_a_metric_of_which_the_best_is_kept(sample, name):
    parameters = copy.deepcopy(sample)
    block = parameters
    for part in name.split("."):
        block = block[part]
    block["guard"] = {"margin": 1.0}
    with pytest.raises(ValidationError, match=rf"{name}\.guard\.margin is 1\.0, but .* set it to null"):
        PipelineParameters.model_validate(parameters)


def test_the_feature_network_sees_whole_batches(sample):
    """Its batch normalisation would give other weights for other micro-batches, which are said to change no result."""
    parameters = copy.deepcopy(sample)
    parameters["evaluation"]["frechet"]["feature_network"]["micro_batch"] = 8
    with pytest.raises(ValidationError, match=r"feature_network\.micro_batch is 8, but .* set it to auto"):
        PipelineParameters.model_validate(parameters)


@pytest.mark.parametrize("name", ["diffusion.training", "evaluation.frechet.feature_network"])
def test_the_best_weights_need_a_metric_to_be_best_in(sample, name):
    parameters = copy.deepcopy(sample)
    block = parameters
    for part in name.split("."):
        block = block[part]
    block["keep"] = "best"
    with pytest.raises(ValidationError, match=rf"{name}\.keep is best, but .* set it to last"):
        PipelineParameters.model_validate(parameters)


@pytest.mark.parametrize("name", ["meta_learning", "classification"])
def test_field_and_classifier_keep_the_best_weights(sample, name):
    assert sample[name]["training"]["keep"] == "best"


def test_every_environment_guards_its_field():
    for path in CONF.iterdir():
        if not path.is_dir() or path.name == "base":
            continue
        loaded = CONFIG_LOADER_CLASS(str(CONF), env=path.name, **CONFIG_LOADER_ARGS)["parameters"]
        assert PipelineParameters.model_validate(loaded).meta_learning.training.guard.margin == 1.0


def test_a_guard_lowers_the_learning_rate():
    with pytest.raises(ValidationError, match="less than 1"):
        TrainingConfig(steps=1, batch_size=1, learning_rate=1, guard={"learning_rate_factor": 1.0})
