"""MLflow: how an experiment is shown, the curves of trainings, data sets and models, and the upkeep of runs."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatial_functa_pipeline.digest import short_digest

if TYPE_CHECKING:  # with the libraries of all trainings it takes seconds, which every command would wait for
    from mlflow.entities import Run, RunInfo

    from spatial_functa_pipeline.training.run import Report

logger = logging.getLogger(__name__)

RESULTS = "results"
SECTIONS = (RESULTS, "field", "classifier", "denoiser", "feature_network", "autoencoder")
"""Sections of a run's metrics, in the order in which MLflow shall show them."""
_COLUMNS = {
    "tags": ("dataset", "latent_shape", "interpolation", "encoder"),
    "metrics": ("psnr", "top1_accuracy", "fid_to_train", "frechet_distance_convnet_to_train", "seam_ratio_samples"),
    "attributes": ("Dataset", "Models"),
}
"""What the table of runs shows beside name, time and duration; a column that no run has is left out by MLflow."""
_VIEW = "results"
_KIND = "mlflow.experimentKind"
_SAVED_VIEW = "mlflow.sharedViewState."
_CHARACTER = 7
"""Pixels of a column's width for each character of its name."""
_DIGEST = "digest"


def metric_key(section: str, name: str) -> str:
    """A metric's name in MLflow, as in `1_results/psnr`.

    What stands before the slash is a section of its pages. Sections are sorted by their names, hence the number.
    """
    number = f"{SECTIONS.index(section) + 1}_" if section in SECTIONS else ""
    return f"{number}{section}/{name}"


def prepare_experiment(experiment_id: str) -> None:
    """Mark an experiment as model training, and give it a view of its runs with the results as columns.

    A view that is there already, which a user may have changed, is left as it is.
    """
    import mlflow

    client = mlflow.MlflowClient()
    tags = client.get_experiment(experiment_id).tags
    wanted = {_KIND: "custom_model_development", f"{_SAVED_VIEW}{_VIEW}": _view()}
    for key, value in wanted.items():
        if key not in tags:
            client.set_experiment_tag(experiment_id, key, value)


def _view() -> str:
    """The view as MLflow saves one: the state of the page as JSON, in an envelope."""
    names = {**_COLUMNS, "metrics": [metric_key(RESULTS, name) for name in _COLUMNS["metrics"]]}
    columns = [f"{kind}.`{name}`" for kind, chosen in names.items() for name in chosen]
    # MLflow's own width hides all but the section of a metric's name.
    widths = {column: _CHARACTER * len(column) for column in columns if column.startswith("metrics.")}
    now = round(1000 * time.time())
    state = {"selectedColumns": columns, "columnOrder": columns, "columnWidths": widths}
    return json.dumps({"name": _VIEW, "createdAt": now, "updatedAt": now, "state": json.dumps(state)})


def runs_page(experiment_id: str) -> str:
    """The table of runs with the columns above, as the end of an address of MLflow's pages.

    Without it they open as those for language models: which of the two is the browser's choice, not the experiment's.
    """
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={_VIEW}"


def newest_runs_page() -> str | None:
    """The `runs_page` with this process's newest run; None if it has none."""
    import mlflow

    run = mlflow.last_active_run()
    return None if run is None else runs_page(run.info.experiment_id)


def log_report(file: Path) -> None:
    """Log a report to the active run, if there is one: its first artifact in MLflow's pages."""
    import mlflow

    if mlflow.active_run() is not None:
        mlflow.log_artifact(str(file))


def log_data_set(name: str, digest: str, rows: int, source: str, context: str) -> None:
    """Log to the active run that it uses a data set, whose rows stay where they are."""
    import mlflow
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    profile, uri = json.dumps({"num_rows": rows}), json.dumps({"uri": source})
    dataset = Dataset(name=name, digest=digest, source_type="local", source=uri, profile=profile)
    run = mlflow.active_run()
    assert run is not None
    tag = InputTag(MLFLOW_DATASET_CONTEXT, context)
    mlflow.MlflowClient().log_inputs(run.info.run_id, datasets=[DatasetInput(dataset, [tag])])


def log_model(name: str, path: Path, digest: str, parameters: int | None, *, reused: bool) -> None:
    """Log a model to the active run, whose weights stay where they are: as one that it has made, or that it uses.

    A model with the same contents that was logged before is the same one.
    """
    import mlflow
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    run, client = mlflow.active_run(), mlflow.MlflowClient()
    assert run is not None
    same = f"name = '{name}' AND tags.{_DIGEST} = '{digest}'"
    found = client.search_logged_models([run.info.experiment_id], same, max_results=1)
    model = found[0].model_id if found else _new_model(run.info, name, path, digest, parameters)
    if reused:
        client.log_inputs(run.info.run_id, models=[LoggedModelInput(model)])
    else:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model, step=0)])


def _new_model(run: RunInfo, name: str, path: Path, digest: str, parameters: int | None) -> str:
    """The identifier of a model that MLflow did not know."""
    import mlflow
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_IS_EXTERNAL

    client = mlflow.MlflowClient()
    model = client.create_logged_model(
        run.experiment_id,
        name,
        source_run_id=run.run_id,
        tags={MLFLOW_MODEL_IS_EXTERNAL: "true", _DIGEST: digest, "path": str(path)},
        params={} if parameters is None else {"parameters": str(parameters)},
        model_type=name,
    )
    client.finalize_logged_model(model.model_id, "READY")
    return model.model_id


