"""All pipelines through the command line, on real images, with `conf/test`."""

import json
import math
import shutil
import time
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from html_pages import check_page
from kedro.pipeline import Pipeline
from metric_names import metric_names
from PIL import Image

from spatial_functa_pipeline.datasets.weights import WeightsDataset
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.pipeline_registry import PIPELINES, register_pipelines

VARIANT = "test_run/4x4x8-nearest"
LAYERS = {"raw", "feature", "model_input", "models", "model_output", "reporting"}
METRICS = set().union(*metric_names("convnet").values())
FIGURES = {
    *("reconstructions", "samples_by_class", "samples_enlarged", "training_curves", "latent_channels"),
    *("generation_scores", "memorisation", "nearest_training_images", "latent_histograms"),
    *("perturbed_dimensions", "perturbed_channel"),
    *(f"perturbation_{name}" for name in ("patterns", "strengths", "locality")),
}


def metrics(project, variant=VARIANT):
    return json.loads((project.path / f"data/08_reporting/{variant}/metrics.json").read_text())


def newest_run(project):
    client = mlflow.MlflowClient(f"sqlite:///{project.path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'spatial_functa'")
    return client, client.search_runs([experiment.experiment_id], order_by=["start_time DESC"])


def changed(before, after):
    """Names of files that are new or were written again, without their folders and hidden records."""
    names = {name for name, stat in after.items() if before.get(name) != stat}
    return {Path(name).name for name in names if not Path(name).name.startswith(".") and ".zarr" not in name}


def test_the_flow_is_the_designed_one():
    pipelines = register_pipelines()
    assert set(pipelines) == {*PIPELINES, "__default__"}
    everything: Pipeline = pipelines["__default__"]
    free = {name for name in everything.inputs() if not name.startswith("params:") and not name.endswith("_checkpoint")}
    assert free == {"train_images", "validation_images", "test_images"}

    def reads(pipeline):
        return {name for name in pipelines[pipeline].inputs() if not name.startswith("params:")}

    functasets = {"train_functaset", "validation_functaset", "test_functaset"}
    encoded = {f"encoded_{name}" for name in functasets}
    assert pipelines["meta_learning"].outputs() == {"encoder", "field_history", "autoencoder_history"}
    read = {"train_images", "validation_images", "field_checkpoint", "autoencoder_checkpoint"}
    assert reads("meta_learning") == read
    assert "encoder" in reads("functaset_build")
    assert pipelines["functaset_build"].all_outputs() == functasets | encoded
    assert pipelines["quantisation"].all_outputs() == functasets
    assert reads("quantisation") >= encoded
    assert not encoded & (reads("classification") | reads("diffusion") | reads("evaluation"))
    assert reads("normalization_stats") == {"train_functaset"}
    assert reads("classification") >= {"train_functaset", "validation_functaset", "latent_statistics"}
    assert reads("diffusion") >= {"train_functaset", "latent_statistics"}
    assert not reads("diffusion") & {"test_functaset", "test_images", "classifier"}
    assert "test_functaset" not in reads("classification")
    assert reads("evaluation") >= {"encoder", "classifier", "denoiser", "test_functaset", "test_images"}
    order = [node.name for node in everything.nodes]
    assert (
        order.index("meta_learn_field")
        < order.index("choose_encoder")
        < order.index("build_train_functaset")
        < order.index("train_latent_denoiser")
    )


