"""What a user sees while a study runs."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from spatial_functa_pipeline.studies import progress
from spatial_functa_pipeline.studies.progress import Progress, duration
from spatial_functa_pipeline.studies.schedule import State


class Work(SimpleNamespace):
    """A name and a log, told from others by being another."""

    __hash__ = object.__hash__


@pytest.fixture
def works(tmp_path):
    (tmp_path / "a.log").write_text("one\nstep 5 of 9\r step 6 of 9")
    return [Work(name=name, log=tmp_path / f"{name}.log") for name in "abc"]


def shown(states, cached=0, **terminal):
    file = io.StringIO()
    with Progress(Console(file=file, width=120, **terminal), cached) as shower:
        for state in states:
            shower.show(state)
    return file.getvalue()


def test_without_a_terminal_there_is_a_line_for_each_change(works, monkeypatch):
    seconds = iter([0, 10, 10, 10, 200, 200, 200, 200, 4000])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    a, b, c = works
    state = State(waiting=[c], running={a: None, b: None})
    same = State(waiting=[c], running={a: None, b: None})
    later = State(waiting=[], running={b: None}, done=[a], failed={c: "why"})
    lines = shown([state, same, later], cached=2).splitlines()
    assert lines[:2] == ["[2/5] begun: a", "[2/5] begun: b"]
    assert lines[2].startswith("[4/5] done after 3 min 10 s: a")
    assert lines[3] == f"[4/5] failed: c ({c.log})"
    assert len(lines) == 4


def test_on_a_terminal_the_last_line_of_each_run_is_shown(works):
    a, b, c = works
    text = shown([State(waiting=[b], running={a: None}, failed={c: "why"})], force_terminal=True)
    assert "[1/3] runs ended, 1 failed, 1 waiting" in re.sub(r"\x1b\[[\d;]*m", "", text)
    assert "step 6 of 9" in text
    assert "step 5" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.4, "4 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"), (3900, "1 h 05 min"), (90000, "25 h 00 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
