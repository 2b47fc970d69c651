"""Six variants of one run beside each other: each makes what depends on its change, and shares the rest."""

import json
import logging
import os
from pathlib import Path

import mlflow
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from processes import start

from spatial_functa_pipeline.config.places import nest
from spatial_functa_pipeline.pipeline_registry import register_pipelines

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("variants")]

ALL = {node.name for node in register_pipelines()["__default__"].nodes}
OF_IMAGES = {"train_feature_network", "measure_real_images"}
ENCODER = {"meta_learn_field", "fit_linear_code", "train_autoencoder", "choose_encoder"}
ENCODING = {f"build_{split}_functaset" for split in ("train", "validation", "test")}
OF_SAMPLES = {"sample_latents", "assess_memorisation", "draw_samples", "score_samples", "collect_metrics"}
OF_DENOISER = OF_SAMPLES | {"train_latent_denoiser", "draw_training_curves"}
OF_CLASSIFIER = {"train_latent_classifier", "evaluate_classifier", "draw_training_curves", "collect_metrics"}

VARIANTS = {  # what is changed → the nodes that run, and the folder of the metrics below 4x4x8-nearest
    "preset": ({}, set(), ""),
    "unconditional": (
        {"diffusion.conditional": False, "evaluation.sampling.guidance_scale": None},
        OF_DENOISER,
        "/diffusion.conditional=false,evaluation.sampling.guidance_scale=null",
    ),
    "6 bits": (
        {"quantisation.bits": 6},
        ALL - OF_IMAGES - ENCODER - ENCODING,
        "/quantisation.bits=6",
    ),
    "MLP": ({"classification.architecture": "mlp"}, OF_CLASSIFIER, "/classification.architecture=mlp"),
    "guidance": ({"evaluation.sampling.guidance_scale": 3.0}, OF_SAMPLES, "/evaluation.sampling.guidance_scale=3.0"),
    "seed": ({"seed": 1}, ALL - {"fit_linear_code"}, "/seed=1"),
}


class Nodes(logging.Handler):
    """Keeps the names of the nodes that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def emit(self, record):
        if record.getMessage().startswith("Running node: "):
            self.names.append(record.getMessage().split(": ")[1])


def run_variants(project, changes):
    """In another process, one after the other: the nodes that run, the files that are written again, and the new ones."""
    os.chdir(project.path)
    bootstrap_project(Path.cwd())
    found = {}
    for name, changed in changes.items():
        before = project.files()
        with KedroSession.create(project_path=Path.cwd(), env="test", runtime_params=nest(changed)) as session:
            logging.getLogger().addHandler(nodes := Nodes())
            session.run(only_missing_outputs=True)
            logging.getLogger().removeHandler(nodes)
        after = project.files()
        touched = [file for file, stat in before.items() if after.get(file) != stat]
        found[name] = {"nodes": nodes.names, "touched": touched, "made": sorted({*after} - {*before})}
    Path("found.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def runs(finished, make_project):
    project = make_project()
    project.take_runs(finished)
    project.take_outputs(finished)
    printed = project.path / "printed"
    process = start(
        run_variants, project, {name: changed for name, (changed, _, _) in VARIANTS.items()}, output=printed
    )
    process.join()
    assert process.exitcode == 0, printed.read_text()
    return project, json.loads((project.path / "found.json").read_text())


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_makes_what_depends_on_its_change_and_nothing_else(runs, name):
    project, found = runs
    _, nodes, folder = VARIANTS[name]
    assert set(found[name]["nodes"]) == nodes
    assert len(found[name]["nodes"]) == len(nodes)
    assert found[name]["touched"] == []
    place = f"test_run/4x4x8-nearest{folder}"
    metrics = json.loads((project.path / "data/08_reporting" / place / "metrics.json").read_text())
    assert metrics["variant"] == place
    changed = {part for part in folder.strip("/").split(",") if part}
    for file in found[name][
        "made"
    ]:  # only in folders that are named by the change, or by the part of it they depend on
        assert changed & {part for place in file.split("/")[4:-1] for part in place.split(",")}, file


def test_a_variant_has_a_row_of_its_own_in_mlflow_without_holes(runs):
    project, _ = runs
    client = mlflow.MlflowClient(f"sqlite:///{project.path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'spatial_functa'")
    rows = {run.data.tags["variant"]: run for run in client.search_runs([experiment.experiment_id])}
    preset = rows.pop("test_run/4x4x8-nearest")  # the finished project's own run
    assert set(rows) == {f"test_run/4x4x8-nearest{folder}" for changed, _, folder in VARIANTS.values() if changed}
    results = ("psnr", "top1_accuracy", "frechet_distance_convnet_to_train", "near_copies")
    models = ("2_field", "3_classifier", "4_denoiser")
    wanted = {f"1_results/{name}" for name in results}
    wanted |= {f"{model}/{what}" for model in models for what in ("parameters", "seconds")}
    for run in rows.values():
        assert wanted <= set(run.data.metrics)
    guided = rows["test_run/4x4x8-nearest/evaluation.sampling.guidance_scale=3.0"]
    assert "reconstruction_metrics" in guided.data.tags["reused"].split(", ")
    assert "generation_metrics" not in guided.data.tags["reused"].split(", ")
    of_preset, of_guided = ({model.model_id for model in run.outputs.model_outputs} for run in (preset, guided))
    assert of_guided == set()  # it has trained nothing: its models are the preset's
    used = client.get_run(guided.info.run_id).inputs.model_inputs  # a search leaves them out
    assert {model.model_id for model in used} == of_preset
    assert guided.data.tags["changed.evaluation.sampling.guidance_scale"] == "3.0"
    assert (
        rows["test_run/4x4x8-nearest/classification.architecture=mlp"].data.metrics["3_classifier/parameters"]
        != (guided.data.metrics["3_classifier/parameters"])
    )
    other = rows["test_run/4x4x8-nearest/seed=1"].data.metrics
    assert [
        name
        for name in ("psnr", "top1_accuracy", "frechet_distance_convnet_to_train")
        if other[f"1_results/{name}"] == preset.data.metrics[f"1_results/{name}"]
    ] == []
    assert "field_history" not in rows["test_run/4x4x8-nearest/seed=1"].data.tags.get("reused", "").split(", ")


def test_variants_are_listed_and_removed(runs):
    project, _ = runs
    listed = project.kedro("variants", COLUMNS="300")
    for _, _, folder in VARIANTS.values():
        assert f"4x4x8-nearest{folder} " in listed
    output = project.kedro("variants", "--remove", "test_run/*diffusion.conditional=false*", "--yes")
    assert "Removed" in output
    assert not list((project.path / "data").rglob("*diffusion.conditional=false*"))
    before = project.files()
    project.kedro("run", "--env", "test", "--only-missing-outputs")
    assert project.files() == before  # the preset is still whole
    refused = project.kedro("variants", "--remove", "nothing*", "--yes", check=False)
    assert "there is no variant that fits 'nothing*'" in refused
