"""Works side by side: what is shared is made once, what fails stops nobody, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from spatial_functa_pipeline.studies import schedule
from spatial_functa_pipeline.studies.schedule import SideBySide, last_lines, next_to_start, threads_each

MAKER = """
import os, signal, sys, time
from pathlib import Path

signal.signal(signal.SIGTERM, lambda *_: (Path(os.environ["LOG"]).write_text("ended"), sys.exit(143)))
print("first\\nbegun\\r  1 of 2\\r  2 of 2", flush=True)
for name in sys.argv[1:]:
    if name.startswith("exit"):
        sys.exit(int(name[4:]))
    elif name == "wait":
        time.sleep(60)
    elif not Path(name).exists():  # as --only-missing-outputs does
        with open("made", "a") as made:
            made.write(f"{Path(name).name} by {os.environ['WHO']}, {os.environ.get('OMP_NUM_THREADS')} threads\\n")
        Path(name).touch()
        time.sleep(0.3 if name.endswith("slow") else 0)
"""


@dataclass(eq=False)
class Files:
    """Makes files, in this order; `exit1` ends its process there, `wait` lets it wait."""

    name: str
    files: list[str]
    folder: Path
    before: list[str] = field(default_factory=list)

    @property
    def log(self):
        return self.folder / "logs" / f"{self.name}.log"

    def to_make(self):
        wanted = {name for name in self.files if not name.startswith(("exit", "wait"))}
        return frozenset(name for name in wanted if not (self.folder / name).exists())

    def command(self):
        return ["maker", *self.files]

    def environment(self):
        return {
            "PYTHONPATH": os.pathsep.join([str(self.folder), *sys.path]),
            "WHO": self.name,
            "LOG": f"{self.name}.end",
        }


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Runs works, given as name=files; returns the state at the end and the lines on what was made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(schedule, "_LOOK_AGAIN", 0.02)
    monkeypatch.setattr(schedule, "_POLL", 0.01)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    Path("maker.py").write_text(MAKER)

    def run(jobs, show=lambda state: None, **works):
        side_by_side = SideBySide([Files(name, files, tmp_path) for name, files in works.items()], jobs, 4, show)
        state = side_by_side.run()
        return state, Path("made").read_text().splitlines() if Path("made").exists() else []

    return run


def test_a_work_waits_for_what_a_running_one_will_make(tmp_path):
    first, second, third = (
        Files(name, files, tmp_path) for name, files in (("1", ["a", "b"]), ("2", ["b", "c"]), ("3", ["d"]))
    )
    assert next_to_start([first, second], []) is first
    assert next_to_start([second, third], [first]) is third
    assert next_to_start([second], [first]) is None
    (tmp_path / "b").touch()
    assert next_to_start([second, third], [first]) is second


@pytest.mark.parametrize(("cores", "jobs", "threads"), [(8, 2, 4), (2, 2, 1), (7, 3, 2), (2, 5, 1)])
def test_jobs_share_the_cores(cores, jobs, threads):
    assert threads_each(cores, jobs) == threads


def test_what_is_shared_is_made_once_and_each_has_its_share_of_the_cores(make):
    state, made = make(2, x=["field.slow", "x.slow"], y=["field.slow", "y"], z=["z"])
    assert sorted(made) == [
        "field.slow by x, 2 threads",
        "x.slow by x, 2 threads",
        "y by y, 2 threads",
        "z by z, 2 threads",
    ]
    assert [work.name for work in state.done] != []
    assert {work.name for work in state.done} == {"x", "y", "z"}
    assert state.failed == {}


def test_one_waits_only_until_the_shared_one_is_there(make):
    """Not until the end of the run that makes it."""
    running = []
    make(
        2,
        lambda state: running.append({work.name for work in state.running}),
        x=["field", "x.slow"],
        y=["field", "y.slow"],
    )
    assert {"x", "y"} in running


def test_one_after_the_other_without_jobs(make):
    running = []
    _, made = make(1, lambda state: running.append(len(state.running)), x=["a"], y=["b"])
    assert max(running) == 1
    assert made == ["a by x, None threads", "b by y, None threads"]


def test_what_others_have_made_needs_no_process(make):
    state, made = make(1, x=["a", "b"], y=["b"])
    assert [line.partition(",")[0] for line in made] == ["a by x", "b by x"]
    assert [work.name for work in state.done] == ["x", "y"]


def test_one_that_fails_stops_nobody_and_its_last_lines_are_kept(make):
    state, _ = make(2, x=["a", "exit3", "never"], y=["b"])
    assert [work.name for work in state.done] == ["y"]
    assert [(work.name, lines) for work, lines in state.failed.items()] == [("x", "first\n2 of 2")]


def test_one_that_leaves_something_out_has_failed(make):
    state, _ = make(1, x=["exit0", "never"])
    assert [*state.failed.values()] == ["its process has ended well, but these are not there: never"]


def test_one_that_is_to_try_again_does(make):
    """As one that waited for what another study has made meanwhile."""

    def show(state):
        if state.running:
            Path("made-elsewhere").touch()

    state, _ = make(1, show, x=["exit75", "made-elsewhere"])
    assert [work.name for work in state.done] == ["x"]


def test_an_interruption_ends_what_is_running_and_leaves_the_rest_waiting(make):
    def show(state):
        if any(last_lines(work.log, 1) for work in state.running):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(1, show, x=["wait", "never"], y=["b"])
    assert Path("x.end").read_text() == "ended"
    assert not Path("b").exists()


def test_a_process_ends_with_the_one_that_started_it(make, tmp_path):
    """Also with one that was killed."""
    module = f"{schedule.__package__}.child"
    starter = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-m', '{module}', 'maker', 'wait'])"
    environment = {**os.environ, **Files("x", [], tmp_path).environment()}
    with open("x.log", "wb") as log:
        parent = subprocess.Popen([sys.executable, "-c", f"{starter}; time.sleep(60)"], env=environment, stdout=log)
    give_up = time.monotonic() + 30
    while "begun" not in Path("x.log").read_text() and time.monotonic() < give_up:
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while not Path("x.end").exists() and time.monotonic() < give_up:
        time.sleep(0.05)
    assert Path("x.end").read_text() == "ended"


def test_last_lines(tmp_path):
    log = tmp_path / "log"
    assert last_lines(log, 3) == []
    log.write_text("one\n\ntwo\n 10%\r 20%\r 30%\r\nlast\n")
    assert last_lines(log, 2) == ["30%", "last"]
    log.write_text("x" * 100_000 + "\nlast")
    assert last_lines(log, 1) == ["last"]
