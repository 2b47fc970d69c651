"""Project settings: how Kedro reads the configuration, and which hooks run."""

from pathlib import Path

from kedro.config import OmegaConfigLoader

from spatial_functa_pipeline.hooks import FreshnessHooks, MlflowHooks, ParameterHooks, SummaryHooks

PROJECT_ROOT = Path(__file__).resolve().parents[2]

# kedro-mlflow's own hook is replaced by `MlflowHooks`, which extends it.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-mlflow",)
# Kedro calls hooks in reverse order of registration: parameters are checked first, the summary comes last.
HOOKS = (SummaryHooks(), FreshnessHooks(), MlflowHooks(), ParameterHooks())

CONFIG_LOADER_CLASS = OmegaConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "config_patterns": {"mlflow": ["mlflow*"]},
    # Environments refine `base` key by key. Catalog entries are replaced whole: a data set of another type has
    # other arguments.
    "merge_strategy": {"parameters": "soft", "globals": "soft", "mlflow": "soft"},
    "custom_resolvers": {"project_path": lambda path: str(PROJECT_ROOT / path)},
}
