"""Trials of a search: what is tried next, what is kept of it, and which metrics may choose."""

import json
import sys

import pytest
from pydantic import ValidationError

from spatial_functa_pipeline.config.search import SearchConfig
from spatial_functa_pipeline.studies.search import MissingOptunaError, Trials, definition_digest, in_order

GRID = {"a": [1, 2], "b": [[1, 1], None]}
POINTS = [{"a": a, "b": b} for a in (1, 2) for b in ([1, 1], None)]


def config(**changes):
    written = {
        "title": "t",
        "space": GRID,
        "metric": "validation_accuracy",
        "output": "o",
        "direction": "maximise",
        "sampler": "grid",
    }
    return SearchConfig.model_validate({**written, **changes})


def trials(file, **changes):
    """As the process that goes on with them has them."""
    found = Trials(config(**changes), file, {})
    found.take_over()
    return found


@pytest.fixture
def file(tmp_path):
    return tmp_path / "results/trials.log"


def test_a_grid_is_tried_in_order_and_ends(file):
    found = trials(file)
    assert found.wanted(None) == found.wanted(99) == 4
    assert found.wanted(3) == 3
    for number, point in enumerate(POINTS):
        assert found.remaining() == POINTS[number:]
        trial = found.begin()
        assert trial.point == point
        found.end(trial, float(number % 3))
    assert found.remaining() == []
    assert [trial.value for trial in found.ended] == [0.0, 1.0, 2.0, 0.0]
    assert found.best.point == POINTS[2]


def test_the_best_may_be_the_smallest(file):
    found = trials(file, direction="minimise")
    for value in (3.0, 1.0, 2.0):
        found.end(found.begin(), value)
    assert found.best.point == POINTS[1]
    assert [trial.value for trial in in_order(found.ended, "minimise")] == [1.0, 2.0, 3.0]


def test_what_was_killed_is_tried_again_first_and_only_then_the_rest(file):
    found = trials(file)
    found.end(found.begin(), 1.0)
    assert found.begin().point == POINTS[1]
    later = trials(file)  # as another process has it
    assert [trial.point for trial in later.ended] == POINTS[:1]
    for point in POINTS[1:]:
        trial = later.begin()
        assert trial.point == point
        later.end(trial, 0.0)
    assert len(trials(file).ended) == 4


def test_to_look_at_trials_changes_nothing(file):
    found = trials(file)
    trial = found.begin()
    assert Trials(config(), file, {}).remaining() == POINTS
    found.end(trial, 1.0)  # the search that is under way goes on
    assert Trials(config(), file, {}).remaining() == POINTS[1:]
    assert Trials(config(), None, {}).remaining() == POINTS


def test_what_has_failed_is_not_tried_again(file):
    found = trials(file)
    found.end(found.begin(), None, "no memory")
    found.end(found.begin(), 0.5)
    later = trials(file)
    assert [(trial.value, trial.reason) for trial in in_order(later.ended, "maximise")] == [
        (0.5, ""),
        (None, "no memory"),
    ]
    assert later.remaining() == POINTS[2:]
    assert later.best.point == POINTS[1]


def test_without_a_value_there_is_no_best(file):
    found = trials(file)
    assert found.best is None
    found.end(found.begin(), None, "why")
    assert found.best is None


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_points_of_samplers_are_in_the_space_and_go_on_being_new(file, sampler):
    space = {
        "x": {"low": 1e-4, "high": 1e-1, "log": True},
        "n": {"low": 2, "high": 8, "step": 2, "integer": True},
        **GRID,
    }
    drawn = []
    for _ in range(2):  # the second as another process
        found = trials(file, space=space, sampler=sampler, trials=12)
        for _ in range(4):
            trial = found.begin()
            found.end(trial, trial.point["x"])
            drawn.append(trial.point)
    assert all(1e-4 <= point["x"] <= 1e-1 and point["n"] in (2, 4, 6, 8) for point in drawn)
    assert all({key: point[key] for key in GRID} in POINTS for point in drawn)
    assert len({point["x"] for point in drawn}) == 8
    again = trials(file.with_name("other.log"), space=space, sampler=sampler, trials=12)
    first = again.begin().point
    assert first == drawn[0]  # the same seed
    assert (
        trials(file.with_name("seed.log"), space=space, sampler=sampler, trials=12, sampler_seed=7).begin().point
        != first
    )


def test_another_definition_has_trials_of_its_own(file):
    found = trials(file)
    found.end(found.begin(), 1.0)
    for changes in (
        {"space": {"a": [1, 2, 3]}},
        {"metric": "validation_loss"},
        {"direction": "minimise"},
    ):
        assert trials(file, **changes).ended == []
    assert Trials(config(), file, {"d": 1}).ended == []
    assert len(trials(file, title="other", trials=2, sampler="tpe").ended) == 1
    assert definition_digest(config(), {}) == definition_digest(config(about="words"), {})


IMAGES = ("test_images", "reconstructions", "pca_codes", "noise")


@pytest.mark.parametrize(
    "metric",
    [
        *("top1_accuracy", "psnr", "fid_to_test", "fid_reconstructions_to_test"),
        *(
            f"{score}_{images}_to_train"
            for images in IMAGES
            for score in ("fid", "frechet_distance_convnet", "frechet_distance_inception_0123abcd")
        ),
    ],
)
def test_a_metric_of_the_test_set_chooses_nothing(metric):
    with pytest.raises(ValidationError, match="measured on test images"):
        config(metric=metric)


@pytest.mark.parametrize(
    "metric",
    [
        *("fid_to_train", "kid_to_train", "precision_to_train", "validation_psnr"),
        *("frechet_distance_convnet_to_train", "recall_inception_0123abcd_to_train"),
    ],
)
def test_validation_and_samples_may_choose(metric):
    assert config(metric=metric).metric == metric


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"a": {"low": 0, "high": 1}}}, "grid needs lists"),
        ({"space": {"a": {"low": 0, "high": 1}}, "sampler": "tpe"}, "how many trials"),
        ({"space": {}}, "at least 1"),
        ({"space": {"a": []}}, "at least 1"),
        ({"set": {"a": 1}}, "in set and in space"),
        *(
            ({"space": {"a": values}, "sampler": "tpe", "trials": 1}, message)
            for values, message in (
                ({"low": 1, "high": 1}, "must be below"),
                ({"low": 0, "high": 1, "log": True}, "above 0"),
                ({"low": 1, "high": 2, "log": True, "step": 1}, "exclude"),
                ({"low": 1.5, "high": 2, "integer": True}, "whole numbers"),
            )
        ),
    ],
)
def test_what_is_no_search_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_without_optuna_there_is_a_clear_error(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingOptunaError, match="needs optuna"):
        trials(file)


def test_the_file_of_trials_is_text(file):
    found = trials(file)
    found.end(found.begin(), 1.0)
    assert all(json.loads(line) for line in file.read_text().splitlines())
