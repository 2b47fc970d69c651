"""The advice after an error: it reaches the user, and what it names is there."""

import re
from pathlib import Path

import pytest
from kedro.io import DatasetError
from pydantic import BaseModel

from spatial_functa_pipeline import training
from spatial_functa_pipeline.compute import DeviceError
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.datasets.functaset import what_to_do
from spatial_functa_pipeline.fields import NativeEngineMemoryError
from spatial_functa_pipeline.functasets.errors import OtherImagesError, SchemaVersionError
from spatial_functa_pipeline.hooks.advice import AdviceHooks
from spatial_functa_pipeline.hooks.advice_table import ADVICE, BLOCK_OF_TRAINING, advice_on
from spatial_functa_pipeline.metrics.features import InceptionDownloadError
from spatial_functa_pipeline.settings import HOOKS
from spatial_functa_pipeline.training import TrainingDivergedError


def wrapped(error):
    """As Kedro wraps the errors of data sets."""
    try:
        raise DatasetError("Failed while saving data to dataset") from error
    except DatasetError as outer:
        return outer


def parameters_named_in(text):
    return re.findall(r"\b(?:meta_learning|functaset|classification|diffusion|evaluation|runtime)(?:\.\w+)+", text)


def is_a_parameter(path):
    block = PipelineParameters
    for name in path.split("."):
        kinds = [block, *getattr(block, "__args__", ())]  # `GuardConfig | None`
        blocks = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not blocks or name not in blocks[0].model_fields:
            return False
        block = blocks[0].model_fields[name].annotation
    return True


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped, lambda error: wrapped(wrapped(error))])
def test_the_advice_is_a_note_of_the_error_whatever_that_is_wrapped_in(wrap):
    error = wrap(DeviceError("no"))
    AdviceHooks().on_pipeline_error(error)
    assert error.__notes__ == [ADVICE[DeviceError]]


def test_a_subclass_has_the_advice_of_its_class():
    class SpecialDeviceError(DeviceError):
        pass

    assert advice_on(SpecialDeviceError("no")) == ADVICE[DeviceError]


def test_too_little_memory_for_the_engine_names_what_takes_less():
    advice = advice_on(wrapped(NativeEngineMemoryError("no")))
    assert {"meta_learning.training.micro_batch", "functaset.encode_batch"} <= {*parameters_named_in(advice)}


def test_an_error_that_nobody_knows_is_left_alone():
    error = wrapped(ValueError("no"))
    AdviceHooks().on_pipeline_error(error)
    assert not hasattr(error, "__notes__")


def test_kedro_calls_it():
    assert any(isinstance(hook, AdviceHooks) for hook in HOOKS)


def test_every_training_has_its_block():
    """By the name that the training gives itself."""
    sources = Path(training.__file__).parent.glob("*.py")
    names = {name for source in sources for name in re.findall(r'^        name="(\w+)",$', source.read_text(), re.M)}
    assert names == set(BLOCK_OF_TRAINING)


def test_no_advice_on_a_failed_check_is_a_command_that_drops_the_parameters_of_the_run():
    for error in (DeviceError("no"), InceptionDownloadError("no")):
        assert "kedro run" not in advice_on(error)
        assert "added to its --params" in advice_on(error)
    for advice in (advice_on(OtherImagesError("x", "train", 3)), what_to_do(SchemaVersionError("x", 0, 1))):
        assert "with the --env and --params of this run and runtime.replace_stale=true" in advice


def test_all_parameters_that_the_advice_names_are_there():
    texts = [advice for advice in ADVICE.values() if isinstance(advice, str)]
    texts += [advice_on(TrainingDivergedError(name, "nan")) for name in BLOCK_OF_TRAINING]
    for text in texts:
        assert all(map(is_a_parameter, parameters_named_in(text))), text
    assert len({name for text in texts for name in parameters_named_in(text)}) >= 8
    assert not is_a_parameter("runtime.gpu")
