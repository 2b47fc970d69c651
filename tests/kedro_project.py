"""Projects of their own for the tests that run pipelines."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from processes import start

ROOT = Path(__file__).parents[1]


def _kedro(folder, arguments, environment):
    """What `kedro …` does, in this process."""
    import torch
    from kedro.framework.cli.cli import main

    torch.set_num_threads(1)  # whatever other tests have left in the environment: results depend on it
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

    def edit(self, parameters: dict[str, Any], env: str = "test") -> None:
        """Write other values, by dotted keys, into the configuration of an environment, as a user does in an editor."""
        for name, edited in (("globals", {"seed"}), ("parameters", set(parameters) - {"seed"})):
            file = self.path / "conf" / env / f"{name}.yml"
            tree = OmegaConf.load(file)
            for key in edited & set(parameters):
                OmegaConf.update(tree, key, parameters[key])
            OmegaConf.save(tree, file)

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
