"""The `meta_learning` pipeline."""

from spatial_functa_pipeline.pipelines.meta_learning.pipeline import create_pipeline

__all__ = ["create_pipeline"]
