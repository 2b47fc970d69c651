"""`kedro search` through the command line, with `conf/test`."""

import csv
import shutil
from pathlib import Path

import pytest
import yaml

from spatial_functa_pipeline.config.places import nest
from spatial_functa_pipeline.config.search import SearchConfig
from spatial_functa_pipeline.search_command import Search, read_search
from spatial_functa_pipeline.studies.search import Trials, definition_digest

ROOT = Path(__file__).parents[2]
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


def search_of(project, config=None, **given):
    config = config or read_search(project / "conf/test/searches/dropout.yml")
    return Search(
        "dropout", config, "test", nest({key.replace("__", "."): value for key, value in given.items()}), project
    )


@pytest.fixture
def configured(tmp_path):
    """A project's configuration, without outputs."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    return tmp_path


def digest(search):
    return definition_digest(search.config, search.parameters)


def test_only_what_changes_results_begins_a_search_of_its_own(configured):
    first = digest(search_of(configured))
    for neutral in ({"runtime__workers": 3}, {"data_path": "elsewhere"}, {"meta_learning__training__log_every": 7}):
        assert digest(search_of(configured, **neutral)) == first
    assert digest(search_of(configured, classification__label_smoothing=0.3)) != first
    written = configured / "conf/test/parameters.yml"
    text = yaml.safe_load(written.read_text())
    text["classification"] = {**text.get("classification", {}), "label_smoothing": 0.3}
    written.write_text(yaml.safe_dump(text))
    assert digest(search_of(configured)) != first


def test_blocks_that_were_chosen_are_in_the_file_of_the_best(configured):
    block = {"mlp": {"width": 16, "blocks": 2}}
    config = read_search(configured / "conf/test/searches/dropout.yml").model_dump(mode="json")
    config |= {"space": {"classification": [block]}, "set": {"classification.dropout": 0.2}, "sampler": "grid"}
    one = search_of(configured, SearchConfig.model_validate(config))
    found = Trials(one.config, None, {})
    found.end(found.begin(), 0.5)
    one.write(found)
    best = yaml.safe_load((one.folder / "best.yml").read_text())
    assert best["run"]["params"] == {"classification": {"dropout": 0.2, **block}}