@pytest.mark.slow
def test_a_run_ends_with_metrics_pictures_and_a_summary(finished):
    found = metrics(finished)
    assert set(found) == METRICS | {"details", "intervals", "variant"}
    assert set(found["intervals"]) == metric_names("convnet")["generation_metrics"] - {"seam_ratio_samples"}
    assert found["variant"] == VARIANT
    assert set(found["details"]) == METRICS
    assert all(math.isfinite(found[name]) for name in METRICS)
    assert "100 test images, seed 0" in found["details"]["psnr"]
    assert "40 samples by dpm_solver in 10 steps" in found["details"]["frechet_distance_convnet_to_test"]
    assert "to 360 training images, 60 of them held out" in found["details"]["frechet_distance_convnet_to_train"]
    assert found["psnr"] > 12  # sixty steps of a tiny field on real garments; random weights give about 7 dB
    assert found["frechet_distance_convnet_train_images_to_test"] < found["frechet_distance_convnet_to_test"]
    for figure in FIGURES:
        content = (finished.path / f"data/08_reporting/{VARIANT}/{figure}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5_000
    for name in (
        *("psnr", "top1_accuracy", "recall_convnet_to_test", "near_copies"),
        *("frechet_distance_convnet_to_train", "frechet_distance_convnet_to_test"),
        *("seam_ratio_test_images", "seam_ratio_reconstructions", "seam_ratio_samples"),
    ):
        assert f"{name} " in finished.output
        assert f"{found[name]:.4g}" in finished.output
    for name in ("kid_convnet_to_train", "nearest_train_distance"):  # in the file only
        assert f"{name} " not in finished.output
    assert f"data/08_reporting/{VARIANT}" in finished.output
    assert "kedro viz run --env test " in finished.output
    assert "/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=results" in finished.output
    assert not list((finished.path / "data").rglob("*.pt"))  # checkpoints go once their results are stored


@pytest.mark.slow
def test_the_report_shows_all_of_it_and_is_linked(finished):
    file = finished.path / f"data/08_reporting/{VARIANT}/report.html"
    assert f"report: {file.as_uri()}" in finished.output
    html = file.read_text()
    text = check_page(html)
    assert f"{metrics(finished)['psnr']:.4g} dB" in text
    assert html.count("<img ") == len(FIGURES) + 1  # and the confusion matrix
    sections = (
        "Reconstructions Latents Perturbed latents Classification Samples Scores of the samples Memorisation Training "
        "Parameters"
    )
    assert f"Results {sections} To make it again" in text
    assert f"All {len(METRICS)} numbers" in text
    assert "made by earlier runs nothing" in text
    client, runs = newest_run(finished)
    assert "report.html" in {artifact.path for artifact in client.list_artifacts(runs[-1].info.run_id)}


@pytest.mark.slow
def test_tables_hold_every_score_beside_what_it_was_measured_on(finished):
    folder = finished.path / f"data/08_reporting/{VARIANT}"
    scores = pd.read_csv(folder / "generation_scores.csv").set_index(["against", "images"])
    points = {"samples", "reconstructions", "pca_codes", "noise"}
    assert set(scores.loc["test"].index) == {*points, "train_images"}
    assert set(scores.loc["train"].index) == {*points, "test_images"}
    assert (scores["count"] == 40).all()
    assert (scores.loc["train", "count_against"] == 360).all()
    sampled = scores.loc[("test", "samples")]
    assert (sampled["sampler"], sampled["steps"], sampled["guidance_scale"]) == ("dpm_solver", 10, 2)
    assert (sampled["classes"], sampled["seed"], sampled["features"]) == ("in turn", 0, "convnet")
    assert scores["frechet_distance"].notna().all()
    assert scores.loc[("test", "reconstructions"), "kid"] < scores.loc[("test", "noise"), "kid"]
    memorisation = pd.read_csv(folder / "memorisation.csv").set_index(["images", "class"])
    assert memorisation.loc[("samples", "all"), "count"] == 40
    assert memorisation.loc[("test_images", "all"), "nearer_than_test"] == 0.5
    assert memorisation.loc[("samples", "Bag"), "count"] == 4


@pytest.mark.slow
def test_one_mlflow_run_holds_parameters_curves_metrics_figures_and_tags(finished):
    client, runs = newest_run(finished)
    run = runs[-1]
    assert run.info.status == "FINISHED"
    assert run.data.tags["dataset"] == "test_run"
    assert run.data.tags["latent_shape"] == "4x4x8"
    assert run.data.tags["interpolation"] == "nearest"
    assert run.data.tags["environment"] == "test"
    assert run.data.tags["git_commit"] == "none"  # the test's project is not a checkout
    assert run.data.params["meta_learning.field.latent_shape"] == "4x4x8"
    assert run.data.params["meta_learning.training.learning_rate"] == "0.0015"
    assert run.data.params["diffusion.unet.channels"] == "32"
    found = metrics(finished)
    for name in METRICS:
        assert run.data.metrics[f"1_results/{name}"] == pytest.approx(found[name])
    for curve, steps in {
        "2_field/validation_psnr": [30, 60],
        "2_field/loss": [10, 20, 30, 40, 50, 60],
        "3_classifier/validation_accuracy": [20, 40],
        "4_denoiser/loss": [10, 20, 30, 40],
    }.items():
        assert [point.step for point in client.get_metric_history(run.info.run_id, curve)] == steps
    figures = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "figures")}
    assert figures >= {"figures/reconstructions.png", "figures/samples_by_class.png"}
    used = {item.dataset.name: (item.dataset, item.tags[0].value) for item in run.inputs.dataset_inputs}
    rows = {"train_images": (300, "training"), "validation_images": (60, "validation"), "test_images": (100, "test")}
    assert set(used) == {f"test_run/{name}" for name in rows}  # the functasets are this run's own
    for name, (count, context) in rows.items():
        dataset, found_context = used[f"test_run/{name}"]
        assert (json.loads(dataset.profile), found_context) == ({"num_rows": count}, context)
    made = [client.get_logged_model(output.model_id) for output in run.outputs.model_outputs]
    assert {model.name for model in made} == {"field", "classifier", "denoiser", "feature_network"}
    for model in made:
        assert Path(model.tags["path"]).is_file()
        assert float(model.params["parameters"]) > 0
    assert not run.inputs.model_inputs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("params", "variant"),
    [
        ("latent_shape=8x8x4,interpolation=linear", "8x8x4-linear"),
        ("latent_shape=1x1x32", "1x1x32-nearest"),
    ],
)
def test_another_variant_runs_beside_the_default_one(project, params, variant):
    before = project.files(f"data/08_reporting/{VARIANT}"), project.files(f"data/06_models/{VARIANT}")
    project.kedro("run", "--env", "test", "--params", params)
    of_borders = {name for name in METRICS if name.startswith("seam_ratio")} | {"perturbation_energy_inside_cell"}
    without = of_borders if variant.startswith("1x1") else set()  # one cell has none
    assert set(metrics(project, f"test_run/{variant}")) >= METRICS - without
    assert before == (project.files(f"data/08_reporting/{VARIANT}"), project.files(f"data/06_models/{VARIANT}"))
    _, runs = newest_run(project)
    assert runs[0].data.tags["latent_shape"] == params.split(",")[0].removeprefix("latent_shape=")


