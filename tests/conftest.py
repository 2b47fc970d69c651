"""Fixtures and settings of all tests. Nothing that they write touches the checkout."""

import os
import shutil

import pytest
import torch
from filelock import FileLock
from kedro_project import Project

pytest_plugins = ["functaset_fixtures"]
# The tests' tensors are small: two threads wait for each other. So it is in the processes that tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"


APART = ("pipelines/test_end_to_end.py", "functasets/test_schedulers.py")
"""Files whose tests, slow ones that share nothing costly but `finished`, may be divided among the processes."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With pytest-xdist, the tests of any other file stay in one process, and so share what is made once for a module."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition("::")[0]
            return nodeid if file.endswith(APART) else file

    return Scheduling(config, log)


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
def forked_workers():
    """Dask's workers, which are spawned otherwise, come from where `processes` has them from, without seconds of imports."""
    from multiprocessing import forkserver

    import dask
    import distributed  # noqa: F401  # whose settings would go with this one, if they came after it

    forkserver.ensure_running()  # before Dask says what it is to import
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


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
