"""The runs of a study while others go on: what is half written ends nothing, and an interruption leaves tables."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pandas as pd
import pytest
from html_pages import check_page
from kedro.io import DatasetError
from rich.console import Console

from spatial_functa_pipeline import study_command
from spatial_functa_pipeline.config.study import StudyConfig
from spatial_functa_pipeline.studies import schedule
from spatial_functa_pipeline.studies.runs import MeasuredRun
from spatial_functa_pipeline.studies.schedule import State
from spatial_functa_pipeline.study_command import RunProcess
from spatial_functa_pipeline.study_plan import PlannedRun, loader_of, plan_of

ROOT = Path(__file__).parents[1]
STUDY = {
    "title": "Dropout",
    "vary": {"classification.dropout": [0.1, 0.3, 0.5, 0.7]},
    "outputs": ["classification_metrics"],
    "measure": ["top1_accuracy"],
    "figure": {"kind": "bars"},
}


@pytest.fixture(scope="module")
def planned_study():
    return plan_of(
        StudyConfig.model_validate(STUDY), "dropout", loader_of(ROOT, "test"), {"latent_shape": "2x2x4"}, ROOT
    )


@pytest.fixture
def plan(planned_study, tmp_path):
    return dataclasses.replace(planned_study, project=tmp_path)


def half_written(self):
    raise DatasetError("half there")


def test_what_was_never_seen_but_half_written_counts_as_not_made(plan, monkeypatch):
    work = RunProcess(plan.runs[0], plan, MagicMock())
    with monkeypatch.context() as patch:
        patch.setattr(PlannedRun, "to_make", half_written)
        missing = work.to_make()
    assert missing >= {plan.runs[0].place(name) for name in ("field", "classifier", "classification_metrics")}
    monkeypatch.setattr(PlannedRun, "to_make", lambda self: frozenset({"metrics"}))
    assert work.to_make() == {"metrics"}
    monkeypatch.setattr(PlannedRun, "to_make", half_written)
    assert work.to_make() == {"metrics"}


def test_each_run_is_looked_at_before_the_first_begins(plan, monkeypatch):
    """Those that are there are not started."""
    there = plan.runs[1]
    monkeypatch.setattr(PlannedRun, "to_make", lambda self: frozenset() if self is there else frozenset({"metrics"}))
    given = []

    def side_by_side(works, *_):
        given.extend((work.name, work.last_seen) for work in works)
        return SimpleNamespace(run=lambda: State([]))

    monkeypatch.setattr(schedule, "SideBySide", side_by_side)
    study_command._run(Console(quiet=True), plan, MagicMock(), 2)
    assert given == [(one.run.name, {"metrics"}) for one in plan.runs if one is not there]


class Interrupted:
    """The first is done, the second is running, the third has failed, the fourth waits."""

    error: BaseException

    def __init__(self, works, *_):
        first, second, third, fourth = works
        self.state = State([fourth], {second: MagicMock()}, [first], {third: "its last line"})

    def run(self):
        raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interruption_leaves_the_tables_of_what_is_there(plan, monkeypatch, error):
    looked_at, record = [], MagicMock()

    def measured(self, project, state):
        looked_at.append(self.run.name)
        if state == "failed":
            return MeasuredRun(self.run, state)
        return MeasuredRun(self.run, metrics={"top1_accuracy": 0.8}, details={"top1_accuracy": "10 images"})

    monkeypatch.setattr(PlannedRun, "to_make", lambda self: frozenset({"metrics"}))
    monkeypatch.setattr(PlannedRun, "measured", measured)
    monkeypatch.setattr(Interrupted, "error", error, raising=False)
    monkeypatch.setattr(schedule, "SideBySide", Interrupted)
    session = MagicMock(__enter__=lambda self: self, __exit__=lambda *_: None)
    monkeypatch.setattr(study_command.KedroSession, "create", lambda *_, **__: session)
    monkeypatch.setattr(study_command, "_open_record", lambda *_: record)
    with pytest.raises(type(error)):
        study_command._make(Console(quiet=True), plan, {}, 1)

    names = [one.run.name for one in plan.runs]
    assert looked_at == [names[0], names[2]]  # what is running or waiting may be half written
    assert [*pd.read_csv(plan.folder / "runs.csv")["state"]] == ["finished", "interrupted", "failed", "not begun"]
    text = (plan.folder / "results.md").read_text()
    assert "**Incomplete**: 3 of 4 runs have no results" in text
    assert f"- {names[1]}: interrupted\n- {names[2]}: failed\n- {names[3]}: not begun\n" in text
    assert "| 0.1 | 0.8 | 1 |" in text
    assert f"{names[3]}: not begun" in check_page((plan.folder / "report.html").read_text())
    assert (plan.folder / "results.png").exists()
    (status, means, files), _ = record.close.call_args
    assert (status, [*means.values()]) == ("KILLED", [0.8])
    assert {file.name for file in files} >= {"results.md", "runs.csv", "results.png", "report.html"}
    assert [call.args[0] for call in record.keep_one.call_args_list] == [names[0]]
