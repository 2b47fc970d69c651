"""The whole flow with each encoder: what is not chosen is not made, and all the rest is the same. And with several scales."""

import json

import mlflow
import pandas as pd
import pytest
import torch
from option_table import AUTOENCODER_SIZES, BASE
from pydantic import ValidationError
from test_every_option import images
from tiny_flow import TinyFlow, parameters

from spatial_functa_pipeline.models.autoencoder import Autoencoder
from spatial_functa_pipeline.models.linear_encoder import LinearEncoder
from spatial_functa_pipeline.models.weights import unpack_encoder

GIVEN = {
    "pca": {"encoder": "pca"},
    "pixels": {"encoder": "pixels", "latent_shape": "2x2x16"},
    "autoencoder": {
        "encoder": "autoencoder",
        **{f"autoencoder.{key}": value for key, value in AUTOENCODER_SIZES.items()},
    },
}
KINDS = {"pca": LinearEncoder, "pixels": LinearEncoder, "autoencoder": Autoencoder}


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    sets = {"train_images": images(24, 0), "validation_images": images(32, 1), "test_images": images(12, 2)}
    return TinyFlow(tmp_path_factory.mktemp("flow"), sets)


@pytest.mark.slow
@pytest.mark.parametrize("kind", GIVEN)
def test_the_whole_flow_runs_with_another_encoder(flow, kind):
    tree = parameters(BASE, GIVEN[kind])
    made = {}
    for node in flow.nodes:
        made |= flow.outputs(node, tree)
    encoder = unpack_encoder(made["encoder"], torch.device("cpu"))
    assert isinstance(encoder, KINDS[kind])
    assert made["train_functaset"].latent_shape == encoder.spec.latent_shape == tree.latent_shape
    assert made["field"].tensors == {}
    assert bool(made["linear_code"].tensors) == (kind != "autoencoder")
    assert bool(made["autoencoder"].tensors) == (len(made["autoencoder_history"]) > 0) == (kind == "autoencoder")
    metrics = made["metrics"]
    assert metrics["psnr"] == pytest.approx(made["test_functaset"].psnr.mean(), rel=1e-4)
    if kind == "pca":
        assert metrics["psnr"] == pytest.approx(metrics["psnr_pca"], abs=0.01)
    if kind == "pixels":
        assert metrics["psnr"] == 100
    assert {"top1_accuracy", "frechet_distance_convnet_to_train", "seam_ratio_samples", "near_copies"} <= set(metrics)


@pytest.mark.slow
def test_the_whole_flow_runs_with_several_scales(flow):
    tree = parameters(BASE, {"latent_shape": "1x1x3+2x2x2", "quantisation.bits": 8})
    made = {}
    for node in flow.nodes:
        made |= flow.outputs(node, tree)
    field = unpack_encoder(made["encoder"], torch.device("cpu"))
    functaset, metrics = made["test_functaset"], made["metrics"]
    assert field.spec.latent_shape == functaset.latent_shape == tree.latent_shape
    assert made["samples"].latent_shape == tree.latent_shape
    assert metrics["psnr"] == pytest.approx(functaset.psnr.mean(), abs=0.1)  # of the codes, and of what was encoded
    assert "psnr_pca" not in metrics  # there is no code of cells of the same size
    assert {"top1_accuracy", "frechet_distance_convnet_to_train", "seam_ratio_samples", "near_copies"} <= set(metrics)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"encoder": "pixels"}, "a cell of latent_shape 2x2x4 has 16: set latent_shape to 2x2x16"),
        (
            {"encoder": "pca", "latent_shape": "4x4x5"},
            "a cell of latent_shape 4x4x5 has only 4 numbers: 4x4x4 is the largest latent_shape",
        ),
        (
            {"encoder": "pca", "interpolation": "linear"},
            "interpolation is linear, which is a field's, but encoder is pca",
        ),
        ({"encoder": "autoencoder"}, "the block autoencoder is not given: this data set has no sizes for one"),
        (
            {**GIVEN["autoencoder"], "data.resolution": [12, 12]},
            "halves images of 12x12 pixels until they are the latent grid, which 2x2x4 is not: as latent_shape choose a grid "
            "such as 3x3 or 1x1",
        ),
        (
            {"encoder": "pca", "latent_shape": "1x1x8", "data.resolution": [128, 128]},
            "has 16384 numbers, and at most 8192 are supported: choose a finer grid",
        ),
        (
            {**GIVEN["autoencoder"], "runtime.processes": 4, "autoencoder.training.batch_size": 6},
            r"autoencoder.training.batch_size \(6\) must be divisible by the number of processes",
        ),
    ],
)
def test_a_latent_shape_that_an_encoder_cannot_have_is_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        parameters(BASE, given)


@pytest.mark.slow
def test_an_autoencoder_lies_beside_the_field_and_is_logged(project):
    before = project.files()
    command = ("run", "--env", "test", "--only-missing-outputs", "--params", "encoder=autoencoder")
    project.kedro(*command, "--to-outputs=reconstruction_metrics")
    place = "test_run/4x4x8-nearest/encoder=autoencoder"
    folder = project.path / f"data/06_models/{place}"
    history = pd.read_csv(folder / "autoencoder_history.csv")
    assert history.validation_psnr.notna().sum() == 2
    metrics = json.loads((project.path / f"data/08_reporting/{place}/reconstruction_metrics.json").read_text())
    assert metrics["psnr"] > 7  # twenty steps; grey images have about 7 dB
    after = project.files()
    assert {name: stat for name, stat in after.items() if name in before} == before
    assert not list((project.path / "data").rglob("*.pt"))
    client = mlflow.MlflowClient(f"sqlite:///{project.path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'spatial_functa'")
    run, *_ = client.search_runs([experiment.experiment_id], order_by=["start_time DESC"])
    assert run.data.tags["encoder"] == "autoencoder"
    assert "6_autoencoder/validation_psnr" in run.data.metrics
    made = {client.get_logged_model(output.model_id).name for output in run.outputs.model_outputs}
    assert made == {"autoencoder"}
