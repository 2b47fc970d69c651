"""Project pipelines: one for each folder of `pipelines/`, and the whole flow as the default."""

from importlib import import_module

from kedro.pipeline import Pipeline

PIPELINES = (
    "meta_learning",
    "functaset_build",
    "quantisation",
    "normalization_stats",
    "classification",
    "diffusion",
    "sampling",
    "scoring",
    "analysis",
    "evaluation",
)
"""What `kedro run` runs. `functaset_build` holds `quantisation`, and `evaluation` the three before it."""


def register_pipelines() -> dict[str, Pipeline]:
    """Map pipeline names to pipelines; `__default__` is the sum of all."""
    pipelines = {name: import_module(f"{__package__}.pipelines.{name}").create_pipeline() for name in PIPELINES}
    return {**pipelines, "__default__": sum((pipelines[name] for name in PIPELINES), Pipeline([]))}


def all_pipelines() -> Pipeline:
    """The whole flow, whichever part is asked for: fingerprints follow an output back through all of it."""
    return register_pipelines()["__default__"]
