"""`kedro search` and `kedro claims` through the command line, with `conf/test`."""

import csv

import pytest
import yaml

FOLDER = "data/09_studies/test_run/search_dropout"


def table(project):
    with (project.path / FOLDER / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_search_goes_on_where_it_was_and_its_best_row_can_be_run(project):
    """The first point is what the data set has anyway, so that it is there already."""
    before = project.files("data/06_models")
    output = project.kedro("search", "dropout", "--env", "test", "--trials", "1")
    assert "[1/1] classification.dropout=0.1" in output
    assert project.files("data/06_models") == before
    assert [row["classification.dropout"] for row in table(project)] == ["0.1"]

    output = project.kedro("search", "dropout", "--env", "test")
    assert "[2/2] classification.dropout=0.5" in output
    assert "[1/2]" not in output
    rows = table(project)
    assert sorted(row["classification.dropout"] for row in rows) == ["0.1", "0.5"]
    values = [float(row["validation_accuracy"]) for row in rows]
    assert values == sorted(values, reverse=True)
    best = project.path / FOLDER / "best.yml"
    dropout = float(rows[0]["classification.dropout"])
    assert yaml.safe_load(best.read_text()) == {
        "run": {"env": "test", "params": {"classification": {"dropout": dropout}}}
    }

    assert "[2/2]" not in project.kedro("search", "dropout", "--env", "test")
    after = project.files("data/06_models")
    project.kedro("run", "--config", str(best), "--only-missing-outputs", "--to-outputs", "classifier")
    assert project.files("data/06_models") == after  # the search has made it


@pytest.mark.slow
def test_a_failed_trial_does_not_end_a_search(project):
    file = project.path / "conf/test/searches/dropout.yml"
    file.write_text(file.read_text().replace("[0.1, 0.5]", "[7.0, 0.1]"))
    output = project.kedro("search", "dropout", "--env", "test", "--dry-run", check=False)
    assert "classification.dropout" in output
    file.write_text(file.read_text().replace("[7.0, 0.1]", "[0.1, 7.0]"))
    output = project.kedro("search", "dropout", "--env", "test")
    assert "failed:" in output
    assert [bool(row["failed"]) for row in table(project)] == [False, True]


@pytest.mark.slow
def test_claims_say_what_to_do_without_a_table(project):
    output = project.kedro("claims", check=False)
    assert "no study has been run yet" in output
    assert not (project.path / "docs").exists()
