"""The notebooks run from top to bottom: on a finished run, and on the runs of a study."""

import copy
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("KEDRO_ENV", "test")
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}")


def read(name):
    notebook = nbformat.read(Path(__file__).parents[1] / f"notebooks/{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs do not belong in git"
    return notebook


def outputs(notebook, project):
    """Of all its cells, once they have run: pictures, and all text."""
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(project.path)}}).execute()
    found = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in found if "image/png" in output.get("data", {})]
    return pictures, "\n".join(
        str(output.get("text") or output.get("data", {}).get("text/plain", "")) for output in found
    )


def test_the_functasets_notebook_runs_on_a_finished_run(project):
    pictures, text = outputs(read("explore_functaset"), project)
    assert len(pictures) == 4
    assert "Functaset(" in text


RECORD = """
from spatial_functa_pipeline.tracking import StudyRecord

record = StudyRecord(experiment.name, "dropout", "Dropout", "What does it do?", "a1b2", {"dataset": "test_run"})
for dropout, accuracy in ((0.0, 0.5), (0.5, 0.75)):
    for seed in (0, 1):
        name = f"classification.dropout={dropout}, seed={seed}"
        record.keep_one(name, {"top1_accuracy": accuracy + seed / 8, "psnr": 30.0}, {"seed": seed})
record.close("FINISHED", {"top1_accuracy/classification.dropout=0.0": 0.5}, [])
trained = mlflow.search_runs([experiment.experiment_id], "tags.`study.run` = 'classification.dropout=0.5, seed=1'")
for step in (20, 40):
    mlflow.MlflowClient().log_metric(trained.loc[0, "run_id"], "3_classifier/validation_accuracy", step / 50, step=step)
"""


def test_the_studies_notebook_says_what_to_do_first_and_then_compares_the_runs(empty_project):
    notebook = read("compare_runs")
    again = copy.deepcopy(notebook.cells)
    for cell in again:
        cell.id += "-again"
    notebook.cells += [nbformat.v4.new_code_cell(RECORD), *again]
    pictures, text = outputs(notebook, empty_project)
    before, _, after = text.partition("No study was run yet: `kedro study` lists those that there are")
    assert "Dropout" not in before
    assert "Dropout" in after
    assert len(pictures) == 2
    lines = [line.split() for line in after.splitlines() if line.startswith("classification.dropout")]
    assert lines == [
        ["classification.dropout=0.0", "0.5625", "0.088388", "2"],
        ["classification.dropout=0.5", "0.8125", "0.088388", "2"],
    ]
    assert "psnr" not in after  # no part of what the study measures
