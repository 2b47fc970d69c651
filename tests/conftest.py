"""A project of its own for the tests that run pipelines: nothing they write touches the checkout."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from processes import start

ROOT = Path(__file__).parents[1]
pytest_plugins = ["functaset_fixtures"]
# The tests' tensors are small: two threads wait for each other. So it is in the processes that tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """With pytest-xdist, the quick tests of a file share a process and so their fixtures; slow ones go where there is room."""
    for item in items:
        if not item.get_closest_marker("slow") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _kedro(folder, arguments, environment):
    """What `kedro …` does, in this process."""
    from kedro.framework.cli.cli import main

    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = ["kedro", *arguments]
    main()


class Project:
    """A copy of the project's configuration and embedded data, with its own outputs and MLflow store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.output = ""
        """What the first run has printed."""

    @classmethod
    def create(cls, path: Path) -> "Project":
        """A new one, without outputs."""
        shutil.copytree(ROOT / "conf", path / "conf")
        shutil.copy(ROOT / "pyproject.toml", path)
        shutil.copy(ROOT / ".telemetry", path)
        (path / "src").mkdir()
        sample = path / "data/01_raw/fashion_mnist_sample"
        sample.parent.mkdir(parents=True)
        sample.symlink_to(ROOT / "data/01_raw/fashion_mnist_sample")
        return cls(path)

    def start(self, *arguments: str, output: str | Path = os.devnull, **environment: str) -> ForkServerProcess:
        """Begin `kedro …`; returns its process."""
        return start(_kedro, self.path, arguments, {"COLUMNS": "200", **environment}, output=output)

    def kedro(self, *arguments: str, check: bool = True, **environment: str) -> str:
        """Run `kedro …` as a user does; returns what it printed."""
        with tempfile.NamedTemporaryFile() as printed:
            process = self.start(*arguments, output=printed.name, **environment)
            process.join()
            output = Path(printed.name).read_text()
        assert (process.exitcode == 0) == check, output
        return output

    def take_outputs(self, finished: "Project", folder: str = "data") -> None:
        """Copy what another project has made."""
        (self.path / folder).mkdir(exist_ok=True)
        for output in ("05_model_input", "06_models", "07_model_output", "08_reporting"):
            subprocess.run(["cp", "-a", finished.path / "data" / output, self.path / folder], check=True)

    def take_runs(self, finished: "Project") -> None:
        """Copy another project's MLflow store; new runs of its experiments have their artifacts in this one."""
        shutil.copy(finished.path / "mlflow.db", self.path)
        with contextlib.closing(sqlite3.connect(self.path / "mlflow.db")) as store, store:
            store.execute(
                "update experiments set artifact_location = replace(artifact_location, ?, ?)",
                (str(finished.path), str(self.path)),
            )

    def files(self, folder: str = "data") -> dict[str, tuple[int, int]]:
        """Time of change and size of every output file."""
        return {
            str(file.relative_to(self.path)): (file.stat().st_mtime_ns, file.stat().st_size)
            for file in sorted((self.path / folder).rglob("*"))
            if file.is_file() and "01_raw" not in file.parts
        }


@pytest.fixture(scope="session")
def make_project(tmp_path_factory):
    """A fresh project without outputs."""
    return lambda: Project.create(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A project in which `kedro run --env test` has run once. All processes of the tests share it: it is only read."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    project, printed = Project(folder / "finished"), folder / "finished.log"
    with FileLock(folder / "finished.lock"):
        if not printed.exists():
            shutil.rmtree(project.path, ignore_errors=True)
            output = Project.create(project.path).kedro("run", "--env", "test")
            printed.write_text(output)
    project.output = printed.read_text()
    return project


@pytest.fixture
def empty_project(finished, make_project):
    """A project without outputs; the MLflow store is the finished one's, which spares the seconds that a new one takes."""
    project = make_project()
    project.take_runs(finished)
    return project


@pytest.fixture
def project(finished, empty_project):
    """A project with all that the finished one has made, to be changed at will."""
    empty_project.take_outputs(finished)
    return empty_project
