"""`kedro study`: what is wrong is said before anything runs, what is there is not made again, and what it leaves behind."""

import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

import mlflow
import pandas as pd
import pytest
import yaml
from html_pages import check_page
from kedro.framework.startup import bootstrap_project
from processes import start

from spatial_functa_pipeline.config.places import nest

pytestmark = pytest.mark.slow

DROPOUT = {"classification.dropout": [0.1, 0.5]}
LEAST = {"title": "A study", "outputs": ["classification_metrics"], "measure": ["top1_accuracy"]}
OF_CLASSIFIER = ["train_latent_classifier", "evaluate_classifier"]

WRONG = {  # file, parameters of the command line, what is said
    "unknown_key": ({"varyy": DROPOUT}, {}, ["unknown_key.yml: study: unknown key varyy; known keys: title, "]),
    "parameter": (
        {"vary": {"classification.dropuot": [0.1]}, "set": {"diffusion.gama": 1}},
        {},
        [
            "unknown key diffusion.gama; known in the place of gama: ",
            "unknown key classification.dropuot; known in the place of dropuot: ",
        ],
    ),
    "value": (
        {"vary": {"classification.dropout": [0.1, 1.5, 2.5]}, "set": {"seed_": 1}},
        {},
        ["unknown key seed_; "],
    ),
    "values": (
        {"vary": {"classification.dropout": [0.1, 1.5, 2.5]}},
        {},
        [
            "classification.dropout=1.5, seed=0: classification.dropout: Input should be less than 1 (got 1.5)",
            "classification.dropout=2.5, seed=0: classification.dropout: Input should be less than 1 (got 2.5)",
        ],
    ),
    "conditions": (
        {"variants": [{"name": "unconditional", "set": {"diffusion.conditional": False}}]},
        {},
        ["unconditional, seed=0: parameters: evaluation.sampling.guidance_scale is 2.0, but diffusion.conditional is "],
    ),
    "block": (
        {"vary": DROPOUT, "set": {"diffusion.training.guard": None, "diffusion.training.guard.retries": 1}},
        {},
        ["classification.dropout=0.1, seed=0: one key sets a block to a value, and another sets a part of that block"],
    ),
    "outputs": (
        {"vary": DROPOUT, "outputs": ["metrics", "metric", "train_images"]},
        {},
        ["outputs: no node makes metric, train_images; there are: "],
    ),
    "measureless": (
        {"vary": DROPOUT, "outputs": ["classifier", "confusion_matrix"]},
        {},
        ["outputs: classifier, confusion_matrix have no metrics; these have: classification_metrics, generation_metrics, "],
    ),
    "same": (
        {"vary": {"runtime.compile": ["on", "off"]}},
        {},
        ["runtime.compile=off, seed=0 and runtime.compile=on, seed=0 are the same run"],
    ),
    "clash": (
        {"vary": DROPOUT},
        {"classification.dropout": 0.3, "seed": 1, "runtime.device": "cpu"},
        [
            "--params gives classification.dropout, but the study varies classification.dropout itself",
            "--params gives seed, but the study varies seed itself",
        ],
    ),
    "nowhere": (None, {}, ["there is no study nowhere in "]),
}  # fmt: skip


def plan_all(folder, studies):
    """In a process of its own: what is said of each wrong study, and what each other one would run."""
    from click import ClickException

    from spatial_functa_pipeline.study_plan import plan_study

    os.chdir(folder)
    bootstrap_project(Path.cwd())
    found = {}
    for name, given in studies.items():
        try:
            plan = plan_study(name, "test", nest(given), Path.cwd())
        except ClickException as error:
            found[name] = error.message
            continue
        shares = [*plan.shares()]
        found[name] = {
            "folder": str(plan.folder.relative_to(plan.project)),
            "command": plan.command,
            "digest": plan.digest,
            "runs": {
                planned.run.name: {
                    "nodes": [node.name for node in nodes],
                    "shared": shared,
                    "seconds": [plan.estimate(planned, node) for node in nodes],
                    "done": planned.done,
                }
                for planned, nodes, shared in shares
            },
        }
    Path("plans.json").write_text(json.dumps(found))