@pytest.mark.slow
def test_a_pipeline_is_rerun_alone_from_what_is_on_disk(project):
    before = project.files()
    project.kedro("run", "--env", "test", "--pipeline=diffusion")
    assert changed(before, project.files()) == {"denoiser.safetensors", "denoiser_history.csv"}


@pytest.mark.slow
def test_only_missing_outputs_follows_the_parameters(project):
    before = project.files()
    project.edit({"diffusion.training.steps": 30})
    options = ("run", "--env", "test")
    output = project.kedro(*options, "--pipeline=evaluation", check=False)
    assert "denoiser is stale: diffusion.training.steps was 40, is 30. kedro run --only-missing-outputs makes" in output

    assert changed(before, project.files()) == set()  # it is found before the first node
    project.kedro(*options, "--only-missing-outputs")
    assert changed(before, project.files()) == {
        "denoiser.safetensors",
        "denoiser_history.csv",
        "generation_metrics.json",
        "generation_scores.csv",
        "generation_scores.png",
        "report.html",
        "memorisation_metrics.json",
        "memorisation.csv",
        "memorisation.png",
        "nearest_training_images.png",
        "metrics.json",
        "samples_by_class.png",
        "samples_enlarged.png",
        "training_curves.png",
    }


@pytest.mark.slow
def test_wrong_parameters_stop_the_run_before_any_node(make_project):
    project = make_project()
    output = project.kedro("run", "--env", "test", "--params", "latent_shape=5x5x8,diffusion.dropuot=1", check=False)
    assert "5x5x8 does not fit the resolution 32x32" in output
    assert "unknown key dropuot" in output
    assert "Traceback" not in output
    assert "Running node" not in output
    assert project.files() == {}
    assert not (project.path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_missing_data_set_says_what_to_do(empty_project):
    project = empty_project
    (project.path / "data/01_raw/fashion_mnist_sample").unlink()
    output = project.kedro("run", "--env", "test", check=False)
    assert "t10k-images-idx3-ubyte" in output
    assert "download: true" in output.replace("\n", " ")


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_the_same(finished, empty_project):
    """`kill -9` in the middle of meta-learning; the same command then ends with the metrics of another run with that seed."""
    project = empty_project
    checkpoint = project.path / f"data/06_models/{VARIANT}/checkpoints/field.pt"
    command = ("run", "--env", "test", "--to-outputs=metrics")
    process, deadline = project.start(*command), time.monotonic() + 120
    while process.is_alive() and not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert checkpoint.exists()
    assert not (project.path / f"data/06_models/{VARIANT}/field.safetensors").exists()
    output = project.kedro(*command)
    assert "going on from the checkpoint at step" in output.replace("\n", " ")
    assert metrics(project) == metrics(finished)


@pytest.mark.slow
def test_an_unconditional_model_of_a_folder_of_colour_images(empty_project):
    """Another data set in an environment of its own: colour, two classes, files decoded on the fly, no labels."""
    project = empty_project
    generator = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 12)):
        for index in range(count):
            folder = project.path / "photos" / split / "ab"[index % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (3, 4, 3), np.uint8)
            Image.fromarray(pixels).resize((40, 33)).save(folder / f"{index}.png")
    conf = project.path / "conf" / "photos"
    shutil.copytree(project.path / "conf" / "test", conf)
    (conf / "globals.yml").write_text(
        "{dataset: photos, latent_shape: 4x4x8, data_path: photos, resolution: [32, 32], channels: 3, num_classes: 2}"
    )
    entry = (
        "{{type: spatial_functa_pipeline.datasets.image_folder.ImageFolderDataset, filepath: photos/{folder}, "
        "resolution: [32, 32], rows: {rows}, metadata: {{kedro-viz: {{layer: raw}}}}}}"
    )
    entries = {
        "train_images": entry.format(folder="train", rows="[0, 30]"),
        "validation_images": entry.format(folder="train", rows="[30, 40]"),
        "test_images": entry.format(folder="test", rows="null"),
    }
    (conf / "catalog_01_raw.yml").write_text("\n".join(f"{name}: {value}" for name, value in entries.items()))
    parameters = (conf / "parameters.yml").read_text().replace("guidance_scale: 2.0, ", "")
    (conf / "parameters.yml").write_text(parameters.replace("diffusion:\n", "diffusion:\n  conditional: false\n"))
    project.kedro("run", "--env", "photos")
    found = metrics(project, "photos/4x4x8-nearest")
    assert set(found) >= METRICS
    assert "unconditional" in found["details"]["frechet_distance_convnet_to_test"]

    output = project.kedro("run", "--env", "photos", "--params", "data.num_classes=3", check=False)
    assert "num_classes should be 3, but the images have 2" in output.replace("\n", " ")
    assert "correct the parameters data.num_classes, or the images' entry in the catalog" in output.replace("\n", " ")


