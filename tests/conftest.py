"""A project of its own for the tests that run pipelines: nothing they write touches the checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
pytest_plugins = ["functaset_fixtures"]
torch.set_num_threads(1)  # the tests' tensors are small; two threads wait for each other


class Project:
    """A copy of the project's configuration and embedded data, with its own outputs and MLflow store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        shutil.copytree(ROOT / "conf", path / "conf")
        shutil.copy(ROOT / "pyproject.toml", path)
        shutil.copy(ROOT / ".telemetry", path)
        (path / "src").mkdir()
        sample = path / "data/01_raw/fashion_mnist_sample"
        sample.parent.mkdir(parents=True)
        sample.symlink_to(ROOT / "data/01_raw/fashion_mnist_sample")

    def kedro(self, *arguments: str, check: bool = True, **environment: str) -> str:
        """Run `kedro …` as a user does; returns what it printed."""
        done = subprocess.run(
            [Path(sys.executable).with_name("kedro"), *arguments],
            cwd=self.path,
            env={**os.environ, "COLUMNS": "200", "HF_HUB_OFFLINE": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        assert (done.returncode == 0) == check, output
        return output

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
    return lambda: Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def finished(make_project):
    """A project in which `kedro run --env test` has run once; tests must leave its default variant as it is."""
    project = make_project()
    project.output = project.kedro("run", "--env", "test")
    return project


@pytest.fixture(scope="session")
def copy_of(make_project):
    """A second project with the outputs of a finished one, to be changed at will."""

    def copy(finished):
        project = make_project()
        for folder in ("05_model_input", "06_models", "07_model_output", "08_reporting"):
            subprocess.run(["cp", "-a", finished.path / "data" / folder, project.path / "data"], check=True)
        return project

    return copy