RIGHT = {
    "cached_and_not": ({"vary": DROPOUT}, {}),
    "shared": (
        {
            "vary": {"classification.dropout": [0.1, 0.2], "meta_learning.field.kernel_size": [1, 3]},
            "set": {"diffusion.training.steps": 7},
        },
        {"runtime.num_workers": 0},
    ),
    "given": ({"vary": DROPOUT}, {"latent_shape": "2x2x8", "functaset.storage_type": "float16"}),
}


@pytest.fixture(scope="module")
def plans(finished, make_project):
    project = make_project()
    project.take_outputs(finished)
    given = {name: parameters for name, (_, parameters, _) in WRONG.items()}
    given |= {name: parameters for name, (_, parameters) in RIGHT.items()}
    for name, (parts, *_) in {**WRONG, **RIGHT}.items():
        if parts is not None:
            write_study(project, name, parts)
    process = start(plan_all, project.path, given, output=project.path / "printed")
    process.join()
    assert process.exitcode == 0, (project.path / "printed").read_text()
    return json.loads((project.path / "plans.json").read_text())


def write_study(project, name, parts):
    (project.path / "conf/test/studies" / f"{name}.yml").write_text(yaml.safe_dump({**LEAST, **parts}))


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_before_anything_runs(plans, name):
    first, *lines = plans[name].splitlines()
    assert first == "Nothing was run:"
    assert len(lines) >= len(WRONG[name][2])
    for wanted in WRONG[name][2]:
        assert any(wanted in line for line in lines), lines


def test_what_is_there_is_not_run_again(plans):
    found = plans["cached_and_not"]["runs"]
    assert found["classification.dropout=0.1, seed=0"] == {"nodes": [], "shared": [], "seconds": [], "done": True}
    missing = found["classification.dropout=0.5, seed=0"]
    assert (missing["nodes"], missing["shared"]) == (OF_CLASSIFIER, [])
    assert all(0 < seconds < 300 for seconds in missing["seconds"])  # as long as those with the other dropout


def test_what_runs_have_in_common_is_made_by_the_first(plans):
    found = plans["shared"]["runs"]
    nodes = {name: set(run["nodes"]) for name, run in found.items()}
    prefix = "classification.dropout={}, meta_learning.field.kernel_size={}, seed=0"
    assert nodes[prefix.format(0.1, 1)] == set()
    assert nodes[prefix.format(0.1, 3)] >= {"meta_learn_field", *OF_CLASSIFIER}
    assert nodes[prefix.format(0.2, 1)] == nodes[prefix.format(0.2, 3)] == set(OF_CLASSIFIER)
    assert "field" in found[prefix.format(0.2, 3)]["shared"]
    assert not any("train_latent_denoiser" in names for names in nodes.values())  # nobody asks for it


def test_results_of_other_parameters_have_a_place_of_their_own(plans):
    assert plans["cached_and_not"]["folder"] == "data/09_studies/test_run/cached_and_not"
    assert plans["shared"]["folder"] == "data/09_studies/test_run/shared"  # the number of workers changes no result
    given = plans["given"]
    assert given["folder"] == "data/09_studies/test_run/given/functaset.storage_type=float16,latent_shape=2x2x8"
    assert given["command"] == (
        "kedro study given --env test --params latent_shape=2x2x8,functaset.storage_type=float16"
    )


@pytest.fixture(scope="module")
def studied(finished, make_project):
    """The study of conf/test, planned, run, and run again; one of its two runs is finished already."""
    project = make_project()
    project.take_outputs(finished)
    project.take_runs(finished)
    project.printed = {
        "list": project.kedro("study", "--env", "test"),
        "plan": project.kedro("study", "dropout", "--env", "test", "--dry-run"),
    }
    project.written = (project.path / "data/09_studies").exists()
    project.printed["run"] = project.kedro("study", "dropout", "--env", "test")
    project.once = mlflow_runs(project)
    project.before = project.files()
    project.printed["again"] = project.kedro("study", "dropout", "--env", "test")
    return project


def mlflow_runs(project):
    client = mlflow.MlflowClient(f"sqlite:///{project.path / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'spatial_functa'")
    return {run.data.tags["mlflow.runName"]: run for run in client.search_runs([experiment.experiment_id])}


PLACE = "data/09_studies/test_run/dropout"
RUNS = ["classification.dropout=0.1, seed=0", "classification.dropout=0.5, seed=0"]


def test_studies_are_listed_with_their_titles(studied):
    assert "dropout" in studied.printed["list"]
    assert "Dropout of the classifier" in studied.printed["list"]


