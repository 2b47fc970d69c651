"""The `sampling` pipeline."""

from spatial_functa_pipeline.pipelines.sampling.pipeline import create_pipeline

__all__ = ["create_pipeline"]
