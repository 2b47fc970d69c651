"""MLflow's hooks are a session's once, whatever contexts it creates."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from kedro.framework.hooks import hook_impl
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from processes import start

from spatial_functa_pipeline.hooks.lazy_mlflow import LazyMlflowHooks
from spatial_functa_pipeline.hooks.mlflow import MlflowHooks


def test_a_second_context_of_a_session_has_the_hooks_of_the_first(monkeypatch):
    called = []

    @hook_impl
    def after_context_created(self, context):
        called.append((self, context))

    monkeypatch.setattr(MlflowHooks, "after_context_created", after_context_created)
    manager, config = _create_hook_manager(), {"mlflow": {"server": {"mlflow_tracking_uri": None}}}
    manager.register(LazyMlflowHooks())
    contexts = [SimpleNamespace(_hook_manager=manager, config_loader=config) for _ in range(3)]
    for context in contexts:
        manager.hook.after_context_created(context=context)
    (hooks,) = (plugin for plugin in manager.get_plugins() if isinstance(plugin, MlflowHooks))
    assert called == [(hooks, context) for context in contexts]


def load_and_run(folder):
    """As in a notebook."""
    bootstrap_project(folder)
    with KedroSession.create(folder, env="test") as session:
        session.load_context()
        session.run(pipeline_names=["normalization_stats"])


@pytest.mark.slow
def test_a_session_can_run_after_its_context_was_looked_at(project, tmp_path):
    printed = tmp_path / "printed"
    process = start(load_and_run, Path(project.path), output=printed)
    process.join()
    assert process.exitcode == 0, printed.read_text()
