"""Project settings: how Kedro reads the configuration, and which hooks run."""

import logging
import sys
import warnings

from spatial_functa_pipeline.config_loader import ProjectConfigLoader
from spatial_functa_pipeline.hooks.advice import AdviceHooks
from spatial_functa_pipeline.hooks.conf_files import ConfFileHooks
from spatial_functa_pipeline.hooks.freshness import FreshnessHooks
from spatial_functa_pipeline.hooks.lazy_mlflow import LazyMlflowHooks
from spatial_functa_pipeline.hooks.one_writer import OneWriterHooks
from spatial_functa_pipeline.hooks.parameters import LeftOpenHooks, ParameterHooks
from spatial_functa_pipeline.hooks.places import PlaceHooks
from spatial_functa_pipeline.hooks.preflight import PreflightHooks
from spatial_functa_pipeline.hooks.report import ReportHooks
from spatial_functa_pipeline.hooks.summary import SummaryHooks

# kedro-mlflow's own hook is replaced by `LazyMlflowHooks`, whose hooks extend it.
DISABLE_HOOKS_FOR_PLUGINS = ("kedro_mlflow", "kedro-mlflow")  # the name has been spelled both ways
# Of hooks that want to be first Kedro calls the later one first.
HOOKS = (
    ParameterHooks(),
    ConfFileHooks(),
    PreflightHooks(),
    FreshnessHooks(),
    LeftOpenHooks(),
    PlaceHooks(),
    OneWriterHooks(),
    LazyMlflowHooks(),
    ReportHooks(),
    SummaryHooks(),
    AdviceHooks(),
)

CONFIG_LOADER_CLASS = ProjectConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "sample",  # with `--env`, only `base` and the environment that it names are read
    "config_patterns": {"mlflow": ["mlflow*"]},
    # Environments refine `base` key by key. Catalog entries are replaced whole: a data set of another type has
    # other arguments.
    "merge_strategy": {"parameters": "soft", "globals": "soft", "mlflow": "soft"},
}

# OmegaConf's new name for it is younger than the oldest release that Kedro allows; Kedro itself calls the old one.
warnings.filterwarnings("ignore", message="register_new_resolver", category=UserWarning)
# Warnings between the libraries go to the logger `py.warnings`, which conf/logging.yml keeps quiet. `python -W default` still
# shows them. A filter would not do: MLflow sets its own while it is imported.
if not sys.warnoptions:
    logging.captureWarnings(True)