@pytest.mark.slow
def test_functasets_of_other_weights_are_built_anew(project):
    """The same parameters, but another field: from another machine, say."""
    store = project.path / f"data/05_model_input/{VARIANT}/test_functaset.zarr"
    before = Functaset.open(store).rows(0, 5)
    dataset = WeightsDataset(filepath=str(project.path / f"data/06_models/{VARIANT}/encoder.safetensors"))
    field = dataset.load()
    field.tensors["inner_rates"] *= 0.5
    dataset.save(field)
    project.kedro("run", "--env", "test", "--pipeline=functaset_build")
    assert abs(Functaset.open(store).rows(0, 5) - before).max() > 1e-4


@pytest.mark.slow
def test_functasets_are_checked_from_the_command_line(project):
    """Whatever is wrong with one is said, and the others are checked all the same."""
    folder = project.path / f"data/05_model_input/{VARIANT}"
    check = ("check-functasets", "--env", "test")
    output = project.kedro(*check)
    assert output.count("sound") == 7, output
    assert "stale: diffusion" not in output
    metadata = folder / "encoded_train_functaset.zarr/latents/zarr.json"
    metadata.write_text(metadata.read_text().replace("sharding_indexed", "sharding_indexee"))
    shard = folder / "encoded_test_functaset.zarr/labels/c/0"
    content = bytearray(shard.read_bytes())
    content[5] ^= 1
    shard.write_bytes(content)
    output = project.kedro(*check, check=False)
    assert output.count("sound") == 5, output
    assert "encoded_train_functaset: cannot be read (UnknownCodecError" in output
    assert "encoded_test_functaset: functaset" in output
    assert "shard 0 of array 'labels'" in output
    assert (
        "encoded_test_functaset: to build what is missing or damaged: kedro run --nodes=build_test_functaset --params"
        in output
    )
    assert "validation_functaset" not in project.kedro(*check, "encoded_test_functaset", check=False)
    project.edit({"functaset.storage_type": "float16", "quantisation.bits": 4})
    stale = project.kedro(*check, "encoded_validation_functaset", "validation_functaset", check=False)
    assert stale.count("stale: functaset.storage_type was float32, is float16") == 2
    assert stale.count("stale: quantisation.bits was None, is 4") == 1


@pytest.mark.slow
def test_kedro_viz_builds_before_and_after_a_run(project, make_project):
    for built in (make_project(), project):
        built.kedro("viz", "build", "--include-previews", KEDRO_ENV="test")
        main = json.loads((built.path / "build/api/main").read_text())
        names = {node["name"] for node in main["nodes"]}
        assert {"train_images", "train_functaset", "field", "metrics"} <= names
        assert set(main["layers"]) == LAYERS
        tasks = [node for node in main["nodes"] if node["type"] == "task"]
        assert {"meta_learn_field", "train_latent_denoiser"} <= {node["name"] for node in tasks}
        unlayered = [node["name"] for node in main["nodes"] if node["type"] == "data" and not node["layer"]]
        assert unlayered == []
    previews = {}
    for node in main["nodes"]:
        if node["type"] == "data":
            previews[node["name"]] = json.loads((project.path / f"build/api/nodes/{node['id']}").read_text()).get(
                "preview"
            )
    for name in (
        "metrics",
        "reconstructions",
        "samples_by_class",
        "training_curves",
        "train_functaset",
        "train_images",
    ):
        assert previews[name], name
