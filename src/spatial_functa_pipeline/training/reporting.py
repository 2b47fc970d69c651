"""Metric curves into MLflow while a training runs."""

from .loop import Report


def mlflow_report(prefix: str) -> Report:
    """A `report` for `Training` that logs `prefix.metric` to the active MLflow run, or nothing where there is none."""
    import mlflow

    run = mlflow.active_run()
    if run is None:
        return lambda step, metrics: None

    def report(step: int, metrics: dict[str, float]) -> None:
        mlflow.log_metrics({f"{prefix}.{name}": value for name, value in metrics.items()}, step=step)

    return report
