"""The `functaset_build` pipeline."""

from spatial_functa_pipeline.pipelines.functaset_build.pipeline import create_pipeline

__all__ = ["create_pipeline"]
