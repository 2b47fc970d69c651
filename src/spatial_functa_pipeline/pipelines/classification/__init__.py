"""The `classification` pipeline."""

from spatial_functa_pipeline.pipelines.classification.pipeline import create_pipeline

__all__ = ["create_pipeline"]