@dataclass(frozen=True)
class MlflowReport:
    """A `report` for `Training` that logs `section/metric` to an MLflow run, from any process."""

    section: str
    tracking_uri: str
    run_id: str

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        """Log `metrics` at `step`."""
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        values = {metric_key(self.section, name): value for name, value in metrics.items()}
        mlflow.log_metrics(values, step=step, run_id=self.run_id)


def mlflow_report(section: str) -> Report:
    """A `report` for `Training` that logs `section/metric` to the active MLflow run, or nothing where there is none."""
    import mlflow

    from spatial_functa_pipeline.training.run import report_nothing

    run = mlflow.active_run()
    return MlflowReport(section, mlflow.get_tracking_uri(), run.info.run_id) if run else report_nothing


_STUDY_TAGS = "SPATIAL_FUNCTA_STUDY_TAGS"
"""In the environment of a process whose MLflow run belongs to a study: the run's further tags, as JSON."""
_LONGEST_KEY = 250
_STUDY_RUN = "study.run"
_STUDY_DIGEST = "study.digest"


def tags_of_the_study() -> dict[str, str]:
    """What marks this process's MLflow run as one of a study; empty if it is none."""
    return json.loads(os.environ.get(_STUDY_TAGS, "{}"))


class StudyRecord:
    """The MLflow run of a study, with a run of each variant and seed under it. The same definition has the same one."""

    def __init__(
        self, experiment: str, name: str, title: str, about: str, digest: str, tags: Mapping[str, str]
    ) -> None:
        """Open it, or make it.

        Args:
            experiment: name of an experiment that is there.
            name: of the study.
            title, about: what it asks, for a reader.
            digest: of its definition.
            tags: what else runs are compared by.
        """
        import mlflow

        self._client = mlflow.MlflowClient()
        found_experiment = self._client.get_experiment_by_name(experiment)
        assert found_experiment is not None
        self._experiment_id = found_experiment.experiment_id
        end_abandoned_runs(self._experiment_id)
        found = self._search(_STUDY_DIGEST, digest)
        wanted = {
            **tags,
            "study": name,
            _STUDY_DIGEST: digest,
            "process": f"{socket.gethostname()}:{os.getpid()}",
            "mlflow.runName": title,
            "mlflow.note.content": f"{title}\n\n{about}".strip(),
        }
        self.run_id = (found[0] if found else self._client.create_run(self._experiment_id)).info.run_id
        self._client.update_run(self.run_id, "RUNNING")
        for key, value in wanted.items():
            self._client.set_tag(self.run_id, key, value)
        self._tags = {**tags, "study": name, "mlflow.parentRunId": self.run_id}

    def environment(self, name: str) -> dict[str, str]:
        """What makes the MLflow run of another process that of the study's run `name`."""
        return {_STUDY_TAGS: json.dumps({**self._tags, _STUDY_RUN: name, "mlflow.runName": name})}

    def keep_one(self, name: str, metrics: Mapping[str, float], parameters: Mapping[str, Any]) -> None:
        """One MLflow run of the study's run `name` stays below the study: the newest finished one with these metrics.

        If none has them, since all outputs had been made before, there is a new one. Those that failed, were killed, or have
        measured something else, stay in the store, beside the study.
        """
        wanted = {metric_key(RESULTS, metric): value for metric, value in metrics.items()}
        found = [
            run for run in self._search("mlflow.parentRunId", self.run_id) if run.data.tags.get(_STUDY_RUN) == name
        ]
        fitting = [run for run in found if run.info.status == "FINISHED" and _has(run.data.metrics, wanted)]
        for run in found:
            if run not in fitting[:1]:
                self._client.delete_tag(run.info.run_id, "mlflow.parentRunId")
        if not fitting:
            tags = {**self._tags, _STUDY_RUN: name, "mlflow.runName": name, "reused": "everything"}
            run_id = self._client.create_run(self._experiment_id, tags=tags).info.run_id
            self._log(run_id, wanted, parameters)
            self._client.set_terminated(run_id, "FINISHED")

    def close(self, status: str, means: Mapping[str, float], files: Iterable[Path]) -> None:
        """End it as `FINISHED`, `FAILED` or `KILLED`, with mean values by metric and variant, and files as artifacts."""
        logged = self._client.get_run(self.run_id).data.metrics
        new = {_plain_key(key): value for key, value in means.items()}
        self._log(self.run_id, {key: value for key, value in new.items() if not _has(logged, {key: value})}, {})
        for file in files:
            self._client.log_artifact(self.run_id, str(file))
        self._client.set_terminated(self.run_id, status)

    def _search(self, tag: str, value: str) -> list[Run]:
        """The newest first."""
        return [*self._client.search_runs([self._experiment_id], f"tags.`{tag}` = '{value}'", max_results=50_000)]

    def _log(self, run_id: str, metrics: Mapping[str, float], parameters: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric, Param

        now = round(1000 * time.time())
        self._client.log_batch(
            run_id,
            [Metric(key, float(value), now, 0) for key, value in metrics.items()],
            [Param(key, str(value)) for key, value in parameters.items()],
        )


def _plain_key(key: str) -> str:
    """As MLflow takes it for a metric."""
    plain = re.sub(r"[^\w./: -]+", " ", key)
    return plain if len(plain) <= _LONGEST_KEY else f"{plain[: _LONGEST_KEY - 9]} {short_digest([key.encode()])[:8]}"


def _has(logged: Mapping[str, float], wanted: Mapping[str, float]) -> bool:
    """Whether all that is wanted is there; a value that is no number is one."""
    return all(
        key in logged and (logged[key] == value or (isnan(logged[key]) and isnan(value)))
        for key, value in wanted.items()
    )


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