def test_a_dry_run_says_what_would_run_and_runs_nothing(studied):
    printed = studied.printed["plan"]
    assert "1 of 2 runs are there." in printed
    assert ", ".join(OF_CLASSIFIER) in printed
    assert "unknown" not in printed
    assert not studied.written


def test_a_study_ends_in_tables_and_a_figure(studied):
    folder = studied.path / PLACE
    runs, results = pd.read_csv(folder / "runs.csv"), pd.read_csv(folder / "results.csv")
    for _, row in runs.iterrows():
        metrics = json.loads((studied.path / row["folder"] / "classification_metrics.json").read_text())
        assert row["top1_accuracy"] == metrics["top1_accuracy"]
        assert row["top1_accuracy_measured_on"] == metrics["details"]["top1_accuracy"]
        assert row["seconds"] > 0
    assert [*runs["folder"]] == [
        "data/08_reporting/test_run/4x4x8-nearest",
        "data/08_reporting/test_run/4x4x8-nearest/classification.dropout=0.5",
    ]
    assert [*results["classification.dropout"]] == [0.1, 0.5]
    assert [*results["top1_accuracy_mean"]] == [*runs["top1_accuracy"]]
    assert [*results["top1_accuracy_n"]] == [1, 1]
    text = (folder / "results.md").read_text()
    assert text.startswith("# Dropout of the classifier\n")
    assert text.endswith("Made by `kedro study dropout --env test`.\n")
    assert (folder / "results.png").read_bytes().startswith(b"\x89PNG")
    assert [file.stem for file in (folder / "runs").glob("*.log")] == ["classification.dropout=0.5,seed=0"]
    files = "runs.csv, results.csv, results.md, study.yml, results.png, report.html"
    assert f"In {PLACE}: {files}" in studied.printed["run"]
    assert "[2/2] done after" in studied.printed["run"]


def test_a_study_has_a_page_that_leads_to_those_of_its_runs(studied):
    folder = studied.path / PLACE
    assert f"report: {(folder / 'report.html').as_uri()}" in studied.printed["run"]
    html = (folder / "report.html").read_text()
    text = check_page(html)
    assert "report of a study · test_run Dropout of the classifier" in text
    assert html.count("<img ") == 3  # reconstructions and samples are those of the first variant
    assert "Samples by class: the same as of classification.dropout=0.1." in text
    links = [unquote(link) for link in re.findall(r'href="(\.\./[^"]+)"', html)]
    assert len(links) == 2
    for link, dropout in zip(links, (0.1, 0.5), strict=True):
        page = check_page((folder / link).read_text())
        assert "report of a run" in page
        assert f" dropout {dropout} " in page


def test_mlflow_has_each_run_below_the_study(studied):
    parent = studied.once["Dropout of the classifier"]
    assert parent.info.status == "FINISHED"
    runs = pd.read_csv(studied.path / PLACE / "runs.csv")
    for name, accuracy in zip(RUNS, runs["top1_accuracy"], strict=True):
        child = studied.once[name]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.metrics["1_results/top1_accuracy"] == accuracy
        assert parent.data.metrics[f"top1_accuracy/{name.partition(',')[0].replace('=', ' ')}"] == accuracy
    assert studied.once[RUNS[0]].data.tags["reused"] == "everything"
    assert studied.once[RUNS[1]].data.params["classification.dropout"] == "0.5"
    client = mlflow.MlflowClient(f"sqlite:///{studied.path / 'mlflow.db'}")
    artifacts = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert artifacts == {"report.html", "results.csv", "results.md", "results.png", "runs.csv", "study.yml"}


def test_a_study_that_is_done_changes_nothing_but_its_tables(studied):
    again = mlflow_runs(studied)
    assert {name: run.info.run_id for name, run in again.items()} == {
        name: run.info.run_id for name, run in studied.once.items()
    }
    after = studied.files()
    assert {file for file, stat in after.items() if studied.before.get(file) != stat} <= {
        f"{PLACE}/{name}"
        for name in ("report.html", "results.csv", "results.md", "results.png", "runs.csv", "study.yml")
    }
    assert "begun" not in studied.printed["again"]


def test_a_study_is_no_variant(studied):
    assert "09_studies" not in studied.kedro("variants", COLUMNS="300")
    assert "dropout " not in studied.kedro("variants", COLUMNS="300").replace("classification.dropout", "")
