"""What MLflow is told: names of metrics, how an experiment is shown, data sets and models."""

import json
from pathlib import Path

import mlflow
import pytest

from spatial_functa_pipeline.tracking import (
    SECTIONS,
    log_data_set,
    log_model,
    metric_key,
    mlflow_report,
    newest_runs_page,
    prepare_experiment,
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A store of its own, which takes seconds to make."""
    before, folder = mlflow.get_tracking_uri(), tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_experiment("made")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


def columns_of(experiment):
    view = json.loads(experiment.tags["mlflow.sharedViewState.results"])
    assert (view["name"], type(view["createdAt"])) == ("results", int)
    return json.loads(view["state"])["selectedColumns"]


def test_sections_stand_in_their_order_when_they_are_sorted_by_name():
    keys = [metric_key(section, "loss") for section in SECTIONS]
    assert keys == sorted(keys)
    assert keys[:4] == ["1_results/loss", "2_field/loss", "3_classifier/loss", "4_denoiser/loss"]
    assert sorted([*keys, metric_key("another", "loss")])[-1] == "another/loss"


def test_an_experiment_is_model_training_and_shows_the_results_as_columns(client):
    experiment = client.create_experiment("shown")
    prepare_experiment(experiment)
    found = client.get_experiment(experiment)
    assert found.tags["mlflow.experimentKind"] == "custom_model_development"
    assert {
        *("tags.`latent_shape`", "tags.`interpolation`", "attributes.`Dataset`", "attributes.`Models`"),
        *(f"metrics.`1_results/{name}`" for name in ("psnr", "top1_accuracy", "fid_to_train")),
        "metrics.`1_results/frechet_distance_convnet_to_train`",
    } <= set(columns_of(found))


def test_a_view_that_a_user_has_changed_stays(client):
    experiment = client.create_experiment("changed")
    client.set_experiment_tag(experiment, "mlflow.sharedViewState.results", "mine")
    prepare_experiment(experiment)
    assert client.get_experiment(experiment).tags["mlflow.sharedViewState.results"] == "mine"


def test_a_run_has_its_curves_data_sets_and_models(client):
    with mlflow.start_run() as run:
        mlflow_report("field")(5, {"loss": 0.5})
        log_data_set("toy/train_images", "abc", 300, "data/toy", "training")
        log_model("field", Path("field.safetensors"), "d1", 1769, reused=False)
    found = client.get_run(run.info.run_id)
    assert found.data.metrics == {"2_field/loss": 0.5}
    (used,) = found.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("toy/train_images", "abc")
    assert json.loads(used.dataset.profile) == {"num_rows": 300}
    assert {tag.key: tag.value for tag in used.tags} == {"mlflow.data.context": "training"}
    (made,) = found.outputs.model_outputs
    model = client.get_logged_model(made.model_id)
    assert (model.name, str(model.status), model.params) == ("field", "READY", {"parameters": "1769"})
    assert model.tags["path"] == "field.safetensors"
    assert newest_runs_page().startswith(f"#/experiments/{run.info.experiment_id}/runs?workflowType=machine_learning")


def test_a_reused_model_is_the_one_that_was_made_before(client):
    with mlflow.start_run() as first:
        log_model("denoiser", Path("a"), "d2", None, reused=False)
    with mlflow.start_run() as second:
        log_model("denoiser", Path("a"), "d2", None, reused=True)
        log_model("denoiser", Path("b"), "d3", None, reused=True)  # of another store, say
    (made,) = client.get_run(first.info.run_id).outputs.model_outputs
    used = [model.model_id for model in client.get_run(second.info.run_id).inputs.model_inputs]
    assert len(used) == 2
    assert made.model_id in used
    assert not client.get_run(second.info.run_id).outputs.model_outputs
