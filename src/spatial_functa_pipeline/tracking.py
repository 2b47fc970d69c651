"""MLflow: the curves of trainings, and the upkeep of runs."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # with the libraries of all trainings it takes seconds, which every command would wait for
    from spatial_functa_pipeline.training.run import Report

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MlflowReport:
    """A `report` for `Training` that logs `prefix.metric` to an MLflow run, from any process."""

    prefix: str
    tracking_uri: str
    run_id: str

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        """Log `metrics` at `step`."""
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        values = {f"{self.prefix}.{name}": value for name, value in metrics.items()}
        mlflow.log_metrics(values, step=step, run_id=self.run_id)


def mlflow_report(prefix: str) -> Report:
    """A `report` for `Training` that logs `prefix.metric` to the active MLflow run, or nothing where there is none."""
    import mlflow

    from spatial_functa_pipeline.training.run import report_nothing

    run = mlflow.active_run()
    return MlflowReport(prefix, mlflow.get_tracking_uri(), run.info.run_id) if run else report_nothing


def end_abandoned_runs(experiment_id: str) -> None:
    """Mark as killed the runs of this machine whose process is gone: `kill -9` or a crash gave it no time to do so."""
    import mlflow

    client, host = mlflow.MlflowClient(), socket.gethostname()
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        where, _, process = run.data.tags.get("process", "").rpartition(":")
        if where == host and not _is_alive(int(process)):
            logger.warning(
                "The MLflow run %s was abandoned by process %s: it is marked as killed", run.info.run_id, process
            )
            client.set_terminated(run.info.run_id, "KILLED")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True


def git_commit(project_path: Path) -> str:
    """The commit that is checked out, `+` appended if files differ from it, or `none` outside a git checkout."""
    try:
        import git
    except ImportError:  # GitPython raises it where there is no git
        return "unknown"
    try:
        repository = git.Repo(project_path, search_parent_directories=True)
        return repository.head.commit.hexsha + ("+" if repository.is_dirty() else "")
    except (git.InvalidGitRepositoryError, ValueError):  # ValueError: a repository without a commit
        return "none"
    except git.GitError:  # a checkout that git refuses to read, as another user's
        return "unknown"
