"""Metric curves into MLflow while a training runs."""

from dataclasses import dataclass

from .loop import Report


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


def _report_nothing(step: int, metrics: dict[str, float]) -> None:
    """What to do where there is no run."""


def mlflow_report(prefix: str) -> Report:
    """A `report` for `Training` that logs `prefix.metric` to the active MLflow run, or nothing where there is none."""
    import mlflow

    run = mlflow.active_run()
    return MlflowReport(prefix, mlflow.get_tracking_uri(), run.info.run_id) if run else _report_nothing
