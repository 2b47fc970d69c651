"""MLflow's hooks, brought in by the first run: MLflow takes seconds to import, and most commands do without it."""

from __future__ import annotations

import logging
from pathlib import Path

import click
from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl

from spatial_functa_pipeline.files import why_not_writable

_SQLITE = "sqlite:///"
_NAME = "mlflow"
"""Of `MlflowHooks` among the session's hooks."""


class LazyMlflowHooks:
    """Registers `MlflowHooks` with the session that a context is created for: once, however many contexts it creates."""

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Raises click.ClickException if MLflow's database cannot be written: MLflow itself would try for minutes."""
        uri = context.config_loader["mlflow"]["server"]["mlflow_tracking_uri"] or ""
        folder = Path(uri.removeprefix(_SQLITE)).parent
        if uri.startswith(_SQLITE) and (reason := why_not_writable(folder)):
            raise click.ClickException(
                f"Nothing was run: {folder} cannot be written ({reason}), where MLflow's database is to be. Another place "
                "is set as server.mlflow_tracking_uri in conf/base/mlflow.yml"
            )
        if context._hook_manager.has_plugin(_NAME):  # Kedro calls it by itself for a session's second context
            return
        from spatial_functa_pipeline.hooks.mlflow import MlflowHooks

        logging.getLogger("kedro_mlflow").setLevel(logging.WARNING)  # whatever it has set itself while it was imported
        hooks = MlflowHooks()
        context._hook_manager.register(hooks, _NAME)
        hooks.after_context_created(context)
