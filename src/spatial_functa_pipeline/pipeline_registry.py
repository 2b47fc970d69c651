"""Project pipelines: one for each folder of `pipelines/`, and all of them as the default."""

from importlib import import_module

from kedro.pipeline import Pipeline

PIPELINES = (
    "meta_learning",
    "functaset_build",
    "normalization_stats",
    "classification",
    "diffusion",
    "evaluation",
)


def whole_flow() -> Pipeline:
    """All pipelines together, those which are not part of the default included: outputs are followed back through it."""
    return sum((pipeline for name, pipeline in register_pipelines().items() if name != "__default__"), Pipeline([]))


def register_pipelines() -> dict[str, Pipeline]:
    """Map pipeline names to pipelines; `__default__` is their sum.

    All are always loaded, also when one is asked for: fingerprints follow an output back through all of them.
    """
    pipelines = {name: import_module(f"{__package__}.pipelines.{name}").create_pipeline() for name in PIPELINES}
    return {**pipelines, "__default__": sum(pipelines.values(), Pipeline([]))}
