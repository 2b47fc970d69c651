"""A node's parameters are logged in one call, since each writes to disk, and those that a run has logged are not again."""

import mlflow
import pytest
from kedro.io import DataCatalog
from kedro.pipeline.node import node
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

from spatial_functa_pipeline.hooks.mlflow import MlflowHooks

FIRST = {"params:seed": 0, "params:diffusion": {"unet": {"channels": 32}, "dropout": None}}
SECOND = {"params:seed": 0, "params:runtime": {"device": "cpu"}}


@pytest.fixture
def calls(monkeypatch):
    """What is logged by each call."""
    made = []
    monkeypatch.setattr(mlflow, "log_params", made.append)
    monkeypatch.setattr(mlflow, "log_param", lambda name, value: made.append({name: value}))
    return made


@pytest.fixture
def hooks():
    """Those of a run, as mlflow.yml sets them up."""
    made = MlflowHooks()
    made.run_id, made._is_mlflow_enabled = None, True
    made.flatten, made.recursive, made.sep, made.long_params_strategy = True, True, ".", "truncate"
    made.after_catalog_created(DataCatalog())
    return made


def begin(hooks, inputs):
    """A node that is given `inputs`."""
    hooks.before_node_run(
        node=node(lambda *_: None, [*inputs], None), catalog=DataCatalog(), inputs=inputs, is_async=False
    )


def test_each_node_logs_in_one_call_what_no_node_before_it_has_logged(hooks, calls):
    for inputs in (FIRST, SECOND, FIRST):
        begin(hooks, inputs)
    assert calls == [
        {"seed": 0, "diffusion.unet.channels": 32, "diffusion.dropout": None},
        {"runtime.device": "cpu"},
    ]


def test_the_next_run_of_a_session_logs_all_again(hooks, calls):
    begin(hooks, SECOND)
    hooks.after_catalog_created(DataCatalog())
    begin(hooks, SECOND)
    assert calls == [{"seed": 0, "runtime.device": "cpu"}] * 2


def test_a_value_that_is_too_long_for_mlflow_is_cut(hooks, calls):
    begin(hooks, {"params:seed": 0, "params:long": "x" * (MAX_PARAM_VAL_LENGTH + 1)})
    assert calls == [{"long": "x" * MAX_PARAM_VAL_LENGTH}, {"seed": 0}]
