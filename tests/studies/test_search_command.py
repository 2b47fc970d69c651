"""`kedro search` through the command line, with `conf/test`."""

import csv

import pytest
import yaml

FOLDER = "data/09_studies/test_run/search_dropout"


def table(project):
    with (project.path / FOLDER / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_search_goes_on_past_what_fails_and_its_best_row_can_be_run(project):
    """The first point is what the data set has anyway, so that it is there already; the second is no dropout."""
    file = project.path / "conf/test/searches/dropout.yml"
    file.write_text(file.read_text().replace("[0.1, 0.5]", "[0.1, 7.0, 0.5]"))
    before = project.files("data/06_models")
    output = project.kedro("search", "dropout", "--env", "test", "--trials", "1")
    assert "[1/1] classification.dropout=0.1" in output
    assert project.files("data/06_models") == before
    assert [row["classification.dropout"] for row in table(project)] == ["0.1"]

    output = project.kedro("search", "dropout", "--env", "test")
    assert "[2/3] classification.dropout=7.0\n    failed: " in output
    assert "[3/3] classification.dropout=0.5\n    validation_accuracy" in output
    assert "[1/3]" not in output
    rows = table(project)
    assert [row["classification.dropout"] for row in rows[2:]] == ["7.0"]
    assert sorted(row["classification.dropout"] for row in rows[:2]) == ["0.1", "0.5"]
    assert float(rows[0]["validation_accuracy"]) >= float(rows[1]["validation_accuracy"])
    best = project.path / FOLDER / "best.yml"
    dropout = float(rows[0]["classification.dropout"])
    assert yaml.safe_load(best.read_text()) == {
        "run": {"env": "test", "params": {"classification": {"dropout": dropout}}}
    }

    after = project.files("data/06_models")
    project.kedro("run", "--config", str(best), "--only-missing-outputs", "--to-outputs", "classifier")
    assert project.files("data/06_models") == after  # the search has made it
